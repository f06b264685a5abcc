"""The contents of a checkpoint, and how to read those of older versions."""

import os
from collections.abc import Mapping
from typing import Any

from AsyncPPO.agent import Agent
from AsyncPPO.episodes import Episode
from parallel_rl.utils import DamagedError, State, load_state, whole_number

PARTS = {"made_for", "progress", "recent", "agent", "buffer", "collector"}
SIGNATURE = "signature"
"""The part that the oldest checkpoints lack."""
OLDER_NAMES = {"ppo": "agent", "settings": SIGNATURE}
PROGRESS = ("steps_done", "seconds", "episodes_done", "goal")


def read_checkpoint(path: str | os.PathLike[str]) -> State:
    """Return what `AsyncTrainer.save_checkpoint` saved, or an older version of it, under today's names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or something else.
    """
    state = load_state(path)
    if isinstance(state, dict):
        state = {OLDER_NAMES.get(name, name): part for name, part in state.items()}
    if not isinstance(state, dict) or state.keys() - {SIGNATURE} != PARTS:
        held = ", ".join(state) if isinstance(state, dict) and state else "nothing"
        raise ValueError(f"{path} is not the checkpoint of a run: it holds {held}")
    if not all(isinstance(part, dict) for name, part in state.items() if name != "recent"):
        raise DamagedError(f"{path} is not the checkpoint of a run: some of its parts are something else")
    if "core" in state["collector"]:
        state["collector"]["recurrent"] = state["collector"].pop("core")
    return state


def check_made_for(saved: Mapping[str, Any], own: Mapping[str, Any], source: str) -> None:
    """Check that two records agree on all that both of them know.

    Args:
        saved: of a checkpoint; an older version may have saved less, or more.
        own: of what is to be loaded.
        source: where `saved` is from, for the message.

    Raises:
        ValueError: they do not; the message lists what differs.
    """
    different = [
        f"{name} is {saved[name]!r} there and {own[name]!r} here"
        for name in saved
        if name in own and saved[name] != plain(own[name])
    ]
    if different:
        raise ValueError(f"{source} does not fit: {'; '.join(different)}")


def check_signature(agent: Agent, state: State, own: Mapping[str, Any], source: str) -> None:
    """Check that the agent of a checkpoint was made with settings that agree with those of an agent.

    Args:
        agent: the agent that is to go on.
        state: of `read_checkpoint`.
        own: what the trainer itself was made for. In the oldest checkpoints the rest of `made_for` is the signature.
        source: where it is from, for the message.

    Raises:
        ValueError: they do not agree; the message lists what differs.
    """
    rest = {name: value for name, value in state["made_for"].items() if name not in own}
    saved = state.get(SIGNATURE, rest)
    if hasattr(agent, "check_signature"):
        agent.check_signature(saved, source)
    else:
        check_made_for(saved, agent.signature(), source)


def plain(value: Any) -> Any:
    """Return a value as it comes back from a file: with lists in place of tuples."""
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def progress_in(saved: State) -> dict[str, Any]:
    """Return the attributes of a trainer that say how far it is.

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
