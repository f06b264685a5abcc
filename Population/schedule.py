"""The schedule: after how many steps, episodes or seconds an action is due."""

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, get_args

Action = Literal["train_agent", "worker_send_data", "finish", "combine_agents"]
Unit = Literal["steps", "episodes", "seconds"]


class Count(NamedTuple):
    """A number of steps, of episodes and of seconds."""

    steps: float = 0
    episodes: float = 0
    seconds: float = 0

    @property
    def is_never(self) -> bool:
        """Whether it is infinite in all units, so that nothing is ever due."""
        return min(self) == math.inf


NEVER = Count(math.inf, math.inf, math.inf)


class Schedule(NamedTuple):
    """The interval of each action; infinite if the action has no rule. `Trainer` says whose counts decide."""

    train_agent: Count
    worker_send_data: Count
    finish: Count
    combine_agents: Count


def due(every: Count, since: Count, now: Count) -> bool:
    """Return whether an interval has passed in any of its units.

    Args:
        every: the interval.
        since: the counts when the action was last due.
        now: the counts now.
    """
    return (
        now.steps - since.steps >= every.steps
        or now.episodes - since.episodes >= every.episodes
        or now.seconds - since.seconds >= every.seconds
    )


def make_schedule(rules: Iterable[tuple[str, float, str]], n_workers: int, learning: bool) -> Schedule:
    """Return a schedule.

    In a unit without a rule for `worker_send_data`, its interval is 1 / `n_workers` of that of `combine_agents` (in
    parallel collecting: of `train_agent`), and at most that of `finish`. So a member reports about once in an
    interval of steps or episodes, which are summed over the members, and `n_workers` times in one of seconds, which are
    not.

    Args:
        rules: `(action, interval, unit)` each; an action with several rules is due as soon as one of them is.
        n_workers: the number of members.
        learning: whether members train their own agents.

    Raises:
        ValueError: a rule is malformed; the message shows it.
    """
    every = dict.fromkeys(get_args(Action), NEVER)
    for rule in rules:
        action, interval, unit = _checked(rule)
        every[action] = every[action]._replace(**{unit: min(getattr(every[action], unit), interval)})
    common = every["combine_agents" if learning else "train_agent"]
    sends = [
        sends if sends < math.inf else min(all_together / n_workers, finish)
        for sends, all_together, finish in zip(every["worker_send_data"], common, every["finish"], strict=True)
    ]
    return Schedule(**every | {"worker_send_data": Count(*sends)})


def _checked(rule: Any) -> tuple[Any, float, Any]:
    if not isinstance(rule, tuple) or len(rule) != 3:
        raise ValueError(f"a rule of the schedule is a tuple (action, interval, unit), not {rule!r}")
    action, interval, unit = rule
    action = action.strip() if isinstance(action, str) else action
    for what, value, known in (("action", action, get_args(Action)), ("unit", unit, get_args(Unit))):
        if value not in known:
            raise ValueError(f"the {what} in the rule {rule} must be one of {', '.join(known)}, not {value!r}")
    is_number = isinstance(interval, int | float) and not isinstance(interval, bool)
    if not is_number or not 0 < interval < math.inf:
        raise ValueError(f"the interval in the rule {rule} must be a positive number, not {interval!r}")
    return action, interval, unit
