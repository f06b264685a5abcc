"""What is in the checkpoint of a run."""

import os
from typing import Any

from AsyncPPO.episodes import Episode
from parallel_rl.utils import DamagedError, State, load_state, whole_number

CHECKPOINT_PARTS = {"made_for", "progress", "recent", "ppo", "buffer", "collector"}
SETTINGS = "settings"
"""The part of a checkpoint that older ones lack: those of the agent."""
PROGRESS = ("steps_done", "seconds", "episodes_done", "goal")


def read_checkpoint(path: str | os.PathLike[str]) -> State:
    """Return what `AsyncPPO.save_checkpoint` saved.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or something else.
    """
    state = load_state(path)
    if not isinstance(state, dict) or state.keys() - {SETTINGS} != CHECKPOINT_PARTS:
        held = ", ".join(state) if isinstance(state, dict) and state else "nothing"
        raise ValueError(f"{path} is not the checkpoint of a run: it holds {held}")
    if not all(isinstance(part, dict) for name, part in state.items() if name != "recent"):
        raise DamagedError(f"{path} is not the checkpoint of a run: some of its parts are something else")
    return state


def progress_in(saved: State) -> dict[str, Any]:
    """Return the attributes of a trainer that say how far it has come.

    Raises:
        ValueError: they are something else.
        LookupError: one is missing.
    """
    seconds = float(saved["seconds"])
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"the saved seconds are {seconds}")
    begin, end = saved["goal"]
    return {
        "steps_done": whole_number(saved["steps_done"], "number of steps"),
        "seconds": seconds,
        "episodes_done": whole_number(saved["episodes_done"], "number of episodes"),
        "goal": (whole_number(begin, "beginning"), whole_number(end, "end")),
    }


def recent_in(saved: Any) -> list[Episode]:
    """Return the last episodes of a run; those of older checkpoints have no infos.

    Raises:
        ValueError, TypeError: they are something else.
    """
    return [
        Episode(float(return_), whole_number(length, "length"), *({**infos} for infos in rest))
        for return_, length, *rest in saved
    ]
