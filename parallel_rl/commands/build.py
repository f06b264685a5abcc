"""From a run's config to its environments, its agent and its trainer."""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from AsyncPPO.callbacks import CHECKPOINT_DIRECTORY, checkpoints_in, steps_of
from AsyncPPO.checkpoint import SIGNATURE, read_checkpoint
from parallel_rl.agents import agent_kind
from parallel_rl.commands.run_directory import (
    BEST_DIRECTORY,
    CONFIG_FILE,
    config_of,
    load_newest,
    steps_saved,
)
from parallel_rl.commands.trust import check_trust, kwargs_of
from parallel_rl.config import RunConfig, TrainConfig

if TYPE_CHECKING:
    import gymnasium as gym

    from AsyncPPO import AsyncTrainer
    from AsyncPPO.backends import EnvFactory

    Wrap = Callable[[gym.Env], gym.Env]


def make_trainer(config: TrainConfig) -> "AsyncTrainer":
    """Make the environments, the agent and the trainer of a run.

    Raises:
        ValueError: a setting that does not fit the environment or the others; the message names it.
    """
    from AsyncPPO import AsyncTrainer

    run = config.run
    return AsyncTrainer(env_of(run, training=True), fresh_agent(config), run.num_envs, run.steps, **run.loop())


def fresh_agent(config: TrainConfig) -> Any:
    """Return an untrained agent.

    Raises:
        ValueError: a setting that does not fit the environment; the message names it.
    """
    from AsyncPPO.factory import sample_env

    with sample_env(factory_of(config.run)) as env:
        return agent_kind(config.agent).agent_class.for_env(env, seed=config.run.seed, **vars(config.settings))


def agent_of(run_dir: Path, *, best: bool = False, trust_env_module: bool = False) -> tuple[TrainConfig, Any]:
    """Return the config of a run, and the agent with the weights that it learned.

    Args:
        run_dir: of the run; for a killed run the newest checkpoint is loaded.
        best: load the weights of the best evaluation, not the last ones.
        trust_env_module: import the modules that the config names.

    Raises:
        FileNotFoundError: the directory is not a run's, or there are no weights.
        ValueError: they are damaged, or do not fit; or a module is named that is not to be imported.
    """
    config = config_of(run_dir)
    check_trust(config.run, run_dir / CONFIG_FILE, trust_env_module)
    agent = fresh_agent(config)
    if best:
        agent.load_weights(run_dir / BEST_DIRECTORY)
    else:
        load_latest(agent, config.agent, run_dir)
    return config, agent


def load_latest(agent: Any, name: str, directory: Path) -> None:
    """Load into an agent the newest weights in a directory, or those in the newest checkpoint of a killed run.

    Args:
        agent: the agent.
        name: its name in the registry.
        directory: of a run, or of weights.

    Raises:
        FileNotFoundError: there are none.
        ValueError: they are damaged, or do not fit.
    """
    checkpoints = checkpoints_in(directory / CHECKPOINT_DIRECTORY)
    saved = (directory / agent_kind(name).weights).exists()
    if checkpoints and (not saved or steps_of(checkpoints[-1]) > steps_saved(directory)):
        load_newest(partial(_load_networks, agent), checkpoints)
    else:
        agent.load_weights(directory)


def _load_networks(agent: Any, checkpoint: Path) -> None:
    """Load the networks of a checkpoint; into an agent that cannot load them alone, its whole state."""
    state = read_checkpoint(checkpoint)
    try:
        if hasattr(agent, "load_networks"):
            agent.load_networks(state["agent"], state.get(SIGNATURE))
        else:
            agent.load_state(state["agent"])
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from error


def env_of(run: RunConfig, *, training: bool = False) -> Any:
    """Return the environment of a run: a function that makes it, or an id for EnvPool.

    Raises:
        ValueError: an unknown environment, or settings that EnvPool does not support.
    """
    if run.backend != "vector":
        return factory_of(run, training=training)
    if run.action_masks or run.env_kwargs or run.wrapper or run.env_id.startswith("ALE/"):
        raise ValueError(
            "backend='vector' takes environments as they are: without env_kwargs, wrappers and action masks, and not "
            "ALE/..."
        )
    return run.env_id


def factory_of(run: RunConfig, *, training: bool = False, **kwargs: Any) -> "EnvFactory":
    """Return a function that makes the environment of a run; `training` adds the usual training wrappers of Atari.

    Raises:
        ValueError: an unknown environment, wrong arguments of it, or an unknown wrapper.
    """
    from AsyncPPO import ActionMasks, env_factory, make_atari

    wrappers = wrappers_of(run.wrapper) + ([ActionMasks] if run.action_masks else [])
    kwargs = kwargs_of(run) | kwargs
    if run.env_id.startswith("ALE/"):
        make: EnvFactory = partial(make_atari, run.env_id, training=training, **kwargs)
    else:
        make = env_factory(run.env_id, **kwargs)
    return (lambda: reduce(lambda env, wrap: wrap(env), wrappers, make())) if wrappers else make


def wrappers_of(names: Sequence[str]) -> list["Wrap"]:
    """Import wrappers: classes, or functions of an environment.

    Args:
        names: MODULE:CLASS of each.

    Raises:
        ValueError: one that is missing, or needs further arguments; the message names it.
    """
    wrappers = []
    for name in names:
        module, colon, attribute = name.partition(":")
        if not (module and colon and attribute):
            raise ValueError(f"a wrapper is MODULE:CLASS, not {name!r}")
        try:
            wrapper = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"no wrapper {name!r} ({error})") from None
        if not callable(wrapper):
            raise ValueError(f"the wrapper {name!r} is neither a class nor a function, but {wrapper!r}")
        _check_takes_env_alone(name, wrapper)
        wrappers.append(wrapper)
    return wrappers


def _check_takes_env_alone(name: str, wrapper: Callable[..., Any]) -> None:
    try:
        parameters = signature(wrapper)
    except ValueError:  # written in C: the call will show it
        return
    try:
        parameters.bind("env")
    except TypeError as error:
        raise ValueError(
            f"the wrapper {name!r} cannot be called with the environment alone ({error}): a function of your own that "
            "takes the environment and returns it wrapped can give it its arguments"
        ) from None
