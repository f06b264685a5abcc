"""The commands that use what a run has learned: `evaluate`, `record`, `watch` and `export`."""

import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import tyro

from AsyncPPO import EnvError
from AsyncPPO.backends import SUCCESS, numbers_in
from AsyncPPO.evaluation import LONGEST_EPISODE
from AsyncPPO.progress import Bar
from AsyncPPO.recurrent import RecurrentState
from parallel_rl.agents import agent_kind
from parallel_rl.commands.build import agent_of, env_of, factory_of
from parallel_rl.commands.output import note
from parallel_rl.commands.run_directory import CONFIG_FILE
from parallel_rl.commands.seeds import over_seeds, run_of, seeds_begun
from parallel_rl.commands.single_run import PLAY_SEED
from parallel_rl.commands.stopping import ended_by_signals
from parallel_rl.config import RunConfig
from parallel_rl.utils import counted, to_json

if TYPE_CHECKING:
    from AsyncPPO.agent import Agent
    from AsyncPPO.episodes import Episode, Evaluation

RunDir = tyro.conf.Positional[Path]
FPS = 30
"""Frames per second of a video, if the environment does not specify them."""
LEAST_SIZE = 100
"""Pixels of the smaller side of a video; smaller images are enlarged, such as those of MinAtar, 10 by 10."""
SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
"""Environment variables; one of them is set if Linux can open a window."""
NO_SCREEN = "dummy"
"""The video driver of SDL that shows nothing."""


def evaluate(
    run_dir: RunDir,
    episodes: int = 100,
    stochastic: bool = False,
    best: bool = False,
    seed: int = PLAY_SEED,
    json: bool = False,
    trust_env_module: bool = False,
) -> int:
    """Evaluate the policy on whole episodes and print their returns.

    Args:
        run_dir: directory of a training run, or that of train --seeds, for a table of all seeds.
        episodes: number of episodes.
        stochastic: sample actions, as in training, instead of deterministic ones.
        best: take the weights of the best evaluation during the training, not the last ones.
        seed: of the environments.
        json: print JSON.
        trust_env_module: import the modules that the run's config.json names.
    """
    from AsyncPPO import evaluate_episodes
    from AsyncPPO.callbacks import Evaluation

    def played(run_dir: Path) -> "tuple[str, list[Episode]]":
        config, agent = agent_of(run_dir, best=best, trust_env_module=trust_env_module)
        settings: dict[str, Any] = {"seed": seed, "progress": not json} | config.run.evaluation_arguments()
        results = evaluate_episodes(agent, env_of(config.run), episodes, deterministic=not stochastic, **settings)
        return config.run.env_id, results

    how = "stochastic" if stochastic else "deterministic"
    if not (run_dir / CONFIG_FILE).is_file() and (seeds := _with_config(run_dir)):
        runs = {number: played(run_of(run_dir, number)) for number in seeds}
        evaluations = {number: Evaluation.of(0, results) for number, (_, results) in runs.items()}
        env_id = runs[seeds[0]][0]
        if json:
            print(to_json({"env_id": env_id, "seeds": {number: _figures(one) for number, one in evaluations.items()}}))
        else:
            _print_seeds(evaluations, env_id, how)
        return 0
    env_id, results = played(run_dir)
    evaluation = Evaluation.of(0, results)
    if json:
        print(to_json({"env_id": env_id, **_figures(evaluation), "returns": [episode.return_ for episode in results]}))
    else:
        print(
            f"{env_id}: mean {evaluation.mean:.2f} +- {evaluation.std:.2f}, min {evaluation.min:.2f}, "
            f"max {evaluation.max:.2f} over {episodes} {how} episodes{evaluation.in_words}"
        )
    return 0


def _figures(evaluation: "Evaluation") -> dict[str, float]:
    """Return the figures of an evaluation that belongs to no step of the training."""
    return {name: value for name, value in evaluation.figures().items() if name != "steps"}


