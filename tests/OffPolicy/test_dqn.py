from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from AsyncPPO import evaluate
from benchmarks.bit_flip import BitFlip
from OffPolicy import DQN
from OffPolicy.replay import Transitions
from tests.OffPolicy.probes import Identity, Loop, OneState, TwoStates

OBSERVATIONS, ACTIONS = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(3, start=5)
SMALL: dict[str, Any] = {"hidden_sizes": (), "buffer_size": 1000, "seed": 0}


def batch_of(obs: list, action: list, reward: list, next_obs: list, discount: list, weight: list) -> Transitions:
    numbers = [torch.tensor(values, dtype=torch.float32) for values in (obs, reward, next_obs, discount, weight)]
    return Transitions(numbers[0], torch.tensor(action), *numbers[1:])


BATCH = batch_of([[1, 0], [0, 1]], [5, 7], [1, -3], [[0, 1], [1, 0]], [0.5, 0], [1, 0.25])
TABLE = np.array([[1.0, 2.0, 4.0], [3.0, 5.0, 0.0]])
"""Q of the observations (1, 0) and (0, 1) under the network."""
TARGET = np.array([[1.0, 2.0, 8.0], [6.0, 7.0, 9.0]])


def tabular(**settings: Any) -> DQN:
    """A linear network without hidden layers is a table of one-hot observations."""
    agent = DQN(OBSERVATIONS, ACTIONS, **(SMALL | settings))
    for network, table in ((agent.q.network, TABLE), (agent.q.target, TARGET)):
        network.advantage.weight.data.copy_(torch.from_numpy(table.T))
        network.advantage.bias.data.zero_()
    return agent


@pytest.mark.parametrize(
    ("double", "targets"),
    [(True, [1 + 0.5 * 7, -3]), (False, [1 + 0.5 * 9, -3])],  # argmax of TABLE, or of TARGET
)
def test_dqn_loss_of_a_table_equals_the_formula(double: bool, targets: list[float]) -> None:
    agent = tabular(double=double)
    metrics, errors = agent.learn_from(BATCH)
    expected = [TABLE[0, 0] - targets[0], TABLE[1, 2] - targets[1]]
    np.testing.assert_allclose(errors, expected, rtol=1e-6)
    huber = [abs(error) - 0.5 if abs(error) > 1 else error**2 / 2 for error in expected]
    assert metrics["q_loss"] == pytest.approx((huber[0] + 0.25 * huber[1]) / 2)
    assert metrics["q_value"] == pytest.approx((TABLE[0, 0] + TABLE[1, 2]) / 2)


def loss_by_loops(agent: DQN, batch: Transitions) -> float:
    """The same in float64, number by number, for a dueling network of one hidden layer."""

    def q(network: Any, obs: list[float]) -> list[float]:
        (layer, _), parts = network.encoder, (network.advantage, network.value)
        hidden = [max(0.0, bias + sum(w * o for w, o in zip(row, obs, strict=True)))
                  for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)]  # fmt: skip
        advantage, value = (
            [bias + sum(w * h for w, h in zip(row, hidden, strict=True))
             for row, bias in zip(part.weight.tolist(), part.bias.tolist(), strict=True)] for part in parts
        )  # fmt: skip
        return [value[0] + each - sum(advantage) / len(advantage) for each in advantage]

    total = 0.0
    for obs, action, reward, next_obs, discount, weight in zip(*(part.tolist() for part in batch), strict=True):
        choice = q(agent.q.network, next_obs)
        best = choice.index(max(choice))
        error = q(agent.q.network, obs)[action - 5] - (reward + discount * q(agent.q.target, next_obs)[best])
        total += weight * (abs(error) - 0.5 if abs(error) > 1 else error**2 / 2)
    return total / len(batch.reward)


def test_loss_and_gradient_are_those_of_a_slow_loop_in_float64() -> None:
    rng = np.random.default_rng(3)
    agent = DQN(OBSERVATIONS, ACTIONS, dueling=True, lr=1e-30, tau=1e-30, **(SMALL | {"hidden_sizes": (4,)}))
    agent.q.vector.copy_(torch.from_numpy(rng.normal(size=len(agent.q.vector))))
    agent.q.target.load_state_dict({name: part + 0.1 for name, part in agent.q.network.state_dict().items()})
    batch = batch_of(
        rng.normal(size=(8, 2)).tolist(), rng.integers(5, 8, 8).tolist(), rng.normal(size=8).tolist(),
        rng.normal(size=(8, 2)).tolist(), rng.choice([0, 0.9], 8).tolist(), rng.random(8).tolist(),
    )  # fmt: skip
    metrics, _ = agent.learn_from(batch)
    gradient = agent.q.optimizer.gradient.clone()
    assert metrics["q_loss"] == pytest.approx(loss_by_loops(agent, batch), rel=1e-5)
    step = 1e-2
    for index in range(len(gradient)):
        losses = []
        for sign in (1, -1):
            agent.q.vector[index] += sign * step
            # the target is fixed: only Q(s, a) of the loss moves
            losses.append(float(agent_loss(agent, batch)))
            agent.q.vector[index] -= sign * step
        assert gradient[index] == pytest.approx((losses[0] - losses[1]) / (2 * step), abs=2e-3)


