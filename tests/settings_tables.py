"""The tables of settings in docs/, made from the configs.

    python -m tests.settings_tables

writes them again; a test holds the docs to them.
"""

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from OffPolicy import DDPGConfig, DQNConfig, SACConfig, TD3Config
from parallel_rl.config import RunConfig
from parallel_rl.utils import Config
from parallel_rl.utils.settings import hints, literals, settings_in
from PPO import PPOConfig

DOCS = Path(__file__).parent.parent / "docs"
TABLES: dict[str, dict[str, type[Config]]] = {
    "ppo.md": {"default": PPOConfig},
    "runs.md": {"default": RunConfig},
    "offpolicy.md": {"DQN": DQNConfig, "DDPG": DDPGConfig, "TD3": TD3Config, "SAC": SACConfig},
}
"""By the page that has the table, between two marks: the configs, by the headings of their columns of defaults."""
MARKED = re.compile(
    r"(<!-- settings, by python -m tests\.settings_tables -->\n).*?(<!-- end of settings -->)", re.DOTALL
)


def table(configs: Mapping[str, type[Config]]) -> str:
    """Return the settings of configs as a Markdown table; the names of the configs head the columns of defaults."""
    defaults = [{each.name: _shown(each.default) for each in fields(config)} for config in configs.values()]
    rows: dict[str, str] = {}
    for config in configs.values():
        for name, about in settings_in(config).items():
            shown = " | ".join(known.get(name, "") for known in defaults)
            rows.setdefault(name, f"| `{name}` | {shown} | {_values(name, config)} | {about.help} |")
    head = f"| setting | {' | '.join(configs)} | values | what it is |"
    return "\n".join([head, "| --- " * (3 + len(configs)) + "|", *rows.values()])


def _shown(value: Any) -> str:
    """Return a value in the form of a table."""
    if isinstance(value, tuple):
        return f"`({', '.join(map(str, value))})`"
    return "none" if value is None else f"`{value}`"


def _values(name: str, config: type[Config]) -> str:
    """Return the valid values of a setting, in the form of a table."""
    hint, about = hints(config)[name], settings_in(config)[name]
    kinds = [hint, *get_args(hint)]
    if choices := literals(kinds):
        words = ", ".join(f"`{choice}`" for choice in choices)
    else:
        words = about.range if {int, float} & {*kinds} else "text"
    return f"{words}, or none" if NoneType in kinds else words


def with_table(page: str) -> str:
    """Return the text of a page with its current table."""
    text = (DOCS / page).read_text()
    assert MARKED.search(text), page
    return MARKED.sub(lambda marks: f"{marks[1]}{table(TABLES[page])}\n{marks[2]}", text)


if __name__ == "__main__":
    for page in TABLES:
        (DOCS / page).write_text(with_table(page))
