"""The tasks of the published tables, our targets on them, and the rows of our table."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 2000


@dataclass(frozen=True)
class Task:
    """A task, the best published return on it, and the target for the mean over the seeds, if any."""

    env_id: str
    published: str
    bar: float | None
    seeds: int = 5
    """The number of seeds."""
    flags: str = ""
    """Flags of the command line that change the preset."""
    variant: str = ""
    """How it differs from other rows with the same id."""
    agent: str = "ppo"
    figure: str = "score"
    """The name of the figure that has the target."""
    episodes: int = 20
    """The number of episodes in the evaluation."""

    @property
    def name(self) -> str:
        """Its name in the table."""
        agent = "" if self.agent == "ppo" else f"{self.agent.upper()}, "
        env = self.env_id.rpartition(":")[2]
        return agent + (f"{env}, {self.variant}" if self.variant else env)

    @property
    def command_line(self) -> list[str]:
        """The flags of `main.py`."""
        flags = ["--agent", self.agent, "--env-id", self.env_id, "--eval-episodes", str(self.episodes)]
        return flags + self.flags.split()


NO_CONTACT_FORCES = "--env-kwargs include_cfrc_ext_in_observation=False contact_cost_weight=0"
TASKS = (
    Task("CartPole-v1", "500 (RL-Zoo)", 500),
    Task(
        "Acrobot-v1",
        "-73.5 (RL-Zoo, 1M steps), -81.3 (SLM-Lab)",
        -80,
        5,
        "--steps 300000 --batch-size 2048 --anneal-lr",
    ),
    Task(
        "Pendulum-v1",
        "-172 (RL-Zoo, gSDE)",
        -170,
        5,
        "--steps 100000 --num-envs 4 --mini-batch-size 64 --log-std 0 --recompute-advantage",
    ),
    Task("MountainCar-v0", "-110.4 (RL-Zoo, normalized)", -110, 5, "--steps 1000000"),
    Task("MountainCarContinuous-v0", "88.3 (RL-Zoo, 20k steps, gSDE)", 90, 5, "--use-rnd"),
    Task("LunarLander-v3", "242 (RL-Zoo, v2)", 260),
    Task("LunarLanderContinuous-v3", "271 (RL-Zoo, v2)", 275),
    Task("BipedalWalker-v3", "288 (RL-Zoo)", 300),
    Task("HalfCheetah-v5", "5819 (RL-Zoo, v3), 5784 (Tianshou)", 6000, 3),
    Task("Hopper-v5", "2609 (Tianshou)", 2900, 10),
    Task("Walker2d-v5", "3589 (Tianshou)", 3800, 3),
    Task("Ant-v5", "3258 (Tianshou)", 3300, 3),
    Task(
        "Ant-v5",
        "3258 (Tianshou)",
        3300,
        3,
        NO_CONTACT_FORCES,
        "no contact forces",
    ),
    Task("Humanoid-v5", "787 (Tianshou)", 1000, 3),
    Task("Swimmer-v5", "282 (RL-Zoo)", 300, 3),
    Task("InvertedPendulum-v5", "1000 (Tianshou)", 1000, 3),
    Task("InvertedDoublePendulum-v5", "9231 (Tianshou)", 9300, 3),
    Task("Reacher-v5", "-4.1 (Tianshou)", -4, 3),
    Task("Pusher-v5", "-40.4 (CleanRL)", -35, 3),
    *(
        Task(f"MinAtar/{game}-v1", published, None, 1)
        for game, published in {
            "Asterix": "15 (gymnax)",
            "Breakout": "28 (gymnax)",
            "Freeway": "58 (gymnax)",
            "Seaquest": "",
            "SpaceInvaders": "131 (gymnax)",
        }.items()
    ),
    Task(
        "ALE/Pong-v5",
        "",
        None,
        1,
        "--steps 600000 --lr 5e-4 --no-anneal-lr --bf16",
        "first points",
    ),
)
MILLION = "--steps 1000000 --learning-starts 10000 --num-envs 8 --lr 1e-3 --hidden-sizes 128,128"
"""The preset of HalfCheetah-v5, for tasks without one."""
DEMONSTRATIONS = "runs/pick_and_place.npz"
"""What benchmarks/pick_and_place.py writes."""
GOALS = f"{MILLION} --hindsight future --clip-return --normalize-obs --gamma 0.95 --tau 0.05 --utd 0.5"
PUSH_TD3 = f"{GOALS} --action-l2 1 --eps-greedy 0.3 --action-noise normal_0.2"
"""After RL-Launchpad; with layers of 128 units and `utd` 0.5 a run takes less than half the time."""
BIT_FLIP = (
    "--steps 10000 --num-envs 8 --clip-return --gamma 0.98 --hidden-sizes 256 --lr 1e-3 --tau 0.05 --utd 0.5"
    " --epsilon-steps 5000 --epsilon-end 0.1 --hindsight"
)
OFF_POLICY = (
    Task("CartPole-v1", "500 (RL-Zoo)", 500, agent="dqn"),
    Task("Acrobot-v1", "-76.6 (RL-Zoo)", -75, agent="dqn"),
    Task("MountainCar-v0", "-100.8 (RL-Zoo)", -100, agent="dqn"),
    Task("LunarLander-v3", "265.9 (SLM-Lab)", 268, 5, "--steps 300000", agent="dqn"),
    *(
        Task(
            "benchmarks.bit_flip:BitFlip-v0",
            f"{published}% (Andrychowicz et al. 2017)",
            bar,
            flags=f"{BIT_FLIP} {hindsight}",
            variant=variant,
            agent="dqn",
            figure="success",
            episodes=100,
        )
        for hindsight, variant, published, bar in (
            ("future", "with hindsight", 100, 100),
            ("none", "without hindsight", 0, None),
        )
    ),
    Task("Pendulum-v1", "-151.3 (RL-Zoo, TQC)", -150, agent="sac", episodes=100),
    Task("Pendulum-v1", "-151.9 (RL-Zoo)", -150, agent="td3", episodes=100),
    Task("Pendulum-v1", "-151.9 (RL-Zoo, TD3)", -150, agent="ddpg", episodes=100),
    Task("MountainCarContinuous-v0", "94.7 (RL-Zoo, SAC, gSDE)", 95, agent="td3"),
    Task("LunarLanderContinuous-v3", "268.9 (SLM-Lab, CrossQ)", 270, agent="sac"),
    *(
        Task("FetchReach-v4", "100% (RL-Launchpad)", 100, agent=agent, figure="success")
        for agent in ("ddpg", "td3", "sac")
    ),
    Task("BipedalWalker-v3", "297.7 (RL-Zoo, SAC, 500k steps)", 300, agent="sac"),
    Task("HalfCheetah-v5", "12139 (Tianshou)", 12200, 3, agent="sac"),
    Task("HalfCheetah-v5", "10201 (Tianshou)", 10300, 1, agent="td3"),
    Task("HalfCheetah-v5", "11719 (Tianshou)", 11800, 1, agent="ddpg"),
    Task("Hopper-v5", "3542 (Tianshou)", 3600, 3, agent="sac"),
    Task("Walker2d-v5", "5007 (Tianshou)", 5100, 3, MILLION, agent="sac"),
    Task("Humanoid-v5", "5489 (Tianshou)", 5600, 1, MILLION, agent="sac"),
    Task("Swimmer-v5", "359 (RL-Zoo)", 360, 1, agent="td3"),
    Task("Ant-v5", "5850 (Tianshou)", 5900, 1, f"{MILLION} {NO_CONTACT_FORCES}", "no contact forces", agent="sac"),
    Task("FetchPush-v4", "99.3% (RL-Launchpad)", 99.5, 1, GOALS, agent="sac", figure="success"),
    Task("FetchPush-v4", "99.3% (RL-Launchpad)", 99.5, 1, PUSH_TD3, agent="td3", figure="success"),
    Task("FetchPickAndPlace-v4", "74% (RL-Launchpad)", 90, 1, GOALS, agent="sac", figure="success"),
    Task(
        "FetchPickAndPlace-v4",
        "",
        95,
        flags=f"--demo-path {DEMONSTRATIONS}",
        variant="100 demonstrations",
        agent="sac",
        figure="success",
        episodes=100,
    ),
)
"""Of off-policy agents. Where `figure` is `success`, published figure and target are shares of successes in percent."""


def interquartile_mean(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the mean of the middle half (Agarwal et al. 2021, arXiv:2108.13264)."""
    return stats.trim_mean(scores, 0.25, axis=axis)


