"""Rollouts: what the programs of docs/rollouts.md learn, and how fast fragments are collected.

python -m benchmarks.rollouts learn
python -m benchmarks.rollouts speed --rounds 5
"""

import contextlib
import importlib.util
import io
import re
import runpy
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.distributions import Categorical
from tqdm import tqdm

from benchmarks.lag import Pixels
from benchmarks.throughput.training import in_turns, timed
from parallel_rl.utils import gae
from Rollouts import BaseActorModule, rollout

PAGE = Path(__file__).parents[1] / "docs" / "rollouts.md"
PROGRAMS = dict(
    zip(("A2C", "recurrent A2C", "double DQN"), re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S), strict=True)
)
FORGETFUL = "recurrent A2C without its state"
PROGRAMS[FORGETFUL] = PROGRAMS["recurrent A2C"].replace("memory * ~begins[:, None]", "memory * 0")

NUM_ENVS, HORIZON = 8, 120
TASKS: dict[str, tuple[Callable[[], gym.Env], int]] = {
    "CartPole-v1": (partial(gym.make, "CartPole-v1"), 20_000),
    "LunarLander-v3": (partial(gym.make, "LunarLander-v3"), 10_000),
    "pixels": (Pixels, 4_000),
}
"""Environments, and the steps of a measurement."""
Feed = Generator[tuple[Tensor, ...], None, None]
"""Yields observation, action, reward, value, value of the next observation, terminated and over, `(T, B, ...)` each."""


def mean_return(name: str, seed: int) -> float:
    """Return the mean return that a program of the docs prints at its end, with another seed."""
    program, count = re.subn(r"(seed, steps, num_envs, n_steps = )0,", rf"\g<1>{seed},", PROGRAMS[name])
    assert count == 1
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(io.StringIO()) as printed:
        script = Path(directory) / "program.py"
        script.write_text(program)
        runpy.run_path(str(script), run_name="__main__")
    return float(printed.getvalue().splitlines()[-1])


def learn(programs: Sequence[str] = tuple(PROGRAMS), seeds: Sequence[int] = range(5)) -> None:
    """Print the mean return of 100 deterministic episodes after training, for each seed.

    Args:
        programs: names of programs.
        seeds: of the runs.
    """
    for name in programs:
        print(f"{name}: {', '.join(f'{mean_return(name, seed):.4g}' for seed in tqdm(seeds, desc=name))}", flush=True)


