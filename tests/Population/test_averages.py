"""The mean of members that normalize observations by different statistics."""

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from OffPolicy import DDPG, DQN, SAC, TD3
from parallel_rl.networks import RunningNorm
from parallel_rl.networks.normalizer import renormalize_inputs
from Population import MeanAgentCombiner, Trainer
from PPO import PPO

NUMBERS, BOX, CHOICES = spaces.Box(-np.inf, np.inf, (3,)), spaces.Box(-1, 1, (2,)), spaces.Discrete(3)
BOTH = spaces.Dict({"image": spaces.Box(0, 255, (8, 8, 1), np.uint8), "numbers": NUMBERS})
COUNT = 20
MEANS, SCALES = [[0.0, 5.0, -1.0], [0.5, 4.0, 0.0]], [[1.0, 2.0, 3.0], [1.5, 1.0, 4.0]]


class Spaces(gym.Env):
    """An environment that only has spaces."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space


def observe(agent: Any, number: int) -> None:
    """Give an agent the statistics of observations of member `number`."""
    rows = np.random.default_rng(number).standard_normal((50 + 100 * number, 3))
    agent.policy.obs_norm.update(torch.from_numpy(MEANS[number] + rows * SCALES[number]))


def expressed(weight: torch.Tensor, bias: torch.Tensor, old: RunningNorm, new: RunningNorm) -> None:
    """Rewrite `(C, outputs)` weights and biases, so that they compute the same from inputs that `new` normalizes."""
    for column in range(3):
        unit = weight[column].clone() / old.std[column]  # per unit of the observation
        bias += (unit * (new.mean[column] - old.mean[column])).to(bias.dtype)
        weight[column] = unit * new.std[column]


def columns_of(space: spaces.Space) -> torch.Tensor:
    rng = np.random.default_rng(7)
    numbers = rng.standard_normal((COUNT, 3)) * 2 + [0.2, 4.5, -0.5]
    pixels = rng.integers(256, size=(COUNT, 64 if space is BOTH else 0))
    return torch.from_numpy(np.hstack([numbers, pixels])).float()


def ppo_layers(agent: PPO) -> list[tuple[torch.Tensor, torch.Tensor]]:
    policy: Any = agent.policy
    if policy.hidden_sizes:
        index = 1 if policy.features.images else 0
        layers = [encoder[index] for encoder in {policy.actor, policy.critic}]
    elif policy.core is not None:
        return [(policy.core.layer.weight_ih_l0.mT, policy.core.layer.bias_ih_l0)]
    else:
        heads = getattr(policy.policy_head, "heads", [policy.policy_head])
        layers = [head.mean if hasattr(head, "mean") else head.logits for head in heads] + [policy.value_head.normal]
    return [(layer.weight.mT, layer.bias) for layer in layers]


def ppo_outputs(agent: PPO, columns: torch.Tensor) -> list[torch.Tensor]:
    policy, past = agent.policy, None
    if policy.core is not None:
        past = torch.zeros(COUNT, policy.core.state_size), torch.ones(COUNT, dtype=torch.bool)
    normal = policy.normalize(columns)
    distribution = policy.distribution(normal, past)
    mode = distribution.mode()
    return [mode, distribution.log_prob(torch.zeros_like(mode)), policy.value(normal, past)]


@pytest.mark.parametrize("hidden_sizes", [(8, 8), ()], ids=["hidden", "no hidden"])
@pytest.mark.parametrize(
    ("space", "action_space", "settings"),
    [
        (NUMBERS, BOX, {}),
        (NUMBERS, CHOICES, {}),
        (NUMBERS, spaces.Tuple([BOX, CHOICES]), {}),
        (NUMBERS, BOX, {"share_encoder": True}),
        (NUMBERS, BOX, {"core": "gru", "core_size": 4}),
        (NUMBERS, BOX, {"core": "lstm", "core_size": 4}),
        (BOTH, BOX, {}),
    ],
    ids=["continuous", "discrete", "both", "shared", "gru", "lstm", "images"],
)
@torch.no_grad()
def test_members_of_ppo_with_one_function_and_different_statistics_have_it_as_their_mean(
    space: spaces.Space, action_space: spaces.Space, settings: dict[str, Any], hidden_sizes: tuple[int, ...]
) -> None:
    one = PPO.for_env(Spaces(space, action_space), normalize_obs=True, hidden_sizes=hidden_sizes, seed=0, **settings)
    other, columns = copy.deepcopy(one), columns_of(space)
    for number, agent in enumerate((one, other)):
        observe(agent, number)
    for weight, bias in ppo_layers(other):
        expressed(weight, bias, one.policy.obs_norm, other.policy.obs_norm)
    mean = MeanAgentCombiner().combine([one, other], one)
    assert not torch.allclose(mean.policy.obs_norm.std, one.policy.obs_norm.std, rtol=0.05)
    for agent in (other, mean):
        for output, expected in zip(ppo_outputs(agent, columns), ppo_outputs(one, columns), strict=True):
            torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


def off_policy_layers(network: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    if hasattr(network, "layers"):  # one pair for each critic
        return [(weight, bias[0]) for weight, bias in zip(*map(list, network.layers.first_layer), strict=True)]
    layers = [network.encoder[0]] if len(network.encoder) else [network.advantage, network.value]
    return [(layer.weight.mT, layer.bias) for layer in layers]


def networks_of(agent: Any) -> dict[str, Any]:
    learners = {name: learner for name, learner in agent.learners.items() if name != "temperature"}
    targets = {f"target of {name}": each.target for name, each in learners.items() if each.target is not each.network}
    return targets | {name: learner.network for name, learner in learners.items()}


def off_policy_outputs(agent: Any, columns: torch.Tensor) -> list[torch.Tensor]:
    normal, actions = agent.policy.normalize(columns), torch.linspace(-1, 1, 2 * COUNT).reshape(COUNT, 2)
    outputs = []
    for name, network in networks_of(agent).items():
        output = network(normal, actions) if "critic" in name else network(normal)
        outputs.append(output.mean if isinstance(agent, SAC) and name == "actor" else output)
    return outputs


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(SAC, {}), (TD3, {}), (DDPG, {}), (DQN, {"dueling": True}), (DQN, {"dueling": True, "hidden_sizes": ()})],
)
@torch.no_grad()
def test_off_policy_members_with_one_function_and_different_statistics_have_it_as_their_mean(
    kind: Any, settings: dict[str, Any]
) -> None:
    action_space = CHOICES if kind is DQN else BOX
    one = kind(NUMBERS, action_space, normalize_obs=True, buffer_size=10, seed=0, **{"hidden_sizes": (8,)} | settings)
    for learner in one.learners.values():
        learner.vector.mul_(1.25)  # the targets stay as they are
    other, columns = copy.deepcopy(one), columns_of(NUMBERS)
    for number, agent in enumerate((one, other)):
        observe(agent, number)
    for network in networks_of(other).values():
        for weight, bias in off_policy_layers(network):
            expressed(weight, bias, one.policy.obs_norm, other.policy.obs_norm)
    mean = MeanAgentCombiner().combine([one, other], one)
    assert not torch.allclose(mean.policy.obs_norm.std, one.policy.obs_norm.std, rtol=0.05)
    for agent in (other, mean):
        for output, expected in zip(off_policy_outputs(agent, columns), off_policy_outputs(one, columns), strict=True):
            torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [PPO, SAC])
def test_members_that_start_from_different_weights_have_no_mean(kind: Any) -> None:
    def trainer(*seeds: int) -> Trainer:
        agents = [kind.for_env("Pendulum-v1", hidden_sizes=(4,), lr=0.1**seed, seed=seed) for seed in seeds]
        return Trainer(agents, "Pendulum-v1", 2, "parallel_learning", MeanAgentCombiner())

    with pytest.raises(ValueError, match="the mean needs members that start from the same weights"):
        trainer(1, 2)
    trainer(1, 1)


@pytest.mark.parametrize("kind", [PPO, SAC])
def test_the_mean_has_the_statistics_of_the_rows_of_all_members(kind: Any) -> None:
    agents = [kind.for_env(Spaces(NUMBERS, BOX), normalize_obs=True, hidden_sizes=(4,), seed=0) for _ in range(2)]
    rows = [torch.randn(size, 3, generator=torch.Generator().manual_seed(size)) * size + size for size in (2, 5)]
    for agent, own in zip(agents, rows, strict=True):
        agent.policy.obs_norm.update(own)
    merged, together = MeanAgentCombiner().combine(agents, agents[0]).policy.obs_norm, torch.cat(rows)
    torch.testing.assert_close(merged.mean.double(), together.double().mean(dim=0))
    torch.testing.assert_close(merged.var.double(), together.double().var(dim=0, correction=0))


def test_a_number_that_a_member_never_saw_vary_does_not_make_its_weights_huge() -> None:
    old, new = RunningNorm(1, clip=10.0), RunningNorm(1, clip=10.0)
    old.update(torch.zeros(50, 1))
    new.update(torch.randn(50, 1, generator=torch.Generator().manual_seed(0)) + 3.0)
    weight, bias = torch.full((1, 2), 0.5), torch.zeros(2)
    renormalize_inputs(weight, bias, old, new)
    assert weight.tolist() == [[5.0, 5.0]], "the limit 10 in place of 10^6"
    assert bias.tolist() == [5.0, 5.0], "as at the mean of the others, whose normalized value is the limit"


def test_networks_of_your_own_are_averaged_as_they_are() -> None:
    def encoder(features: Any) -> nn.Module:
        return nn.Sequential(nn.Linear(features.columns, 4), nn.Tanh())

    agents = [PPO.for_env(Spaces(NUMBERS, BOX), normalize_obs=True, encoder=encoder, seed=0) for _ in range(2)]
    for number, agent in enumerate(agents):
        observe(agent, number)
    with pytest.warns(RuntimeWarning, match="the mean of agents with networks of your own .* is not exact"):
        mean = MeanAgentCombiner().combine(agents, agents[0])
    for name, weights in mean.policy.actor.state_dict().items():
        parts = [agent.policy.actor.state_dict()[name] for agent in agents]
        torch.testing.assert_close(weights, (parts[0] + parts[1]) / 2)