HEADER = """| task | steps | best published | bar | mean | IQM [95%] | stochastic | best of training | each seed | |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def line(task: Task, runs: list[dict[str, Any]]) -> str:
    """Return the row of a task."""
    if not runs:
        bar = "" if task.bar is None else f"{task.bar:g}"
        return f"| {task.name} | | {task.published} | {bar} | | | | | | not run |"
    scores = np.array([run[task.figure] for run in runs])
    each = ", ".join(f"{score:.4g}" if score < 10_000 else f"{score:.0f}" for score in scores)
    interval = ""
    if scores.std() > 0:
        low, high = stats.bootstrap(
            (scores,), interquartile_mean, n_resamples=RESAMPLES, method="percentile", rng=0
        ).confidence_interval
        interval = f" [{low:.1f}, {high:.1f}]"
    updates = min(len(run["curve"]) for run in runs)
    best = np.nanmax(np.mean([[value for _, value in run["curve"][:updates]] for run in runs], axis=0))
    stochastic = np.mean([run["stochastic"] for run in runs])
    bar, verdict = "", "reported only"
    if task.bar is not None:
        bar, verdict = f"{task.bar:g}", "reached" if scores.mean() >= task.bar else "**not reached**"
    if len(runs) < task.seeds:
        verdict += f" ({len(runs)} of {task.seeds} seeds so far)"
    return (
        f"| {task.name} | {runs[0]['steps']:,} | {task.published} | {bar} | {scores.mean():.1f} "
        f"| {interquartile_mean(scores):.1f}{interval} | {stochastic:.1f} | {best:.1f} "
        f"| {each} | {verdict} |"
    )
