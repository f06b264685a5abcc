"""What editors and notebooks show for agents: the arguments of `for_env`, and their `repr`."""

import inspect
import pydoc
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium import spaces

from AsyncPPO import AsyncPPO, AsyncTrainer, EnvVectorizer, VecMemory
from AsyncPPO.evaluation import evaluate_episodes
from AsyncPPO.settings import EnvSettings
from OffPolicy import DDPG, DQN, SAC, TD3
from parallel_rl.utils import settings_in
from PPO import PPO, PPOConfig


@pytest.mark.parametrize("agent", [PPO, DQN, DDPG, TD3, SAC])
def test_for_env_shows_every_setting_and_argument(agent: Any) -> None:
    shown = inspect.signature(agent.for_env).parameters
    config = PPOConfig if agent is PPO else agent.config_class
    assert {"env", "seed", *settings_in(config)} <= shown.keys()
    for name, default in vars(config()).items():
        assert shown[name].default == default
        assert shown[name].kind is inspect.Parameter.KEYWORD_ONLY
    others = shown.keys() - settings_in(config).keys() - {"env", "config"}
    assert others <= agent.arguments
    assert "Make an agent for" in agent.for_env.__doc__


@pytest.mark.parametrize("agent", [PPO, DQN, DDPG, TD3, SAC])
def test_help_explains_every_setting(agent: Any) -> None:
    config = PPOConfig if agent is PPO else agent.config_class
    for place in (config, agent.for_env):
        text = pydoc.render_doc(place, renderer=pydoc.plaintext)
        for name, about in settings_in(config).items():
            assert f"{name}: {about.help}" in text


def test_help_shows_short_signatures() -> None:
    assert "ranks: parallel_rl.utils.ranks.Ranks = ALONE" in str(inspect.signature(PPO.learn))
    assert str(inspect.signature(PPO.get_action)).startswith("(self, states: 'ArrayLike | torch.Tensor', *,")


def test_for_env_makes_the_class_that_it_is_called_on() -> None:
    class Mine(PPO):
        pass

    made = Mine.for_env("CartPole-v1", hidden_sizes=(8,))
    assert type(made) is type(made.for_env("CartPole-v1", hidden_sizes=(8,))) is Mine
    with pytest.raises(TypeError, match=r"Mine\(\) got an unexpected keyword argument 'lerning_rate'"):
        Mine.for_env("CartPole-v1", lerning_rate=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("agent", [PPO, DQN, DDPG, TD3, SAC])
def test_an_agent_made_as_in_stable_baselines3_is_told_how(agent: Any) -> None:
    env = gym.make("CartPole-v1")
    for args, kwargs in ((("MlpPolicy", env), {}), ((env,), {}), ((), {"policy": "MlpPolicy", "env": env})):
        with pytest.raises(
            TypeError, match=rf"takes spaces, not an environment: {agent.__name__}\.for_env\(env\) takes"
        ):
            agent(*args, **kwargs)
    with pytest.raises(
        TypeError, match=rf"{agent.__name__}\.for_env takes one argument without a name, the environment"
    ):
        agent.for_env("MlpPolicy", env)
    made = agent.for_env("CartPole-v1" if agent is DQN else "Pendulum-v1")
    for theirs, ours in (("predict", "get_action"), ("save", "save_weights"), ("learning_rate", "lr")):
        with pytest.raises(AttributeError, match=f"object has no attribute '{theirs}': did you mean '{ours}'") as error:
            getattr(made, theirs)
        assert ("returns only the action" in str(error.value)) == (theirs == "predict")
    with pytest.raises(
        AttributeError, match=r"'set_env': an agent has no environment: AsyncPPO\(env, agent\) takes both"
    ):
        getattr(made, "set_env")  # noqa: B009
    made.logger = print  # a name of one's own


@pytest.mark.parametrize("agent", [PPO, SAC])
@pytest.mark.parametrize("env", [None, gym.Env(), lambda: None, 5], ids=["none", "no spaces", "makes none", "number"])
def test_for_env_names_what_is_no_environment(agent: Any, env: Any) -> None:
    with pytest.raises(
        TypeError, match="env must be an environment with spaces, its id, or a callable that makes it, no"
    ):
        agent.for_env(env)


def test_a_representation_names_spaces_and_changed_settings() -> None:
    ppo = PPO.for_env("CartPole-v1", gamma=0.9, seed=1)
    assert repr(ppo) == "PPO(Box(4,) -> Discrete(2), seed=1, gamma=0.9)"
    ppo.lr = 0.002
    assert repr(ppo) == "PPO(Box(4,) -> Discrete(2), seed=1, lr=0.002, gamma=0.9)"
    assert repr(SAC(spaces.Box(0, 1, (3,)), spaces.Box(0, 1, (1,)), buffer_size=9)) == (
        "SAC(Box(3,) -> Box(1,), buffer_size=9)"
    )
    with AsyncPPO("CartPole-v1", ppo, 2, backend="inline", progress=False) as trainer:
        assert repr(trainer) == (
            f"AsyncPPO({ppo!r}, EnvVectorizer(CartPole-v1, num_envs=2, backend='inline', running=0), mode='streaming', "
            "steps_done=0)"
        )


@pytest.mark.parametrize("agent", [DQN, DDPG, TD3, SAC])
def test_an_off_policy_agent_says_that_it_takes_no_network_of_ones_own(agent: Any) -> None:
    with pytest.raises(
        TypeError, match=r"argument 'encoder': PPO.for_env\(env, encoder=...\) takes a network of your own"
    ):
        agent.for_env("CartPole-v1" if agent is DQN else "Pendulum-v1", encoder=lambda features: None)


def test_the_docs_list_the_arguments_of_the_trainer_and_the_vectorizer() -> None:
    page = (Path(__file__).parent.parent / "docs/trainer.md").read_text()
    _, trainer, shared, vectorizer, evaluation, memory = (
        {*re.findall(r"^\| `(\w+)`", section, re.MULTILINE)} for section in page.split("\n## ")
    )
    assert shared == {*EnvSettings.__annotations__}
    for listed, function in (
        (trainer, AsyncTrainer.__init__),
        (vectorizer | shared, EnvVectorizer.__init__),
        (evaluation, evaluate_episodes),
        (memory, VecMemory.__init__),
    ):
        assert listed == inspect.signature(function).parameters.keys() - {"self", "settings"}
