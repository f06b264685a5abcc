"""The agents that the command line knows, by name."""

from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pkgutil import resolve_name
from typing import Any

from parallel_rl.utils import Config
from parallel_rl.utils.names import SB3_AGENTS


@dataclass(frozen=True)
class AgentKind:
    """The parts of an agent: objects, or MODULE:NAME of objects that are imported when they are first needed."""

    config: str | type[Config]
    """The class of its config; its module must not import torch, which would make --help slow."""
    agent: str | type
    """Its class, with `for_env(env, *, seed, **settings)` in addition to the protocol `AsyncPPO.agent.Agent`."""
    weights: str = "Policy_weights.pth"
    """A file that its `save_weights` writes: a directory with this file has weights."""
    exporter: str | Callable[..., float] | None = None
    """A function that exports its policy to a file and returns the largest difference in actions."""
    defaults: str | dict[str, Any] = field(default_factory=dict)
    """The defaults of the command line that differ from those of its config; presets replace them."""

    @property
    def config_class(self) -> type[Config]:
        """The class of its config."""
        return _resolved(self.config)

    @property
    def own_defaults(self) -> dict[str, Any]:
        """`defaults`, imported."""
        return _resolved(self.defaults)

    @property
    def agent_class(self) -> Any:
        """The class of the agent."""
        return _resolved(self.agent)

    @property
    def export(self) -> Callable[..., float] | None:
        """The function that exports its policy to a file; None if there is none."""
        return _resolved(self.exporter)


EXPORTER = "parallel_rl.networks.export:export_policy"
AGENTS: dict[str, AgentKind] = {
    "ppo": AgentKind(
        config="PPO.config:PPOConfig",
        agent="PPO.agent:PPO",
        exporter=EXPORTER,
        defaults="PPO.config:DEFAULTS",
    ),
    **{
        name.lower(): AgentKind(
            config=f"OffPolicy.config:{name}Config",
            agent=f"OffPolicy.{name.lower()}:{name}",
            exporter=EXPORTER,
            defaults={"num_envs": 8, "steps": 50_000},
        )
        for name in ("DQN", "DDPG", "TD3", "SAC")
    },
}
"""By the name that `--agent` takes. A new agent needs one more entry."""


def agent_kind(name: str) -> AgentKind:
    """Return the agent of that name.

    Raises:
        ValueError: there is none; the message suggests the nearest name, or what stands in for it, and lists all.
    """
    if name not in AGENTS:
        known, near = SB3_AGENTS.get(name.lower()), get_close_matches(name.lower(), AGENTS, 1)
        hint = f": {known}; there" if known else f"; did you mean {near[0]!r}? There" if near else "; there"
        raise ValueError(f"no agent {name!r}{hint} are {', '.join(AGENTS)}")
    return AGENTS[name]


def _resolved(place: Any) -> Any:
    return resolve_name(place) if isinstance(place, str) else place