def _with_config(directory: Path) -> list[int]:
    """Return the seeds in a directory of `train --seeds` that have begun; print those that have not."""
    begun = seeds_begun(directory)
    seeds = [seed for seed in begun if (run_of(directory, seed) / CONFIG_FILE).is_file()]
    if seeds != begun:
        missing = ", ".join(run_of(directory, seed).name for seed in begun if seed not in seeds)
        note(f"left out  {missing}: no {CONFIG_FILE} in it")
    return seeds


def _print_seeds(evaluations: "dict[int, Evaluation]", env_id: str, how: str) -> None:
    """Print a table of the evaluations of seeds, and a comparison."""
    print(f"{env_id}: {next(iter(evaluations.values())).episodes} {how} episodes of each seed")
    print("seed        mean         std         min         max")
    for number, one in evaluations.items():
        numbers = "".join(f"{value:12.2f}" for value in (one.mean, one.std, one.min, one.max))
        print(f"{number:<4}{numbers}{one.in_words}")
    print(over_seeds(np.array([one.mean for one in evaluations.values()])))


def record(
    run_dir: RunDir,
    out: Path | None = None,
    episodes: int = 1,
    best: bool = False,
    seed: int = PLAY_SEED,
    trust_env_module: bool = False,
) -> int:
    """Record episodes as a video.

    Args:
        run_dir: directory of a training run.
        out: the file, .mp4 or .gif; by default video.mp4 in the run's directory.
        episodes: number of episodes, one after the other.
        best: take the weights of the best evaluation during the training, not the last ones.
        seed: of the environment.
        trust_env_module: import the modules that the run's config.json names.
    """
    from parallel_rl.utils.video import Video

    out = out or run_dir / "video.mp4"
    if out.suffix not in {".mp4", ".gif"}:
        raise ValueError(f"out must end in .mp4 or .gif, not {out.name!r}")
    if not has_screen():
        os.environ.setdefault("MUJOCO_GL", "egl")  # before MuJoCo is imported, which would open a window
        os.environ.setdefault("SDL_VIDEODRIVER", NO_SCREEN)  # pygame would look for a screen, and print an error
    config, agent = agent_of(run_dir, best=best, trust_env_module=trust_env_module)
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        ended_by_signals(),
        rendering(config.run, "rgb_array") as env,
        Video(out, env.metadata.get("render_fps") or FPS) as video,
    ):
        show(agent, env, episodes, seed, lambda: video.add(_picture_of(env)))
    print(f"recorded  {out}")
    return 0


def watch(
    run_dir: RunDir, episodes: int = 5, best: bool = False, seed: int = PLAY_SEED, trust_env_module: bool = False
) -> int:
    """Show deterministic episodes in a window.

    Args:
        run_dir: directory of a training run.
        episodes: number of episodes.
        best: take the weights of the best evaluation during the training, not the last ones.
        seed: of the environment.
        trust_env_module: import the modules that the run's config.json names.
    """
    config, agent = agent_of(run_dir, best=best, trust_env_module=trust_env_module)
    if not has_screen():
        raise RuntimeError("there is no screen to watch on: record makes a video")
    with rendering(config.run, "human") as env:
        show(agent, env, episodes, seed)
    return 0


def export(run_dir: RunDir, out: Path | None = None, best: bool = False, trust_env_module: bool = False) -> int:
    """Write the deterministic policy as ONNX or as a torch.export program, and check that it acts as the agent does.

    Args:
        run_dir: directory of a training run.
        out: the file, .onnx or .pt2; by default policy.onnx in the run's directory.
        best: take the weights of the best evaluation during the training, not the last ones.
        trust_env_module: import the modules that the run's config.json names.
    """
    config, agent = agent_of(run_dir, best=best, trust_env_module=trust_env_module)
    export_policy = agent_kind(config.agent).export
    if export_policy is None:
        raise ValueError(f"the agent {config.agent!r} cannot be exported")
    out = out or run_dir / "policy.onnx"
    difference = export_policy(agent, out)
    print(f"exported  {out}: its actions differ from the agent's by at most {difference:.1g}")
    return 0


