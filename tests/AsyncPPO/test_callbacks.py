"""Callbacks: when they are called, what they can do, and what the built-in ones write."""

import csv
import io
import multiprocessing
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from AsyncPPO import AsyncPPO
from AsyncPPO.callbacks import (
    Callback,
    Checkpoints,
    CSVLog,
    Evaluation,
    StopAfter,
    StopAtReturn,
    TensorBoard,
    checkpoints_in,
    read_table,
    steps_of,
)
from AsyncPPO.episodes import Episode
from AsyncPPO.evaluation import BackgroundEvaluation
from AsyncPPO.progress import Bar
from PPO import PPO
from tests.envs import Counter, Faulty, Hanging


def trainer(*callbacks: Callback, env: Any = Counter, steps: int = 512, progress: bool = False) -> AsyncPPO:
    ppo = PPO.for_env(env(), seed=0, batch_size=128, mini_batch_size=64, k_epochs=1)
    return AsyncPPO(env, ppo, 4, steps, backend="inline", seed=0, progress=progress, callbacks=callbacks)


class Witness(Callback):
    """Records the calls of its methods."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.steps = 0
        self.episodes: list[Episode] = []

    def on_start(self, trainer: AsyncPPO) -> None:
        self.told.append("start")

    def on_rollout(self, trainer: AsyncPPO, steps: int, episodes: Sequence[Episode]) -> None:
        self.steps += steps
        self.episodes += episodes

    def on_update(self, trainer: AsyncPPO, metrics: dict[str, float]) -> None:
        self.told.append(f"update {metrics['steps']}")

    def on_evaluation(self, trainer: AsyncPPO, evaluation: Evaluation) -> None:
        self.told.append(f"evaluation {evaluation.steps}")

    def on_end(self, trainer: AsyncPPO) -> None:
        self.told.append(f"end {trainer.stopped} {type(trainer.error).__name__}")


def test_callback_methods_are_called_in_order() -> None:
    witness = Witness()
    with trainer(witness) as run:
        run.run()
    assert witness.told == ["start", "update 128", "update 256", "update 384", "update 512", "end None NoneType"]
    assert witness.steps == 512
    assert set(witness.episodes) == {Episode(15.0, 5)}
    assert len(witness.episodes) == run.episodes_done


def test_callbacks_of_an_iterator_are_called() -> None:
    ppo = PPO.for_env(Counter(), seed=0, batch_size=128, mini_batch_size=64, k_epochs=1)
    witness = Witness()
    callbacks: Any = iter([witness])
    with AsyncPPO(Counter, ppo, 4, 128, backend="inline", progress=False, callbacks=callbacks) as run:
        run.run()
    assert witness.told == ["start", "update 128", "end None NoneType"]


def test_on_end_after_an_error_is_called_for_all_callbacks() -> None:
    class Broken(Callback):
        def on_update(self, trainer: AsyncPPO, metrics: dict[str, float]) -> None:
            raise OSError("no space left")

        def on_end(self, trainer: AsyncPPO) -> None:
            raise ValueError("neither here")

    witnesses = Witness(), Witness()
    with trainer(witnesses[0], Broken(), witnesses[1]) as run, pytest.raises(ValueError, match="neither here"):
        run.run()
    assert [witness.told[-1] for witness in witnesses] == ["end None OSError"] * 2


def test_on_end_is_called_for_started_callbacks_if_another_fails_to_start() -> None:
    class Broken(Callback):
        def on_start(self, trainer: AsyncPPO) -> None:
            raise OSError("no server")

    witnesses = Witness(), Witness()
    with trainer(witnesses[0], Broken(), witnesses[1]) as run, pytest.raises(OSError, match="no server"):
        run.run()
    assert [witness.told for witness in witnesses] == [["start", "end None OSError"], []]


def test_stop_in_a_callback_ends_the_run_which_can_continue() -> None:
    class Enough(Callback):
        def on_update(self, trainer: AsyncPPO, metrics: dict[str, float]) -> None:
            if metrics["steps"] == 256:
                trainer.stop("enough")

    with trainer(Enough()) as run:
        run.run()
        assert (run.steps_done, run.stopped) == (256, "enough")
        run.run()
        assert (run.steps_done, run.stopped) == (512, None)


def test_stop_after_and_stop_at_return_end_the_run() -> None:
    with trainer(StopAfter(1e-9)) as run:
        run.run()
        assert (run.steps_done, run.stopped) == (128, "after 1e-09 seconds")
    with trainer(StopAtReturn(15.0), steps=5000) as run:
        run.run()
        assert run.stopped == "at a mean return of 15.0"
        assert 500 <= run.steps_done < 700, "not before there are 100 episodes"
    with trainer(StopAtReturn(16.0)) as run:
        run.run()
        assert run.stopped is None


def test_csv_log_after_each_row_reads_back_equal(tmp_path: Path) -> None:
    tmp_path /= "made/by/the/run"
    with trainer(CSVLog(tmp_path)) as run:
        for _ in run.updates():
            assert read_table(tmp_path / "metrics.csv") == list(run.history)
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("640,0.5")  # a line that a killed process did not finish
    assert read_table(tmp_path / "metrics.csv") == list(run.history)
    for foreign in ("steps\nhello\n", "loss\n0.5\n"):
        (tmp_path / "metrics.csv").write_text(foreign)
        with pytest.raises(ValueError, match=r"metrics\.csv is not a table that a run has written"):
            read_table(tmp_path / "metrics.csv")


def test_metrics_of_a_callback_are_stored_wherever_it_is_in_the_list(tmp_path: Path) -> None:
    class Own(Callback):
        def on_update(self, trainer: AsyncPPO, metrics: dict[str, float]) -> None:
            assert trainer.history[-1]["steps"] == metrics["steps"]
            metrics["deviation"] = np.float32(metrics["steps"] / 256)

    with trainer(CSVLog(tmp_path), TensorBoard(tmp_path), Own()) as run:
        rows = [*run.updates()]
    assert [row["deviation"] for row in rows] == [0.5, 1.0, 1.5, 2.0]
    assert rows == list(run.history) == read_table(tmp_path / "metrics.csv")
    assert scalars(tmp_path)["train/deviation"] == [(128, 0.5), (256, 1.0), (384, 1.5), (512, 2.0)]


def test_a_metric_of_a_callback_that_is_not_a_number_is_named() -> None:
    class Own(Callback):
        def on_update(self, trainer: AsyncPPO, metrics: dict[str, Any]) -> None:
            metrics["phase"] = "late"

    with trainer(Own()) as run, pytest.raises(TypeError, match="the metric 'phase' must be a number, not 'late'"):
        run.run()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", -1, r"Own\.on_update changed the metric 'steps' from 128 to -1: give your own another name"),
        ("lr", "high", r"Own\.on_update changed the metric 'lr' from 0\.001 to 'high'"),
        ("two\nlines", 1, r"the name of a metric must be a text of one line, not 'two\\nlines'"),
        ("", 1, "the name of a metric must be a text of one line, not ''"),
        (3, 1, "the name of a metric must be a text of one line, not 3"),
    ],
)
def test_a_metric_of_a_callback_under_a_name_that_it_cannot_have_is_named(
    name: Any, value: Any, message: str, tmp_path: Path
) -> None:
    class Own(Callback):
        def on_update(self, trainer: AsyncPPO, metrics: dict[Any, Any]) -> None:
            metrics[name] = value

    with trainer(CSVLog(tmp_path), Own()) as run, pytest.raises(ValueError, match=message):
        run.run()


def test_a_callback_may_change_its_own_metric_and_set_one_without_a_value() -> None:
    class Own(Callback):
        def on_update(self, trainer: AsyncPPO, metrics: dict[str, float]) -> None:
            metrics["mine"] = metrics["steps"] / 2

    with trainer(Own()) as run:
        assert [row["mine"] for row in run.run()] == [64, 128, 192, 256]


def test_csv_log_of_a_resumed_run_keeps_earlier_rows(tmp_path: Path) -> None:
    logs = CSVLog(tmp_path), BackgroundEvaluation(Counter, 256, episodes=2)
    with trainer(*logs) as run:
        run.run()
        run.save_checkpoint(tmp_path / "a.state")
    with trainer(*logs) as run:
        run.load_checkpoint(tmp_path / "a.state")
        run.run()
        assert [row["steps"] for row in run.history] == [128, 256, 384, 512, 640, 768, 896, 1024]
        assert read_table(tmp_path / "metrics.csv") == list(run.history)
        assert run.evaluations[0].steps <= 512


def test_stopping_limits_apply_to_each_session(tmp_path: Path) -> None:
    limits = StopAfter(1e-9), StopAtReturn(15.0)
    with trainer(*limits, steps=5000) as run:
        for _ in range(3):
            run.run()
        assert run.steps_done == 3 * 128
    with trainer(StopAtReturn(15.0), steps=1000) as run:
        run.run()
        assert run.stopped is not None
        run.run()
        assert (run.steps_done, run.stopped) == (1000, None), "it had been reached before"


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboardX.record_writer import masked_crc32c

    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(directory.glob("events*")):
        data, position = file.read_bytes(), 0
        while position < len(data):
            (length,) = np.frombuffer(data, "<u8", 1, position)
            record = data[position + 12 : position + 12 + int(length)]
            assert np.frombuffer(data, "<u4", 1, position + 12 + int(length))[0] == masked_crc32c(record)
            position += int(length) + 16
            event = Event.FromString(record)
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_tensorboard_tags_are_those_of_stable_baselines3(tmp_path: Path) -> None:
    tmp_path /= "made/by/the/run"
    evaluation = BackgroundEvaluation(Counter, 256, episodes=2)
    with trainer(TensorBoard(tmp_path), evaluation) as run:
        run.run()
    found = scalars(tmp_path)
    assert {
        "rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "train/approx_kl", "train/clip_fraction",
        "train/explained_variance", "train/value_loss", "train/policy_gradient_loss", "train/entropy",
        "train/learning_rate", "train/clip_range", "eval/mean_reward",
    } <= found.keys()  # fmt: skip
    assert found["rollout/ep_rew_mean"] == [(steps, 15.0) for steps in (128, 256, 384, 512)]
    assert found["eval/mean_reward"][-1] == (512, 15.0)


def test_metrics_of_companions_have_columns_and_tags_of_their_own(tmp_path: Path) -> None:
    ppo = PPO.for_env(Counter(), companions=["rnd", "icm"], seed=0, batch_size=128, mini_batch_size=64, k_epochs=1)
    logs = [CSVLog(tmp_path), TensorBoard(tmp_path)]
    with AsyncPPO(Counter, ppo, 4, 256, backend="inline", seed=0, progress=False, callbacks=logs) as run:
        run.run()
    names = {"rnd_reward", "icm_reward", "rnd_loss", "icm_loss"}
    assert names <= read_table(tmp_path / "metrics.csv")[-1].keys()
    tags = {"rollout/rnd_reward", "rollout/icm_reward", "train/rnd_loss", "train/icm_loss"}
    assert tags <= scalars(tmp_path).keys()


def test_csv_of_an_older_version_gives_the_intrinsic_reward_its_present_name(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "steps,seconds,episodes,mean_return,intrinsic_reward,policy_lag\n128,1.0,2,3.0,0.5,0\n"
    )
    with trainer(CSVLog(tmp_path)) as run:
        run.steps_done = 128
        run.callbacks[0].on_start(run)
        (row,) = run.history
    assert row == {"steps": 128, "seconds": 1.0, "episodes": 2, "mean_return": 3.0, "rnd_reward": 0.5}


def test_checkpoints_keeps_the_newest_and_removes_unfinished_files(tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    directory.mkdir()
    (directory / ".000000000099.state.4711.unfinished").touch()  # as a process leaves it that is killed while it writes
    with trainer(Checkpoints(directory, every_seconds=1e-9, keep=2)) as run:
        run.run()
    assert sorted(path.name for path in directory.iterdir()) == ["000000000384.state", "000000000512.state"]
    assert checkpoints_in(str(directory)) == sorted(directory.iterdir())
    with trainer() as run:
        run.load_checkpoint(directory / "000000000512.state")
        assert run.steps_done == 512


def test_checkpoints_of_a_run_replace_later_ones_of_an_earlier_run(tmp_path: Path) -> None:
    def saved() -> list[int]:
        return [steps_of(checkpoint) for checkpoint in checkpoints_in(tmp_path)]

    def saved_in(run: AsyncPPO) -> list[list[int]]:
        return [saved() for _ in run.updates()]

    def make() -> AsyncPPO:
        return trainer(Checkpoints(tmp_path, every_seconds=1e-9, keep=3))

    with make() as run:
        assert saved_in(run)[-1] == [256, 384, 512]
    with make() as run:
        run.load_checkpoint(tmp_path / "000000000256.state")
        assert saved_in(run) == [[256, 384], [256, 384, 512]], "continued from there"
    with make() as run:
        run.stop("before the first step")
        run.run()
        assert saved() == [256, 384, 512], "a run that saves nothing deletes nothing"
        assert saved_in(run) == [[128], [128, 256], [128, 256, 384], [256, 384, 512]], "a new run"


def test_checkpoints_after_an_error_writes_none(tmp_path: Path) -> None:
    with trainer(Checkpoints(tmp_path), env=Faulty) as run, pytest.raises(RuntimeError):
        run.run()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StopAfter(-1), "seconds must be positive, not -1"),
        (lambda: StopAfter(float("nan")), "seconds must be positive, not nan"),
        (lambda: StopAfter("x"), "seconds must be positive, not 'x'"),
        (lambda: Checkpoints("here", "x"), "every_seconds must be positive, not 'x'"),
        (lambda: StopAtReturn(float("nan")), "target must be a mean return, not nan"),
        (lambda: StopAtReturn("x"), "target must be a mean return, not 'x'"),
        (lambda: BackgroundEvaluation(Counter, 0), "every must be at least 1, not 0"),
        (lambda: BackgroundEvaluation(Counter, 9, num_envs=0), "num_envs must be at least 1, not 0"),
        (
            lambda: BackgroundEvaluation(Counter, eval_freq=9),
            r"BackgroundEvaluation\(\) got .* 'eval_freq': did you mean 'every'",
        ),
        (lambda: BackgroundEvaluation(Counter, 9, seeed=3), "argument 'seeed': did you mean 'seed'"),
        (
            lambda: Checkpoints("here", save_freq=9),
            r"'save_freq': did you mean 'every_seconds'\? \(seconds of training\)",
        ),
        (lambda: BackgroundEvaluation([Counter] * 2, 9, num_envs=3), "num_envs is 3, but env is a list of 2"),
        (lambda: BackgroundEvaluation("CartPol-v1", 9), "no environment 'CartPol-v1'; did you mean 'CartPole-v1'"),
        (
            lambda: BackgroundEvaluation(Counter, 9, info_keys="left"),
            "info_keys must be a list of names, not the string",
        ),
    ],
)
def test_a_callback_with_a_bad_argument_names_it(make: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("on_updates", "did you mean 'on_update'"),
        ("on_evaluations", "did you mean 'on_evaluation'"),
        ("_on_step", "did you mean 'on_rollout'"),
        ("on_step", "did you mean 'on_rollout'"),
        ("_on_rollout_start", "did you mean 'on_update'"),
        ("_init_callback", "did you mean 'on_start'"),
    ],
)
def test_a_method_that_is_never_called_is_an_error_of_the_class(name: str, hint: str) -> None:
    with pytest.raises(TypeError, match=f"Mine.{name} is never called: {hint}"):
        type("Mine", (Callback,), {name: lambda self: True})
    assert type("Mine", (Callback,), {"key_pressed": lambda self: True, "_update": None, "on_update": None})


class Evaluates(Callback):
    def on_update(self, trainer: AsyncPPO, metrics: dict[str, float]) -> None:
        trainer.add_evaluation(Evaluation(trainer.steps_done, 1, 0.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize("method", ["on_start", "on_rollout", "on_update", "on_evaluation", "on_end"])
@pytest.mark.parametrize("stores", [False, True])
def test_a_callback_that_returns_something_is_an_error_of_the_run(method: str, stores: bool) -> None:
    mine = type("Mine", (Callback,), {method: lambda self, *_: False, "stores": stores})()
    with (
        trainer(Evaluates(), mine) as run,
        pytest.raises(TypeError, match=rf"Mine.{method} returned False.*trainer\.stop\(why\)"),
    ):
        run.run()


@pytest.mark.parametrize(("seconds", "keep"), [(0.0, 1), (float("nan"), 1), (1.0, 0)])
def test_checkpoints_with_bad_arguments_raises(tmp_path: Path, seconds: float, keep: int) -> None:
    with pytest.raises(ValueError, match=r"every_seconds must be positive|keep must be at least 1"):
        Checkpoints(tmp_path, seconds, keep)


def test_background_evaluation_keeps_the_best_weights_and_changes_no_statistics(tmp_path: Path) -> None:
    witness = Witness()
    evaluation = BackgroundEvaluation("CartPole-v1", 500, episodes=3, seed=1, keep_best=tmp_path / "best")
    ppo = PPO.for_env("CartPole-v1", seed=0, normalize_obs=True, batch_size=256, mini_batch_size=64)
    with AsyncPPO(
        "CartPole-v1", ppo, 4, 3000, backend="inline", progress=False, callbacks=[evaluation, witness]
    ) as run:
        run.run()
    assert not multiprocessing.active_children()
    assert run.evaluations[-1].steps == run.steps_done
    assert [f"evaluation {made.steps}" for made in run.evaluations] == [
        told for told in witness.told if told.startswith("evaluation")
    ]
    assert ppo.policy.obs_norm is not None
    assert (
        ppo.policy.obs_norm.count
        == sum(
            256 + (row["steps"] - before["steps"] - 256)
            for before, row in zip(run.history, run.history[1:], strict=False)
        )
        + run.history[0]["steps"]
    ), "evaluation is no experience"
    best = PPO.for_env("CartPole-v1", normalize_obs=True)
    best.load_weights(tmp_path / "best")
    from AsyncPPO import evaluate

    again = evaluate(best, "CartPole-v1", 3, seed=1, num_envs=3, backend="inline")
    assert again.mean() == max(made.mean for made in run.evaluations)


def test_background_evaluation_that_fails_warns_and_the_run_continues() -> None:
    def broken() -> Any:
        raise OSError("no display")

    with trainer(BackgroundEvaluation(broken, 256)) as run, pytest.warns(RuntimeWarning, match="OSError: no display"):
        run.run()
    assert run.steps_done == 512
    assert not run.evaluations


def test_background_evaluation_whose_process_dies_warns() -> None:
    def deadly() -> Any:
        import os

        os._exit(3)

    died = r"its process \(pid \d+\) exited with 3"
    with trainer(BackgroundEvaluation(deadly, 256)) as run, pytest.warns(RuntimeWarning, match=died):
        run.run()
    assert run.steps_done == 512
    assert not multiprocessing.active_children()


def test_progress_bar_shows_steps_and_mean_return(capsys: pytest.CaptureFixture) -> None:
    with trainer(progress=True) as run:
        run.run()
    shown = capsys.readouterr().err
    assert "512/512" in shown
    assert "mean return 15.0" in shown


def test_a_bar_starts_no_thread() -> None:
    """With Python 3.12 a process with threads starts its workers by `forkserver`."""
    before = threading.active_count()
    with Bar(total=1), Bar(total=1, disable=True):
        assert threading.active_count() == before


def test_a_bar_in_a_file_is_a_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown(file: io.StringIO, first_line: float = 1e9, **kwargs: Any) -> str:
        monkeypatch.setattr("AsyncPPO.progress.FIRST_LINE", first_line)
        with Bar(total=50, file=file, mininterval=0, **kwargs) as bar:
            for _ in range(50):
                bar.update()
            bar.write("between", file=file)
        return file.getvalue()

    assert shown(Terminal()).count("\r") > 50
    lines = shown(io.StringIO()).splitlines()
    assert lines[0] == "between"
    assert "50/50" in lines[1]
    assert len(lines) == 2
    assert shown(io.StringIO(), leave=False) == "between\n"
    often = shown(io.StringIO(), first_line=0.0)
    assert often.count("\n") > 50
    assert "\r" not in often


def test_csv_files_are_plain_csv(tmp_path: Path) -> None:
    with trainer(CSVLog(tmp_path), BackgroundEvaluation(Counter, 512, episodes=2)) as run:
        run.run()
    with open(tmp_path / "evaluations.csv", newline="") as file:
        assert list(csv.DictReader(file))[-1] == {
            "steps": "512", "episodes": "2", "mean": "15.0", "std": "0.0", "min": "15.0", "max": "15.0",
        }  # fmt: skip


def test_background_evaluation_that_hangs_is_ended_by_step_timeout(tmp_path: Path) -> None:
    evaluation = BackgroundEvaluation(Hanging, 512, episodes=2, step_timeout=0.3)
    with trainer(evaluation) as run, pytest.warns(RuntimeWarning, match="evaluation after 512 steps failed: .* hung"):
        run.run()
    assert not run.evaluations
    assert not multiprocessing.active_children()


def test_run_that_is_to_stop_at_once_does_not_wait_for_a_hanging_evaluation() -> None:
    with trainer(BackgroundEvaluation(Hanging, 128, episodes=2)) as run:
        timer = threading.Timer(0.5, run.stop, ["now"], {"skip_slow_work": True})
        timer.start()
        run.run()
        timer.join()
    assert not run.evaluations
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("progress", [True, False])
def test_run_with_progress_says_that_it_waits_for_an_evaluation(
    progress: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("AsyncPPO.callbacks.background_evaluation.SILENT_SECONDS", 0.0)
    timers: list[threading.Timer] = []

    class StopsSoon(Callback):
        """Stops the run half a second after its last update, when it waits for the evaluation."""

        def on_update(self, trainer: AsyncPPO, metrics: dict[str, float]) -> None:
            if metrics["steps"] == 512:
                timers.append(threading.Timer(0.5, trainer.stop, ["now"], {"skip_slow_work": True}))
                timers[0].start()

    with trainer(BackgroundEvaluation(Hanging, 512, episodes=2), StopsSoon(), progress=progress) as run:
        run.run()
    timers[0].join()
    waiting = "waiting for the evaluation after 512 steps (Ctrl-C ends the run without it)\n"
    assert capsys.readouterr().err.count(waiting) == progress


def test_best_weights_of_a_resumed_run_stay_until_there_are_better(tmp_path: Path) -> None:
    def best() -> BackgroundEvaluation:
        return BackgroundEvaluation(Counter, 256, episodes=2, keep_best=tmp_path / "best")

    with trainer(best()) as run:
        run.run()
        run.save_checkpoint(tmp_path / "a.state")
    kept = tmp_path / "best" / "evaluation.json"
    unbeaten = kept.read_text().replace('"mean": 15.0', '"mean": 99.0')
    for told, better in [(unbeaten, False), (unbeaten.replace("99", "1"), True)]:
        kept.write_text(told)
        with trainer(best()) as run:
            run.load_checkpoint(tmp_path / "a.state")
            run.run()
        assert (kept.read_text() != told) is better


def test_tensorboard_on_a_full_disk_ends_the_run(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    resource = pytest.importorskip("resource")  # not on Windows

    def train() -> None:
        with trainer(TensorBoard(tmp_path), steps=100_000) as run:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
            with pytest.raises(OSError, match=r"\[Errno 27\] File too large"):
                run.run()

    process = multiprocessing.get_context("fork").Process(target=train)
    process.start()
    process.join(60)
    process.kill()
    assert process.exitcode == 0


def test_progress_bar_moves_before_the_first_batch_is_complete() -> None:
    class Steps(Callback):
        def __init__(self) -> None:
            self.told: list[int] = []

        def on_rollout(self, trainer: AsyncPPO, steps: int, episodes: Sequence[Episode]) -> None:
            self.told.append(steps)

    with trainer(steps := Steps(), progress=True) as run:
        run.run()
    assert steps.told[0] == 4
    assert sum(steps.told) == 512
