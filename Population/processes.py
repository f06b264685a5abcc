"""The processes of members: one for each; a single member runs in this process."""

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from AsyncPPO.workers import (
    RESTART_LIMIT,
    Channel,
    Job,
    Pulse,
    Supervisor,
    Worker,
    WorkerError,
    WorkerPool,
    WorkerSpec,
    choose_start_method,
)
from parallel_rl.utils import OwnStreams, restart_seed, seed_global_streams
from Population.members import Member
from Population.schedule import Count
from Population.transport import Update

CLOSE_SECONDS = 1.0
"""Seconds that members may take to finish their step and close their environments before they are killed."""
DISPLAY_SECONDS = 0.2
"""Seconds between two updates of the progress bar."""
MakeMember = Callable[..., Member]
"""Makes a member; takes `seed=`, and `pulse=`, a `Pulse`."""
Restore = Callable[[int], tuple[Update, Count]]
"""Returns the agent and the counts of a member, as of its last report."""


class MemberError(WorkerError):
    """A member failed, died or hung; the message names it."""


class Failure(NamedTuple):
    """The result of a task that raised an exception."""

    trace: str


def _run(member: Member, task: str, update: Update | None, *args: Any) -> Any:
    if update is not None:
        member.take(update)
    return getattr(member, task)(*args)


def _tried(*args: Any) -> Any:
    try:
        return _run(*args)
    except Exception:
        return Failure(traceback.format_exc().rstrip())


def _make(make: MakeMember, seed: int, channel: Channel) -> Member:
    seed = restart_seed(seed, channel.restarts)
    seed_global_streams(seed)
    return make(seed=seed, pulse=channel.pulse)


class Processes(Supervisor):
    """Members in child processes."""

    def __init__(
        self,
        makes: Sequence[MakeMember],
        seeds: Sequence[int],
        *,
        restore: Restore | None,
        timeout: float | None,
    ) -> None:
        """Start the processes.

        Args:
            makes: makes each member, in its process.
            seeds: of each member, and of the global random streams of its process.
            restore: what a member that failed, died or hung is restored from; None makes this an error.
            timeout: seconds that may pass between two steps of a member.

        Raises:
            MemberError: a member could not be made.
        """
        self._restore, self._failures, self._logged = restore, [0] * len(makes), set[str]()
        self._jobs: dict[int, Job] = {}
        self._pool = WorkerPool(
            [
                WorkerSpec(f"member {number}", partial(_make, make, seed))
                for number, (make, seed) in enumerate(zip(makes, seeds, strict=True))
            ],
            {"run": _tried},
            start_method=choose_start_method("auto")[0],
            timeout=timeout,
            close_timeout=CLOSE_SECONDS,
            supervisor=None if restore is None else self,
            error=MemberError,
        )

    def begin(self, number: int, task: str, update: Update | None, *args: Any) -> None:
        """Begin a task of a member, which first takes an agent, if there is an update."""
        self._jobs[number] = self._pool.job("run", task, update, *args)
        self._pool.workers[number].begin(self._jobs[number])

    def next(self, look: Callable[[int], None]) -> tuple[int, Any]:
        """Wait for a member; return its number and the result of its task.

        Args:
            look: called every `DISPLAY_SECONDS` with the number of steps so far, over all members.

        Raises:
            MemberError: a member failed, died or hung, and is not restored, or has been too often.
        """
        while True:
            self._pool.ready(DISPLAY_SECONDS)
            next_result = self._pool.next(wait=False)
            look(sum(worker.pulse.step for worker in self._pool.workers))
            if next_result is None:
                continue
            worker, result = next_result
            number = worker.channel.number - 1
            if not isinstance(result, Failure):
                self._failures[number] = 0
                return number, result
            self._failures[number] += 1
            error = MemberError(f"{worker.channel.name} failed: {result.trace}")
            if self._restore is None or self._failures[number] > RESTART_LIMIT:
                raise error
            self._pool.restart(worker, self._in_short(worker, result) or error)
            worker.begin(self._jobs[number])

    def _in_short(self, worker: Worker, failure: Failure) -> MemberError | None:
        """Return the error of a failure in one line if a restart has logged the same traceback before."""
        place, _, last = failure.trace.rpartition("\n")
        is_known = place in self._logged
        self._logged.add(place)
        return MemberError(f"{worker.channel.name} failed again: {last}") if is_known else None

    def prepare(self, worker: Worker) -> None:
        """Restore a member in its new process."""
        assert self._restore is not None
        worker.begin(self._pool.job("run", "restore", *self._restore(worker.channel.number - 1)))
        result = self._pool.wait_for(worker)
        if isinstance(result, Failure):
            raise MemberError(f"{worker.channel.name} failed: {result.trace}")

    def close(self) -> None:
        """End the processes; may be called twice."""
        self._pool.close()


class InThisProcess:
    """A single member in this process, with its own global random streams."""

    def __init__(self, make: MakeMember, seed: int) -> None:
        self._streams, self._pulse = OwnStreams(seed), Pulse()
        self._result: Any = None
        with self._streams():
            self._member = make(seed=seed, pulse=self._pulse)

    def begin(self, number: int, task: str, update: Update | None, *args: Any) -> None:
        """Run a task."""
        with self._streams():
            self._result = _run(self._member, task, update, *args)

    def next(self, look: Callable[[int], None]) -> tuple[int, Any]:
        """Return the result of the task."""
        look(self._pulse.step)
        return 0, self._result

    def close(self) -> None:
        """Close the environments; may be called twice."""
        self._member.close()
