"""OffPolicy: the base of DQN, DDPG, TD3 and SAC: replay, the schedule of updates, saving and loading."""

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces

from OffPolicy.config import ForEnv, OffPolicyConfig
from OffPolicy.graphs import Graphs
from OffPolicy.her import GoalFunctions
from OffPolicy.learner import ONE, Learner, Outputs, Rate, WeightedRanks, read_means
from OffPolicy.policy import Policy
from OffPolicy.replay import Replay, Transitions
from OffPolicy.sampler import Sampler, shares
from OffPolicy.schedule import UpdateSchedule
from OffPolicy.sharing import Sharing
from parallel_rl.networks import found_device
from parallel_rl.utils import (
    ALONE,
    MadeWith,
    Metrics,
    Ranks,
    Trajectory,
    describe_space,
    opened,
    own_stream,
    scheduled,
    spaces_in,
)
from parallel_rl.utils.names import takes_no_environment
from parallel_rl.utils.settings import checked_seed
from parallel_rl.utils.threads import LARGE_NETWORK, torch_threads

ROWS_AT_ONCE = 2**14
"""The largest number of rows that are sampled at once, for several updates."""


class OffPolicyAgent(Sharing, ABC):
    """Learns from a replay buffer, `utd` times for each environment step.

    It touches no environment, no process and no global random state.
    """

    arguments = frozenset({"observation_space", "action_space", "goal_functions", "seed"})
    config_class: ClassVar[type[OffPolicyConfig]]
    learns_on_ranks = True
    progress = 0.0
    """The fraction of the run that was over at the last update, from 0 to 1."""
    compiled_update: Callable[..., Outputs] | None = None
    """`make_update` for a CPU, compiled; None if it is not."""

    @takes_no_environment
    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        config: OffPolicyConfig | None = None,
        *,
        goal_functions: GoalFunctions | None = None,
        seed: int | None = None,
        **settings: Any,
    ) -> None:
        """Make the agent.

        Args:
            observation_space: of one environment.
            action_space: of one environment.
            config: all settings; by default the defaults of the class.
            goal_functions: of a goal-conditioned environment, for hindsight; `for_env` passes them.
            seed: of the initial weights, of exploration and of minibatches; None takes fresh entropy.
            settings: fields of the config, in place of `config`.

        Raises:
            TypeError: a setting is unknown, or `config` is not the only one, or a space is not supported.
            ValueError: a setting or the seed is out of its range.
        """
        config = self.config_class.of(config, settings, by=type(self).__name__)
        self.config = replace(config, device=found_device(config.device))
        self.observation_space, self.action_space = observation_space, action_space
        self.goal_functions, self.seed = goal_functions, checked_seed(seed)
        self.rng = np.random.default_rng(self.seed)
        self.replay = Replay(self.buffer_size, observation_space, action_space)
        self.sampler = Sampler(self.replay, self.config, goal_functions, self.rng)
        self.steps, self.updates, self.schedule = 0, 0, UpdateSchedule()
        self._graphs = Graphs(self.make_update)
        self._acted = 0  # actions whose transitions have not been observed yet
        self.policy, self.learners = self._make_networks(torch.Generator().manual_seed(int(self.rng.integers(2**63))))
        parameters = max(len(learner.vector) for learner in self.learners.values())
        self.threads = 1 if parameters < LARGE_NETWORK else None

    def make_for_env(cls: Any, env: Any, **options: Any) -> Any:
        """Make an agent for an environment.

        Args:
            env: a Gymnasium environment or vector environment, an `EnvVectorizer`, a callable or function of `num_envs`
                that makes one, or an environment's id.
            options: further arguments of the constructor, such as settings.

        Raises:
            TypeError, ValueError: as the constructor does.
        """
        settings = {name: value for name, value in options.items() if name not in cls.arguments}
        config = cls.config_class.of(settings.pop("config", None), settings, by=cls.__name__)
        with opened(env) as one:
            if config.hindsight != "none" and options.get("goal_functions") is None:
                options["goal_functions"] = GoalFunctions.of(one)
            return cls(*spaces_in(one), **options)

    for_env = MadeWith(ForEnv)(make_for_env)

    def take_share(self, own: slice, total: int) -> None:
        """Make room for the transitions of the environments `own` of `total`: this rank's part of the replay buffer.

        Transitions of another number of environments are dropped, with a warning.

        Raises:
            ValueError: it does not fit into the machine's memory.
        """
        envs = own.stop - own.start
        if len(self.replay) and envs != self.replay.num_envs:
            self.forget_environments()
        if not len(self.replay):
            self.replay.capacity = self.buffer_size // total * envs
            self.replay.make_rings(envs)

    @abstractmethod
    def _make_networks(self, generator: torch.Generator) -> tuple[Policy, dict[str, Learner]]:
        """Return the policy, and the networks that learn, by name."""

    @abstractmethod
    def explore(self, rows: np.ndarray, noise: np.ndarray, state: np.ndarray | None) -> np.ndarray:
        """Return the actions of the behavior policy for rows of observations `(n, width)`.

        `noise` `(n, K)` has random numbers from `exploration_noise`; `state` is what `act` got.
        """

    @abstractmethod
    def exploration_noise(self, count: int) -> np.ndarray:
        """Return the random numbers `(count, K)` for the next actions of the behavior policy in some environments."""

    @abstractmethod
    def make_update(
        self, batch: Transitions, noise: torch.Tensor, lr: Rate, ranks: WeightedRanks, delayed: bool
    ) -> Outputs:
        """Make one update. It reads no number from the device, so that a GPU can replay it as a graph.

        Args:
            batch: this rank's rows.
            noise: what `update_noise` returned.
            lr: the learning rate.
            ranks: those that update together.
            delayed: whether to include the delayed parts.

        Returns:
            Metrics `()` by name, and the TD errors `(B,)`.
        """

    def update_noise(self, count: int) -> np.ndarray:
        """Return the standard normal numbers that an update with `count` rows needs, float32; by default none."""
        return np.empty(0, np.float32)

    def is_delayed_update(self) -> bool:
        """Return whether the next update includes the delayed parts: TD3's actor, DQN's target; by default none is."""
        return False

    def learn_from(self, batch: Transitions, ranks: WeightedRanks = ONE) -> Outputs:
        """Make one update; return metrics `()` and the TD errors `(B,)` of this rank's rows."""
        noise, delayed = torch.from_numpy(self.update_noise(len(batch.obs))).to(self.device), self.is_delayed_update()
        if ranks.ranks.world_size > 1:
            return self.make_update(batch, noise, self.current_lr, ranks, delayed)
        if noise.is_cuda:
            return self._graphs.replay(self.config, delayed, batch, noise, self.current_lr, ranks)
        if self.compiled_update is not None:
            return self.compiled_update(batch, noise, torch.tensor(self.current_lr), ranks, delayed)
        return self.make_update(batch, noise, self.current_lr, ranks, delayed)

    def act(
        self, obs: Any, /, *, state: np.ndarray | None = None, noise: np.ndarray | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return actions of the behavior policy, with exploration, and an empty dict of further rows.

        Args:
            obs: `(n, ...)`, or a single observation; then there is a single action, too.
            state: of the exploration `(n, S)`, updated in place; only if `initial_state` returns one.
            noise: their rows of what `noise` returned, `(n, K)`; by default new random numbers.

        Raises:
            ValueError: as `get_action`, but not for NaN where actions are random, before `learning_starts`.
        """
        rows, single = self.policy.features.rows(obs)
        actions = self.explore(rows, self.noise(len(rows)) if noise is None else noise, state)
        return actions[0] if single else actions, {}

    def noise(self, num_envs: int) -> np.ndarray:
        """Return the random numbers `(num_envs, K)` for the next actions in all environments, and count the actions."""
        self._acted += num_envs
        return self.exploration_noise(num_envs)

    def get_action(self, obs: Any, /, *, deterministic: bool = False, state: np.ndarray | None = None) -> Any:
        """Return the policy's action for each observation `(n, ...)`, or for a single one, without exploration.

        Args:
            obs: of one or more environments.
            deterministic: whether a stochastic policy returns its median action.
            state: not used, since only exploration can have a state.

        Raises:
            ValueError: the observations have another size, or are NaN, or the weights are, or a mask allows no action.
        """
        return self.policy.get_action(obs, deterministic=deterministic)

    def initial_state(self, num_envs: int, /) -> np.ndarray | None:
        """Return the state `(num_envs, S)` of the exploration at the start of an episode; None if it has none."""

    @property
    def current_lr(self) -> float:
        """The learning rate of the last round of updates."""
        return scheduled("lr", self.config.lr, self.config.anneal_lr, self.progress)

    def scheduled_now(self) -> Metrics:
        """Return the current values of what changes over the run by a schedule."""
        return {"lr": self.current_lr}

    def steps_wanted(self) -> int:
        """Return the number of environment steps until the next update."""
        return self.schedule.steps_wanted(self.config, self.steps, self.updates)

    def observe(self, trajectories: Sequence[Trajectory], ranks: Ranks = ALONE, /) -> None:
        """Add trajectories to the replay buffer; the arrays are copied.

        Args:
            trajectories: this rank's new ones. Actions since the last call that are missing here count as lost: their
                environment failed.
            ranks: all call this together; each has a replay buffer of its own, and they count all steps.
        """
        if trajectories:
            self.sampler.extend(trajectories)
        count = sum(ranks.all_gather(sum(map(len, trajectories))))
        self.steps += count
        self._acted = 0
        if self.policy.obs_norm is not None and count:
            features = self.policy.features
            rows = [features.flatten(trajectory.obs)[:, : features.vector] for trajectory in trajectories]
            none = np.empty((0, features.vector), np.float32)
            self.policy.obs_norm.update(torch.from_numpy(np.concatenate([none, *rows])).to(self.device), ranks)

    def update(self, progress: float, workers: Any = None, ranks: Ranks = ALONE, /) -> Metrics:
        """Make the updates that are due, `utd` for each step since `learning_starts`.

        Args:
            progress: the fraction of the run that is over, from 0 to 1.
            workers: not used.
            ranks: all make the same updates, with gradients that are means over the rows of all. A minibatch has rows
                of each rank, about in proportion to the transitions in its replay buffer.

        Returns:
            The means of the metrics, each over the updates that have it, and what is `scheduled_now`; empty if no
            update was due.

        Raises:
            ValueError: assigned settings exclude each other (then nothing is learned), or do not fit the rewards.
            FloatingPointError: a metric became infinite or NaN; the message names it, and the tensors that did. These
                stay as they are: the agent acts no more.
        """
        due = self.schedule.due(self.config, self.steps, self.updates)
        if due < 1:
            return {}
        masses = ranks.all_gather(self.sampler.mass)
        if not min(masses):
            return {}
        self.config.check_relations()
        self.progress = min(progress, 1.0)  # the last step of all environments can pass the end
        collected: dict[str, list[torch.Tensor]] = defaultdict(list)
        counts = shares(masses, self.batch_size)
        weighted = self._weighted(ranks, counts)
        size = max(1, counts[ranks.rank])  # a rank without rows samples one, which has no weight
        with torch_threads(self.threads), own_stream(ranks, self.rng):
            for rows, batch in self._minibatches(size, due, weighted):
                metrics, errors = self.learn_from(batch, weighted)
                self.updates += 1
                self.sampler.update_priorities(rows, errors[:size])
                for name, value in metrics.items():
                    collected[name].append(value)
        self.sampler.sync_priorities(ranks)
        self.schedule.last_round = self.steps
        means = weighted.mean(read_means(collected))
        self._check_finite(means)
        return means | self.scheduled_now()

    def _weighted(self, ranks: Ranks, counts: Sequence[int]) -> WeightedRanks:
        """Return the ranks of an update, given the number of rows of each in a minibatch."""
        return WeightedRanks(ranks, counts[ranks.rank] / self.batch_size)

    def _minibatches(self, size: int, due: int, ranks: WeightedRanks) -> Iterator[tuple[np.ndarray, Transitions]]:
        """Yield the minibatches of `due` updates, as tensors, and the `size` rows of the replay buffer in each.

        Several are sampled at once, unless replay is prioritized: then each update changes the priorities.
        """
        at_once = 1 if self.config.prioritized else max(1, ROWS_AT_ONCE // size)
        for done in range(0, due, at_once):
            count = min(at_once, due - done) * size
            rows, transitions = self.sampler.sample(self.config, count, self.progress, ranks.ranks)
            yield from zip(rows.reshape(-1, size), self._split(transitions, size, ranks), strict=True)

    def _split(self, transitions: Transitions, size: int, ranks: WeightedRanks) -> Iterator[Transitions]:
        """Yield minibatches of `size` sampled transitions, as tensors; a subclass may append further ones."""
        batch = self._batch(transitions)
        for start in range(0, len(batch.obs), size):
            yield batch.take(slice(start, start + size))

    def _batch(self, transitions: Transitions) -> Transitions:
        """Return sampled transitions as tensors."""
        obs, next_obs = (
            self.policy.columns(self.policy.features.flatten(part)) for part in (transitions.obs, transitions.next_obs)
        )
        action, reward, discount, weight = (
            torch.from_numpy(array).to(self.device)
            for array in (
                self.to_network_action(transitions.action),
                transitions.reward * np.float32(self.reward_scale),
                transitions.discount,
                transitions.weight,
            )
        )
        return Transitions(obs, action, reward, next_obs, discount, weight)

    def to_network_action(self, actions: np.ndarray) -> np.ndarray:
        """Convert the environment's actions `(B, ...)` to the form that the networks use."""
        return actions

    def target(self, batch: Transitions, next_value: torch.Tensor) -> torch.Tensor:
        """Return the critic's targets `(B,)`: reward + discount * value of the next observation."""
        target = batch.reward + batch.discount * next_value
        return target.clamp(-self.reward_scale / (1 - self.gamma), 0.0) if self.clip_return else target

    def _check_finite(self, metrics: Metrics) -> None:
        infinite = [name for name, value in metrics.items() if not math.isfinite(value)]
        if not infinite:
            return
        tensors = {"rewards": torch.from_numpy(self.replay.reward)} | self.policy.state_dict()
        where = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
        raise FloatingPointError(
            f"{', '.join(infinite)} became infinite or NaN by update {self.updates} (then also "
            f"{', '.join(where) or 'no weight'}): try a smaller lr, or a smaller reward_scale"
        )

    def check_fits(self, env: Any) -> None:
        """Check that this agent was made for the spaces of an environment or vectorizer.

        The bounds of numbers in observations may differ.

        Raises:
            TypeError: a space is not supported.
            ValueError: it was made for other spaces.
        """
        observations, actions = spaces_in(env)
        fit = self.replay.can_hold(observations) and self.policy.features.fit(observations)
        if not fit or describe_space(actions) != describe_space(self.action_space):
            own = f"{self.observation_space} and {self.action_space}"
            raise ValueError(
                f"the {type(self).__name__} was made for {own}, but {env} has {observations} and {actions}"
            )

    def replica(self) -> None:
        """Return None, since workers cannot act with a replica of this agent."""
