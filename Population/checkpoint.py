"""The contents of a population's checkpoint."""

import os
import time
from typing import TYPE_CHECKING, Any

from parallel_rl.utils import DamagedError, State, load_state
from parallel_rl.utils.records import check_equal
from Population.schedule import Count
from Population.transport import saved, unpacked

if TYPE_CHECKING:
    from Population.trainer import Trainer

PARTS = {"made_for", "count", "last", "agent", "agent_version", "combiner", "records", "members"}


def contents(trainer: "Trainer") -> State:
    """Return the contents of a checkpoint; the members must be idle."""
    return {
        "made_for": made_for(trainer),
        "count": list(trainer.count),
        "last": list(trainer.last),
        "agent": saved(trainer.agent),
        "agent_version": trainer.agent_version,
        "combiner": trainer.combiner.state(),
        "records": [record.state() for record in trainer.records],
        "members": trainer.run_in_members("state"),
    }


def made_for(trainer: "Trainer") -> dict[str, Any]:
    """Return the properties of a trainer that a checkpoint must share; each member checks its own part."""
    return {
        "n_workers": trainer.n_workers,
        "combiner": type(trainer.combiner).__name__,
        "combine_agents": [None if every == float("inf") else every for every in trainer.schedule.combine_agents],
    }


def read_checkpoint(path: str | os.PathLike[str]) -> State:
    """Return what `Trainer.save_checkpoint` saved.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or not such a file.
    """
    state = load_state(path)
    if not isinstance(state, dict) or state.keys() != PARTS:
        raise ValueError(f"{path} is not the checkpoint of a population")
    return state


def restore(trainer: "Trainer", state: State, path: str) -> None:
    """Restore a population whose members have just been made.

    Raises:
        ValueError: the checkpoint is damaged, or does not fit the trainer.
        MemberError: it does not fit a member.
    """
    check_equal(state["made_for"], made_for(trainer), f"the checkpoint {path}")
    trainer.run_in_members("load_state", [(member, path) for member in state["members"]])
    try:
        trainer.started = time.monotonic() - float(state["count"][2])
        trainer.agent_version = state["agent_version"]
        trainer.agent = unpacked(trainer.agent, state["agent"])
        trainer.combiner.load_state(state["combiner"])
        for record, own, member in zip(trainer.records, state["records"], state["members"], strict=True):
            record.load_state(own, member)
            record.last = Count(*state["last"])
    except (LookupError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path} is not the checkpoint of such a population: {error!r}") from error
