"""The defaults for the spaces of an environment: `python -m benchmarks.defaults [shares | changes]`.

`shares` trains without a preset where `benchmarks.learning` has results of one, for as many steps. `changes` changes
one default at a time. Finished runs are in defaults.jsonl. The same command continues, and writes defaults.md.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import tyro
from tqdm import tqdm

from benchmarks.learning.published import TASKS
from benchmarks.learning.rows import command, result_file
from parallel_rl.config import train_config
from parallel_rl.presets import defaults_for, preset

HERE = Path(__file__).parent
RUNS, PAGE = HERE / "defaults.jsonl", HERE / "defaults.md"
SEEDS, CHANGED_SEEDS = range(3), range(100, 103)
ENOUGH = 0.9
"""The share of the way from a random policy to the preset's score that counts as good."""
GOAL = 15
"""On how many of the tasks they were to be good."""
PLAIN = ("Acrobot-v1", "Pendulum-v1", "MountainCar-v0")
"""Tasks whose published row changes the preset; they have a row of their own without flags."""
CHEAP = (
    "CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1", "LunarLander-v3",
    "LunarLanderContinuous-v3",
)  # fmt: skip
"""The cheap tasks come first, then those of MuJoCo."""
ENVS = (*CHEAP, *(one.env_id for one in TASKS if one.env_id not in CHEAP and one.bar is not None and not one.variant))
COMMON = ("gamma=0.95", "gamma=0.999", "k_epochs=4", "batch_size=4096")
DISCRETE = (
    "no-normalize-obs", "no-anneal-lr", "lr=3e-4", "num_envs=8", "mini_batch_size=64", "batch_size=1024",
    "entropy_coef=0", "gamma=0.99", *COMMON,
)  # fmt: skip
CONTINUOUS = (
    "no-normalize-obs", "no-anneal-lr", "lr=1e-3", "num_envs=8", "mini_batch_size=256", "entropy_coef=0",
    "no-anneal-entropy", "gamma=0.99", "GAE_lambda=0.95", "normalize_advantage=minibatch", "no-recompute-advantage",
    "log_std=0", "log_std=-1", "no-squash-actions", *COMMON,
)  # fmt: skip
CHANGES: dict[str, tuple[int, Sequence[str]]] = {
    "CartPole-v1": (50_000, DISCRETE),
    "Acrobot-v1": (100_000, DISCRETE),
    "Pendulum-v1": (150_000, CONTINUOUS),
    "LunarLander-v3": (300_000, DISCRETE),
    "HalfCheetah-v5": (300_000, CONTINUOUS),
}
"""By task: the number of steps, and the changes to the defaults."""
Run = tuple[str, str, int, int]
"""Environment, change (or nothing), steps, seed."""


def finished() -> dict[Run, float]:
    """Return the mean returns of all finished runs; the change `random` is a random policy."""
    rows = map(json.loads, RUNS.read_text().splitlines()) if RUNS.exists() else ()
    return {(row["env"], row["change"], row["steps"], row["seed"]): row["score"] for row in rows}


def train(run: Run) -> float:
    """Train without a preset; return the mean return of 100 deterministic episodes."""
    env_id, change, steps, seed = run
    if change == "random":
        return random_score(env_id)
    flags = [f"--{change}".replace("_", "-")] if change else []
    return command("--env-id", env_id, "--preset", "none", "--steps", str(steps), *flags, seed=seed)["score"]


def random_score(env_id: str) -> float:
    """Return the mean return of 100 episodes with random actions."""
    with closing(gym.make(env_id)) as env:
        env.action_space.seed(0)
        returns = np.zeros(100)
        for episode in range(len(returns)):
            env.reset(seed=episode)
            over = False
            while not over:
                _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
                returns[episode] += float(reward)
                over = terminated or truncated
    return float(returns.mean())


def steps_of(env_id: str) -> int:
    """Return the number of steps of an environment's preset."""
    return train_config("ppo", preset("ppo", env_id)).run.steps


def has_the_defaults(env_id: str) -> bool:
    """Return whether the preset of an environment is the defaults for its spaces, except for the steps."""
    suited = defaults_for("ppo", env_id) | {"steps": steps_of(env_id)}
    return train_config("ppo", suited).flat() == train_config("ppo", preset("ppo", env_id)).flat()


def scores_of_preset(env_id: str) -> list[float]:
    """Return the scores of `benchmarks.learning` with the preset of an environment."""
    row = env_id if env_id in PLAIN else f"{env_id}, published"
    files = [result_file(row, seed) for seed in range(5)]
    return [json.loads(file.read_text())["score"] for file in files if file.exists()]


