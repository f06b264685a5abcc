"""The commands of pyrl, such as `ddpg-train ENV` and `her-sac-test ENV PATH`: other names for `train` and `watch`."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from textwrap import fill

import gymnasium as gym

from parallel_rl.commands.build import agent_of, factory_of
from parallel_rl.commands.flags import TrainFlags, command_line, flat_flags
from parallel_rl.commands.parsing import check_flags, flag_of
from parallel_rl.commands.play import has_screen, rendering, show
from parallel_rl.commands.program import NAME
from parallel_rl.commands.single_run import PLAY_SEED
from parallel_rl.commands.train import train
from parallel_rl.commands.values import named_values
from parallel_rl.config import RunConfig, setting_names
from parallel_rl.utils import check_env_id, counted, settings_in

HINDSIGHT = "her-"
"""Prefix of agents with hindsight experience replay."""
EXPLORE = ["--eps-greedy", "0.2"]
GOALS = ["--hindsight", "future", "--clip-return", "--normalize-obs"]
AGENTS: dict[str, list[str]] = {
    "ddpg": [],
    "td3": [],
    "sac": [],
    "her-ddpg": GOALS + EXPLORE,
    "her-td3": GOALS + EXPLORE,
    "her-sac": GOALS,
}
"""By agent of pyrl: the flags of `train` that it stands for, besides --agent."""
RENAMED = {
    "--replay-buffer": "--buffer-size",
    "--random-steps": "--learning-starts",
    "--num-evals": "--eval-episodes",
    "--num-cpus": "--num-workers",
    "--load": "--load-weights",
    "--save": "--run-dir",
}
"""Flags of pyrl, and the flags of `train` that they stand for."""
NORMALIZERS = {"none": "--no-normalize-obs", "standard": "--normalize-obs"}


def train_as(name: str, arguments: Sequence[str]) -> int:
    """Run `NAME-train ENV [FLAGS]`, where NAME is one of `AGENTS`; all flags of `train` are valid too.

    Raises:
        UsageError: a flag is unknown.
        ValueError: the environment is unknown, or has no time limit, which defines how long an epoch of pyrl is.
    """
    agent = name.removeprefix(HINDSIGHT)
    typed, others = _train_parser(name, agent).parse_known_args(arguments)
    check_flags(others, flat_flags(command_line(agent)()) | vars(typed), f"{NAME} {name}-train", agent)
    flags = ["--agent", agent, "--env-id", typed.env_id, "--run-dir", name, *AGENTS[name]]
    flags += ["--env-kwargs", *typed.env_kwargs] if typed.env_kwargs else []
    limit = _time_limit(typed.env_id, typed.env_kwargs)
    for flag in ("num_epochs", "num_cycles", "num_episodes"):
        counted(flag_of(flag), getattr(typed, flag))
    if limit is not None:
        epoch = typed.num_cycles * typed.num_episodes * limit
        flags += ["--steps", str(typed.num_epochs * epoch), "--eval-every", str(epoch)]
        flags += ["--gamma", str(1 - 1 / limit)] if name.startswith(HINDSIGHT) else []
    elif not any(other.partition("=")[0] == "--steps" for other in others):
        raise ValueError(f"{typed.env_id} has no time limit, so epochs have no length: pass --steps")
    flags += [NORMALIZERS[typed.obs_normalizer]] if typed.obs_normalizer else []
    for flag, ours in RENAMED.items():
        value = getattr(typed, flag[2:].replace("-", "_"))
        flags += [] if value is None else [ours, value]
    return train([*flags, *others])


def _train_parser(name: str, agent: str) -> argparse.ArgumentParser:
    cycles = 50 if name.startswith(HINDSIGHT) else 1
    flags = " ".join(map(flag_of, [*setting_names(agent), *settings_in(TrainFlags)]))
    parser = argparse.ArgumentParser(
        prog=f"{NAME} {name}-train",
        usage="%(prog)s ENV [FLAGS of pyrl and of train]",
        description=f"Train {name.upper()} with the flags {' '.join(AGENTS[name]) or 'of train'}; save in {name}/.",
        epilog=fill(f"{NAME} --agent {agent} --help describes further flags: {flags}", 80, break_on_hyphens=False),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("env_id", metavar="ENV", help="the environment; it comes first")
    parser.add_argument("--num-epochs", type=int, default=20, help="epochs, with an evaluation after each (20)")
    parser.add_argument("--num-cycles", type=int, default=cycles, help=f"cycles in an epoch ({cycles})")
    parser.add_argument(
        "--num-episodes", type=int, default=20, help="episodes in a cycle; each counts as the time limit (20)"
    )
    parser.add_argument(
        *("--env-kwargs", "--env_kwargs"),
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="arguments of the environment, such as its time limit, max_episode_steps=200",
    )
    parser.add_argument("--obs-normalizer", choices=[*NORMALIZERS], help="whether observations are normalized")
    for flag, ours in RENAMED.items():
        parser.add_argument(flag, help=f"the same as {ours}")
    return parser


def _time_limit(env_id: str, env_kwargs: Sequence[str]) -> int | None:
    """Return the steps after which `gymnasium.make` ends an episode of an environment; None without a limit."""
    check_env_id(env_id)
    given = named_values(env_kwargs, "env_kwargs").get("max_episode_steps")
    if given is None:
        return gym.spec(env_id.rpartition(":")[2]).max_episode_steps
    return None if given == -1 else counted("max_episode_steps", given)


def test_as(name: str, arguments: Sequence[str]) -> int:
    """Run `NAME-test ENV PATH [FLAGS]`: run episodes, in a window if there is a screen, and print their returns.

    Raises:
        FileNotFoundError: there is no run at PATH.
        ValueError: the run is of another agent or environment.
    """
    parser = argparse.ArgumentParser(f"{NAME} {name}-test", description=f"Run episodes with an agent of {name}-train.")
    parser.add_argument("env_id", metavar="ENV", help="the environment")
    parser.add_argument("path", metavar="PATH", type=Path, help="the directory that the agent was saved in")
    parser.add_argument("--num-episodes", type=int, default=5, help="number of episodes (%(default)s)")
    parser.add_argument("--seed", type=int, default=PLAY_SEED, help="of the environment (%(default)s)")
    parser.add_argument("--trust-env-module", action="store_true", help="import the modules that config.json names")
    typed = parser.parse_args(arguments)
    config, agent = agent_of(typed.path, trust_env_module=typed.trust_env_module, typed=RunConfig(env_id=typed.env_id))
    for wanted, found in ((name.removeprefix(HINDSIGHT), config.agent), (typed.env_id, config.run.env_id)):
        if wanted != found:
            raise ValueError(f"the run in {typed.path} is of {found}, not of {wanted}")
    with rendering(config.run, "human") if has_screen() else factory_of(config.run)() as env:
        show(agent, env, typed.num_episodes, typed.seed)
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    f"{name}-{verb}": partial(run, name) for name in AGENTS for verb, run in (("train", train_as), ("test", test_as))
}
