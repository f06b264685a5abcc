"""Ids of environments: the packages that register them, and the reason why an environment cannot be made."""

import traceback
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, suppress
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from inspect import Parameter, signature
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

EXTRAS = {
    "mujoco": "mujoco",
    "gymnasium_robotics": "mujoco",
    "ale_py": "atari",
    "cv2": "atari",
    "minatar": "atari",
    "minigrid": "minigrid",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "optuna": "tune",
    "ray": "ray",
}
"""Optional packages, and the extra `parallel-rl[EXTRA]`, or file requirements-EXTRA.txt, that installs them."""
OF_GYMNASIUM = {"jax": "jax"}
"""Packages of environments of Gymnasium itself, and its extra `gymnasium[EXTRA]`."""
GAMES = ("ALE", "MinAtar")
"""The namespaces of packages that may not be installed."""
ROBOTICS = ("Fetch", "Hand", "Adroit", "AntMaze", "PointMaze", "FrankaKitchen")
"""The beginnings of the ids of Gymnasium-Robotics."""
MINIGRID = ("MiniGrid-", "BabyAI-")
"""The beginnings of the ids of MiniGrid."""


def is_vectorized(env: Any) -> bool:
    """Return whether `env` is a `VectorEnv`, or makes one: a callable with a parameter `num_envs` without default."""
    if isinstance(env, gym.vector.VectorEnv):
        return True
    try:
        number = signature(env).parameters.get("num_envs")
    except (TypeError, ValueError):  # not a callable, or one that is written in C
        return False
    return number is not None and number.default is Parameter.empty


@contextmanager
def opened(env: Any) -> Iterator[Any]:
    """Yield an environment, which is closed afterwards if this function made it.

    Args:
        env: a Gymnasium environment or vector environment, an `EnvVectorizer`, an environment's id, a callable that
            makes an environment, or a function of `num_envs` that makes a `VectorEnv`.

    Raises:
        TypeError: it is none of these, or has no spaces.
        ValueError: an unknown id, for which the message suggests the nearest known one.
        ImportError: a package that the environment needs is not installed.
    """
    if isinstance(env, str):
        make = partial(_made, env)
    elif callable(env):
        make = partial(env, num_envs=1) if is_vectorized(env) else env
    else:
        yield _with_spaces(env)
        return
    with closing(_with_spaces(make())) as one:
        yield one


def _made(env_id: str) -> gym.Env:
    check_env_id(env_id)
    try:
        return gym.make(env_id)
    except (ImportError, gym.error.DependencyNotInstalled) as error:
        raise ImportError(f"{env_id} cannot be made: {reason_of(error)}") from error


def _with_spaces(env: Any) -> Any:
    """Return an environment.

    Raises:
        TypeError: it is not an environment, or has no spaces.
    """
    if not (hasattr(env, "observation_space") or hasattr(env, "single_observation_space")):
        raise TypeError(f"env must be an environment with spaces, its id, or a callable that makes it, not {env!r}")
    return env


def spaces_in(env: Any) -> tuple[gym.Space, gym.Space]:
    """Return the observation space and the action space of one environment; `env` is as for `opened`."""
    with opened(env) as one:
        single = "single_" if hasattr(one, "single_observation_space") else ""
        return getattr(one, f"{single}observation_space"), getattr(one, f"{single}action_space")


def bare_id(env_id: str) -> str:
    """Return the id of an environment without the module before a colon, which `gymnasium.make` imports."""
    return env_id.rpartition(":")[2]


def register_games(env_id: str) -> None:
    """Register the games of MinAtar or Atari, or the robots of Gymnasium-Robotics, if `env_id` is one of them.

    MiniGrid registers itself where it is installed.

    Raises:
        ModuleNotFoundError: their package is not installed.
    """
    if env_id in gym.registry:
        return
    if env_id.startswith("MinAtar/"):
        from minatar.gym import register_envs

        register_envs()
    elif env_id.startswith("ALE/"):
        import ale_py

        gym.register_envs(ale_py)
    elif env_id.startswith(ROBOTICS):
        with redirect_stderr(StringIO()):  # it prints a paragraph about other robots
            import gymnasium_robotics

        gym.register_envs(gymnasium_robotics)
    elif env_id.startswith(MINIGRID):
        import minigrid  # noqa: F401  # a plugin of Gymnasium: it is registered if it is installed


