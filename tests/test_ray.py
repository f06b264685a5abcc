"""`--cluster ray`, on a cluster of simulated machines."""

import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import wait_until
from tests.program import command, finish
from tests.test_cluster import metrics_of

pytest.importorskip("ray", reason="pip install -r requirements-ray.txt")
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
    """Run one test at a time, also in several processes: Ray finds any cluster of the machine."""
    with open(tmp_path_factory.getbasetemp().parent / "ray.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False}
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

    machines = [add()]
    flags = ("--cluster", "ray", "--nodes", "3", "--min-nodes", "3")
    with open(output, "w") as file:
        run = command(*LONG, *flags, cwd=tmp_path, env=os.environ | {"RAY_ADDRESS": cluster.address}, output=file)
    try:
        wait_until(lambda: shown("waiting   for 1 more of 3 nodes"), "it does not say what it waits for", PATIENCE)
        machines.append(add())
        wait_until((tmp_path / "run" / "metrics.csv").exists, "it does not begin", PATIENCE)
        cluster.remove_node(machines.pop(), allow_graceful=False)
        wait_until(lambda: shown("lost      rank"), "it does not notice that a machine is lost", PATIENCE)
        machines.append(add())
        wait_until(lambda: shown("joins     rank"), "the new machine does not join", PATIENCE)
        run.send_signal(signal.SIGINT)
        code, _, err = finish(run)
        assert code == 128 + signal.SIGINT, err
        assert shown("stopped   by SIGINT")
        assert [*(tmp_path / "run" / "checkpoints").iterdir()]
    finally:
        run.kill()


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
def test_without_a_cluster_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    run = command(*LONG, "--cluster", "ray", cwd=tmp_path)
    code, _, err = finish(run)
    assert code == 1
    assert "error: no Ray cluster here: `ray start --head`" in err
