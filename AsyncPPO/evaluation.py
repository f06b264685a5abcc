"""Evaluation: whole episodes of an actor, and their returns."""

import warnings
from collections.abc import Sequence
from itertools import count
from typing import Any, Unpack

import numpy as np
from gymnasium.vector import VectorEnv

from AsyncPPO.agent import Actor
from AsyncPPO.backends import RESTART_LIMIT, EnvError, with_success
from AsyncPPO.episodes import Episode, Episodes
from AsyncPPO.factory import number_of_copies
from AsyncPPO.progress import Bar
from AsyncPPO.recurrent import RecurrentState
from AsyncPPO.settings import EnvSettings
from AsyncPPO.vectorizer import EnvVectorizer
from parallel_rl.utils import counted, episode_ends
from parallel_rl.utils.names import check_names

DEFAULT_NUM_ENVS = 100
LONGEST_EPISODE = 10_000
"""Steps after which an episode is truncated if the environment has no time limit."""


class EvaluationSettings(EnvSettings, total=False):
    """Keyword arguments of `evaluate_episodes`."""

    deterministic: bool
    num_envs: int | None
    info_keys: Sequence[str]
    max_steps: int | None
    progress: bool


def evaluate(actor: Actor, env: Any, episodes: int = 100, **settings: Unpack[EvaluationSettings]) -> np.ndarray:
    """Roll out whole episodes and return their undiscounted returns `(episodes,)`.

    Args:
        actor: anything with `get_action`.
        env: anything that `EnvVectorizer` takes.
        episodes: how many.
        settings: further arguments of `evaluate_episodes`.

    Raises:
        ValueError, TypeError, EnvError: as `evaluate_episodes`.
    """
    return np.array([episode.return_ for episode in evaluate_episodes(actor, env, episodes, **settings)])


def evaluate_episodes(
    actor: Actor,
    env: Any,
    episodes: int = 100,
    *,
    deterministic: bool = True,
    num_envs: int | None = None,
    info_keys: Sequence[str] = (),
    max_steps: int | None = None,
    progress: bool = False,
    **settings: Unpack[EnvSettings],
) -> list[Episode]:
    """Roll out whole episodes and return them.

    Each environment finishes every episode that it begins; otherwise short episodes would be counted too often.

    Args:
        actor: anything with `get_action`.
        env: anything that `EnvVectorizer` takes.
        episodes: how many.
        deterministic: whether the actor acts deterministically, or samples.
        num_envs: the largest number of parallel environments; by default 100, or the length of the list `env`.
        info_keys: numbers of last infos to keep in `Episode.infos`, in addition to `is_success`.
        max_steps: length after which an episode is truncated. By default 10,000, with a warning, if the environment
            has no time limit.
        progress: whether to show a progress bar.
        settings: of the `EnvVectorizer`; with `on_env_error="restart"` a failed episode is repeated.

    Raises:
        ValueError: `episodes` or `max_steps` is below 1.
        TypeError: the actor has no `get_action`, or an argument is unknown.
        EnvError: an environment failed or hung; with `restart`, all of them failed repeatedly.
    """
    episodes = counted("episodes", episodes)
    max_steps = max_steps if max_steps is None else counted("max_steps", max_steps)
    _check(actor, settings)
    num_envs = number_of_copies(env, num_envs, DEFAULT_NUM_ENVS)
    env, num_envs, settings["seed"] = _at_most(episodes, env, num_envs, settings.get("seed"))
    keys = with_success(info_keys)
    done, failures, truncated = list[Episode](), 0, 0
    with (
        EnvVectorizer(env, num_envs, **settings) as envs,
        Bar(total=episodes, unit="episode", desc="evaluating", disable=not progress) as bar,
    ):
        limited = max_steps is not None or bool(envs.spec and envs.spec.max_episode_steps)
        max_steps = max_steps if limited else LONGEST_EPISODE
        while len(done) < episodes:
            news, unended = _roll_out(envs, actor, episodes - len(done), deterministic, max_steps, keys, bar)
            failures = 0 if news else failures + 1
            if failures > RESTART_LIMIT:
                raise EnvError(f"no episode was finished in {RESTART_LIMIT} rounds: every environment failed")
            done += news
            truncated += unended
    if truncated and not limited:
        _warn_of_truncation(truncated, episodes)
    return done


def _warn_of_truncation(truncated: int, episodes: int) -> None:
    warnings.warn(
        f"{truncated} of {episodes} episodes were truncated after {LONGEST_EPISODE:,} steps, as the environment has no "
        "time limit: max_episode_steps=200 as an argument of gymnasium.make sets one (on the command line "
        "--env-kwargs max_episode_steps=200)",
        RuntimeWarning,
        stacklevel=3,
    )


def _check(actor: Any, settings: EnvSettings) -> None:
    check_names(settings, EnvSettings.__annotations__, [*EvaluationSettings.__annotations__, "episodes"], by="evaluate")
    if isinstance(actor, type) or not hasattr(actor, "get_action"):
        raise TypeError(f"the actor must be an object with the method `get_action`, not {actor!r}")


def _at_most(episodes: int, env: Any, num_envs: int, seed: Any) -> tuple[Any, int, Any]:
    """Return at most as many environments as episodes, their number, and their seed or seeds."""
    count = num_envs if isinstance(env, VectorEnv) else min(num_envs, episodes)
    if not isinstance(seed, int | np.integer | None) and len(seed) == num_envs:
        seed = seed[:count]
    return env[:count] if isinstance(env, list | tuple) else env, count, seed


def _roll_out(
    envs: EnvVectorizer,
    actor: Actor,
    episodes: int,
    deterministic: bool,
    max_steps: int | None,
    keys: Sequence[str],
    bar: Bar,
) -> tuple[list[Episode], int]:
    """Roll out one episode in each environment, `episodes` at most.

    Returns:
        The episodes that did not fail, and the number of those truncated at `max_steps`.
    """
    sums, ended = Episodes(envs.num_envs, keys), dict[int, Episode]()
    recurrent = RecurrentState(actor, envs.num_envs)
    obs = envs.reset()[0][:episodes]
    envs.finished[episodes:] = True
    for step in count(1):
        env_ids = np.flatnonzero(~envs.finished)
        action = recurrent.query(actor.get_action, obs, env_ids, deterministic=deterministic)
        obs, reward, terminated, truncated, infos = envs.step(action)
        unended, failed = ~episode_ends(terminated, truncated), envs.failed[env_ids]
        over = ~unended | (step == max_steps)
        news = sums.count_step(env_ids, reward, over, failed, infos, autoreset=False)
        ended |= zip(env_ids[over & ~failed].tolist(), news, strict=True)
        bar.update(len(news))
        obs, envs.finished[env_ids] = obs[~over], over
        if envs.finished.all():
            break
    return [ended[index] for index in sorted(ended)], int(np.count_nonzero(unended))


def __getattr__(name: str) -> Any:
    """Return `BackgroundEvaluation`, which older code imports from here."""
    if name == "BackgroundEvaluation":
        from AsyncPPO.callbacks import BackgroundEvaluation

        return BackgroundEvaluation
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
