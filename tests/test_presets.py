"""Presets, on the command line and in scripts."""

import pytest

from AsyncPPO import AsyncPPO
from OffPolicy import DQN
from parallel_rl.presets import PRESETS, settings_of
from PPO import PPO
from tests.program import config_from

KNOWN = [(agent, env_id) for agent, presets in PRESETS.items() for env_id in presets.by_env]


@pytest.mark.parametrize(("agent", "env_id"), [*KNOWN, ("ppo", "ALE/Pong-v5"), ("ppo", "Blackjack-v1")])
def test_a_script_gets_the_settings_of_the_command_line(agent: str, env_id: str) -> None:
    settings, run = settings_of(env_id, agent)
    config = config_from(["--agent", agent, "--env-id", env_id])
    assert settings == vars(config.settings)
    assert run == {name: getattr(config.run, name) for name in ("num_envs", "steps", "mode")}


def test_those_with_rnd_turn_it_on() -> None:
    settings, _ = settings_of("MountainCar-v0", use_rnd=True)
    assert settings == vars(config_from(["--env-id", "MountainCar-v0", "--use-rnd"]).settings)
    with pytest.raises(ValueError, match="no agent 'pp'; did you mean 'ppo'"):
        settings_of("MountainCar-v0", "pp")


def test_agents_and_trainers_take_them() -> None:
    settings, run = settings_of("CartPole-v1")
    ppo = PPO.for_env("CartPole-v1", **settings)
    assert (ppo.gamma, ppo.k_epochs, ppo.mini_batch_size) == (0.99, 10, 256)
    with AsyncPPO("CartPole-v1", ppo, **run, backend="inline", progress=False) as trainer:
        assert trainer.num_envs == 32
    settings, _ = settings_of("CartPole-v1", "dqn")
    assert DQN.for_env("CartPole-v1", **settings).n_step == 3
