"""From a run's config to its environments, its agent and its trainer."""

from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from AsyncPPO.agent import optional
from AsyncPPO.callbacks import CHECKPOINT_DIRECTORY, Callback, StopAfter, StopAtReturn, checkpoints_in, steps_of
from AsyncPPO.callbacks.base import HOOKS
from AsyncPPO.checkpoint import read_checkpoint
from parallel_rl.agents import agent_kind
from parallel_rl.commands.run_directory import (
    BEST_DIRECTORY,
    CONFIG_FILE,
    config_of,
    load_newest,
    steps_saved,
)
from parallel_rl.commands.trust import check_trust
from parallel_rl.commands.values import kwargs_of
from parallel_rl.config import RunConfig, TrainConfig
from parallel_rl.utils import ALONE, Cluster, bare_id, check_env_id, failure_of, imported, reason_of
from parallel_rl.utils.names import fault_of_call

if TYPE_CHECKING:
    import gymnasium as gym

    from AsyncPPO import AsyncTrainer
    from AsyncPPO.backends import EnvFactory


def make_trainer(config: TrainConfig, ranks: Cluster = ALONE, *, progress: bool = True) -> "AsyncTrainer":
    """Make the environments, the agent and the trainer of a run, with a progress bar or without.

    Raises:
        ValueError: a setting does not fit the environment or the other settings; the message names it.
    """
    from AsyncPPO import AsyncTrainer

    run = config.run
    env, agent = env_of(run, training=True), fresh_agent(config)
    return AsyncTrainer(env, agent, run.num_envs, run.steps, ranks=ranks, progress=progress, **run.trainer_arguments())


def fresh_agent(config: TrainConfig) -> Any:
    """Return an untrained agent.

    Raises:
        ValueError: a setting does not fit the environment; the message names it.
    """
    from AsyncPPO.factory import sample_env

    with sample_env(factory_of(config.run)) as env:
        if config.run.action_masks:
            _check_masks(config.run.env_id, env)
        return agent_kind(config.agent).agent_class.for_env(env, seed=config.run.seed, **vars(config.settings))


def _check_masks(env_id: str, env: "gym.Env") -> None:
    """Check that an environment provides action masks; it is reset, because its info may have them.

    Raises:
        ValueError: it does not.
    """
    from AsyncPPO.wrappers import ActionMaskError

    try:
        env.reset(seed=0)
    except ActionMaskError as error:
        raise ValueError(f"{env_id}: {error}") from None
    except Exception:  # another failure is for the run to report, or to restart
        return


def agent_of(
    run_dir: Path, *, best: bool = False, trust_env_module: bool = False, typed: RunConfig | None = None
) -> tuple[TrainConfig, Any]:
    """Return the config of a run, and its agent with the weights that it learned.

    Args:
        run_dir: the directory of the run; if the run was killed, its newest checkpoint is loaded.
        best: load the weights of the best evaluation, not the last ones.
        trust_env_module: import the modules that the config names.
        typed: the settings that were typed on the command line; their modules are trusted.

    Raises:
        FileNotFoundError: it is not the directory of a run, or has no weights.
        ValueError: the weights are damaged or do not fit, or the config names a module that is not trusted.
    """
    config = config_of(run_dir)
    check_trust(config.run, run_dir / CONFIG_FILE, trust_env_module, typed)
    of_gpu = getattr(config.settings, "device", "cpu") != "cpu"
    agent = fresh_agent(config.changed({"device": "auto"}) if of_gpu else config)  # there may be none here
    if best:
        if not (run_dir / BEST_DIRECTORY).exists():
            raise FileNotFoundError(f"{run_dir} has no best weights: it made no evaluation (--eval-every)")
        agent.load_weights(run_dir / BEST_DIRECTORY)
    else:
        load_latest(agent, config.agent, run_dir)
    return config, agent


def load_latest(agent: Any, name: str, directory: Path) -> None:
    """Load the newest weights in a directory into an agent; a killed run has them in its newest checkpoint.

    Args:
        agent: the agent.
        name: its name in the registry.
        directory: of a run, or of weights.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: the weights are damaged, or do not fit.
    """
    checkpoints = checkpoints_in(directory / CHECKPOINT_DIRECTORY)
    saved = (directory / agent_kind(name).weights).exists()
    if checkpoints and (not saved or steps_of(checkpoints[-1]) > steps_saved(directory)):
        load_newest(partial(_load_networks, agent), checkpoints)
    else:
        agent.load_weights(directory)


