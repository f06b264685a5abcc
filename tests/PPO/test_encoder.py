"""Custom networks: an encoder, or a whole actor-critic."""

import math
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from AsyncPPO import AsyncPPO
from parallel_rl.networks import Distribution
from parallel_rl.utils import Features, Trajectory
from PPO import PPO, ActorCritic
from PPO.actor_critic import Past


class Residual(nn.Module):
    """The layers of an MLP, in another structure."""

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.first, self.f = nn.Linear(features.columns, 64), nn.Tanh()
        self.second, self.g = nn.Linear(64, 64), nn.Tanh()

    def forward(self, columns: torch.Tensor) -> torch.Tensor:
        hidden = self.f(self.first(columns))
        return hidden + 5 * self.g(self.second(hidden))


def narrow(features: Features) -> nn.Module:
    return nn.Sequential(nn.Linear(features.columns, 32), nn.Tanh(), nn.Linear(32, 16), nn.Tanh())


def noisy(features: Features) -> nn.Module:
    return nn.Sequential(nn.Linear(features.columns, 32), nn.Dropout(0.9), nn.Tanh())


@pytest.mark.parametrize("encoder", [Residual, narrow, noisy, lambda features: nn.Flatten()])
@pytest.mark.parametrize("share", [False, True])
def test_custom_encoder_acts_and_learns(encoder: Any, share: bool) -> None:
    hidden: dict[str, Any] = {} if encoder in (Residual, narrow, noisy) else {"hidden_sizes": ()}
    ppo = PPO.for_env("CartPole-v1", encoder=encoder, share_encoder=share, batch_size=64, mini_batch_size=64, **hidden)
    obs = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    action, extras = ppo.act(obs)
    with torch.no_grad():
        log_prob = ppo.policy.distribution(torch.from_numpy(obs)).log_prob(torch.from_numpy(action))
    np.testing.assert_allclose(extras["log_prob"], log_prob, atol=1e-5)
    with AsyncPPO("CartPole-v1", ppo, 4, 64, backend="inline", seed=0, progress=False) as trainer:
        history = trainer.run()
    assert len(history) == 1
    ppo.k_epochs = 1
    assert trainer.acting == "central"


@pytest.mark.parametrize("shape", [(10, 10, 3), (3, 40, 40)])
def test_custom_encoder_gets_pixels_as_columns(shape: tuple[int, ...]) -> None:
    space = spaces.Box(0, 255, shape, np.uint8)
    ppo = PPO(
        False, math.prod(shape), 2, observation_space=space, encoder=lambda features: nn.Linear(features.columns, 8)
    )
    assert ppo.get_action(np.zeros((5, *shape), np.uint8)).shape == (5,)


def test_custom_encoder_with_a_wrong_output_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must turn \(1, 4\) into \(1, F\), not into \(4,\)"):
        PPO.for_env(gym.make("CartPole-v1"), encoder=lambda features: nn.Flatten(0))


class Inverted(ActorCritic):
    """Looks like a policy with a NumPy version, but prefers the opposite actions."""

    def forward(self, obs: torch.Tensor, past: Past | None = None) -> tuple[Distribution, torch.Tensor]:
        return super().forward(-obs, past)

    def distribution(self, obs: torch.Tensor, past: Past | None = None) -> Distribution:
        return super().distribution(-obs, past)

    def value(self, obs: torch.Tensor, past: Past | None = None) -> torch.Tensor:
        return super().value(-obs, past)

    def step(self, obs: torch.Tensor, state: torch.Tensor) -> tuple[Distribution, torch.Tensor]:
        return super().step(-obs, state)


def test_custom_actor_critic_acts_learns_and_is_saved(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"batch_size": 512, "mini_batch_size": 128, "lr": 3e-3, "seed": 0}
    ours, usual = (PPO.for_env("CartPole-v1", actor_critic=kind, **settings) for kind in (Inverted, ActorCritic))
    obs = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    assert ours.get_action(obs, deterministic=True).tolist() == usual.get_action(-obs, deterministic=True).tolist()
    with AsyncPPO("CartPole-v1", ours, 16, 5_000, backend="inline", seed=0, progress=False) as trainer:
        history = trainer.run()
    assert trainer.acting == "central"
    assert history[-1]["mean_return"] > 2 * history[0]["mean_return"]
    ours.save_weights(tmp_path)
    again = PPO.for_env("CartPole-v1", actor_critic=Inverted, seed=1)
    again.load_weights(tmp_path)
    assert again.get_action(obs, deterministic=True).tolist() == ours.get_action(obs, deterministic=True).tolist()


