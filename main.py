"""The command line: train PPO on a Gymnasium environment, or watch what it has learnt.

python main.py [train] [--help]
python main.py watch RUN_DIR
"""

import csv
import io
import json
import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from config import TrainConfig
from presets import preset
from utils import write_atomically

if TYPE_CHECKING:
    from AsyncPPO import AsyncPPO
    from AsyncPPO.backends import EnvFactory

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT."""
CONFIG_FILE = "config.json"
SUMMARY_FILE = "summary.json"
CURVE_FILE = "learning_curve.png"
PROGRAM = f"{'python' if shutil.which('python') == sys.executable else os.path.relpath(sys.executable)} main.py"
"""How to call this again, from here and with this interpreter."""
EVALUATION_SEED = 1_000_000
"""Added to the seed for the evaluation: other episodes than those of the training."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    commands = {"train": train, "watch": watch}
    command = commands.get(arguments[0]) if arguments else None
    try:
        return command(arguments[1:]) if command else train(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ValueError, TypeError, OSError, RuntimeError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def parse(arguments: Sequence[str]) -> TrainConfig:
    """Return the configuration of a command line: the defaults, the environment's preset, then the flags.

    With the weights of a run, that run's configuration takes the place of the first two, but for its seed: what comes
    is not to be what was.
    """
    without_help = [argument for argument in arguments if argument not in {"-h", "--help"}]
    asked, _ = tyro.cli(TrainConfig, args=without_help, return_unknown_args=True)
    settings = {"env_id": asked.env_id} | preset(asked.env_id, asked.use_rnd)
    if asked.load_weights and (Path(asked.load_weights) / CONFIG_FILE).is_file():
        before = config_of(Path(asked.load_weights))
        settings = vars(before) | {"run_dir": None, "seed": before.seed + 1}
    return tyro.cli(TrainConfig, prog="main.py", args=arguments, default=TrainConfig(**settings))


def config_of(run_dir: Path) -> TrainConfig:
    """Return the configuration of a run.

    Raises:
        FileNotFoundError: the directory is not a run's.
    """
    if not (run_dir / CONFIG_FILE).is_file():
        raise FileNotFoundError(f"{run_dir} is not a run: it has no {CONFIG_FILE}")
    return TrainConfig(**json.loads((run_dir / CONFIG_FILE).read_text()))


def train(arguments: Sequence[str]) -> int:
    """Train, save, evaluate and report."""
    config = parse(arguments)
    from AsyncPPO import AsyncPPO, evaluate, make_env
    from PPO import PPO

    if config.eval_episodes < 1:
        raise ValueError(f"eval_episodes must be at least 1, not {config.eval_episodes}")
    started = time.perf_counter()
    with make_env(factory_of(config)) as env:
        ppo = PPO.for_env(env, **config.ppo())
    if config.load_weights:
        ppo.load_weights(config.load_weights)
    failure: BaseException | None = None
    with AsyncPPO(
        env_of(config, training=True),
        ppo,
        config.num_envs,
        config.steps,
        **config.loop(),
    ) as trainer:
        run_dir = make_run_dir(config)
        print(
            f"{config.env_id}: {config.num_envs} copies, {trainer.env.backend} backend: {trainer.env.backend_reason}\n"
            f"acting    {trainer.acting_reason}"
        )
        try:
            trainer.run()
        except (KeyboardInterrupt, Exception) as error:
            failure = error
    summary = summarise(config, trainer)
    ppo.save_weights(run_dir)
    write_json(run_dir / SUMMARY_FILE, summary)
    save_history(run_dir, trainer.history, f"{config.env_id}, seed {config.seed}", summary["threshold"])
    print(f"saved     {run_dir} (weights, metrics.csv, summary.json)\ncurve     {run_dir / CURVE_FILE}")
    resume = f"{PROGRAM} --load-weights {shlex.quote(str(run_dir))}"
    if failure is not None:
        print(f"stopped after {trainer.steps_done:,} steps; to continue: {resume}")
        raise failure

    returns = evaluate(
        ppo,
        env_of(config),
        config.eval_episodes,
        seed=config.seed + EVALUATION_SEED,
        backend=config.backend,
        num_workers=config.num_workers,
        progress=True,
    )
    summary["evaluation"] = {
        "episodes": len(returns),
        "mean": returns.mean(),
        "std": returns.std(),
        "min": returns.min(),
        "max": returns.max(),
    }
    summary["total_seconds"] = time.perf_counter() - started
    write_json(run_dir / SUMMARY_FILE, summary)
    print(
        f"result    mean {returns.mean():.1f}, min {returns.min():.1f}, max {returns.max():.1f} "
        f"over {len(returns)} deterministic episodes\n"
        f"watch     {PROGRAM} watch {shlex.quote(str(run_dir))}\n"
        f"continue  {resume}"
    )
    return 0


def watch(arguments: Sequence[str]) -> int:
    """Show a trained agent in a window."""
    tyro.cli(show, prog="main.py watch", args=arguments)
    return 0


def show(run_dir: tyro.conf.Positional[Path], episodes: int = 5) -> None:
    """Play deterministic episodes in a window.

    Args:
        run_dir: what a training run saved.
        episodes: how many.
    """
    from PPO import PPO

    config = config_of(run_dir)
    with factory_of(config, render_mode="human")() as env:
        ppo = PPO.for_env(env, **config.ppo())
        ppo.load_weights(run_dir)
        for episode in range(episodes):
            obs, _ = env.reset()
            score, over, core = 0.0, False, ppo.initial_core(1)
            while not over:
                action = ppo.get_action(obs, deterministic=True, core=core)
                obs, reward, terminated, truncated, _ = env.step(action.reshape(env.action_space.shape))
                score, over = score + float(reward), terminated or truncated
            print(f"episode {episode + 1}: return {score:.1f}")


def env_of(config: TrainConfig, *, training: bool = False) -> Any:
    """Return what is stepped in a run: what makes it, or an id for an environment's vectorized form.

    Raises:
        ValueError: an unknown environment, or the vectorized form of one that is to be wrapped.
    """
    if config.backend != "vector":
        return factory_of(config, training=training)
    if config.action_masks or config.env_id.startswith("ALE/"):
        raise ValueError("backend='vector' takes environments as they are: without action masks, and not ALE/...")
    return config.env_id


def factory_of(config: TrainConfig, *, training: bool = False, **kwargs: Any) -> "EnvFactory":
    """Return what makes the environment of a run; Atari games are made easier to train on with `training`.

    Raises:
        ValueError: an unknown environment.
    """
    import gymnasium as gym

    from AsyncPPO import ActionMasks, env_factory, make_atari

    if config.env_id.startswith("ALE/"):
        return partial(make_atari, config.env_id, training=training, **kwargs)
    env_factory(config.env_id)  # names the nearest id if it is unknown

    def make() -> gym.Env:
        env = gym.make(config.env_id, disable_env_checker=True, **kwargs)
        return ActionMasks(env) if config.action_masks else env

    return make


def make_run_dir(config: TrainConfig) -> Path:
    """Make the directory of the run, before anything is spent on it.

    Raises:
        FileExistsError: it holds a run already.
        OSError: it cannot be made or written.
    """
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")
    run_dir = Path(config.run_dir or Path("runs") / config.env_id / now)
    if (run_dir / CONFIG_FILE).exists():
        raise FileExistsError(f"{run_dir} holds a run already: choose another --run-dir")
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(run_dir / CONFIG_FILE, asdict(config))
    return run_dir


def summarise(config: TrainConfig, trainer: "AsyncPPO") -> dict[str, Any]:
    """Return what `summary.json` holds, before the evaluation."""
    threshold = trainer.env.spec.reward_threshold if trainer.env.spec else None
    full = [row for row in trainer.history if row["episodes"] >= 100]
    solved = [row for row in full if threshold is not None and row["mean_return"] >= threshold]
    return {
        "config": asdict(config),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "gymnasium", "numpy")},
        "backend": trainer.env.backend,
        "steps": trainer.steps_done,
        "seconds": trainer.seconds,
        "episodes": trainer.episodes_done,
        "mean_return": trainer.mean_return if trainer.recent else None,
        "threshold": threshold,
        "solved": {"steps": solved[0]["steps"], "seconds": solved[0]["seconds"]} if solved else None,
        "evaluation": None,
    }


def save_history(run_dir: Path, history: list[dict[str, float]], title: str, threshold: float | None) -> None:
    """Save the history of a run as a table and as a picture."""
    from utils.plots import plot_learning_curve

    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=history[0].keys() if history else [])
    writer.writeheader()
    writer.writerows(history)
    write_atomically(run_dir / "metrics.csv", lambda file: file.write(table.getvalue().encode()))
    plot_learning_curve(history, run_dir / CURVE_FILE, title, threshold)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    write_atomically(path, lambda file: file.write(json.dumps(content, indent=2, allow_nan=False).encode()))


if __name__ == "__main__":
    sys.exit(main())
