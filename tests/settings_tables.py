"""The tables of settings in docs/, made from the configs.

    python -m tests.settings_tables

writes them again; a test holds the docs to them.
"""

import re
from pathlib import Path

from OffPolicy import DDPGConfig, DQNConfig, SACConfig, TD3Config
from parallel_rl.utils import Config
from parallel_rl.utils.settings import table
from PPO import PPOConfig

DOCS = Path(__file__).parent.parent / "docs"
TABLES: dict[str, dict[str, type[Config]]] = {
    "ppo.md": {"default": PPOConfig},
    "offpolicy.md": {"DQN": DQNConfig, "DDPG": DDPGConfig, "TD3": TD3Config, "SAC": SACConfig},
}
"""By the page that has the table, between two marks: the configs, by the headings of their columns of defaults."""
MARKED = re.compile(
    r"(<!-- settings, by python -m tests\.settings_tables -->\n).*?(<!-- end of settings -->)", re.DOTALL
)


def with_table(page: str) -> str:
    """Return the text of a page with its current table."""
    text = (DOCS / page).read_text()
    assert MARKED.search(text), page
    return MARKED.sub(lambda marks: f"{marks[1]}{table(TABLES[page])}\n{marks[2]}", text)


if __name__ == "__main__":
    for page in TABLES:
        (DOCS / page).write_text(with_table(page))
