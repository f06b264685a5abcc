"""States in files: exact, complete or absent, refused if damaged, and never executed."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from parallel_rl.utils import check_fit, load_state, row_type, save_state, state_from, state_to_bytes

ROOT = Path(__file__).parents[2]


class Bomb:
    def __reduce__(self) -> tuple:
        return os.system, ("touch exploded",)


def test_saved_tree_loads_equal(tmp_path: Path) -> None:
    rows = np.dtype([("a", np.float32, (2,)), ("b", [("0", np.int64), ("1", np.uint8, (3, 3))])])
    nested = np.zeros((3, 4), rows)
    nested["a"], nested["b"]["1"][1] = np.random.default_rng(0).normal(size=(3, 4, 2)), 7
    state = {
        "numbers": [1, 0.1, -0.0, 2**127, None, True, "text"],
        "inner": {"array": np.arange(6.0).reshape(2, 3)[:, ::-1], "scalar": np.array(3), "empty": np.zeros((0, 2))},
        "nested": nested,
        "tensor": torch.arange(3, dtype=torch.float64),
    }
    save_state(tmp_path / "a.state", state)
    loaded = load_state(tmp_path / "a.state")
    assert loaded["numbers"] == state["numbers"]
    np.testing.assert_equal(loaded["inner"], state["inner"])
    assert loaded["nested"].dtype == rows
    np.testing.assert_array_equal(loaded["nested"], nested)
    assert loaded["tensor"].tolist() == [0, 1, 2]
    assert loaded["tensor"].dtype == np.float64


def test_keys_may_have_slashes() -> None:
    state = {"x/y": np.array([1]), "x": {"y": np.array([2]), "~1y": np.array([3])}, "x~1y": np.array([4])}
    np.testing.assert_equal(state_from(state_to_bytes(state)), state)


def test_rows_of_a_space_with_several_parts_keep_their_type_when_loaded_arrays_are_joined() -> None:
    part = spaces.Dict(mask=spaces.MultiBinary(3), numbers=spaces.Box(-1, 1, (2,), np.float64))
    _, kind = row_type(spaces.Tuple((spaces.Discrete(2), part, spaces.Box(0, 255, (3,), np.uint8))))
    rows = state_from(state_to_bytes({"rows": np.zeros(3, kind)}))["rows"]
    assert repr(np.concatenate([rows, rows]).dtype) == repr(kind)


def test_what_is_neither_plain_nor_an_array_is_refused(tmp_path: Path) -> None:
    for wrong, message in [
        ({"x": [Bomb()]}, "not of a Bomb at /x/0"),
        ({"x": {1: 2}}, r"only strings as keys, not \[1\] at /x"),
        ({"x": np.array(["a"])}, "not of an array of <U1 at /x"),
    ]:
        with pytest.raises(TypeError, match=message):
            save_state(tmp_path / "a.state", wrong)
    assert not list(tmp_path.iterdir())


def test_every_flipped_byte_and_every_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.state"
    save_state(path, {"x": np.arange(10), "y": {"z": [1, 2]}})
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(ValueError, match=r"a\.state (is damaged|does not hold a state)"):
            load_state(path)
        path.write_bytes(whole[:position])
        with pytest.raises(ValueError, match=r"a\.state (is damaged|does not hold a state)"):
            load_state(path)
    path.write_bytes(whole)
    assert load_state(path)["y"] == {"z": [1, 2]}


def test_another_format_and_another_file_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.state"
    save_state(path, {})
    path.write_bytes(path.read_bytes().replace(b"state-1 ", b"state-2 ", 1))
    with pytest.raises(ValueError, match="another version of this program wrote it"):
        load_state(path)
    path.write_bytes(b"hello")
    with pytest.raises(ValueError, match="something else wrote it"):
        load_state(path)
    with pytest.raises(FileNotFoundError, match="no saved state at"):
        load_state(tmp_path / "b.state")


def test_check_fit_names_the_differences() -> None:
    own = torch.nn.Linear(4, 3).state_dict()
    with pytest.raises(ValueError, match=r"these do not fit: extra is not part .*weight is \(3, 2\) in the file and"):
        check_fit(torch.nn.Linear(2, 3).state_dict() | {"extra": torch.ones(1)}, own, "these")
    with pytest.raises(ValueError, match="bias is missing"):
        check_fit({"weight": torch.ones(3, 4)}, own, "these")
    with pytest.raises(ValueError, match=r"bias is of torch\.int64 in the file and of torch\.float32 in this network"):
        check_fit(own | {"bias": torch.ones(3, dtype=torch.int64)}, own, "these")


def test_a_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.state"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="something else wrote it"):
        load_state(path)
    torch.save({"x": Bomb()}, path)
    with pytest.raises(ValueError, match="something else wrote it"):
        load_state(path)
    assert not (tmp_path / "exploded").exists()


SAVE_FOR_EVER = """
import sys, numpy as np
from parallel_rl.utils import save_state
state = {"x": np.zeros(100_000)}
for count in range(10**9):
    state["x"][:] = state["count"] = count
    save_state(sys.argv[1], state)
    if not count:
        print("begun", flush=True)
