"""Replicas of a policy act in the processes that step, for many steps without a message between processes."""

from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np

from AsyncPPO.backends.base import Infos
from AsyncPPO.backends.block import FINAL_INFO
from AsyncPPO.backends.context import BlockContext
from AsyncPPO.backends.infos import numbers_in
from AsyncPPO.backends.outcomes import check_finite, check_rewards
from AsyncPPO.backends.rollout import Rollout
from AsyncPPO.progress import warn_if_long
from AsyncPPO.workers import Worker, WorkerError
from parallel_rl.utils import episode_ends

if TYPE_CHECKING:
    from AsyncPPO.vectorizer import EnvVectorizer


class Replicas:
    """The replicas of a policy in the processes of a vectorizer."""

    def __init__(self, env: "EnvVectorizer") -> None:
        assert env.rollout is not None
        self.rollout: Rollout = env.rollout
        self._env, self._settled = env, False

    def roll_out(self, start: int, stop: int) -> np.ndarray:
        """Fill the rows `start` to `stop` of `rollout`, each with a step of every environment.

        Returns:
            The next observations `(N, ...)`.

        Raises:
            RuntimeError: not all environments run, or the vectorizer is closed.
            EnvError: an environment failed, or a worker died; the vectorizer is closed.
        """
        pool = self._env.pool
        if self._env.finished.any():
            raise RuntimeError("not all environments are running: call reset() first")
        for worker in pool.workers:
            worker.pulse.step = start
        try:
            try:
                with nullcontext() if self._settled else warn_if_long(pool.describe_wait):
                    pool.run("roll_out", start, stop, recover=self._resume)
            finally:  # report a NaN first: an environment may have failed because the policy acted on it
                self._check_rows(start, stop)
            self._settled = True
            obs = self._env.obs.copy()
            check_finite("observation", np.arange(len(obs)), obs)
        except BaseException:
            self._env.close()
            raise
        return obs

    def _check_rows(self, start: int, stop: int) -> None:
        rows = {name: rows[start:stop] for name, rows in self.rollout.rows.items()}
        env_ids = np.tile(np.arange(self._env.num_envs), stop - start)
        check_finite("observation", env_ids, rows["obs"].reshape(-1, *rows["obs"].shape[2:]))
        ended = episode_ends(rows["terminated"], rows["truncated"])
        check_finite("observation", np.nonzero(ended)[1], rows["final_obs"][ended])

    def _resume(self, worker: Worker, error: WorkerError) -> None:
        """Restart a worker that died or hung; its replica continues from the last complete step."""
        job, step, rollout = worker.job, worker.pulse.step, self.rollout
        assert job is not None
        start, stop = job.args
        if step > start:
            worker.failures = 0
        self._env.pool.restart(worker, error)
        for row in worker.envs:
            rollout.truncate(row, step, start, rollout.rows["obs"][step, row])
        worker.begin(job._replace(args=(step, stop)))


def roll_out(context: BlockContext, start: int, stop: int) -> None:
    """Fill the rows `start` to `stop` of a block's part of the rollout."""
    block, rollout, arrays = context.block, context.rollout, context.block.arrays
    assert rollout is not None
    rows, env_ids = rollout.rows, list(range(block.first, block.first + len(arrays.obs)))
    if not env_ids:
        return
    rollout.failed[start:stop], rollout.infos[start:stop] = False, np.nan
    for step in range(start, stop):
        rows["obs"][step] = arrays.obs
        block.pulse.step = step
        infos = _act(context, rollout, slice(None), env_ids, step)
        while failed := arrays.failed.nonzero()[0].tolist():
            for row in failed:
                rollout.truncate(row, step, start, rows["obs"][step, row])
            rows["obs"][step, failed] = arrays.obs[failed]
            infos |= _act(context, rollout, failed, [env_ids[row] for row in failed], step)
        check_rewards(env_ids, arrays.reward)
        for name in ("reward", "terminated", "truncated"):
            rows[name][step] = getattr(arrays, name)
        for row in episode_ends(arrays.terminated, arrays.truncated).nonzero()[0].tolist():
            rows["final_obs"][step, row] = arrays.final_obs[row]
            if info := infos.get(env_ids[row], {}).get(FINAL_INFO):
                rollout.infos[step, row] = numbers_in(env_ids[row], info, rollout.info_keys)


def _act(context: BlockContext, rollout: Rollout, rows: slice | list[int], env_ids: list[int], step: int) -> Infos:
    """Act in the environments of some rows and step them; return infos. `arrays.failed` marks those that failed."""
    block, arrays = context.block, context.block.arrays
    acted, rollout.outputs[step, rows] = context.policy.act(arrays.obs[rows], rollout.noise[step, rows])
    acted["action"] = acted["action"].reshape(-1, *arrays.action.shape[1:])
    arrays.action[rows] = acted["action"]
    for name, values in acted.items():
        rollout.rows[name][step, rows] = values
    return block.step(env_ids, autoreset=True)
