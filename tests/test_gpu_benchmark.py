"""The benchmark on a GPU runs on the CPU, and fills its page."""

from pathlib import Path

import pytest

from benchmarks import gpu


def test_it_is_tried_on_the_cpu_and_fills_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    page = tmp_path / "gpu.md"
    page.write_text(gpu.PAGE.read_text())
    monkeypatch.setattr(gpu, "PAGE", page)
    monkeypatch.setattr(gpu, "OURS", {"eager": {}, "bf16": {"bf16": True}})
    monkeypatch.setattr(gpu, "TASKS", {"MLP 1024, 1024": (gpu.Numbers, (8,))})
    gpu.main(device="cpu", tiny=True)
    assert "| MLP 1024, 1024 |" in capsys.readouterr().out
    assert page.read_text() == gpu.Path(gpu.__file__).with_suffix(".md").read_text(), "a trial does not change it"
    monkeypatch.setattr(gpu, "WHOLE", gpu.TINY)
    gpu.main(device="cpu")
    text = page.read_text()
    assert "Measured on:" in text
    assert "(CPU), torch" in text
    assert "Not measured yet" not in text
    assert text.startswith("# PPO on a GPU")
    assert "The environments are cheap" in text