"""


def kill_while_saving(path: Path, seconds: float) -> None:
    """Let a process save again and again, and kill it at some moment."""
    process = subprocess.Popen(
        [sys.executable, "-c", SAVE_FOR_EVER, path], cwd=ROOT, stdout=subprocess.PIPE, env=os.environ
    )
    assert process.stdout is not None
    process.stdout.readline()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass  # not a wait for something: the moment is the test's choice
    process.send_signal(signal.SIGKILL)
    process.communicate()


def check_killed_savers(directory: Path, times: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(times):
        kill_while_saving(directory / "a.state", rng.uniform(0, 0.02))
        loaded: Any = load_state(directory / "a.state")
        assert (loaded["x"] == loaded["count"]).all()


def test_save_killed_at_a_random_moment_leaves_a_complete_file(tmp_path: Path) -> None:
    check_killed_savers(tmp_path, 5)


@pytest.mark.slow
def test_save_killed_200_times_leaves_a_complete_file(tmp_path: Path) -> None:
    check_killed_savers(tmp_path, 200)


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    script = """
import resource, sys, numpy as np
from parallel_rl.utils import save_state
save_state(sys.argv[1], {"x": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    save_state(sys.argv[1], {"x": np.zeros(100_000)})
except OSError as error:
    print("refused:", error)
"""
    path = tmp_path / "a.state"
    done = subprocess.run([sys.executable, "-c", script, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "refused: [Errno 27] File too large" in done.stdout
    assert load_state(path) == {"x": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.state"]


def test_saving_needs_little_memory_beside_the_data(tmp_path: Path) -> None:
    script = """
import resource, sys
import numpy as np
from parallel_rl.utils import save_state
data = {"a": np.zeros(10_000_000), "b": [np.ones(5_000_000, np.float32)]}
data["a"][:] = 1.0
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
save_state(sys.argv[1], data)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 100e6)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "x"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 0.2


SAVES = """
import hashlib
from pathlib import Path
from OffPolicy import SAC
from parallel_rl.utils import save_state
from PPO import PPO
for agent in PPO.for_env("Pendulum-v1", seed=0, companions=["rnd"]), SAC.for_env("Pendulum-v1", seed=0):
    agent.save_weights(".")
    save_state("checkpoint", {"signature": agent.signature(), "agent": agent.state()})
    for file in sorted(Path().iterdir()):
        print(file, hashlib.sha256(file.read_bytes()).hexdigest())
"""


def test_the_files_of_equal_agents_are_equal_in_every_process(tmp_path: Path) -> None:
    processes = []
    for seed in ("1", "2"):  # of the hashes of texts, and so of the order of sets
        (directory := tmp_path / seed).mkdir()
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        processes.append(
            subprocess.Popen([sys.executable, "-c", SAVES], cwd=directory, env=env, stdout=subprocess.PIPE, text=True)
        )
    first, second = [process.communicate()[0] for process in processes]
    assert len(first.splitlines()) == 6
    assert first == second
