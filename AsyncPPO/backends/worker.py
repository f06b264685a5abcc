"""A worker process: it serves one block of environments until it is told to close, or until its parent is gone."""

import logging
import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import cloudpickle

from AsyncPPO.backends.apply import packed
from AsyncPPO.backends.base import EnvError, FaultPolicy, Infos, Layout, Plan
from AsyncPPO.backends.block import EnvBlock
from AsyncPPO.backends.channel import Channel, Command, Reply, acquire
from parallel_rl.utils import blas_threads, one_torch_thread, seed_global_streams

logger = logging.getLogger(__name__)


def work(
    pickled_factories: bytes, layout: Layout, plan: Plan | None, fault_policy: FaultPolicy, channel: Channel
) -> None:
    """Be a worker process."""
    if hasattr(os, "register_at_fork"):  # a fork that outlives this process must not keep the parent waiting
        os.register_at_fork(after_in_child=channel.pipe.close)
    with suppress(BrokenPipeError, EOFError), blas_threads(1):
        Server(pickled_factories, layout, plan, fault_policy, channel).serve()


class Server:
    """Does what the parent commands."""

    def __init__(
        self, pickled_factories: bytes, layout: Layout, plan: Plan | None, fault_policy: FaultPolicy, channel: Channel
    ) -> None:
        """Take views of what is shared."""
        self._factories, self._fault_policy, self._channel = pickled_factories, fault_policy, channel
        self._arrays, self._rollout, self._stepping = channel.views(layout, plan)
        self._learner = None if self._rollout is None else self._rollout.replica.learner(self._rollout.workspace)
        self._block: EnvBlock | None = None
        self._left_out: set[str] = set()
        self._actions: dict[int, Callable[[], dict[int, Any]]] = {
            Command.MAKE: self._make,
            Command.RESET: self._reset,
            Command.STEP: lambda: self._opened.step(self._env_ids(), autoreset=False),
            Command.STEP_AUTORESET: lambda: self._opened.step(self._env_ids(), autoreset=True),
            Command.PLAY: lambda: self._opened.play(*channel.control[2:4]),
            Command.COMPUTE: self._compute,
            Command.SNAPSHOTS: self._snapshots,
            Command.APPLY: self._apply,
            Command.RESTORE: lambda: self._opened.restore(self._message()),
        }

    def serve(self) -> None:
        """Answer commands until one says to close; a worker that could not make its environments has only that one."""
        channel = self._channel
        try:
            while True:
                acquire(channel.go, channel.spin, None)
                command = channel.control[0]
                if command == Command.CLOSE:
                    break
                self._answer(self._actions[command])
        finally:
            if self._block is not None:
                self._block.close()

    def _answer(self, action: Callable[[], dict[int, Any]]) -> None:
        channel = self._channel
        try:
            infos = action()
            message = self._pickled(infos) if infos else b""
            channel.control[1] = Reply.INFOS if infos else Reply.OK
        except Exception as error:
            trace = str(error) if isinstance(error, EnvError) else f"{channel.name} failed: {traceback.format_exc()}"
            message = cloudpickle.dumps(trace)
            channel.control[1] = Reply.ERROR
        channel.replied.release()
        channel.done.release()
        if message:
            channel.pipe.send_bytes(message)

    def _pickled(self, infos: Infos) -> bytes:
        """Return infos to be sent, without what cannot be."""
        try:
            return cloudpickle.dumps(infos)
        except Exception:
            sendable = {
                index: {name: value for name, value in info.items() if self._can_be_sent(index, name, value)}
                for index, info in infos.items()
            }
            return cloudpickle.dumps(sendable)

    def _can_be_sent(self, index: int, name: str, value: Any) -> bool:
        try:
            cloudpickle.dumps(value)
        except Exception as error:
            if name not in self._left_out:
                logger.warning("environment %d: its info %r cannot leave its process: %s", index, name, error)
            self._left_out.add(name)
            return False
        return True

    @property
    def _opened(self) -> EnvBlock:
        assert self._block is not None
        return self._block

    def _env_ids(self) -> list[int]:
        return (self._stepping.nonzero()[0] + self._channel.first).tolist()

    def _message(self) -> Any:
        return cloudpickle.loads(self._channel.pipe.recv_bytes())

    def _make(self) -> Infos:
        factories, channel = cloudpickle.loads(self._factories), self._channel
        one_torch_thread()  # beside the other processes more would be slower
        self._block = EnvBlock(factories, channel.first, self._arrays, self._rollout, self._fault_policy, channel.pulse)
        return {}

    def _reset(self) -> Infos:
        env_ids, (seeds, options) = self._env_ids(), self._message()
        if seeds[0] is not None:
            seed_global_streams(seeds[0])
        return self._opened.reset(env_ids, seeds, options)

    def _snapshots(self) -> Infos:
        return self._opened.snapshots()

    def _apply(self) -> dict[int, Any]:
        outcomes = cloudpickle.loads(self._message())(self._opened)
        return {index: packed(index, outcome) for index, outcome in outcomes.items()}

    def _compute(self) -> Infos:
        assert self._learner is not None
        start, stop, processes = self._channel.control[2:]
        self._learner(start, stop, self._channel.number, processes)
        return {}