def rendering(run: RunConfig, mode: str) -> gym.Env:
    """Return the environment of a run, which renders in a mode of Gymnasium.

    Raises:
        ValueError: it cannot.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is not in the possible render_modes")  # some render nevertheless
        try:
            return factory_of(run, render_mode=mode)()
        except Exception as error:
            with factory_of(run)() as env:
                modes = env.metadata.get("render_modes") or []
            if mode in modes:
                raise
            raise ValueError(f"{run.env_id} cannot render {mode}: its render_modes are {modes}") from error


def has_screen() -> bool:
    """Return whether a window can be opened."""
    return sys.platform != "linux" or any(os.environ.get(name) not in (None, "", NO_SCREEN) for name in SCREENS)


def _picture_of(env: gym.Env) -> np.ndarray:
    """Return the image that an environment renders, in bytes and in a size that can be seen.

    Raises:
        EnvError: it fails, or renders no image.
    """
    try:
        frame = env.render()
    except NotImplementedError:  # that of `gymnasium.Env`
        raise EnvError("the environment cannot render: it has no method `render`") from None
    except Exception as error:
        raise EnvError.of(0, "render", error) from error
    if not isinstance(frame, np.ndarray):
        raise EnvError(f"the environment renders no images (render_mode='rgb_array') but {type(frame).__name__}")
    if frame.dtype.kind == "f" and frame.size and 0 <= frame.min() <= frame.max() <= 1:
        frame = (frame * 255).round().astype(np.uint8)
    factor = -(-LEAST_SIZE // max(min(frame.shape[:2], default=0), 1))
    return frame.repeat(factor, 0).repeat(factor, 1) if frame.ndim == 3 and factor > 1 else frame


def show(agent: "Agent", env: gym.Env, episodes: int, seed: int, look: Callable[[], object] = lambda: None) -> None:
    """Run deterministic episodes and print the return of each, and its success; call `look` after each reset and step.

    Without a time limit of the environment, an episode ends after `LONGEST_EPISODE` steps, as in an evaluation.

    Raises:
        ValueError: `episodes` is below 1, or `seed` is negative.
        EnvError: the environment failed.
    """
    counted("episodes", episodes)
    if seed < 0:
        raise ValueError(f"seed must not be negative, not {seed}")
    longest = None if env.spec and env.spec.max_episode_steps else LONGEST_EPISODE
    with Bar(unit="frame", desc="playing", leave=False) as bar:
        for episode in range(episodes):
            rewards, success = list[float](), math.nan
            for reward, info in islice(_steps(agent, env, episode, None if episode else seed), longest and longest + 1):
                look()
                rewards.append(reward)
                (success,) = numbers_in(0, info, [SUCCESS])
                bar.update()
            cut = f" in the first {longest:,} steps" if longest and len(rewards) > longest else ""
            success_in_words = "" if math.isnan(success) else ", success" if success else ", no success"
            bar.write(f"episode {episode + 1}: return {sum(rewards):.2f}{cut}{success_in_words}")


def _steps(agent: "Agent", env: gym.Env, episode: int, seed: int | None) -> Iterator[tuple[float, dict[str, Any]]]:
    """Run an episode; yield every reward and info, after the reset with a reward of 0.

    Raises:
        EnvError: the environment failed.
    """
    over, recurrent, env_ids = False, RecurrentState(agent, num_envs=1), np.array([0])
    try:
        obs, info = env.reset(seed=seed)
        yield 0.0, info
        while not over:
            action = recurrent.query(agent.get_action, obs, env_ids, deterministic=True)
            obs, reward, terminated, truncated, info = env.step(action)
            over = terminated or truncated
            yield float(reward), info
    except Exception as error:
        raise EnvError.of(0, f"episode {episode + 1}", error) from error
