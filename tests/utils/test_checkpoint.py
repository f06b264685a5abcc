"""Files of tensors: whole or not at all, and never run."""

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from utils import load_fitting, load_tensors, save_tensors, write_atomically


class Bomb:
    def __reduce__(self) -> tuple:
        return os.system, ("touch exploded",)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a.pth", {"w": torch.arange(3)})
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
    save_tensors(path, {"w": torch.arange(1000)})
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ValueError, match=r"a\.pth is not a file of tensors"):
        load_tensors(path, "cpu")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights at .*a\.pth"):
        load_tensors(tmp_path / "a.pth", "cpu")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save_tensors(path, {"w": torch.ones(1)})

    def fail(file: object) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert load_tensors(path, "cpu")["w"].tolist() == [1]
    assert os.listdir(tmp_path) == ["a.pth"]


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save_tensors(path, nn.Linear(2, 3).state_dict() | {"extra": torch.ones(1)})
    with pytest.raises(ValueError, match=r"extra is not part .*weight is \(3, 2\) in the file and \(3, 4\) in this"):
        load_fitting(nn.Linear(4, 3), path, "cpu")
    save_tensors(path, {"weight": torch.ones(3, 4)})
    with pytest.raises(ValueError, match="bias is missing"):
        load_fitting(nn.Linear(4, 3), path, "cpu")


def test_no_flipped_byte_changes_a_weight(tmp_path: Path) -> None:
    path, values = tmp_path / "a.pth", torch.arange(8.0)
    save_tensors(path, {"w": values})
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
