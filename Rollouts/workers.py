"""Replicas of an actor in worker processes, which collect while the main process learns."""

import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import cloudpickle
import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from AsyncPPO import EnvError, EnvVectorizer
from AsyncPPO.backends import EnvFactory, OnEnvError
from AsyncPPO.factory import env_factories
from AsyncPPO.workers import Channel, Pulse, Supervisor, WorkerPool, WorkerSpec, choose_start_method
from parallel_rl.utils import env_seeds, restart_seed, seed_global_streams, spawn_seeds
from Rollouts.collector import FragmentCollector
from Rollouts.fragment import Fragment, cat
from Rollouts.nested import tree_map

CLOSE_SECONDS = 1.0
"""Seconds that workers may take to finish a step and close their environments before they are killed."""


class ActorFault(NamedTuple):
    """An error of the actor in a worker, for the main process to raise, and its cause."""

    error: Exception
    cause: BaseException | None

    @classmethod
    def of(cls, error: Exception) -> "ActorFault":
        """Return an error for another process, with the traceback of its cause as text."""
        cause = error.__cause__
        if cause is not None:
            trace = "".join(traceback.format_exception(cause))
            cause.add_note(f"in a worker:\n{trace}")
            try:
                cloudpickle.loads(cloudpickle.dumps(cause))
            except Exception:  # of a class that cannot be pickled
                cause = RuntimeError(trace)
        return cls(error, cause)


class RolloutWorker:
    """The context of a worker: a replica of the actor, and consecutive environments."""

    def __init__(
        self,
        channel: Channel,
        make_collector: Callable[[EnvVectorizer], FragmentCollector],
        factories: Sequence[EnvFactory],
        seeds: Sequence[int],
        actor_seed: int,
        on_env_error: OnEnvError,
        timed: bool,
    ) -> None:
        """Make the environments and the collector; `timed`: steps have a time limit."""
        if timed:
            pairs = zip(factories, channel.envs, strict=True)
            factories = [partial(Watched, factory, channel.pulse, env_id) for factory, env_id in pairs]
        actor_seed, *seeds = (restart_seed(seed, channel.restarts) for seed in (actor_seed, *seeds))
        seed_global_streams(actor_seed)
        self.first = channel.envs.start
        self.envs = EnvVectorizer(factories, backend="inline", seed=seeds, autoreset=True, on_env_error=on_env_error)
        self.collector = make_collector(self.envs)

    @torch.no_grad()
    def collect(self, weights: dict[str, np.ndarray], training: list[bool]) -> Any:
        """Collect a fragment; return its fields, as arrays, or an `ActorFault`.

        Args:
            weights: what `weights_of` returned.
            training: whether each module of the actor is in training mode.
        """
        actor: Any = self.collector.actor
        own = actor.state_dict()
        for name, array in weights.items():
            own[name].copy_(torch.from_numpy(array).view(own[name].dtype).reshape(own[name].shape))
        for module, mode in zip(actor.modules(), training, strict=True):
            module.training = mode
        try:
            return tree_map(_array, vars(self.collector.collect()))
        except EnvError as error:
            raise EnvError(_renumbered(str(error), self.first)) from None
        except ValueError as error:  # may name the environment of an invalid action
            return ActorFault(ValueError(_renumbered(str(error), self.first)), None)
        except (RuntimeError, TypeError) as error:
            return ActorFault.of(error)

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()


def lagged_feed(
    envs: Any,
    num_envs: int,
    num_workers: int,
    *,
    actor: Any,
    n_steps: int,
    sticky: bool,
    device: torch.device,
    seed: int | Sequence[int] | None,
    on_env_error: OnEnvError,
    step_timeout: float | None,
) -> Iterator[Fragment]:
    """Yield fragments while workers collect the next one; the arguments are those of `rollout`."""
    bounds = np.linspace(0, num_envs, min(num_workers, num_envs) + 1).astype(int).tolist()
    factories, seeds = env_factories(envs, num_envs), env_seeds(seed, num_envs)
    actor_seeds = spawn_seeds(seed if isinstance(seed, int | np.integer | None) else seed[0], num_envs + len(bounds))
    make_collector = partial(FragmentCollector, actor=actor, n_steps=n_steps, sticky=sticky, device=device)
    make_worker = partial(
        RolloutWorker, make_collector=make_collector, on_env_error=on_env_error, timed=step_timeout is not None
    )
    specs = [
        WorkerSpec(
            f"the worker of environments {first} to {stop - 1}",
            partial(make_worker, factories=factories[first:stop], seeds=seeds[first:stop], actor_seed=actor_seed),
            range(first, stop),
        )
        for (first, stop), actor_seed in zip(pairwise(bounds), actor_seeds[num_envs:], strict=False)
    ]
    with WorkerPool(
        specs,
        {"collect": RolloutWorker.collect},
        start_method="spawn" if device.type == "cuda" else choose_start_method("auto")[0],
        timeout=step_timeout,
        close_timeout=CLOSE_SECONDS,
        supervisor=Supervisor() if on_env_error == "restart" else None,  # a new process begins its fragment again
        error=EnvError,
    ) as pool:

        def begin() -> None:
            pool.begin(pool.job("collect", weights_of(actor), [module.training for module in actor.modules()]))

        begin()
        lag = 0
        while True:
            results = pool.wait()
            blocks = [results[number] for number in sorted(results)]
            for block in blocks:
                if isinstance(block, ActorFault):
                    raise block.error from block.cause
            begin()
            yield _joined(blocks, bounds, device, lag)
            lag = 1


def _joined(blocks: list[dict[str, Any]], firsts: list[int], device: torch.device, lag: int) -> Fragment:
    """Join the fragments of the workers, given their fields."""
    blocks = [tree_map(partial(_tensor, device=device), block) for block in blocks]
    columns = cat([{name: block[name] for name in ("state", "actor", "env", "hx")} for block in blocks], 1)
    entries: dict[str, Any] = {
        name: tuple(
            entry._replace(envs=entry.envs + first)
            for block, first in zip(blocks, firsts, strict=False)
            for entry in block[name]
        )
        for name in ("last_obs", "look_aheads", "first_hx")
    }
    return Fragment(**columns, **entries, lag=lag)


def weights_of(module: nn.Module) -> dict[str, np.ndarray]:
    """Return the bytes of the tensors in a module's `state_dict`: NumPy lacks some of torch's types."""
    tensors = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    return {name: tensor.cpu().reshape(-1).contiguous().view(torch.uint8).numpy() for name, tensor in tensors.items()}


def _array(leaf: Any) -> Any:
    return leaf.numpy(force=True) if isinstance(leaf, Tensor) else leaf


def _tensor(leaf: Any, device: torch.device) -> Any:
    return torch.from_numpy(leaf).to(device) if isinstance(leaf, np.ndarray) else leaf


def _renumbered(message: str, first: int) -> str:
    """Return the error of a worker, with environments numbered among all, not among the worker's own."""
    return re.sub(r"\benvironment (\d+)", lambda match: f"environment {int(match[1]) + first}", message)


class Watched(gym.Wrapper):
    """Reports to the parent when an environment begins a reset or step."""

    def __init__(self, factory: EnvFactory, pulse: Pulse, env_id: int) -> None:
        super().__init__(factory())
        self._pulse, self._env_id = pulse, env_id

    def reset(self, **options: Any) -> Any:
        """Reset."""
        self._pulse.beat(self._env_id)
        return self.env.reset(**options)

    def step(self, action: Any) -> Any:
        """Step."""
        self._pulse.beat(self._env_id)
        return self.env.step(action)
