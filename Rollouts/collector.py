"""Collects fragments with an actor and environments in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from AsyncPPO import EnvVectorizer
from parallel_rl.utils import episode_ends, global_streams_kept
from Rollouts.actor import Actor, call
from Rollouts.checks import actions_of, initial_hx
from Rollouts.fragment import Fragment, State, StepValues, cat
from Rollouts.nested import Nested, allocate, tree_map, unpack


class UnfinishedFragment:
    """The states of an unfinished fragment and the outcomes of its steps, as arrays, and the values of some steps."""

    def __init__(self, envs: EnvVectorizer, n_steps: int, first: State | None) -> None:
        """Allocate.

        Args:
            envs: B environments.
            n_steps: T.
            first: arrays `(B, ...)`, the first row. None in the first fragment: the first reset fills the row.
        """
        shape = 1 + n_steps, envs.num_envs
        self.tensors = State(
            stepno=torch.zeros(shape, dtype=torch.int64),
            obs=tree_map(torch.from_numpy, allocate(envs.single_observation_space, *shape)),
            act=tree_map(torch.from_numpy, allocate(envs.single_action_space, *shape)),
            rew=torch.zeros(shape),
            fin=torch.ones(shape, dtype=torch.bool),
        )
        self.state: Any = tree_map(Tensor.numpy, self.tensors)
        views = tree_map(lambda tensor: iter(tensor.split(1)), self.tensors)
        self.steps: list[State] = [tree_map(next, views) for _ in range(1 + n_steps)]
        self.terminated, self.truncated, self.valid = np.zeros((3, n_steps, envs.num_envs), np.bool_)
        self.infos = list[dict[str, Nested]]()
        """The actor's outputs, one for each step."""
        self.last_obs, self.look_aheads, self.first_hx = list[StepValues](), list[StepValues](), list[StepValues]()
        """As in a `Fragment`."""
        if first is not None:
            tree_map(lambda array, row: np.copyto(array[0], row), self.state, first)

    def last(self) -> State:
        """Return a copy of the last row."""
        return tree_map(lambda array: array[-1].copy(), self.state)

    def freeze(self, step: int, frozen: np.ndarray) -> None:
        """Repeat the last observation, action and flags of the environments `frozen` `(K,)`, which take no step."""
        for array in (self.terminated, self.truncated):
            array[step, frozen] = array[step - 1, frozen]
        for part in (self.state.obs, self.state.act):
            tree_map(lambda array: array.__setitem__((step + 1, frozen), array[step, frozen]), part)


