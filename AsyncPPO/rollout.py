"""Actor x environments -> experience."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Protocol, TypeVar

import numpy as np

from AsyncPPO.backends import SUCCESS, Replica
from AsyncPPO.episodes import Episode, Episodes, last_numbers
from AsyncPPO.memory import VecMemory
from AsyncPPO.vectorizer import EnvVectorizer
from parallel_rl.utils import (
    State,
    check_like,
    episode_ends,
    inactive_states_dropout,
    indexes_of_active_environments,
    true_next_obs,
    update_active_environments_list,
)

Result = TypeVar("Result")
Answer = tuple[np.ndarray, dict[str, np.ndarray]]
"""Of `Actor.act`."""
StepResult = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]
"""Of `EnvVectorizer.step`."""


class Actor(Protocol):
    """Whatever plays: `PPO` is one."""

    def act(self, states: np.ndarray) -> Answer:
        """Return an action for each of the states `(n, ...)`, and by name further rows to remember with it."""

    def get_action(self, states: np.ndarray, *, deterministic: bool = False) -> np.ndarray:
        """Return an action for each of the states."""


class Memories:
    """What an actor remembers of each of N environments, if it remembers anything: what its `initial_core` says."""

    def __init__(self, actor: Actor, num_envs: int) -> None:
        """Remember nothing yet."""
        initial = getattr(actor, "initial_core", None)
        self._core: np.ndarray | None = None if initial is None else initial(num_envs)
        self._keeps_noise: bool = getattr(actor, "use_sde", False)

    def ask(self, method: Callable[..., Result], obs: np.ndarray, env_ids: np.ndarray, **options: Any) -> Result:
        """Call `act` or `get_action` of the actor about environments `env_ids` `(n,)`."""
        if self._keeps_noise:
            options["env_ids"] = env_ids
        if self._core is None:
            return method(obs, **options)
        core = self._core[env_ids]
        answer = method(obs, core=core, **options)
        self._core[env_ids] = core
        return answer

    def state(self) -> np.ndarray | None:
        """Return what is remembered `(N, S)`, if anything."""
        return None if self._core is None else self._core.copy()

    def load_state(self, state: np.ndarray | None) -> None:
        """Take over what `state` was.

        Raises:
            ValueError: the actor remembers something else.
        """
        if self._core is not None:
            check_like(state, self._core, "memories")
            self._core = state

    def forget(self, env_ids: np.ndarray) -> None:
        """Start anew for some environments."""
        if self._core is not None:
            self._core[env_ids] = 0.0


class ReplicableActor(Actor, Protocol):
    """An actor whose copies can act in other processes: `PPO` is one, where its networks are small."""

    def replica(self) -> Replica | None:
        """Return such a copy, without its weights."""

    def replica_weights(self) -> np.ndarray:
        """Return the present weights `(P,)` of the copies."""

    def noise(self, *shape: int) -> np.ndarray:
        """Return the random numbers `(*shape, A)` that actions for `shape` states take."""


class Collector:
    """Plays an actor in environments, one vector step at a time, and keeps what they live through.

    With an `autoreset` vectorizer all environments run for ever; otherwise each plays its episode to the end and the
    next ones start together.
    """

    def __init__(
        self, env: EnvVectorizer, actor: Actor, buffer: VecMemory, info_keys: Sequence[str] = (SUCCESS,)
    ) -> None:
        """Keep the parts; the first step resets the environments.

        Args:
            env: what is stepped.
            actor: who is asked.
            buffer: where the steps are kept.
            info_keys: which numbers of the last infos of episodes are kept.
        """
        self.env, self.actor, self.buffer, self.info_keys = env, actor, buffer, info_keys
        self._episodes = Episodes(env.num_envs, info_keys)
        self._memories = Memories(actor, env.num_envs)

    def state(self) -> State:
        """Return the environments as they are, and what is known of the episodes that have begun in them."""
        return {"env": self.env.state(), "episodes": self._episodes.state(), "core": self._memories.state()}

    def load_state(self, state: State, buffer: State) -> None:
        """Take over what `state` and that of the buffer were; new episodes begin where environments cannot go on.

        Raises:
            ValueError: they are of something else; then only the buffer may be changed.
            EnvError: as for `EnvVectorizer.load_state`.
        """
        episodes = Episodes(self.env.num_envs, self.info_keys)
        memories = Memories(self.actor, self.env.num_envs)
        episodes.load_state(state["episodes"])
        memories.load_state(state["core"])
        self.buffer.load_state(buffer)
        obs = self.env.load_state(state["env"])
        if obs is None:
            self.buffer.truncate(np.arange(self.env.num_envs))
            return
        self._obs, self._episodes, self._memories = obs, episodes, memories

    def collect(self, steps: int) -> tuple[int, list[Episode]]:
        """Step every running environment at most `steps` times: once.

        Returns:
            How many steps the environments took together, and the episodes that ended.
        """
        self._begin()
        env = self.env
        env_ids = indexes_of_active_environments(env.finished)
        answer = self._memories.ask(self.actor.act, self._obs, env_ids)
        result = env.step(answer[0])
        taken, episodes = self._keep(env_ids, self._obs, answer, result)
        self._obs, _, terminated, truncated, _ = result
        if not env.autoreset:
            over = episode_ends(terminated, truncated)
            self._obs = inactive_states_dropout(self._obs, over)
            update_active_environments_list(env.finished, over)
        return taken, episodes

    def _begin(self) -> None:
        """Start episodes where none runs."""
        if self.env.finished.all():
            self._obs, _ = self.env.reset()
            self._episodes.restart()
            self._memories.forget(np.arange(self.env.num_envs))

    def _keep(
        self, env_ids: np.ndarray, obs: np.ndarray, answer: Answer, result: StepResult
    ) -> tuple[int, list[Episode]]:
        """Keep what some environments lived through in a step; see `collect`."""
        (action, extras), (next_obs, reward, terminated, truncated, infos) = answer, result
        over = episode_ends(terminated, truncated)
        if self.env.autoreset:
            next_obs = true_next_obs(next_obs, over, self.env.final_obs[env_ids[over]])
        rows = {
            "obs": obs,
            "action": action,
            "reward": reward,
            "terminated": terminated,
            "truncated": truncated,
            "next_obs": next_obs,
            **extras,
        }
        failed = self.env.failed[env_ids]
        if failed.any():
            self.buffer.truncate(env_ids[failed])
            rows = {name: values[~failed] for name, values in rows.items()}
        self.buffer.append(env_ids[~failed], **rows)
        self._memories.forget(env_ids[over])
        numbers = last_numbers(env_ids, infos, over, self.info_keys, self.env.autoreset)
        numbers = None if numbers is None else numbers[None]
        return int(np.count_nonzero(~failed)), self._episodes.count(env_ids, reward[None], over[None], numbers)


class AlternatingCollector(Collector):
    """Steps one half of the environments while the actor answers the other (Stooke and Abbeel 2018, arXiv:1803.02811).

    The actor is asked about the same states in the same order, however long either takes.
    """

    def collect(self, steps: int) -> tuple[int, list[Episode]]:
        """Step every environment `steps` times; see `Collector.collect`."""
        self._begin()
        halves = [np.arange(start, self.env.num_envs, 2) for start in (0, 1)]  # so that workers have parts of both
        results = []
        stepping: list[tuple[np.ndarray, np.ndarray, Answer]] = []
        try:
            for half in halves * steps:
                obs = self._obs[half]
                answer = self._memories.ask(self.actor.act, obs, half)
                results += [self._receive(*other) for other in stepping]
                self.env.send(answer[0], half)
                stepping = [(half, obs, answer)]
            results += [self._receive(*other) for other in stepping]
        except BaseException:  # one half is in the middle of a step
            self.env.close()
            raise
        taken, episodes = zip(*results, strict=True)
        return sum(taken), [*chain(*episodes)]

    def _receive(self, half: np.ndarray, obs: np.ndarray, answer: Answer) -> tuple[int, list[Episode]]:
        """Wait for the half that steps, and keep what it lived through."""
        result = self.env.recv()[:5]
        self._obs[half] = result[0]
        return self._keep(half, obs, answer, result)


class ReplicaCollector:
    """Has copies of an actor play where the environments are; without a message until a trajectory is full."""

    def __init__(self, env: EnvVectorizer, actor: ReplicableActor, buffer: VecMemory) -> None:
        """Keep the parts; the first step resets the environments.

        Args:
            env: with `autoreset` and a plan.
            actor: whose replica the plan has.
            buffer: over the rows of the vectorizer's rollout.
        """
        assert env.rollout is not None
        self.env, self.actor, self.buffer, self.rollout = env, actor, buffer, env.rollout
        self._episodes = Episodes(env.num_envs, env.rollout.info_keys)
        self._player = env.rollout.replica.player(env.rollout.weights)

    def state(self) -> State:
        """See `Collector.state`."""
        return {"env": self.env.state(), "episodes": self._episodes.state(), "core": None}

    def load_state(self, state: State, buffer: State) -> None:
        """See `Collector.load_state`."""
        episodes = Episodes(self.env.num_envs, self.rollout.info_keys)
        episodes.load_state(state["episodes"])
        self.buffer.load_state(buffer)
        if self.env.load_state(state["env"]) is None:
            self.buffer.truncate(np.arange(self.env.num_envs))
        else:
            self._episodes = episodes

    def collect(self, steps: int) -> tuple[int, list[Episode]]:
        """Step every environment `steps` times; see `Collector.collect`."""
        env, rollout = self.env, self.rollout
        if env.finished.all():
            env.reset()
            self._episodes.restart()
        start = int(self.buffer.lengths[0])
        new = slice(start, start + steps)
        if new.stop > len(rollout.noise):
            raise ValueError(
                f"there is room for {len(rollout.noise)} steps of each environment, not for {new.stop}: "
                "was batch_size raised later?"
            )
        rollout.weights[:] = self.actor.replica_weights()
        rollout.noise[new] = self.actor.noise(steps, env.num_envs)
        next_obs = env.play(new.start, new.stop)
        rows = {name: values[new] for name, values in rollout.rows.items()}
        for name, values in self._player.complete(rows, rollout.outputs[new]).items():
            rows[name][:] = values
        self.buffer.truncate(np.flatnonzero(rollout.anew))
        self.buffer.extend(steps, next_obs)
        self._episodes.restart(rollout.anew)
        rollout.anew[:] = False
        reward, terminated, truncated = (rows[name] for name in ("reward", "terminated", "truncated"))
        over, infos = episode_ends(terminated, truncated), rollout.infos[new]
        return reward.size, self._episodes.count(np.arange(env.num_envs), reward, over, infos)
