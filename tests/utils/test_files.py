"""Files of tensors: written completely or not at all, and never executed."""

import errno
import os
import pickle
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch

from parallel_rl.utils import (
    append_to,
    load_tensors,
    read_json,
    remove_unfinished,
    to_json,
    write_atomically,
)


class Bomb:
    def __reduce__(self) -> tuple:
        return os.system, ("touch exploded",)


def test_saved_tensors_load_equal(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(3)}, tmp_path / "a.pth")
    assert load_tensors(tmp_path / "a.pth", "cpu")["w"].tolist() == [0, 1, 2]


@pytest.mark.filterwarnings("error")
def test_a_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (2, 4):
        (tmp_path / f"{protocol}.pth").write_bytes(pickle.dumps({"w": Bomb()}, protocol))
    torch.save({"w": Bomb()}, tmp_path / "zip.pth")
    for name in ("2.pth", "4.pth", "zip.pth"):
        with pytest.raises(ValueError, match=f"{name} is not a file of tensors"):
            load_tensors(tmp_path / name, "cpu")
    assert not (tmp_path / "exploded").exists()


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.arange(1000)}, path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ValueError, match=r"a\.pth is not a file of tensors"):
        load_tensors(path, "cpu")
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.pth is not a file of tensors: EOFError$"):
        load_tensors(path, "cpu")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights at .*a\.pth"):
        load_tensors(tmp_path / "a.pth", "cpu")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.ones(1)}, path)

    def fail(file: object) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert load_tensors(path, "cpu")["w"].tolist() == [1]
    assert os.listdir(tmp_path) == ["a.pth"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "nowhere" / "a.json", tmp_path / "file" / "a.json"):
        with pytest.raises(OSError, match="irectory") as caught:
            write_atomically(path, lambda file: None)
        assert str(caught.value).endswith(f": '{path}'")


def test_writes_do_not_follow_prepared_links(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in ("a.json", f".a.json.{os.getpid()}.unfinished"):
        (tmp_path / name).symlink_to(precious)
        write_atomically(tmp_path / "a.json", lambda file: file.write(b"{}"))
    (tmp_path / ".b.unfinished").symlink_to(precious)
    remove_unfinished(tmp_path)
    (tmp_path / "log.csv").symlink_to(precious)
    with pytest.raises(OSError, match=r"log\.csv is a link: what it points to is not written to"):
        append_to(tmp_path / "log.csv")
    assert precious.read_text() == "mine"
    assert (tmp_path / "a.json").read_text() == "{}"


def test_append_to_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe"):
        append_to(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match="pipe is not a file"):
        append_to(tmp_path / "pipe")
    os.close(reader)
    with pytest.raises(FileNotFoundError, match="pipe"):
        read_json(tmp_path / "pipe")


@pytest.mark.parametrize("content", ["", "{", "5", "[" * 10**5, b"\xff\xfe", "1" * 10**4, '{"a": ' * 10**5])
def test_json_that_is_no_object_is_named(tmp_path: Path, content: str | bytes) -> None:
    (tmp_path / "a.json").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=r"a\.json (is not JSON|does not hold an object)"):
        read_json(tmp_path / "a.json")


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "a.json", "wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(ValueError, match="too large"):
        read_json(tmp_path / "a.json")
    with ZipFile(tmp_path / "a.pth", "w", ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data.pkl", bytes(10**6))
    with pytest.raises(ValueError, match="it is compressed"):
        load_tensors(tmp_path / "a.pth", "cpu")


def test_no_flipped_byte_changes_a_weight(tmp_path: Path) -> None:
    path, values = tmp_path / "a.pth", torch.arange(8.0)
    torch.save({"w": values}, path)
    whole, refused = path.read_bytes(), 0
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        try:
            loaded = load_tensors(path, "cpu")
        except ValueError:
            refused += 1
        else:
            assert torch.equal(loaded["w"], values)
    assert refused > len(whole) // 12


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    def fail(file: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: '.*a\.pth'"):
        write_atomically(tmp_path / "a.pth", fail)


def test_numbers_that_json_does_not_have_are_null_and_those_of_numpy_are_plain() -> None:
    inf, nan = float("inf"), float("nan")
    assert (
        to_json({"a": [1, 0.1, inf], "b": (-inf, nan), "c": None})
        == '{"a": [1, 0.1, null], "b": [null, null], "c": null}'
    )
    assert (
        to_json([np.float32(0.5), np.float32(inf), np.float64(nan), np.int64(3), np.bool_(True)])
        == "[0.5, null, null, 3, true]"
    )
