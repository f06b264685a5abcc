"""The evaluations of a run: in the background, and at its end."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from AsyncPPO.episodes import Evaluation
from parallel_rl.commands.build import env_of, factory_of
from parallel_rl.commands.output import say
from parallel_rl.commands.program import PROGRAM
from parallel_rl.commands.run_directory import BEST_DIRECTORY
from parallel_rl.commands.trust import run_arguments
from parallel_rl.config import TrainConfig

if TYPE_CHECKING:
    from AsyncPPO.callbacks import Callback

FINAL_SEED, BACKGROUND_SEED, PLAY_SEED, TUNE_SEED = 1_000_000, 2_000_000, 3_000_000, 4_000_000
"""Seeds of evaluations: the final one, in the background, by `evaluate`, and by `tune`.

All but `PLAY_SEED` are added to the seed of the run. So no evaluation repeats episodes of the training, and none that
chose the best weights or settings.
"""


def final_evaluation(config: TrainConfig, agent: Any, steps: int, run_dir: Path) -> Evaluation:
    """Return the evaluation of an agent at the end of a run, after so many steps."""
    from AsyncPPO import evaluate_episodes

    seed = config.run.seed + FINAL_SEED
    settings: dict[str, Any] = {"seed": seed, "progress": True} | config.run.evaluation_arguments()
    try:
        episodes = evaluate_episodes(agent, env_of(config.run), config.run.eval_episodes, **settings)
    except KeyboardInterrupt:
        say("")  # the end of the bar's line
        say_unevaluated(config, run_dir)
        raise
    return Evaluation.of(steps, episodes)


def say_unevaluated(config: TrainConfig, run_dir: Path) -> None:
    """Print that a complete run was stopped before the end of its evaluation, and the command that evaluates it."""
    arguments = run_arguments(config.run, run_dir)
    say(f"stopped   after the training, without an evaluation; to evaluate: {PROGRAM} evaluate {arguments}")


def say_result(config: TrainConfig, evaluation: Evaluation, run_dir: Path) -> None:
    """Print the evaluation at the end of a run, and the command that shows its policy."""
    say(
        f"result    mean {evaluation.mean:.2f}, min {evaluation.min:.2f}, max {evaluation.max:.2f} "
        f"over {evaluation.episodes} deterministic episodes{evaluation.in_words}\n"
        f"watch     {PROGRAM} watch {run_arguments(config.run, run_dir)}"
    )


def background_evaluation(config: TrainConfig, run_dir: Path) -> "list[Callback]":
    """Return the callback that evaluates in the background and keeps the best weights; none if the config has none."""
    from AsyncPPO.callbacks import BackgroundEvaluation

    run = config.run
    every = max(run.steps // 10, 1) if run.eval_every is None else run.eval_every
    if not every:
        return []
    own = {"backend", "num_workers"}  # of the training: the evaluation has a process of its own
    return [
        BackgroundEvaluation(
            factory_of(run),
            every,
            seed=run.seed + BACKGROUND_SEED,
            keep_best=run_dir / BEST_DIRECTORY,
            **{name: value for name, value in run.evaluation_arguments().items() if name not in own},
        )
    ]