def load_start(agent: Any, config: TrainConfig) -> None:
    """Load the weights that a run starts from, if its config names some; the errors are those of `load_latest`."""
    if config.run.load_weights:
        load_latest(agent, config.agent, Path(config.run.load_weights))


def _load_networks(agent: Any, checkpoint: Path) -> None:
    """Load the networks of a checkpoint, or the whole state if the agent cannot load networks alone."""
    state = read_checkpoint(checkpoint)
    try:
        optional(agent, "load_networks")(state["agent"], state["signature"])
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from error


def env_of(run: RunConfig, *, training: bool = False) -> Any:
    """Return the environment of a run: a function that makes it, or an id for EnvPool.

    Raises:
        ValueError: the environment is unknown, or EnvPool does not support a setting.
    """
    if run.backend != "vector":
        return factory_of(run, training=training)
    if run.action_masks or run.env_kwargs or run.wrapper or is_atari(run.env_id):
        raise ValueError(
            "backend='vector' works only without env_kwargs, wrappers, action masks and ALE/... environments"
        )
    return run.env_id


def is_atari(env_id: str) -> bool:
    """Return whether an environment is a game of `ale-py`, which `make_atari` makes."""
    return bare_id(env_id).startswith("ALE/")


def factory_of(run: RunConfig, *, training: bool = False, **kwargs: Any) -> "EnvFactory":
    """Return a function that makes the environment of a run; `training` adds the usual training wrappers of Atari.

    Raises:
        ValueError: the environment or a wrapper is unknown, or an argument of the environment is wrong.
    """
    from AsyncPPO import ActionMasks, env_factory, make_atari

    wrappers = [_imported("wrapper", name, "env") for name in run.wrapper]
    wrappers += [ActionMasks] if run.action_masks else []
    kwargs = kwargs_of(run) | kwargs
    if is_atari(run.env_id):
        check_env_id(run.env_id)
        make: EnvFactory = partial(make_atari, run.env_id, training=training, **kwargs)
    else:
        make = env_factory(run.env_id, **kwargs)
    return (lambda: reduce(lambda env, wrap: wrap(env), wrappers, make())) if wrappers else make


def callbacks_of(run: RunConfig) -> list[Callback]:
    """Return the callbacks that a run names, MODULE:CLASS, made without arguments, and those that stop it.

    An error in a method of a named one names the callback.

    Raises:
        ValueError: one does not exist, cannot be made, or is not a `Callback`; the message names it.
    """
    callbacks = [_made(name) for name in run.callback]
    if run.max_seconds is not None:
        callbacks.append(StopAfter(run.max_seconds))
    if run.target_return is not None:
        callbacks.append(StopAtReturn(run.target_return))
    return callbacks


def _made(name: str) -> Callback:
    kind = _imported("callback", name)
    try:
        callback = kind()
    except Exception as error:
        raise ValueError(f"the callback {name!r} cannot be made: {reason_of(error)}") from error
    if not isinstance(callback, Callback):
        raise ValueError(f"the callback {name!r} made {callback!r}, which is not an AsyncPPO.callbacks.Callback")
    for hook in HOOKS:
        vars(callback)[hook] = partial(_call_hook, name, hook, getattr(callback, hook))
    return callback


def _call_hook(name: str, hook: str, method: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return method(*arguments)
    except Exception as error:
        raise RuntimeError(f"the callback {name} failed in {hook}: {failure_of(error)}") from error


def _imported(what: str, name: str, *arguments: Any) -> Any:
    """Import the class or function MODULE:CLASS, which is called with `arguments`; errors call it a `what`."""
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"a {what} is MODULE:CLASS, not {name!r}")
    try:
        home = imported(module)
    except ValueError as error:
        raise ValueError(f"no {what} {name!r}: {error}") from error
    try:
        found = getattr(home, attribute)
    except AttributeError as error:
        file = getattr(home, "__file__", None)  # it may be another module of that name
        raise ValueError(f"no {what} {name!r} ({error}{f', in {file}' if file else ''})") from None
    if not callable(found):
        raise ValueError(f"the {what} {name!r} is neither a class nor a function, but {found!r}")
    if fault := fault_of_call(found, *arguments):
        how = "with the environment alone" if arguments else "without arguments"
        raise ValueError(
            f"the {what} {name!r} cannot be made {how} ({fault}): name a function of your own that makes it with all "
            "its arguments"
        )
    return found