def test_bfloat16_rounds_the_encoders_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    obs, flags = rng.integers(0, 255, (64, 4, 36, 36), np.uint8), np.zeros(64, dtype=bool)
    space = spaces.Box(0, 255, obs.shape[1:], np.uint8)
    updates = {}
    for bf16 in (False, True):
        ppo = PPO(
            False, space.shape[0] * 36 * 36, 6, observation_space=space, hidden_sizes=(), bf16=bf16, k_epochs=1,
            batch_size=64, mini_batch_size=64, seed=0,
        )  # fmt: skip
        with torch.no_grad():
            ppo.policy.policy_head.logits.weight *= 30  # a policy that has made up its mind
        played = [ppo.act(obs[start : start + 8]) for start in range(0, 64, 8)]
        action = np.concatenate([action for action, _ in played])
        log_prob = np.concatenate([extras["log_prob"] for _, extras in played])
        rewards = np.cos(np.arange(64.0))
        ppo.memory.append(Trajectory(0, obs, action, rewards, flags, flags, obs[:1], {"log_prob": log_prob}))
        updates[bf16] = ppo.learn()
        assert {parameter.dtype for parameter in ppo.policy.parameters()} == {torch.float32}
        columns = torch.from_numpy(obs.reshape(64, -1))
        _, normalized = ppo.policy(columns)
        torch.testing.assert_close(ppo.policy.value(columns), ppo.policy.value_head.stats.inverse(normalized))
    assert updates[True]["approx_kl"] == pytest.approx(0, abs=1e-8), "the first ratio is 1"
    assert updates[True]["grad_norm"] != updates[False]["grad_norm"]
    assert updates[True] == pytest.approx(updates[False], rel=2e-2, abs=1e-3)


def test_a_numpy_policy_is_in_float32() -> None:
    assert PPO(False, 4, 2).replica() is not None
    assert PPO(False, 4, 2, bf16=True).replica() is None


def environment(space: spaces.Space) -> gym.Env:
    env = gym.Env()
    env.observation_space, env.action_space = space, spaces.Discrete(3)
    return env


def weights_of(ppo: PPO) -> int:
    return sum(parameter.numel() for parameter in ppo.policy.parameters())


@pytest.mark.parametrize("learner", ["auto", "torch"])
def test_a_stack_of_pictures_goes_through_convolutions(learner: Any, recwarn: pytest.WarningsRecorder) -> None:
    for shape in ((4, 96, 96, 3), (96, 96), (4, 96, 96, 1)):
        ppo = PPO.for_env(environment(spaces.Box(0, 255, shape, np.uint8)), hidden_sizes=(), learner=learner)
        assert weights_of(ppo) < 4e6
        assert ppo.get_action(np.zeros((2, *shape), np.uint8)).shape == (2,)
    assert not recwarn


def test_a_box_that_looks_like_an_image_gives_a_warning() -> None:
    env = environment(spaces.Dict(camera=spaces.Box(-np.inf, np.inf, (40, 40, 3)), speed=spaces.Box(-1, 1, (2,))))
    with pytest.warns(
        UserWarning, match=r"camera, Box.* counts as plain numbers.*between 0 and 1.*normalize_obs=True"
    ) as told:
        PPO.for_env(env)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PPO.for_env(env, encoder=narrow)


def test_weights_made_with_another_reading_of_an_image_are_refused() -> None:
    """In older versions, images of floats were plain numbers."""
    with pytest.warns(UserWarning, match="counts as plain numbers"):
        earlier = PPO.for_env(environment(spaces.Box(-1, 1, (40, 40, 3)))).state()
    with pytest.raises(ValueError, match="vision"):
        PPO.for_env(environment(spaces.Box(0, 1, (40, 40, 3)))).load_networks(earlier)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (nn.Linear(4, 2), r"encoder must be a function of Features that returns a module, not the module Linear\("),
        (5, r"encoder must be a function of Features that returns a module, not 5"),
        (lambda features: None, r"encoder must return a module, not None"),
        (lambda features: torch.tanh, r"encoder must return a module, not <built-in method tanh"),
        (
            lambda features: nn.Linear(5, 3),
            r"into \(1, F\), but it failed: RuntimeError: mat1",
        ),
        (lambda features: nn.LSTM(4, 8), r"the encoder must turn \(1, 4\) into \(1, F\), not into a tuple"),
    ],
    ids=["module", "number", "none", "function", "linear", "lstm"],
)
def test_an_encoder_that_makes_no_module_from_columns_to_features_is_refused(encoder: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        PPO.for_env("CartPole-v1", encoder=encoder)


class Divided(nn.Module):
    def forward(self, columns: torch.Tensor) -> torch.Tensor:
        return columns / columns.norm(dim=1, keepdim=True)


def test_an_encoder_that_makes_nan_is_not_taken_for_weights() -> None:
    ppo = PPO.for_env("CartPole-v1", encoder=lambda features: Divided(), seed=0)
    ppo.get_action(np.ones(4, np.float32))
    with pytest.raises(ValueError, match="so are the weights: the encoder or the actor_critic makes it"):
        ppo.get_action(np.zeros(4, np.float32))
