"""`--cluster ray`, on a cluster of simulated machines."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from parallel_rl import main
from tests.processes import wait_until
from tests.program import command, finish
from tests.test_cluster import metrics_of

pytest.importorskip("ray", reason="pip install -r requirements-ray.txt")
fcntl = pytest.importorskip("fcntl")
MEMORY = 100_000_000
PATIENCE = 200.0
"""Seconds: an idle machine needs a tenth of that."""
RUN = (
    "train", "--env-id", "CartPole-v1", "--num-envs", "6", "--backend", "inline", "--eval-every", "0",
    "--eval-episodes", "2", "--batch-size", "300", "--k-epochs", "1", "--steps",
)  # fmt: skip
LONG = (*RUN, "100000000", "--run-dir", "run")


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run one test at a time, also in several processes: Ray finds any cluster of the machine. It takes SIGTERM too."""
    before = signal.getsignal(signal.SIGTERM)
    with open(tmp_path_factory.getbasetemp().parent / "ray.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")  # its workers would wait for all that runs beside the test
    head = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False, "include_log_monitor": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    yield made
    made.shutdown()


@pytest.mark.timeout(900)
def test_machines_join_a_run_and_leave_it(cluster: Any, tmp_path: Path) -> None:
    output = tmp_path / "output"

    def shown(words: str) -> bool:
        return words in output.read_text()

    def add() -> Any:
        return cluster.add_node(num_cpus=1, object_store_memory=MEMORY)

    flags = ("--cluster", "ray", "--nodes", "2", "--min-nodes", "2")
    with open(output, "w") as file:
        run = command(*LONG, *flags, cwd=tmp_path, env=os.environ | {"RAY_ADDRESS": cluster.address}, output=file)
    try:
        wait_until(lambda: shown("waiting   for 1 more of 2 nodes"), "it does not say what it waits for", PATIENCE)
        machine = add()
        wait_until((tmp_path / "run" / "metrics.csv").exists, "it does not begin", PATIENCE)
        add()
        cluster.remove_node(machine, allow_graceful=False)
        wait_until(lambda: shown("lost      rank"), "it does not notice that a machine is lost", PATIENCE)
        wait_until(lambda: shown("joins     rank"), "the new machine does not join", PATIENCE)
        run.send_signal(signal.SIGINT)
        code, _, err = finish(run)
        assert code == 128 + signal.SIGINT, err
        assert shown("stopped   by SIGINT")
        assert output.read_text().count("lost      rank") == 1, "the rank was put on the lost machine again"
        assert [*(tmp_path / "run" / "checkpoints").iterdir()]
    finally:
        run.kill()


def test_each_machine_has_one_rank_and_those_that_lost_theirs_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    from parallel_rl.ranks.on_ray import Machines

    ids = {"here": True, "one": True, "two": True, "gone": False, "three": True}
    nodes = [{"NodeID": name, "Alive": alive} for name, alive in ids.items()]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "here"))
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.1")
    machines = Machines()
    taken = machines.take()
    assert taken is nodes[1]
    machines.free(taken)
    assert [machines.take() for _ in range(4)] == [nodes[2], nodes[4], nodes[1], None]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_on_machines_of_ray_has_the_bits_of_one_on_local_ranks(cluster: Any, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    for where in ("ray", "local"):
        flags = ("3000", "--run-dir", where, "--cluster", where, "--nodes", "2")
        run = command(*RUN, *flags, cwd=tmp_path, env=os.environ | {"RAY_ADDRESS": cluster.address})
        code, out, err = finish(run)
        assert code == 0, err
        assert "6 environments on 2 ranks" in out
    assert metrics_of(tmp_path / "ray") == metrics_of(tmp_path / "local")
    assert metrics_of(tmp_path / "ray")[-1][0] == "3000"


@pytest.mark.timeout(900)
def test_without_a_cluster_the_error_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main([*LONG, "--cluster", "ray"]) == 1
    assert "error: no Ray cluster here: `ray start --head`" in capsys.readouterr().err
