"""`--cluster local`, and ranks that the environment variables of torchrun name."""

import csv
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from AsyncPPO.callbacks import CHECKPOINT_DIRECTORY, checkpoints_in
from AsyncPPO.callbacks import steps_of as steps_in
from parallel_rl import main
from parallel_rl.commands.cluster import Nodes, checked_nodes, work_on_ranks, workers_of_rank
from parallel_rl.commands.flags import ClusterName
from parallel_rl.config import train_config
from parallel_rl.ranks import ranks_of_environment
from parallel_rl.utils import Cluster, RankError, spawn_seeds
from tests.covering import rest_slow
from tests.processes import SECONDS, runs, wait_until
from tests.program import Forked, command, finish, heed_signals

RUN = (
    "--num-envs", "4", "--num-workers", "1", "--eval-every", "0", "--eval-episodes", "2", "--backend", "inline",
    "--batch-size", "500", "--k-epochs", "2",
)  # fmt: skip
LONG, SHORT = ("--steps", "100000000"), ("--steps", "3000")
TWO = ("--cluster", "local", "--nodes", "2")


def trained(cwd: Path, name: str, *arguments: str) -> Forked:
    return Forked("train", *RUN, *arguments, "--run-dir", name, cwd=cwd)


def metrics_of(run_dir: Path) -> list[list[str]]:
    with open(run_dir / "metrics.csv", newline="") as file:
        rows = [*csv.reader(file)]
    clock = rows[0].index("seconds")
    return [row[:clock] + row[clock + 1 :] for row in rows]


