"""Where the policy acts: in this process, or as replicas in the processes that step environments."""

from typing import get_args

from AsyncPPO.agent import Agent
from AsyncPPO.settings import ActingMode, Mode


def choose_acting(
    wanted: ActingMode, agent: Agent, mode: str, lag: int = 0, vectorized: bool = False
) -> tuple[ActingMode, str]:
    """Return where the policy acts, and why.

    There are no replicas for `vectorized` environments (a `VectorEnv`), since this process steps them as a whole.

    Raises:
        ValueError: `wanted` or `mode` is unknown, or they are not possible together.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be 'streaming' or 'mask', not {mode!r}")
    if wanted not in (known := get_args(ActingMode)):
        raise ValueError(f"acting must be one of {', '.join(known)}, not {wanted!r}")
    if lag:
        _check_lag(lag, wanted, agent, mode)
        return "central", "the agent acts in this process, in every step, also during updates: lag=1"
    if wanted != "central" and mode == "streaming" and not vectorized and agent.replica() is not None:
        return "replicas", "replicas of the policy act in the processes that step"
    if wanted == "replicas":
        raise ValueError(
            "acting='replicas' needs mode='streaming', no VectorEnv, and an agent with replicas: two small MLPs in "
            "float32 on the CPU"
        )
    if wanted == "central":
        why = "as chosen"
    elif mode == "mask":
        why = "mask mode"
    elif vectorized:
        why = "a VectorEnv"
    else:
        why = "it has no replicas for the workers"
        if hasattr(agent, "behavior"):
            why += "; if steps take 1 ms or more, lag=1 may be a little faster"
    return "central", f"the agent acts in this process, in every step: {why}"


def can_lag(agent: Agent | type[Agent], wanted: ActingMode, mode: str) -> bool:
    """Return whether an agent, or its class, can learn with `lag=1`."""
    return mode == "streaming" and wanted != "replicas" and hasattr(agent, "behavior")


def _check_lag(lag: int, wanted: ActingMode, agent: Agent, mode: str) -> None:
    if lag != 1:
        raise ValueError(f"lag must be 0 or 1, not {lag!r}")
    if not can_lag(agent, wanted, mode):
        raise ValueError(
            "lag=1 needs mode='streaming', acting='central' or 'auto', and an on-policy agent with `behavior()`"
        )