def network(shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Return a 2x64 tanh network, for images after convolutions."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(shape[0], 64)]
    if len(shape) == 3:
        convolutions = [nn.Conv2d(shape[0], 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU()]
        layers = [*convolutions, nn.Flatten(), nn.LazyLinear(64)]
    made = nn.Sequential(*layers, nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs))
    made(torch.zeros(1, *shape))
    return made


class Agent(BaseActorModule):
    """A policy and a value network."""

    def __init__(self, make_env: Callable[[], gym.Env]) -> None:
        """Make them for the spaces of an environment."""
        super().__init__()
        env: Any = make_env()
        self.policy, self.value = (
            network(env.observation_space.shape, int(env.action_space.n)),
            network(env.observation_space.shape, 1),
        )

    def forward(self, obs: Tensor, **_: Any) -> tuple[Tensor, tuple, dict[str, Tensor]]:
        """Return sampled actions, no recurrent state, and logits and values."""
        rows = obs.flatten(0, 1).float()
        logits, value = (part(rows).unflatten(0, obs.shape[:2]) for part in (self.policy, self.value))
        return Categorical(logits=logits).sample(), (), {"logits": logits, "value": value[..., 0]}


def by_hand(make_env: Callable[[], gym.Env], actor: Agent) -> Feed:
    """Yield batches of a loop that is written by hand."""
    envs = [make_env() for _ in range(NUM_ENVS)]
    obs = np.stack([env.reset(seed=seed)[0] for seed, env in enumerate(envs)])
    while True:
        rows, ends = [], {}
        for step in range(HORIZON):
            seen = torch.from_numpy(obs)[None]
            with torch.no_grad():
                action, _, info = actor(seen)
            results = [env.step(choice) for env, choice in zip(envs, action[0].numpy(), strict=True)]
            obs = np.stack([result[0] for result in results])
            reward = torch.tensor([[float(result[1]) for result in results]])
            terminated = torch.tensor([[result[2] for result in results]])
            over = torch.tensor([[result[2] or result[3] for result in results]])
            for env_id in over[0].nonzero()[:, 0].tolist():
                if not terminated[0, env_id]:
                    ends[step, env_id] = torch.from_numpy(obs[env_id])[None, None]
                obs[env_id] = envs[env_id].reset()[0]
            rows.append((seen, action, reward, info["value"], terminated, over))
        seen, action, reward, value, terminated, over = map(torch.cat, zip(*rows, strict=True))
        with torch.no_grad():
            next_value = torch.cat([value[1:], actor(torch.from_numpy(obs)[None])[2]["value"]])
            for at, end in ends.items():
                next_value[at] = actor(end)[2]["value"][0, 0]
        yield seen, action, reward, value, next_value.masked_fill(terminated, 0), terminated, over


def fragments(make_env: Callable[[], gym.Env], actor: Agent, **options: Any) -> Feed:
    """Yield the same batches by `rollout`."""
    for fragment in rollout(make_env, actor, HORIZON, NUM_ENVS, seed=0, **options):
        after, value = fragment.after, fragment.actor["value"][:-1]
        ends = fragment.following("value"), fragment.env["terminated"], after.fin
        yield fragment.before.obs, after.act, after.rew, value, *ends


def updated(feed: Feed, actor: Agent) -> Feed:
    """Update the actor by A2C after each batch."""
    optim = torch.optim.Adam(actor.parameters())
    for batch in feed:
        obs, action, reward, value, next_value, terminated, over = batch
        advantage = gae(reward, value, next_value, terminated, over, 0.99, 0.95)
        _, _, info = actor(obs)
        log_prob = Categorical(logits=info["logits"]).log_prob(action)
        loss = (info["value"] - value - advantage).square().mean() - (log_prob * advantage).mean()
        optim.zero_grad()
        loss.backward()
        optim.step()
        yield batch


def tianshou(make_env: Callable[[], gym.Env]) -> Feed:
    """Collect batches by Tianshou's collector, without values."""
    from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.utils.net.common import Net
    from tianshou.utils.net.discrete import DiscreteActor

    env: Any = make_env()
    body = Net(state_shape=env.observation_space.shape, hidden_sizes=[64, 64], activation=nn.Tanh)
    head = DiscreteActor(preprocess_net=body, action_shape=env.action_space.n, softmax_output=False)
    policy = DiscreteActorPolicy(actor=head, action_space=env.action_space)
    buffer = VectorReplayBuffer(NUM_ENVS * HORIZON, NUM_ENVS)
    collector: Any = Collector(policy, DummyVectorEnv([make_env] * NUM_ENVS), buffer)
    collector.reset()
    while True:
        yield collector.collect(n_step=NUM_ENVS * HORIZON)


def torchrl(make_env: Callable[[], gym.Env]) -> Feed:
    """Collect batches by TorchRL's collector, without values."""
    from tensordict.nn import TensorDictModule
    from torchrl.collectors import Collector
    from torchrl.envs import GymWrapper, SerialEnv
    from torchrl.modules import ProbabilisticActor

    env: Any = make_env()
    envs = SerialEnv(NUM_ENVS, lambda: GymWrapper(make_env(), categorical_action_encoding=True))
    policy = ProbabilisticActor(
        TensorDictModule(network(env.observation_space.shape, env.action_space.n), ["observation"], ["logits"]),
        in_keys=["logits"],
        out_keys=["action"],
        distribution_class=Categorical,
    )
    yield from Collector(envs, policy, frames_per_batch=NUM_ENVS * HORIZON, total_frames=-1)


def contestants(task: str) -> dict[str, Callable[[], Feed]]:
    """Return, by name, the functions whose feeds are compared on a task."""
    make_env, _ = TASKS[task]
    actor = Agent(make_env)
    peers = {"Tianshou": tianshou, "TorchRL": torchrl} if task == "CartPole-v1" else {}
    workers = partial(fragments, make_env, actor, num_workers=2, lag=1)
    return {
        "hand loop": partial(by_hand, make_env, actor),
        "rollout": partial(fragments, make_env, actor),
        **{name: partial(peer, make_env) for name, peer in peers.items() if importlib.util.find_spec(name.lower())},
        "hand loop, A2C": lambda: updated(by_hand(make_env, actor), actor),
        "two workers, lag 1, A2C": lambda: updated(workers(), actor),
    }


def turn(task: str, name: str) -> float:
    """Return the steps per second of a contestant."""
    torch.set_num_threads(1)
    with contextlib.closing(contestants(task)[name]()) as feed:

        def run(steps: int) -> int:
            batches = -(-steps // (NUM_ENVS * HORIZON))
            return NUM_ENVS * HORIZON * sum(1 for _ in islice(feed, batches))

        return timed(run, TASKS[task][1])


def start_seconds() -> float:
    """Return the seconds until two workers have returned their first step."""
    make_env, _ = TASKS["CartPole-v1"]
    actor, start = Agent(make_env), time.perf_counter()
    next(rollout(make_env, actor, 1, NUM_ENVS, num_workers=2, lag=1))
    return time.perf_counter() - start


def speed(tasks: Sequence[str] = tuple(TASKS), rounds: int = 5) -> None:
    """Print the median steps per second of each contestant, measured in turns, and the ratio to the loop by hand.

    Args:
        tasks: names of tasks.
        rounds: the number of measurements of each.
    """
    rates = in_turns(turn, [(task, name) for task in tasks for name in contestants(task)], rounds)
    medians = {case: float(np.median(each)) for case, each in rates.items()}
    for (task, name), median in medians.items():
        ratio = median / medians[task, "hand loop, A2C" if name.endswith("A2C") else "hand loop"]
        print(f"{task}, {name}: {median:,.0f} steps/s, {ratio:.2f}")
    (seconds,) = in_turns(start_seconds, [()], rounds).values()
    print(f"start of two workers: {np.median(seconds):.2f} s")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"learn": learn, "speed": speed})
