"""What the main process knows about each member, and the result of a run."""

from dataclasses import dataclass, field
from typing import Any

from parallel_rl.utils import Metrics, State
from Population.experience import Experience
from Population.members import Report
from Population.schedule import Count
from Population.transport import Update, saved, unpacked


@dataclass
class Record:
    """What the main process knows about a member."""

    agent: Any
    """Its agent at its last report, in parallel learning."""
    held: Update
    """The agent that it has: that of its last report, in parallel learning, or one that was sent to it since."""
    waiting: Update | None = None
    """The agent that will be sent with its next task."""
    last: Count = field(default_factory=Count)
    """The counts of all members together when there was last a trained or combined agent for it."""
    count: Count = field(default_factory=Count)
    version: int = 0
    returns: list[float] = field(default_factory=list)
    experience: Experience = field(default_factory=Experience)
    """All its steps, if they are kept."""
    finished: bool = False

    def update(self, report: Report) -> None:
        """Store a report, except for its experience."""
        self.count, self.version, self.finished = report.count, report.version, report.finished
        self.returns += report.returns
        if report.content is not None:
            self.held = Update(report.version, report.content)
            self.agent = unpacked(self.agent, report.content)

    def take_update(self) -> Update | None:
        """Return the waiting agent, if any, as it is sent now."""
        update, self.waiting = self.waiting, None
        self.held = update or self.held
        return update

    def state(self) -> State:
        """Return the part of the record that the member itself does not save.

        A finished member may have been sent another agent since its last report.
        """
        state = {"count": list(self.count), "returns": self.returns, "finished": self.finished}
        return state | saved(self.agent) | {"version": self.version} if self.finished else state

    def load_state(self, state: State, member: State) -> None:
        """Restore what `state` returned; the agent in `member` is the one that it has."""
        self.count, self.returns, self.finished = Count(*state["count"]), state["returns"], state["finished"]
        self.held = Update(member["version"], {name: member[name] for name in ("shared", "settings")})
        reported = member | state  # only a finished member has an agent of its own in `state`
        self.version = reported["version"]
        self.agent = unpacked(self.agent, reported)

    def result(self, number: int, content: Any, history: list[Metrics]) -> dict[str, Any]:
        """Return the result of the member.

        Args:
            number: of the member.
            content: its agent at the end, packed.
            history: its rows of metrics.

        Returns:
            `id`; `agent`, its last one; `agent_version`, how often that was trained or combined; `experience`, all its
            steps, with `keep_experience`; `rewards`, the return of each of its episodes; `total_episodes` and
            `total_steps`; `history`, the rows of metrics of an agent of `AsyncTrainer` since its last restart.
        """
        return {
            "id": number,
            "agent": unpacked(self.agent, content),
            "agent_version": self.held.version,
            "experience": self.experience,
            "rewards": self.returns,
            "total_episodes": int(self.count.episodes),
            "total_steps": int(self.count.steps),
            "history": history,
        }
