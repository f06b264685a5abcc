"""Collectors: an agent acts in parallel environments, and the transitions go into a `VecMemory`."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from AsyncPPO.agent import Acted, Agent, BehaviorPolicy, ReplicableAgent
from AsyncPPO.backends import SUCCESS, Replicas
from AsyncPPO.episodes import Episode, Episodes
from AsyncPPO.memory import VecMemory
from AsyncPPO.recurrent import RecurrentState
from AsyncPPO.share import Share
from AsyncPPO.vectorizer import EnvVectorizer, Step
from parallel_rl.utils import State, episode_ends, true_next_obs


class Collector:
    """Steps all environments with the actions of an agent in this process, one vector step at a time.

    Without `autoreset`, an environment waits after its episode until all have finished; then all are reset.
    """

    def __init__(
        self,
        env: EnvVectorizer,
        agent: BehaviorPolicy,
        buffer: VecMemory,
        info_keys: Sequence[str] = (SUCCESS,),
        share: Share | None = None,
    ) -> None:
        """Store the parts; the first `collect` resets the environments.

        Args:
            env: the environments.
            agent: the policy.
            buffer: stores the transitions.
            info_keys: numbers to keep from the last infos of episodes.
            share: in a run with several ranks, the environments of this one; the agent is a `ReplicableAgent` then.
        """
        self.env, self.agent, self.buffer, self.info_keys, self._share = env, agent, buffer, info_keys, share
        self._episodes = Episodes(env.num_envs, info_keys)
        self._recurrent = RecurrentState(agent, env.num_envs)

    def state(self) -> tuple[State, State]:
        """Return two states: environments, sums of the running episodes and recurrent state; and the buffer.

        Episodes of environments whose worker has died end before that, in the buffer too.
        """
        env = self.env.state()
        self._end_lost(self.env.take_lost())
        own = {"env": env, "episodes": self._episodes.state(), "recurrent": self._recurrent.state()}
        return own, self.buffer.state()

    def _end_lost(self, env_ids: np.ndarray) -> None:
        """End the episodes of environments whose worker was restarted since the last step."""
        if len(env_ids):
            self.buffer.truncate(env_ids)
            self._episodes.restart(env_ids)
            self._recurrent.reset(env_ids)
            self._obs = self.env.obs[~self.env.finished]

    def load_state(self, state: State, buffer: State) -> None:
        """Restore what `state` returned; new episodes start if the environments could not be saved.

        Raises:
            ValueError: a state does not fit; of all parts, only the buffer may have changed before this error.
            EnvError: as for `EnvVectorizer.load_state`.
        """
        episodes = Episodes(self.env.num_envs, self.info_keys)
        recurrent = RecurrentState(self.agent, self.env.num_envs)
        episodes.load_state(state["episodes"])
        recurrent.load_state(state["recurrent"])
        self.buffer.load_state(buffer)
        obs = self.env.load_state(state["env"])
        if obs is None:
            self.buffer.truncate(np.arange(self.env.num_envs))
            return
        self._obs, self._episodes, self._recurrent = obs, episodes, recurrent

    def collect(self, steps: int) -> tuple[int, list[Episode]]:
        """Step every running environment `steps` times.

        Returns:
            The number of steps of all environments together, and the episodes that ended.
        """
        total, episodes = 0, list[Episode]()
        for _ in range(steps):
            count, ended = self._step()
            total, episodes = total + count, episodes + ended
        return total, episodes

    def _step(self) -> tuple[int, list[Episode]]:
        self._begin()
        env = self.env
        env_ids = np.flatnonzero(~env.finished)
        acted = self._recurrent.query(self.agent.act, self._obs, env_ids, **self._noise(env_ids))
        result = env.step(acted[0])
        count, episodes = self._keep(env_ids, self._obs, acted, result)
        self._obs, _, terminated, truncated, _ = result
        if env.autoreset:
            if env.finished.any() or len(env_ids) < env.num_envs:  # a VectorEnv that resets them in its next step
                self._obs = env.obs[~env.finished]
        else:
            over = episode_ends(terminated, truncated)
            self._obs, env.finished[env_ids] = self._obs[~over], over
        return count, episodes

    def _noise(self, env_ids: np.ndarray) -> dict[str, np.ndarray]:
        """Return the argument `noise` of `act` on several ranks: these environments' rows of the noise for all."""
        if self._share is None:
            return {}
        return {"noise": cast("ReplicableAgent", self.agent).noise(self._share.total)[self._share.own][env_ids]}

    def _begin(self) -> None:
        """Reset the environments if all have finished."""
        if self.env.finished.all():
            self._obs, _ = self.env.reset()
            self._episodes.restart()
            self._recurrent.reset(np.arange(self.env.num_envs))

    def _keep(self, env_ids: np.ndarray, obs: np.ndarray, acted: Acted, result: Step) -> tuple[int, list[Episode]]:
        """Append one step of some environments to the buffer; return what `collect` returns."""
        (action, extras), (next_obs, reward, terminated, truncated, infos) = acted, result
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
        self._recurrent.reset(env_ids[over])
        ended = self._episodes.count_step(env_ids, reward, over, failed, infos, self.env.autoreset)
        return int(np.count_nonzero(~failed)), ended