class FragmentCollector:
    """Steps environments with an actor, and returns fragments."""

    def __init__(self, envs: EnvVectorizer, actor: Actor, n_steps: int, *, sticky: bool, device: torch.device) -> None:
        """Store the parts; the first fragment begins with a reset.

        Args:
            envs: B environments, with `autoreset`.
            actor: the actor.
            n_steps: T.
            sticky: whether a finished environment waits for the next fragment.
            device: of the actor.
        """
        self.envs, self.actor, self.n_steps, self.sticky, self.device = envs, actor, n_steps, sticky, device
        self._first: State | None = None
        self._hx: Nested = None

    @torch.no_grad()
    def collect(self) -> Fragment:
        """Take T steps of each environment.

        Raises:
            EnvError: an environment failed; `envs` is closed then.
            RuntimeError: the actor raised an error.
            TypeError, ValueError: it returned wrong values.
        """
        rows = UnfinishedFragment(self.envs, self.n_steps, self._first)
        if self._first is None:
            self._begin(rows)
        hx = tree_map(torch.clone, self._hx)
        for step in range(self.n_steps):
            self._step(rows, step)
        rows.infos.append(self._look_ahead(self._at(rows, self.n_steps), self._hx))
        self.envs.finished[:] = False
        self._first = rows.last()
        flags = {name: getattr(rows, name) for name in ("terminated", "truncated", "valid")}
        return Fragment(
            state=self._moved(rows.tensors),
            actor=cat(rows.infos),
            env=self._moved(tree_map(torch.from_numpy, flags)),
            hx=hx,
            last_obs=tuple(rows.last_obs),
            look_aheads=tuple(rows.look_aheads),
            first_hx=tuple(rows.first_hx),
        )

    def _begin(self, rows: UnfinishedFragment) -> None:
        """Start an episode in every environment."""
        obs, _ = self.envs.reset()
        _write(rows.state.obs, 0, unpack(self.envs.single_observation_space, obs))
        with streams_kept(self.device):
            self._hx = initial_hx(self.actor, self._at(rows, 0))

    def _step(self, rows: UnfinishedFragment, step: int) -> None:
        """Act once, step the environments that run, and reset the recurrent states where episodes ended."""
        envs = self.envs
        act, self._hx, info = call(self.actor, "step", *self._at(rows, step), hx=self._hx, virtual=False)
        rows.infos.append(info)
        tree_map(Tensor.copy_, rows.steps[step + 1].act, act)
        frozen = envs.finished.nonzero()[0]
        running: Any = slice(None)
        if len(frozen):
            rows.freeze(step, frozen)
            running = (~envs.finished).nonzero()[0]
        if len(frozen) < envs.num_envs:
            self._step_envs(rows, step, running)
        ended = rows.state.fin[step + 1].nonzero()[0]
        for env_id in ended.tolist():
            self._hx = call(self.actor, "reset", self._hx, env_id)
        if len(ended) and not self.sticky:
            first = tree_map(lambda tensor: tensor[:, ended], self._hx)
            rows.first_hx.append(StepValues(step, self._moved(torch.from_numpy(ended)), first))
        if self.sticky:
            envs.finished[:] = rows.state.fin[step + 1]

    def _step_envs(self, rows: UnfinishedFragment, step: int, running: Any) -> None:
        """Step the environments `running` with their actions in row `step + 1`, and store the outcomes there."""
        envs, state = self.envs, rows.state
        with actions_of(self.actor):
            obs, reward, terminated, truncated, _ = envs.step(tree_map(lambda a: a[step + 1][running], state.act))
        over = episode_ends(terminated, truncated)
        _write(state.obs, (step + 1, running), unpack(envs.single_observation_space, obs))
        state.rew[step + 1, running] = reward
        state.fin[step + 1, running] = over
        state.stepno[step + 1, running] = np.where(over, 0, state.stepno[step, running] + 1)
        rows.terminated[step, running], rows.truncated[step, running] = terminated, truncated
        rows.valid[step, running] = ~envs.failed[running]
        if over.any():
            self._keep_ends(rows, step, np.arange(envs.num_envs)[running][over])

    def _keep_ends(self, rows: UnfinishedFragment, step: int, ended: np.ndarray) -> None:
        """Store the last observation of each episode that ended, and of truncated ones the actor's outputs for it."""
        space, all_obs = self.envs.single_observation_space, self.envs.final_obs
        obs = self._moved(tree_map(_tensor, unpack(space, all_obs[ended])))
        rows.last_obs.append(StepValues(step, self._moved(torch.from_numpy(ended)), obs))
        truncated = ended[rows.truncated[step, ended] & ~rows.terminated[step, ended]]
        if not len(truncated):
            return
        state = tree_map(lambda array: array[step + 1, truncated], rows.state)._replace(
            stepno=rows.state.stepno[step, truncated] + 1,
            obs=unpack(space, all_obs[truncated]),
            fin=np.zeros(len(truncated), np.bool_),
        )
        state = self._moved(tree_map(lambda array: _tensor(array)[None], state))
        info = self._look_ahead(state, tree_map(lambda tensor: tensor[:, truncated], self._hx))
        values = tree_map(lambda tensor: tensor[0], info)
        rows.look_aheads.append(StepValues(step, self._moved(torch.from_numpy(truncated)), values))

    def _look_ahead(self, state: State, hx: Nested) -> dict[str, Nested]:
        """Return the actor's outputs for states `(1, K, ...)`, whose actions are not taken."""
        with streams_kept(self.device):
            return call(self.actor, "step", *state, hx=hx, virtual=True)[2]

    def _at(self, rows: UnfinishedFragment, step: int) -> State:
        """Return row `step` as input of the actor, `(1, B, ...)`."""
        return self._moved(rows.steps[step])

    def _moved(self, tree: Nested) -> Nested:
        """Move tensors to the device of the actor."""
        return tree if self.device.type == "cpu" else tree_map(lambda tensor: tensor.to(self.device), tree)


@contextmanager
def streams_kept(device: torch.device) -> Iterator[None]:
    """Restore, after the block, the random streams that an actor may use."""
    with global_streams_kept(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _write(arrays: Nested, at: Any, rows: Nested) -> None:
    """Write rows into arrays `(T, B, ...)`."""
    tree_map(lambda array, row: array.__setitem__(at, row), arrays, rows)