@torch.no_grad()
def agent_loss(agent: DQN, batch: Transitions, held: dict = {}) -> torch.Tensor:  # noqa: B006
    """The loss with the target of the first call."""
    if "target" not in held:
        best = agent.q.network(batch.next_obs).argmax(1, keepdim=True)
        held["target"] = batch.reward + batch.discount * agent.q.target(batch.next_obs).gather(1, best)[:, 0]
    q = agent.q.network(batch.obs).double().gather(1, batch.action[:, None] - 5)[:, 0]
    return (batch.weight * torch.nn.functional.smooth_l1_loss(q, held["target"].double(), reduction="none")).mean()


def test_dueling_values_and_advantages_are_taken_apart() -> None:
    agent = DQN(OBSERVATIONS, ACTIONS, dueling=True, **SMALL)
    columns = torch.eye(2)
    network = agent.q.network
    q = network(columns)
    torch.testing.assert_close(q.mean(dim=1), network.value(columns)[:, 0])
    advantage = network.advantage(columns)
    torch.testing.assert_close(q - q.mean(dim=1, keepdim=True), advantage - advantage.mean(dim=1, keepdim=True))


def test_the_norm_of_the_gradient_is_limited() -> None:
    norms = []
    for limit in (1e9, 0.05):
        agent = tabular(max_grad_norm=limit)
        agent.learn_from(BATCH)
        norms.append(agent.q.optimizer.gradient.norm().item())
    assert norms[0] > 0.3
    assert norms[1] == pytest.approx(0.05, rel=1e-4)


def test_the_target_follows_slowly() -> None:
    agent = tabular(tau=0.25, lr=1e-30)
    agent.learn_from(BATCH)
    np.testing.assert_allclose(agent.q.target.advantage.weight.T, 0.75 * TARGET + 0.25 * TABLE, rtol=1e-6)


def test_target_is_copied_every_target_update_interval() -> None:
    agent = tabular(tau=1.0, target_update_interval=3, lr=1e-30)
    for update in range(3):
        np.testing.assert_allclose(agent.q.target.advantage.weight.T, TARGET)
        agent.learn_from(BATCH)
        agent.updates = update + 1
    np.testing.assert_allclose(agent.q.target.advantage.weight.T, TABLE, atol=1e-20)


def test_random_actions_are_independent_for_each_environment() -> None:
    agent = tabular(epsilon_start=0.3, epsilon_end=0.3)
    obs = np.tile(np.float32([[1, 0]]), (30_000, 1))
    actions, extras = agent.act(obs)
    assert extras == {}
    shares = [(actions == action).mean() for action in (5, 6, 7)]
    np.testing.assert_allclose(shares, [0.1, 0.1, 0.8], atol=0.01)
    assert (agent.get_action(obs[:9]) == 7).all()
    assert agent.get_action(obs[0]) == 7


def test_epsilon_is_annealed_and_then_stays_at_its_end() -> None:
    agent, epsilons = tabular(epsilon_start=1.0, epsilon_end=0.2, epsilon_steps=100), []
    for agent.steps in (0, 50, 100, 1000):
        epsilons.append(agent.epsilon)
    assert epsilons == pytest.approx([1, 0.6, 0.2, 0.2])
    agent.epsilon_steps = 0
    assert agent.epsilon == 0.2


@pytest.mark.parametrize("settings", [{"learning_starts": 10_000}, {"learning_starts": 8, "train_freq": 64}])
def test_epsilon_goes_by_environment_steps_also_while_they_wait_to_be_observed(settings: dict[str, Any]) -> None:
    agent = DQN.for_env(OneState(False), **SMALL, epsilon_steps=100, epsilon_end=0.05, **settings)
    loop = Loop(agent, partial(OneState, False), num_envs=4)
    loop.run(40)
    assert agent.epsilon == pytest.approx(1 - 0.95 * 0.4)
    agent.observe(loop.buffer.take())
    assert agent.epsilon == pytest.approx(1 - 0.95 * 0.4)