def check_env_id(env_id: str) -> None:
    """Check that an environment is registered; the module before a colon is imported first.

    Raises:
        ValueError: it is not, or its package is not installed; the message suggests the nearest id.
    """
    module, colon, name = env_id.rpartition(":")
    brought = environments_of(module) if colon else []
    try:
        register_games(name)
        gym.spec(name)
    except ImportError as error:
        raise ValueError(f"no environment {env_id!r}: {reason_of(error)}") from None
    except gym.error.Error:
        near = _nearest(name, brought or registered()) or _in_games(name)
        unnamed = "" if colon else f"; if a module registers it, MODULE:{name} imports that"
        hint = f"; did you mean {module + colon + near!r}?" if near else unnamed
        raise ValueError(f"no environment {env_id!r}{hint}") from None


def registered() -> list[EnvSpec]:
    """Return the environments that are registered without importing a further module."""
    for game in ("ALE/Pong-v5", "MinAtar/Breakout-v1", "FetchReach-v4"):
        with suppress(ImportError):
            register_games(game)
    return [*gym.registry.values()]


def environments_of(module: str) -> list[EnvSpec]:
    """Import a module, and return its environments, even if they were registered before.

    Raises:
        ValueError: it is not found, or its code fails.
    """
    before = {*gym.registry}
    imported(module)
    return [spec for env_id, spec in gym.registry.items() if env_id not in before or _lies_in(spec, module)]


def imported(module: str) -> ModuleType:
    """Import a module of the user's.

    Raises:
        ValueError: it has no such name, is not found, or its code fails.
    """
    if not all(module.split(".")):  # for Python, a relative or an empty name
        raise ValueError(f"no module {module!r}: a module has a name such as my_environments, not a path")
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise ValueError(f"no module {module!r}: it is neither installed nor in the current directory") from None
        raise ValueError(f"the module {module!r} cannot be imported: {reason_of(error)}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"the module {module!r} cannot be imported: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """Return, in one line, why something could not be made: the package to install, or the error and its place."""
    first = next(iter(f"{error}".splitlines()), "").partition(", run `pip")[0]  # it may name another version
    for name in _missing_packages(error):
        if name in EXTRAS:
            extra = EXTRAS[name]
            return f"{first} (pip install 'parallel-rl[{extra}]', or -r requirements-{extra}.txt in a checkout)"
        if name in OF_GYMNASIUM:
            return f"{first} (pip install 'gymnasium[{OF_GYMNASIUM[name]}]')"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {first}{'' if isinstance(error, SyntaxError) else place}"


def failure_of(error: BaseException) -> str:
    """Return, in one line, an error of a function that was called where it is caught: its type, message and place.

    The place is the innermost line in the file of that function, which need not be where the error was raised.
    """
    first = next(iter(f"{error}".splitlines()), "")
    inside = traceback.extract_tb(error.__traceback__)[1:]
    own = [frame for frame in inside if frame.filename == inside[0].filename]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {first}{place}"


def _missing_packages(error: BaseException | None) -> Iterator[str]:
    """Yield the packages whose import failed, in an error and those that it follows from."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name is not None:
            yield error.name.partition(".")[0]
        error = error.__cause__ or error.__context__


def _nearest(name: str, known: Iterable[EnvSpec]) -> str | None:
    """Return the id with the nearest name; namespace and version do not count, except to choose between equal names."""
    by_name: dict[str, list[EnvSpec]] = {}
    for spec in known:
        by_name.setdefault(spec.name.lower(), []).append(spec)
    bare, _, version = name.rpartition("/")[2].lower().partition("-v")
    near = get_close_matches(bare, by_name, 1, 0.7)
    found = by_name[near[0]] if near else []
    best = max(found, key=lambda spec: (str(spec.version) == version, spec.version or 0), default=None)
    return best.id if best else None


def _in_games(name: str) -> str | None:
    """Return a name with the namespace of games that its own is near to: `MinAtar/Breakout-v1` for `minatar/...`."""
    namespace, _, rest = name.partition("/")
    known = {games.lower(): games for games in GAMES}
    near = get_close_matches(namespace.lower(), known, 1, 0.7)
    return f"{known[near[0]]}/{rest}" if near and rest else None


def _lies_in(spec: EnvSpec, module: str) -> bool:
    entry = spec.entry_point
    home = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    return f"{home}.".startswith(f"{module}.")
