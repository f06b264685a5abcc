"""A worker process: it makes its context and runs tasks on it until it is closed or its parent has died."""

import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import cloudpickle

from AsyncPPO.workers.channel import CLOSE, ERROR, NOTHING, RESULT, Channel, Pickled, WorkerError, acquire
from AsyncPPO.workers.processes import close_in_forks
from parallel_rl.utils import blas_threads, one_torch_thread


def work(setup: bytes, channel: Channel) -> None:
    """Run a worker process.

    Args:
        setup: pickled, the function that makes the context, and the tasks by name.
        channel: shared with the parent.
    """
    close_in_forks(channel.pipe)  # a fork that outlives this process must not keep the parent waiting
    with suppress(ConnectionError, EOFError), blas_threads(1):
        _Server(channel).serve(setup)


class _Server:
    """Runs the tasks that the parent begins."""

    def __init__(self, channel: Channel) -> None:
        self._channel, self._control = channel, channel.numbers
        self._context: Any = None
        self._failure: Exception | None = None
        self._functions: list[Callable[..., Any]] = []

    def serve(self, setup: bytes) -> None:
        """Make the context, then run tasks until the parent closes the worker."""
        channel = self._channel
        try:
            if channel.silent:
                self._make_silently(setup)
            else:
                self._reply(self._make, setup)
            while True:
                acquire(channel.go, channel.spin, None)
                task = self._control[0]
                if task == CLOSE:
                    break
                self._reply(self._run, task)
        finally:
            if hasattr(self._context, "close"):
                self._context.close()

    def _make(self, setup: bytes) -> None:
        one_torch_thread()  # more would be slower, since the other processes use the other cores
        make_context, tasks = cloudpickle.loads(setup)
        self._functions = [*tasks.values()]
        self._context = make_context(self._channel)

    def _make_silently(self, setup: bytes) -> None:
        """Make the context without a reply; if that fails, every task fails."""
        try:
            self._make(setup)
        except Exception as error:
            self._failure = error

    def _run(self, task: int) -> Any:
        control, count = self._control, self._control[2]
        arguments = (
            control[3 : 3 + count].tolist() if count >= 0 else cloudpickle.loads(self._channel.pipe.recv_bytes())
        )
        if self._failure is not None:
            raise self._failure
        return self._functions[task](self._context, *arguments)

    def _pickled(self, result: Any) -> bytes:
        if isinstance(result, Pickled):
            return result
        try:
            return cloudpickle.dumps(result)
        except Exception as error:
            what = f"the result of {self._channel.name} cannot be pickled"
            raise WorkerError(f"{what}: {type(error).__name__}: {error}") from error

    def _reply(self, action: Callable[[Any], Any], argument: Any) -> None:
        channel = self._channel
        try:
            result = action(argument)
            message = b"" if result is None else self._pickled(result)
            self._control[1] = NOTHING if result is None else RESULT
        except Exception as error:
            trace = str(error) if isinstance(error, WorkerError) else f"{channel.name} failed: {traceback.format_exc()}"
            message = cloudpickle.dumps(trace)
            self._control[1] = ERROR
        channel.replied.release()
        channel.done.release()
        if message:
            channel.pipe.send_bytes(message)