def ranks_of(run: Forked) -> list[int]:
    """Return the processes of its session that lead a group: not a fork server, which may be their parent."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return sorted(pid for pid in pids if pid != run.pid and runs(pid) and session_and_group(pid) == (run.pid, pid))


def session_and_group(pid: int) -> tuple[int, int] | None:
    try:
        return os.getsid(pid), os.getpgid(pid)
    except ProcessLookupError:
        return None


def learning(run_dir: Path) -> bool:
    return (run_dir / "metrics.csv").exists() and len((run_dir / "metrics.csv").read_text().splitlines()) > 1


def nothing(ranks: Cluster) -> int:
    return 0


def outlast(ranks: Cluster) -> int:
    """Return like a rank that a signal has stopped; but the first rank works until the program has noticed that."""
    other = ranks.attempt(lambda those: those.all_gather(os.getpid()), lambda: lambda: None)[1]
    if ranks.node == 0:
        wait_until(lambda: session_and_group(other) is None, "rank 1 has ended")
    return 0 if ranks.node == 0 else 128 + signal.SIGTERM


@pytest.mark.parametrize(("where", "nodes", "workers"), [("local", 3, 2), ("local", 9, 1), ("ray", 3, None)])
def test_ranks_on_this_machine_share_its_cores(
    where: ClusterName, nodes: int, workers: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parallel_rl.commands.cluster.available_cores", lambda: 8)
    assert workers_of_rank(checked_nodes(where, nodes, None, None, 32)) == workers
    assert train_config("ppo").with_workers(workers).run.num_workers == workers
    assert train_config("ppo", {"num_workers": 5}).with_workers(workers).run.num_workers == 5, "as given"


@pytest.mark.slow
def test_a_run_on_two_ranks_is_repeatable_with_any_number_of_local_workers(tmp_path: Path) -> None:
    for name, workers in (("first", ()), ("second", ("--backend", "process", "--num-workers", "2"))):
        (tmp_path / name).mkdir()
        code, out, err = trained(tmp_path / name, ".", *SHORT, *TWO, *workers).finish()
        assert code == 0, err
        assert "4 environments on 2 ranks" in out
        assert out.count("result ") == 1
    assert metrics_of(tmp_path / "first") == metrics_of(tmp_path / "second")
    assert metrics_of(tmp_path / "first")[-1][0] == "3000"


@pytest.mark.slow
def test_interrupt_saves_a_checkpoint_and_any_number_of_ranks_resumes_it(tmp_path: Path) -> None:
    run = trained(tmp_path, "run", *LONG, *TWO)
    run.wait_for(lambda: learning(tmp_path / "run"))
    run.send(signal.SIGINT)
    code, out, _ = run.finish()
    assert code == 128 + signal.SIGINT
    assert "stopped   by SIGINT" in out
    saved = int(checkpoints_in(tmp_path / "run" / CHECKPOINT_DIRECTORY)[-1].stem)
    for cluster in (TWO, ()):
        directory = tmp_path / f"{len(cluster)} flags"
        directory.mkdir()
        code, out, err = Forked("resume", "../run", "--steps", "2000", *cluster, cwd=directory).finish()
        assert code == 0, err
        assert f"after {saved:,} steps" in out
        saved += 2000


@pytest.mark.parametrize("flags", rest_slow(TWO, (*TWO, "--min-nodes", "1")))
def test_a_signal_to_one_rank_stops_all_without_an_error(flags: tuple[str, ...], tmp_path: Path) -> None:
    run = trained(tmp_path, "run", *LONG, *flags)
    run.wait_for(lambda: learning(tmp_path / "run"))
    ranks = ranks_of(run)
    os.kill(ranks[1], signal.SIGTERM)
    code, out, err = run.finish()
    assert code == 0, "the first rank saves and evaluates"
    assert "error" not in err
    assert "stopped   by SIGTERM" in out
    assert checkpoints_in(tmp_path / "run" / CHECKPOINT_DIRECTORY)
    assert not any(runs(pid) for pid in ranks)


@pytest.mark.parametrize("number", rest_slow(1, 0))
def test_a_killed_rank_is_one_error_that_names_it_and_leaves_no_process(number: int, tmp_path: Path) -> None:
    run = trained(tmp_path, "run", *LONG, *TWO)
    run.wait_for(lambda: learning(tmp_path / "run"))
    ranks = ranks_of(run)
    os.kill(ranks[number], signal.SIGKILL)
    code, _, err = run.finish()
    assert code == 1
    errors = [line for line in err.replace("\r", "\n").splitlines() if "error:" in line]
    assert len(errors) == 1
    assert f"error: rank {number} on {socket.gethostname()} " in errors[0]
    assert "killed" in errors[0]
    assert not any(runs(pid) for pid in ranks)


def steps_of(run_dir: Path) -> list[float]:
    return [float(row[0]) for row in metrics_of(run_dir)[1:]]


@pytest.mark.parametrize("number", rest_slow(0, 1))
def test_a_killed_rank_is_replaced_and_the_run_goes_on(number: int, tmp_path: Path) -> None:
    run = trained(tmp_path, "run", *LONG, *TWO, "--min-nodes", "1")
    run.wait_for(lambda: learning(tmp_path / "run"))
    first = ranks_of(run)
    os.kill(first[number], signal.SIGKILL)
    run.wait_for(lambda: f"joins     rank {number}" in run.output())
    before = steps_of(tmp_path / "run")[-1]
    run.wait_for(lambda: steps_of(tmp_path / "run")[-1] > before + 2000)
    second = ranks_of(run)
    assert len({*first, *second}) == 3
    run.send(signal.SIGINT)
    code, out, err = run.finish()
    assert code == 128 + signal.SIGINT, err
    assert f"lost      rank {number}" in out
    assert "error" not in err
    steps = steps_of(tmp_path / "run")
    assert steps == sorted({*steps})
    saved = checkpoints_in(tmp_path / "run" / CHECKPOINT_DIRECTORY)[-1]
    assert steps_in(saved) >= steps[-1]
    assert not any(runs(pid) for pid in second)


def test_killing_the_program_leaves_no_rank(tmp_path: Path) -> None:
    run = trained(tmp_path, "run", *LONG, *TWO)
    run.wait_for(lambda: learning(tmp_path / "run"))
    run.kill()
    assert run.finish()[0] == -signal.SIGKILL


@pytest.mark.parametrize("flags", [TWO, (*TWO, "--min-nodes", "1")], ids=["fixed", "elastic"])
def test_an_error_on_another_rank_is_told_once(
    flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parallel_rl.ranks.driver.START_SECONDS", SECONDS)  # one that joins later has other seeds
    (tmp_path / "broken.py").write_text(
        "import gymnasium as gym\n"
        "class Broken(gym.Wrapper):\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        self.seed = seed if seed is not None else self.seed\n"
        "        return self.env.reset(seed=seed, options=options)\n"
        "    def step(self, action):\n"
        f"        assert self.seed != {spawn_seeds(0, 4)[3]}, 'the pole broke'\n"
        "        return self.env.step(action)\n"
    )

    def prepare() -> None:
        heed_signals()
        sys.path.insert(0, str(tmp_path))

    arguments = ("train", *RUN, *LONG, *flags, "--wrapper", "broken:Broken", "--run-dir", "run")
    code, _, err = Forked(*arguments, cwd=tmp_path, prepare=prepare).finish()
    assert code == 1
    assert err.count("error:") == 1
    assert f"rank 1 on {socket.gethostname()} failed: " in err
    assert "the pole broke" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nodes", "2"], "--nodes 2 needs --cluster"),
        (["--min-nodes", "1"], "--min-nodes needs --cluster"),
        ([*TWO, "--min-nodes", "3"], "--min-nodes 3 is more than --nodes 2"),
        ([*TWO, "--preempt", "0.5"], "--preempt needs --cluster ray, or --cluster local with --min-nodes"),
        ([*TWO, "--min-nodes", "1", "--preempt", "2"], "--preempt must be above 0, and at most 1, not 2"),
        (["--cluster", "local", "--nodes", "0"], "--nodes must be at least 1, not 0"),
        (["--cluster", "local", "--seeds", "0..1"], "give either --seeds or --cluster"),
        ([*TWO, "--num-envs", "1"], "2 ranks need at least as many environments, not 1"),
    ],
)
def test_flags_that_do_not_go_together_are_an_error(
    arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["train", *arguments]) == 1
    assert words in capfd.readouterr().err


def test_resuming_on_more_ranks_than_environments_is_an_error_before_any_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["train", *RUN, "--steps", "500", "--run-dir", str(tmp_path)]) == 0
    monkeypatch.setattr("parallel_rl.commands.cluster.start_child", None)
    assert main.main(["resume", str(tmp_path), "--steps", "500", "--cluster", "local", "--nodes", "5"]) == 1
    assert "error: 5 ranks need at least as many environments, not 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cores", "warning"), [(1, "warning: 2 ranks on 1 cores; each rank takes about 450 MB"), (2, "")]
)
def test_more_ranks_than_cores_are_a_warning(
    cores: int, warning: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("parallel_rl.commands.cluster.available_cores", lambda: cores)
    assert work_on_ranks(Nodes("local", 2, None, None), nothing) == 0
    err = capfd.readouterr().err
    assert err.startswith(warning)
    assert err.count("\n") == bool(warning)


def test_the_first_rank_may_work_on_for_long_after_a_signal_has_stopped_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("parallel_rl.commands.cluster.GRACE_SECONDS", 0.0)
    assert work_on_ranks(Nodes("local", 2, None, None), outlast) == 0


def test_no_signal_is_sent_to_a_rank_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be that of another program by then."""
    sent: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, number: sent.append(group))
    assert work_on_ranks(Nodes("local", 2, None, None), nothing) == 0
    assert not sent


def test_ray_is_imported_only_for_its_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = trained(tmp_path, "run", *SHORT, "--cluster", "ray").finish()
    assert code == 1
    assert "(pip install 'parallel-rl[ray]', or -r requirements-ray.txt in a checkout)" in err


def test_a_missing_variable_of_ranks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "4", "RANK": "0", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(RankError, match="WORLD_SIZE is 4, but MASTER_ADDR is not set"):
        ranks_of_environment()


@pytest.mark.slow
def test_ranks_of_the_environment_train_as_those_of_the_cluster(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks: list[subprocess.Popen[str]] = [
        command(*RUN, *SHORT, "--run-dir", "run", cwd=tmp_path, env=os.environ | variables | {"RANK": str(number)})
        for number in range(2)
    ]
    outputs = [finish(rank) for rank in ranks]
    assert [code for code, _, _ in outputs] == [0, 0], outputs
    assert outputs[1][1] == ""
    assert trained(tmp_path, "local", *SHORT, *TWO).finish()[0] == 0
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "local")