def runs_of(part: str) -> Iterator[Run]:
    """Yield the runs of a part, each environment's first seed first."""
    if part == "shares":
        yield from ((env_id, "random", 0, 0) for env_id in ENVS)
        for seed in SEEDS:
            yield from ((env_id, "", steps_of(env_id), seed) for env_id in ENVS if not has_the_defaults(env_id))
    else:
        for seed in CHANGED_SEEDS:
            for env_id, (steps, changes) in CHANGES.items():
                yield from ((env_id, change, steps, seed) for change in ("", *changes))


def shares_table(done: dict[Run, float]) -> str:
    """Return the table of the shares of the presets' scores."""
    lines = [
        "| task | steps | random | preset | defaults, each seed | share |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    good = 0
    for env_id in ENVS:
        steps, chance = steps_of(env_id), done.get((env_id, "random", 0, 0))
        target, same = float(np.mean(scores_of_preset(env_id))), has_the_defaults(env_id)
        scores = [done[run] for seed in SEEDS if (run := (env_id, "", steps, seed)) in done]
        each = "the same settings" if same else ", ".join(f"{score:.1f}" for score in scores) or "not run"
        part = None if chance is None or not scores else float((np.mean(scores) - chance) / (target - chance))
        share = "" if part is None else f"{part:.1%}"
        if scores and len(scores) < len(SEEDS):
            share += f" ({len(scores)} of {len(SEEDS)} seeds)"
        elif same or (part is not None and part >= ENOUGH):
            good += 1
        start = "" if chance is None else f"{chance:.1f}"
        lines.append(f"| {env_id} | {steps:,} | {start} | {target:.1f} | {each} | {'100%' if same else share} |")
    return "\n".join(
        [*lines, "", f"{good} of {len(ENVS)} tasks have at least {ENOUGH:.0%} with all seeds; the goal was {GOAL}."]
    )


def changes_table(done: dict[Run, float]) -> str:
    """Return the table of the scores with one default changed, as far as they have run."""
    lines = [
        "| change | " + " | ".join(f"{env_id}, {steps:,} steps" for env_id, (steps, _) in CHANGES.items()) + " |",
        "| --- |" + " --- |" * len(CHANGES),
    ]
    for change in ("", *dict.fromkeys((*DISCRETE, *CONTINUOUS))):
        cells = []
        for env_id, (steps, _) in CHANGES.items():
            scores = [done[run] for seed in CHANGED_SEEDS if (run := (env_id, change, steps, seed)) in done]
            count = "" if len(scores) == len(CHANGED_SEEDS) else f" ({len(scores)})"
            cells.append(f"{np.mean(scores):.1f}{count}" if scores else "")
        if any(cells):
            lines.append(f"| {f'`{change}`' if change else 'defaults'} | {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else "None has been run yet."


def page(done: dict[Run, float]) -> str:
    """Return the page with both tables."""
    return f"""# Defaults without a preset

Made by `python -m benchmarks.defaults` with `--preset none`: the settings follow from the spaces of the environment
([ppo.md](../docs/ppo.md#defaults)). Each score is a mean of 100 deterministic episodes.

## Beside the presets

*share* is (mean - random) / (preset - random), with as many steps as the preset; 100% is as good as the preset. Scores
of presets are from [learning](learning/README.md), of the first five seeds at most (that of MountainCarContinuous-v0 is
with RND). If a preset has the same settings as the defaults, the share is 100% without another run.

{shares_table(done)}

## One default changed

Mean scores on seeds 100 to 102; in parentheses, the number of seeds if it is less than 3. Runs are short, so a change
may matter less with more steps. What has not been run is empty, or has no row.

{changes_table(done)}
"""


def main(
    part: tyro.conf.Positional[Literal["shares", "changes", "page"]] = "shares", envs: tuple[str, ...] = ()
) -> None:
    """Train what is missing in a part, and write the page.

    Args:
        part: shares of the presets' scores, changes of one default, or only the page from what has run.
        envs: the environments to run; by default all.
    """
    missing: list[Any] = [] if part == "page" else [run for run in runs_of(part) if not envs or run[0] in envs]
    for run in tqdm([run for run in missing if run not in finished()], unit="run"):
        row = dict(zip(("env", "change", "steps", "seed"), run, strict=True)) | {"score": round(train(run), 2)}
        with RUNS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        PAGE.write_text(page(finished()))
    PAGE.write_text(page(finished()))


if __name__ == "__main__":
    tyro.cli(main)
