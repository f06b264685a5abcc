"""Scripted demonstrations for FetchPickAndPlace: `python -m benchmarks.pick_and_place FILE` writes 100 episodes."""

from itertools import count, islice
from pathlib import Path
from typing import Annotated, Any

import gymnasium
import numpy as np
import tyro
from tqdm import tqdm

from parallel_rl.utils.files import write_atomically

EPISODES = 100
FIRST_SEED = 1_000_000
"""Of an environment; evaluations have others."""
OPEN, CLOSE = 1.0, -1.0
GAIN = 10.0
"""Of the proportional controller; an action of 1 moves the gripper by about 3 cm."""
NEAR = 0.015
"""Meters between the gripper and an object that it can grasp."""
ABOVE = 0.06
"""Meters above the object, from where the gripper descends."""
GRASPED = 0.06
"""Meters between the fingers; the object has 5 cm."""


def scripted_action(obs: dict[str, np.ndarray]) -> np.ndarray:
    """Return the action `(4,)` of a script: go above the object, descend, close the fingers, and carry it to the goal.

    It depends on the current observation alone, so a policy can clone it.
    """
    gripper, position, fingers = obs["observation"][:3], obs["observation"][3:6], obs["observation"][9:11].sum()
    offset = position - gripper
    aligned = np.linalg.norm(offset[:2]) < NEAR
    if aligned and abs(offset[2]) < NEAR:
        move = obs["desired_goal"] - position if fingers < GRASPED else np.zeros(3)
        return np.clip([*GAIN * move, CLOSE], -1, 1).astype(np.float32)
    offset[2] += 0.0 if aligned else ABOVE
    return np.clip([*GAIN * offset, OPEN], -1, 1).astype(np.float32)


def episode_of(env: gymnasium.Env[Any, Any], seed: int) -> dict[str, np.ndarray] | None:
    """Return the arrays of an episode of the script, as `demo_path` takes them; None if it does not end in success."""
    obs, _ = env.reset(seed=seed)
    observations, actions, rewards, truncated = [obs], [], [], False
    while not truncated:
        actions.append(scripted_action(obs))
        obs, reward, _, truncated, info = env.step(actions[-1])
        observations.append(obs)
        rewards.append(reward)
    keys = {key: np.stack([row[key] for row in observations]) for key in obs}
    return keys | {"acs": np.stack(actions), "rew": np.array(rewards)} if info["is_success"] else None


def write_demonstrations(path: Annotated[Path, tyro.conf.Positional]) -> None:
    """Write 100 successful episodes of the script.

    Args:
        path: the file, an .npz for `--demo-path`.
    """
    import gymnasium_robotics

    gymnasium.register_envs(gymnasium_robotics)
    with gymnasium.make("FetchPickAndPlace-v4") as env:
        successful = filter(None, (episode_of(env, seed) for seed in count(FIRST_SEED)))
        episodes = [*tqdm(islice(successful, EPISODES), total=EPISODES, unit="episode")]
    arrays: dict[str, Any] = {key: np.stack([episode[key] for episode in episodes]) for key in episodes[0]}
    write_atomically(path, lambda file: np.savez(file, **arrays))


if __name__ == "__main__":
    tyro.cli(write_demonstrations)