def test_masked_actions_are_neither_taken_nor_bootstrapped() -> None:
    space = spaces.Dict(obs=OBSERVATIONS, action_mask=spaces.MultiBinary(3))
    agent = DQN(space, ACTIONS, **SMALL, epsilon_start=0.5, epsilon_end=0.5)
    mask = np.tile(np.int8([[0, 1, 1]]), (500, 1))
    actions, _ = agent.act({"obs": np.ones((500, 2), np.float32), "action_mask": mask})
    assert set(actions) == {6, 7}
    columns = torch.tensor([[1.0, 1, 0, 0, 1]])
    assert agent.q.network(columns).argmax() == 2
    assert agent.q.network(columns)[0, 0] < -1e7


@pytest.mark.parametrize("entries", [1, 2, 4])
def test_a_mask_of_another_size_than_the_action_space_is_refused(entries: int) -> None:
    space = spaces.Dict(obs=OBSERVATIONS, action_mask=spaces.MultiBinary(entries))
    with pytest.raises(ValueError, match=rf"the action mask has {entries} entries, but Discrete\(3.* has 3 choices"):
        DQN(space, ACTIONS, **SMALL)


def test_a_mask_that_allows_no_action_is_an_error_where_the_agent_acts_and_ignored_where_it_bootstraps() -> None:
    space = spaces.Dict(obs=OBSERVATIONS, action_mask=spaces.MultiBinary(3))
    agent = DQN(space, ACTIONS, **SMALL)
    obs = {"obs": np.ones((2, 2), np.float32), "action_mask": np.int8([[0, 1, 1], [0, 0, 0]])}
    for act in (agent.act, agent.get_action):
        with pytest.raises(ValueError, match=r"no action is allowed in row 1 of 2$"):
            act(obs)
    q = agent.q.network(torch.tensor([[1.0, 1, 1, 1, 1], [1, 1, 0, 0, 0]]))
    torch.testing.assert_close(q[1], q[0])


def learned(env: Any, steps: int, **settings: Any) -> DQN:
    options = {"lr": 1e-2, "hidden_sizes": (16,), "learning_starts": 50, "utd": 0.5, "buffer_size": 5000, "tau": 0.3}
    agent = DQN.for_env(env(), seed=0, **(options | settings))
    Loop(agent, env, num_envs=2).run(steps)
    return agent


def q_of(agent: DQN, obs: float) -> np.ndarray:
    return agent.q.network(torch.full((1, 1), obs)).detach().numpy()[0]


@pytest.mark.parametrize("settings", [{}, {"n_step": 3}, {"prioritized": True}, {"dueling": True, "double": False}])
def test_values_with_truncation_only_are_those_of_the_infinite_horizon(settings: dict[str, Any]) -> None:
    """If these ends were terminations, the value would be at most 2.3."""
    agent = learned(partial(OneState, False), 250, gamma=0.6, **settings)
    np.testing.assert_allclose(q_of(agent, 1.0), 2.5, rtol=0.05)


@pytest.mark.parametrize("settings", [{}, {"n_step": 3}])
def test_values_after_termination_are_zero(settings: dict[str, Any]) -> None:
    agent = learned(partial(TwoStates, False), 350, gamma=0.5, **settings)
    np.testing.assert_allclose(q_of(agent, 0.0), 1.0, atol=0.05)
    np.testing.assert_allclose(q_of(agent, 1.0), 2.0, atol=0.05)


def test_policy_learns_the_action_that_the_observation_shows() -> None:
    agent = learned(partial(Identity, False), 500, gamma=0.0, epsilon_steps=400)
    assert evaluate(agent, partial(Identity, False), 10, backend="inline").mean() > 9.8


@pytest.mark.slow
@pytest.mark.parametrize(("hindsight", "low", "high"), [("future", 0.95, 1.0), ("none", 0.0, 0.3)])
def test_bit_flipping_is_solved_only_with_hindsight(hindsight: str, low: float, high: float) -> None:
    env = partial(BitFlip, 8)
    agent = learned(
        env,
        8_000,
        hindsight=hindsight,
        gamma=0.95,
        epsilon_steps=2000,
        hidden_sizes=(64,),
        lr=1e-3,
        batch_size=128,
        tau=0.05,
    )
    returns = evaluate(agent, env, 50, backend="inline", seed=1)
    assert low <= (returns > -8).mean() <= high
