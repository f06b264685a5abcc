"""ActionMasks: where masks of allowed actions come from."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from AsyncPPO import ActionMasks, AsyncPPO, EnvVectorizer
from PPO import PPO


class Masked(gym.Env):
    """Allows only the action that belongs to its step; provides the mask by its info or by a method."""

    def __init__(self, tells: str = "info", obs: spaces.Space | None = None, entries: int = 3) -> None:
        self.observation_space = obs or spaces.Box(0, 9, (1,))
        self.action_space = spaces.Discrete(3)
        self.tells, self.entries, self.count = tells, entries, 0
        if tells == "method":
            self.action_masks = self.mask

    def mask(self) -> np.ndarray:
        return np.arange(self.entries) == self.count % 3

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.count = 0
        return self._told()

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        assert action == self.count % 3, "a forbidden action was taken"
        self.count += 1
        obs, info = self._told()
        return obs, 1.0, self.count == 5, False, info

    def _told(self) -> tuple[Any, dict]:
        obs = self.observation_space.sample() if self.tells == "method" else np.zeros(1, np.float32)
        return obs, {"action_mask": self.mask()} if self.tells == "info" else {}


@pytest.mark.covering
@pytest.mark.parametrize("tells", ["info", "method"])
@pytest.mark.parametrize("autoreset", [False, True])
def test_masked_actions_are_not_taken(tells: str, autoreset: bool) -> None:
    def make() -> gym.Env:
        return ActionMasks(Masked(tells))

    ppo = PPO.for_env(make(), batch_size=64, mini_batch_size=32, seed=0)
    mode: Any = "streaming" if autoreset else "mask"
    with AsyncPPO(make, ppo, 4, 400, mode=mode, backend="inline", seed=0, progress=False) as trainer:
        trainer.run()
        assert trainer.mean_return == 5
    with EnvVectorizer(make, 2, backend="inline") as env:
        states, _ = env.reset()
        assert states["action_mask"].tolist() == [[1, 0, 0]] * 2
        assert ppo.get_action(states).tolist() == [0, 0]


def test_a_dict_observation_gets_a_further_entry() -> None:
    env = ActionMasks(Masked("method", spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(0, 1, (2,)))))
    obs, _ = env.reset(seed=0)
    assert set(obs) == {"a", "b", "action_mask"}
    assert env.observation_space.contains(obs)


def test_action_masks_of_wrong_spaces_or_size_are_refused() -> None:
    with pytest.raises(ValueError, match="provides no action mask"):
        ActionMasks(Masked("nothing")).reset()
    with pytest.raises(ValueError, match="has 4 entries, but there are 3 choices"):
        ActionMasks(Masked(entries=4)).reset()
    with pytest.raises(TypeError, match="are not discrete"):
        ActionMasks(gym.make("Pendulum-v1"))
    mask = spaces.Dict(x=spaces.Box(0, 1, (1,)), action_mask=spaces.MultiBinary(2))
    with pytest.raises(ValueError, match="the action mask has 2 entries, but"):
        PPO(False, 1, 3, observation_space=mask)
    ppo = PPO(False, 1, 2, observation_space=mask)
    with pytest.raises(ValueError, match="no action is allowed"):
        ppo.get_action({"x": np.zeros(1), "action_mask": np.zeros(2)})
