"""`train --seeds`: independent runs in parallel, and their comparison."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from AsyncPPO import AsyncTrainer
from AsyncPPO.backends.choice import available_cores
from AsyncPPO.callbacks import Callback, read_table
from parallel_rl import main
from parallel_rl.commands.run_directory import config_of
from parallel_rl.commands.seeds import seeds_in, train_seeds
from parallel_rl.config import TrainConfig, train_config
from parallel_rl.utils import Metrics, bootstrap_interval, interquartile_mean
from parallel_rl.utils.plots import band_of
from tests.processes import runs, wait_until
from tests.program import Forked

QUICK = [
    "--steps", "512", "--num-envs", "4", "--batch-size", "256", "--k-epochs", "1", "--hidden-sizes", "8",
    "--eval-episodes", "2", "--eval-every", "0",
]  # fmt: skip


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    assert interquartile_mean(np.array([5.0, 1.0, 2.0, 3.0, 100.0])) == 10 / 3
    assert interquartile_mean(np.array([[0.0, 0.0, 10.0, 100.0], [1.0, 1.0, 1.0, 1.0]])).tolist() == [5.0, 1.0]
    assert interquartile_mean(np.array([1.0, 2.0])) == 1.5, "nothing is left out of three or fewer"


def test_the_interval_is_that_of_the_percentile_bootstrap() -> None:
    assert bootstrap_interval(np.array([3.0, 3.0, 3.0])) == (3.0, 3.0)
    low, high = bootstrap_interval(np.array([0.0, 1.0]))
    assert (low, high) == (0.0, 1.0), "a quarter of the resamples holds only one of two scores"
    scores = np.random.default_rng(0).standard_normal(400)
    low, high = bootstrap_interval(scores)
    assert high - low == pytest.approx(2 * 1.96 * 1.09 / 20, rel=0.15), "the IQM of normal scores has about this error"
    assert low < interquartile_mean(scores) < high


def test_bands_are_quartiles() -> None:
    returns = np.array([[0.0, 7.0], [1.0, np.nan], [2.0, 5.0], [3.0, np.nan], [100.0, np.nan]])
    for quartiles, edges in ((True, (1.0, 3.0)), (False, (0.0, 100.0))):
        band = band_of(returns, quartiles)
        assert (band[0][0], band[1][0]) == edges
        assert np.isnan(band)[:, 1].all(), "not all curves are there"


@pytest.mark.parametrize(
    ("text", "seeds"), [("0..4", [0, 1, 2, 3, 4]), ("3..3", [3]), ("0,7,2", [0, 7, 2]), ("5", [5])]
)
def test_seeds_are_a_range_or_a_list(text: str, seeds: list[int]) -> None:
    assert seeds_in(text) == seeds


@pytest.mark.parametrize("text", ["", "4..0", "a", "1,,2", "1,1", "-1", "0..99999999999"])
def test_bad_seeds_are_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="--seeds must"):
        seeds_in(text)


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--seeds="], "--seeds must"), (["--seeds", "0..1", "--seed", "3"], "give either --seed or")],
)
def test_bad_seeds_of_the_command_line_are_one_error(
    flags: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main.main(flags) == 1
    assert f"error: {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--callback", "x:Y"], "no callback 'x:Y'"),
        (["--load-weights", "nowhere"], "no weights at nowhere"),
        (["--copies", "2", "--backend", "vector"], "--copies works only without --backend vector"),
        (["--copies", "2", "--agent", "dqn", "--num-envs", "2", "--hindsight", "future"], "hindsight"),
    ],
)
def test_an_error_of_every_seed_is_one_before_they_start(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main.main(["--seeds", "0..1", "--run-dir", str(tmp_path / "here"), *flags]) == 1
    out, err = capsys.readouterr()
    assert err.count(message) == 1
    assert "error: " in err
    assert "seed 0" not in out
    assert not (tmp_path / "here").exists()


@pytest.mark.pictures
def test_every_seed_has_its_directory_and_all_share_a_picture_and_a_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    code, out, err = Forked("--seeds", "3..4", "--run-dir", "here", *QUICK, cwd=tmp_path).finish()
    assert code == 0, err
    here = tmp_path / "here"
    assert (here / "learning_curves.png").stat().st_size > 10_000
    summary = json.loads((here / "summary.json").read_text())
    for seed in (3, 4):
        own = json.loads((here / f"seed_{seed}" / "summary.json").read_text())
        assert summary["scores"][str(seed)] == own["evaluation"]["mean"]
        assert own["seed"] == seed
        assert config_of(here / f"seed_{seed}").run.num_workers is None, "it has one process only beside the others"
        assert f"seed {seed}" in out
        assert (here / f"seed_{seed}" / "log.txt").exists()
    assert f"interquartile mean {summary['interquartile_mean']:.2f}" in out
    assert main.main(["evaluate", str(here), "--episodes", "2"]) == 0
    title, _, *rows, result = capsys.readouterr().out.splitlines()
    assert title == "CartPole-v1: 2 deterministic episodes of each seed"
    assert [row.split()[0] for row in rows] == ["3", "4"]
    means = [float(row.split()[1]) for row in rows]
    assert f"interquartile mean {np.mean(means):.2f}" in result
    assert main.main(["evaluate", str(here / "seed_4"), "--episodes", "2"]) == 0
    assert f"mean {means[1]:.2f} +- " in capsys.readouterr().out
    (here / "seed_7").mkdir()
    assert main.main(["evaluate", str(here), "--episodes", "2", "--json"]) == 0
    printed = capsys.readouterr()
    seeds = json.loads(printed.out)["seeds"]
    assert printed.err == "left out  seed_7: no config.json in it\n"
    (here / "seed_7").rmdir()
    assert [round(seeds[seed]["mean"], 2) for seed in ("3", "4")] == means
    weights = here / "seed_3" / "Policy_weights.pth"
    before = weights.stat().st_mtime_ns
    assert main.main(["--seeds", "3", "--run-dir", str(here), *QUICK]) == 0
    assert f"interquartile mean {summary['interquartile_mean']:.2f}" in capsys.readouterr().out, "of both runs"
    assert weights.stat().st_mtime_ns == before, "a complete run is not repeated"
    assert main.main(["--seeds", "3", "--run-dir", str(here), *QUICK, "--lr", "0.5"]) == 1
    assert capsys.readouterr().err.endswith(f"error: {here}/seed_3 has other values of lr: choose another --run-dir\n")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_signal_ends_all_runs(number: int, tmp_path: Path) -> None:
    long = ["--steps", "100000000", *QUICK[2:]]
    program = Forked("--seeds", "0..1", "--run-dir", "here", *long, cwd=tmp_path)
    at_once = min(available_cores(), 2)
    files = [tmp_path / "here" / f"seed_{seed}" / "metrics.csv" for seed in range(at_once)]
    program.wait_for(lambda: all(file.exists() and file.read_bytes().count(b"\n") > 2 for file in files))
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
    program.send(number)
    code, _, _ = program.finish()
    assert code == (130 if number == signal.SIGINT else -9)
    wait_until(lambda: not any(runs(int(child)) for child in children), "a run outlived the command")
    if number == signal.SIGINT:
        assert all((file.parent / "Policy_weights.pth").exists() for file in files), "they were saved"


class StopOnce(Callback):
    """Stops its run at the first update of all."""

    def on_update(self, trainer: AsyncTrainer, metrics: Metrics) -> None:
        if not Path("stopped").exists():
            Path("stopped").touch()
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.pictures
def test_the_same_command_continues_what_was_stopped(tmp_path: Path) -> None:
    command = ["--seeds", "3", "--run-dir", "here", *QUICK, "--callback", f"{__name__}:StopOnce"]
    code, out, _ = Forked(*command, cwd=tmp_path).finish()
    assert code == 128 + signal.SIGTERM
    assert "seed 3    stopped  here/seed_3\n" in out
    assert not (tmp_path / "here" / "summary.json").exists()
    code, out, err = Forked(*command, cwd=tmp_path).finish()
    assert code == 0, err
    (mean,) = json.loads((tmp_path / "here" / "summary.json").read_text())["scores"].values()
    assert f"result    mean {mean:.2f} over 1 seed\n" in out, "an interval of one seed means nothing"
    run_dir = tmp_path / "here" / "seed_3"
    assert [row["steps"] for row in read_table(run_dir / "metrics.csv")] == [256, 512]
    assert len(json.loads((run_dir / "config.json").read_text())["resumed"]) == 1
    summary = json.loads((run_dir / "summary.json").read_text())
    stopped_in_its_evaluation = summary | {"evaluation": None}
    (run_dir / "summary.json").write_text(json.dumps(stopped_in_its_evaluation))
    code, _, err = Forked(*command, cwd=tmp_path).finish()
    assert code == 0, err
    assert json.loads((run_dir / "summary.json").read_text()) == summary
    assert [row["steps"] for row in read_table(run_dir / "metrics.csv")] == [256, 512], "it is not trained further"


def interrupted(config: TrainConfig) -> int:
    signal.raise_signal(signal.SIGTERM)
    return 0


def faulty(config: TrainConfig) -> int:
    raise KeyError("nobody")


def test_a_fault_of_the_program_has_its_name_and_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = train_config("ppo", {"env_id": "CartPole-v1", "run_dir": str(tmp_path)})
    assert train_seeds(config, [5], faulty) == 1
    assert "seed 5    ended with exit code 1: KeyError: 'nobody'\n" in capsys.readouterr().out
    assert "in faulty" in (tmp_path / "seed_5" / "log.txt").read_text()


def test_a_signal_ends_a_run_that_has_not_begun_to_train(tmp_path: Path) -> None:
    config = train_config("ppo", {"env_id": "CartPole-v1", "run_dir": str(tmp_path)})
    assert train_seeds(config, [0, 1], interrupted) == 128 + signal.SIGTERM