class ReplicaCollector:
    """Collects many steps without a message: each process that steps environments has a replica of the policy."""

    def __init__(
        self, env: EnvVectorizer, agent: ReplicableAgent, buffer: VecMemory, share: Share | None = None
    ) -> None:
        """Store the parts; the first `collect` resets the environments.

        Args:
            env: made with `autoreset`, and with a `plan` that has the agent's replica.
            agent: gives the weights and the noise.
            buffer: stores its rows in the arrays of the vectorizer's rollout.
            share: in a run with several ranks, the environments of this one.
        """
        self._share = share or Share(0, env.num_envs, env.num_envs)
        assert env.rollout is not None
        self.env, self.agent, self.buffer, self.rollout = env, agent, buffer, env.rollout
        self._episodes = Episodes(env.num_envs, env.rollout.info_keys)
        self._policy = env.rollout.replica.policy(env.rollout.weights)
        self._replicas = Replicas(env)

    def state(self) -> tuple[State, State]:
        """Return what `Collector.state` returns."""
        env = self.env.state()
        self._end_restarted()
        return {"env": env, "episodes": self._episodes.state(), "recurrent": None}, self.buffer.state()

    def load_state(self, state: State, buffer: State) -> None:
        """Restore what `state` returned, as `Collector.load_state` does."""
        episodes = Episodes(self.env.num_envs, self.rollout.info_keys)
        episodes.load_state(state["episodes"])
        if buffer["lengths"].max() <= len(self.rollout.noise):
            self.buffer.load_state(buffer)
        else:  # `batch_size` is smaller now
            VecMemory(self.env.num_envs).load_state(buffer)  # raises if it is not a buffer's
            self.buffer.clear()
        if self.env.load_state(state["env"]) is None:
            self.buffer.truncate(np.arange(self.env.num_envs))
        else:
            self._episodes = episodes

    def collect(self, steps: int) -> tuple[int, list[Episode]]:
        """Step every environment `steps` times; return what `Collector.collect` returns.

        Raises:
            ValueError: the rollout has too few rows for these steps.
        """
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
        rollout.weights[:] = self.agent.replica_weights()
        rollout.noise[new] = self.agent.noise(steps, self._share.total)[:, self._share.own]
        next_obs = self._replicas.roll_out(new.start, new.stop)
        rows = {name: values[new] for name, values in rollout.rows.items()}
        for name, values in self._policy.complete(rows, rollout.outputs[new]).items():
            rows[name][:] = values
        self._end_restarted()
        self.buffer.extend(steps, next_obs)
        reward, terminated, truncated = (rows[name] for name in ("reward", "terminated", "truncated"))
        over = episode_ends(terminated, truncated)
        ended = self._episodes.count(np.arange(env.num_envs), reward, over, rollout.failed[new], rollout.infos[new])
        return reward.size, ended

    def _end_restarted(self) -> None:
        """End the episodes of environments that were restarted after the last row."""
        restarted = self.rollout.restarted
        self.buffer.truncate(np.flatnonzero(restarted))
        self._episodes.restart(restarted)
        restarted[:] = False


def make_collector(
    env: EnvVectorizer, agent: Agent, info_keys: Sequence[str], share: Share
) -> Collector | ReplicaCollector:
    """Return a collector with a new `buffer`: a `ReplicaCollector` if the vectorizer was made with a `plan`."""
    if env.rollout is not None:
        return ReplicaCollector(env, cast("ReplicableAgent", agent), VecMemory(env.num_envs, env.rollout.rows), share)
    return Collector(env, agent, VecMemory(env.num_envs), info_keys, share if share.total > env.num_envs else None)
