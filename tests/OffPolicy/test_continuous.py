import copy
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.utils._python_dispatch import TorchDispatchMode

from AsyncPPO import evaluate
from OffPolicy import DDPG, SAC, TD3, OffPolicyAgent
from OffPolicy.learner import WeightedRanks
from OffPolicy.replay import Transitions
from tests.covering import rest_slow
from tests.OffPolicy.probes import Identity, Loop, OneState, TwoStates

OBSERVATIONS = spaces.Box(-1, 1, (2,), np.float32)
ACTIONS = spaces.Box(np.float32([-3, 1]), np.float32([1, 2]))
SMALL: dict[str, Any] = {"hidden_sizes": (3,), "activation": "tanh", "buffer_size": 1000, "seed": 0}
FROZEN = {"lr": 1e-30, "tau": 1e-30}
ALL = pytest.mark.parametrize("kind", [DDPG, TD3, SAC])


def random_batch(seed: int = 0, size: int = 6) -> Transitions:
    rng = np.random.default_rng(seed)
    arrays = [
        rng.normal(size=(size, 2)), rng.uniform(-1, 1, (size, 2)), rng.normal(size=size), rng.normal(size=(size, 2)),
        rng.choice([0, 0.9], size), rng.random(size),
    ]  # fmt: skip
    return Transitions(*[torch.from_numpy(np.float32(array)) for array in arrays])


def shaken(kind: type[OffPolicyAgent], seed: int = 1, **settings: Any) -> Any:
    """An agent with large weights, and different ones in its targets."""
    agent: Any = kind(OBSERVATIONS, ACTIONS, **(SMALL | FROZEN | settings))
    rng = np.random.default_rng(seed)
    for learner in (agent.actor_learner, agent.critic_learner):
        learner.vector.copy_(torch.from_numpy(rng.normal(size=len(learner.vector))))
        learner.update_target(1.0)
        learner.vector.copy_(torch.from_numpy(rng.normal(size=len(learner.vector))))
    return agent


def layers_by_hand(layers: Any, index: int, rows: list[float]) -> list[float]:
    """One MLP of an `Ensemble`, number by number in float64."""
    count = len(layers.weights)
    for number, (weight, bias) in enumerate(zip(layers.weights, layers.biases, strict=True)):
        columns = weight[index].T.tolist()
        rows = [b + sum(w * x for w, x in zip(column, rows, strict=True))
                for column, b in zip(columns, bias[index, 0].tolist(), strict=True)]  # fmt: skip
        if number < count - 1:
            rows = [math.tanh(value) for value in rows]
    return rows


def q_by_hand(critic: Any, obs: list[float], action: list[float]) -> list[float]:
    return [layers_by_hand(critic.layers, k, obs + action)[0] for k in range(len(critic.layers.weights[0]))]


def test_ddpg_has_the_losses_of_a_slow_loop() -> None:
    agent, batch = shaken(DDPG), random_batch()
    metrics, _ = agent.learn_from(batch)
    critic_loss = actor_loss = 0.0
    for obs, action, reward, next_obs, discount, weight in zip(*(part.tolist() for part in batch), strict=True):
        next_action = [math.tanh(u) for u in layers_by_hand(agent.actor_learner.target.layers, 0, next_obs)]
        target = reward + discount * q_by_hand(agent.critic_learner.target, next_obs, next_action)[0]
        critic_loss += weight * (q_by_hand(agent.critic_learner.network, obs, action)[0] - target) ** 2 / 2 / 6
        own = [math.tanh(u) for u in layers_by_hand(agent.actor_learner.network.layers, 0, obs)]
        actor_loss -= q_by_hand(agent.critic_learner.network, obs, own)[0] / 6
    assert metrics["critic_loss"] == pytest.approx(critic_loss, rel=1e-5)
    assert metrics["actor_loss"] == pytest.approx(actor_loss, rel=1e-5)


@pytest.mark.parametrize(("kind", "count"), [(DDPG, 1), (TD3, 2), (SAC, 2)])
def test_there_are_as_many_critics_as_in_the_papers(kind: Any, count: int) -> None:
    obs, action, *_ = (part.tolist()[0] for part in random_batch())
    assert len(q_by_hand(shaken(kind).critic_learner.network, obs, action)) == count


def test_td3_has_the_losses_of_a_slow_loop() -> None:
    agent, batch = shaken(TD3, policy_delay=1), random_batch()
    noise = 0.2 * np.random.default_rng(7).standard_normal((6, 2), np.float32)
    agent.rng.bit_generator.state = np.random.default_rng(7).bit_generator.state
    metrics, _ = agent.learn_from(batch)
    critic_loss = actor_loss = 0.0
    rows = zip(*(part.tolist() for part in batch), noise.tolist(), strict=True)
    for obs, action, reward, next_obs, discount, weight, draw in rows:
        smoothed = [
            max(-1.0, min(1.0, math.tanh(u) + max(-0.5, min(0.5, n))))
            for u, n in zip(layers_by_hand(agent.actor_learner.target.layers, 0, next_obs), draw, strict=True)
        ]
        target = reward + discount * min(q_by_hand(agent.critic_learner.target, next_obs, smoothed))
        for q in q_by_hand(agent.critic_learner.network, obs, action):
            critic_loss += weight * (q - target) ** 2 / 2 / 6
        own = [math.tanh(u) for u in layers_by_hand(agent.actor_learner.network.layers, 0, obs)]
        actor_loss -= q_by_hand(agent.critic_learner.network, obs, own)[0] / 6  # the first, not the smaller
    assert metrics["critic_loss"] == pytest.approx(critic_loss, rel=1e-5)
    assert metrics["actor_loss"] == pytest.approx(actor_loss, rel=1e-5)


def sac_sample_by_hand(agent: SAC, obs: list[float], draws: list[float]) -> tuple[list[float], float]:
    out = layers_by_hand(agent.actor_learner.network.layers, 0, obs)
    means, log_stds = out[:2], [max(-20.0, min(2.0, value)) for value in out[2:]]
    action, log_prob = [], 0.0
    for mean, log_std, draw in zip(means, log_stds, draws, strict=True):
        u = mean + math.exp(log_std) * draw
        action.append(math.tanh(u))
        log_prob += -(draw**2) / 2 - log_std - math.log(2 * math.pi) / 2 - math.log(1 - math.tanh(u) ** 2)
    return action, log_prob


def test_sac_has_the_losses_of_a_slow_loop() -> None:
    agent, batch = shaken(SAC, alpha=0.3), random_batch()
    agent.actor_learner.vector.mul_(0.3)  # far from where the tanh of a double is 1
    noises = np.random.default_rng(7)
    next_draws, draws = noises.standard_normal((6, 2), np.float32), noises.standard_normal((6, 2), np.float32)
    agent.rng.bit_generator.state = np.random.default_rng(7).bit_generator.state
    metrics, _ = agent.learn_from(batch)
    critic_loss = actor_loss = entropy = 0.0
    rows = zip(*(part.tolist() for part in batch), next_draws.tolist(), draws.tolist(), strict=True)
    for obs, action, reward, next_obs, discount, weight, next_draw, draw in rows:
        next_action, next_log_prob = sac_sample_by_hand(agent, next_obs, next_draw)
        value = min(q_by_hand(agent.critic_learner.target, next_obs, next_action)) - 0.3 * next_log_prob
        for q in q_by_hand(agent.critic_learner.network, obs, action):
            critic_loss += weight * (q - reward - discount * value) ** 2 / 2 / 6
        own, log_prob = sac_sample_by_hand(agent, obs, draw)
        actor_loss += (0.3 * log_prob - min(q_by_hand(agent.critic_learner.network, obs, own))) / 6
        entropy -= log_prob / 6
    assert metrics["critic_loss"] == pytest.approx(critic_loss, rel=1e-5)
    assert metrics["actor_loss"] == pytest.approx(actor_loss, rel=1e-5)
    assert metrics["entropy"] == pytest.approx(entropy, rel=1e-5)


@ALL
def test_gradients_are_those_of_finite_differences(kind: Any) -> None:
    agent, batch = shaken(kind, **({"policy_delay": 1} if kind is TD3 else {})), random_batch()
    random = agent.rng.bit_generator.state

    def losses() -> dict[str, float]:
        agent.rng.bit_generator.state = random
        return {name: float(value) for name, value in agent.learn_from(batch)[0].items()}

    losses()
    gradients = {"actor_loss": agent.actor_learner, "critic_loss": agent.critic_learner}
    gradients = {name: (learner, learner.optimizer.gradient.clone()) for name, learner in gradients.items()}
    for name, (learner, gradient) in gradients.items():
        assert gradient.abs().max() > 0.01
        for index in range(0, len(gradient), 3):
            both = []
            for sign in (1, -1):
                learner.vector[index] += sign * 4e-3
                both.append(losses()[name])
                learner.vector[index] -= sign * 4e-3
            assert gradient[index] == pytest.approx((both[0] - both[1]) / 8e-3, abs=1e-2, rel=1e-2), (name, index)


def test_the_density_of_squashed_actions_integrates_to_one_and_is_finite_everywhere() -> None:
    agent = shaken(SAC)
    with torch.no_grad():
        policy = agent.actor_learner.network(torch.tensor([[0.3, -0.2]]))
    edges = torch.linspace(-1, 1, 20_001, dtype=torch.float64)
    middles = (edges[1:] + edges[:-1]) / 2
    for dimension in range(2):
        one = type(policy)(
            policy.mean[:, [dimension]].double(), policy.log_std[:, [dimension]].double(), torch.ones(1).double()
        )
        density = one.log_prob(middles.atanh()[:, None]).exp()
        assert float(density.sum() * (edges[1] - edges[0])) == pytest.approx(1.0, abs=1e-3)
    assert policy.log_prob(torch.tensor([[40.0, -300.0]])).isfinite().all()


@pytest.mark.parametrize(("target_entropy", "grows"), [(10.0, True), (-10.0, False)])
def test_the_temperature_grows_where_there_is_too_little_entropy(target_entropy: float, grows: bool) -> None:
    agent = SAC(OBSERVATIONS, ACTIONS, target_entropy=target_entropy, **SMALL)
    agent.learn_from(random_batch())
    assert (agent.learn_from(random_batch())[0]["alpha"] > 1) == grows


def test_a_learned_temperature_starts_at_its_initial_value() -> None:
    agent = SAC(OBSERVATIONS, ACTIONS, initial_alpha=0.05, **SMALL)
    alphas = [agent.learn_from(random_batch())[0]["alpha"] for _ in range(2)]
    assert alphas[0] == pytest.approx(0.05)
    assert alphas[1] != alphas[0]


def test_clipped_returns_have_no_entropy_bonus() -> None:
    """A bonus would carry values above 0, the largest return, and all targets would be clipped to the same number."""
    losses = {
        (clip, alpha): shaken(SAC, alpha=alpha, clip_return=clip, reward_scale=1e6).learn_from(random_batch())[0][
            "critic_loss"
        ]
        for clip in (True, False)
        for alpha in (1e-3, 10.0)
    }
    assert losses[True, 10.0] == losses[True, 1e-3]
    assert losses[False, 10.0] != losses[False, 1e-3]


def test_td3_smooths_by_clipped_noise_and_delays_the_actor() -> None:
    agent = TD3(OBSERVATIONS, ACTIONS, **SMALL, lr=1e-2, tau=0.5, target_noise=0.4, target_noise_clip=0.3)
    obs = torch.zeros(20_000, 2)
    noise = torch.from_numpy(agent.update_noise(len(obs)))
    moved = (agent.smoothed_actions(obs, noise) - agent.actor_learner.target(obs)).detach().numpy()
    assert np.abs(moved).max() <= 0.3 + 1e-6
    assert (np.abs(moved) > 0.2999).mean() == pytest.approx(math.erfc(0.75 / 2**0.5), abs=0.01)
    start, target = agent.actor_learner.vector.clone(), agent.critic_learner.state()["target"].copy()
    for update in range(2):
        assert torch.equal(agent.actor_learner.vector, start)
        assert np.array_equal(agent.critic_learner.state()["target"], target)
        agent.learn_from(random_batch())
        agent.updates = update + 1
    assert not torch.equal(agent.actor_learner.vector, start)
    assert not np.array_equal(agent.critic_learner.state()["target"], target)


@ALL
def test_first_actions_hardly_depend_on_observations(kind: Any) -> None:
    agent = kind(OBSERVATIONS, ACTIONS, **SMALL)
    for learner, gain in ((agent.actor_learner, 0.01), (agent.critic_learner, 1.0)):
        first, *_, last = learner.network.layers.weights
        for weights, expected in ((first, 2**0.5), (last, gain)):
            sizes = torch.linalg.svdvals(weights)
            torch.testing.assert_close(sizes, torch.full_like(sizes, expected))


def test_action_l2_penalizes_large_actions() -> None:
    obs = random_batch().obs
    losses = [shaken(DDPG, action_l2=factor).learn_from(random_batch())[0]["actor_loss"] for factor in (0.0, 0.5)]
    actions = shaken(DDPG).actor_learner.network(obs).detach()
    assert losses[1] - losses[0] == pytest.approx(0.5 * (actions**2).mean().item(), rel=1e-4)


def test_the_temperature_stays_in_its_range() -> None:
    agent = SAC(OBSERVATIONS, ACTIONS, target_entropy=10.0, **(SMALL | {"lr": 50.0}))
    alphas = [agent.learn_from(random_batch())[0]["alpha"] for _ in range(2)]
    assert alphas == pytest.approx([1.0, math.exp(10)])


@ALL
def test_the_actors_step_leaves_the_critics_gradient_alone(kind: Any) -> None:
    agent, batch = shaken(kind, **({"policy_delay": 1} if kind is TD3 else {})), random_batch()
    random = agent.rng.bit_generator.state
    agent.learn_from(batch)
    after = agent.critic_learner.optimizer.gradient.clone()
    agent.rng.bit_generator.state = random
    agent.improve_actor = lambda *_: {}
    agent.critic_learner.optimizer.gradient.zero_()
    agent.learn_from(batch)
    assert torch.equal(agent.critic_learner.optimizer.gradient, after)


def actor_loss_by_hand(agent: Any, actor: Any, critic: Any, batch: Transitions, noise: torch.Tensor) -> torch.Tensor:
    """The loss of the actor with squared actions and filtered cloning of rows 4 and up, for autograd."""
    if isinstance(agent, SAC):
        policy = actor(batch.obs)
        raw_action = policy.mean + policy.log_std.exp() * noise
        actions, medians = raw_action.tanh(), policy.mean.tanh()
        loss = (0.3 * policy.log_prob(raw_action) - critic(batch.obs, actions).amin(dim=0)).mean()
    else:
        actions = medians = actor(batch.obs)
        loss = -critic(batch.obs, actions)[0].mean()
    better = critic(batch.obs[4:], batch.action[4:])[0] > critic(batch.obs[4:], medians[4:])[0]
    distance = ((medians - batch.action)[4:] ** 2).sum(dim=1)
    return loss + 0.5 * (actions**2).mean() + 2.0 * (distance * better).mean()


@ALL
@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
def test_the_gradient_of_the_actor_equals_that_of_autograd(kind: Any, activation: str) -> None:
    settings = {SAC: {"alpha": 0.3}, TD3: {"policy_delay": 1}, DDPG: {}}[kind]
    agent = shaken(
        kind, activation=activation, hidden_sizes=(8, 5), action_l2=0.5, demo_weight=2.0, q_filter=True,
        demo_batch_size=6, **settings,
    )  # fmt: skip
    agent.actor_learner.vector.mul_(0.5)
    batch = random_batch(size=10)
    agent.rng.bit_generator.state = np.random.default_rng(7).bit_generator.state
    noises = np.random.default_rng(7).standard_normal((2, 10, 2), np.float32)
    agent.learn_from(batch, WeightedRanks(demos=6))

    actor, critic = (copy.deepcopy(learner.network).double() for learner in (agent.actor_learner, agent.critic_learner))
    exact = Transitions(*[part.double() for part in batch])
    loss = actor_loss_by_hand(agent, actor, critic, exact, torch.from_numpy(noises[1]).double())
    expected = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(actor.parameters()))])
    ours = agent.actor_learner.optimizer.gradient.double()
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6 * expected.abs().max().item())


class NoReading(TorchDispatchMode):
    """Raises where a number is read from a tensor; on a GPU that waits, and cannot be recorded in a graph."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function is not torch.ops.aten._local_scalar_dense.default, "a number was read"
        return function(*args, **kwargs or {})


@ALL
def test_an_update_reads_no_number_from_the_device(kind: Any) -> None:
    agent = kind(OBSERVATIONS, ACTIONS, **SMALL, batch_size=4, action_l2=0.5, q_filter=True)
    agent.demos, batch = "rows 4 and up", random_batch()
    before = {name: learner.vector.clone() for name, learner in agent.learners.items()}
    with NoReading():
        metrics, errors = agent.make_update(
            batch, torch.from_numpy(agent.update_noise(6)), 1e-3, WeightedRanks(demos=2), delayed=True
        )
    assert not any(torch.equal(learner.vector, before[name]) for name, learner in agent.learners.items())
    assert {value.shape for value in metrics.values()} == {()}
    assert errors.shape == (6,)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", rest_slow(DDPG, TD3, SAC))
def test_compiling_changes_no_update(kind: Any, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changing learning rate does not compile it again, either."""
    if backend != "inductor":  # without machine code, which takes long to compile
        compile_ = torch.compile
        monkeypatch.setattr("torch.compile", lambda function, **_: compile_(function, backend=backend, dynamic=False))
    plain, compiled = (
        shaken(kind, lr=0.01, anneal_lr=True, tau=0.1, action_l2=0.5, compile=value) for value in (False, True)
    )
    torch._dynamo.utils.counters.clear()
    for number in range(6):
        told = []
        for agent in (plain, compiled):
            agent.progress = number / 8
            told.append(agent.learn_from(random_batch(number)))
            agent.updates += 1
        (metrics, errors), (expected, expected_errors) = told
        torch.testing.assert_close(metrics, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(errors, expected_errors, rtol=1e-4, atol=1e-5)
    for name, learner in plain.learners.items():
        for own, other in zip(learner.state().values(), compiled.learners[name].state().values(), strict=True):
            np.testing.assert_allclose(own, other, rtol=1e-3, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == (2 if kind is TD3 else 1)


def test_graphs_are_recorded_again_for_other_settings_and_for_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: what would be recorded is called instead."""
    recorded = []

    def record(function: Any, inputs: Any) -> Any:
        recorded.append(function)
        return function

    monkeypatch.setattr("OffPolicy.graphs._Graph", record)
    monkeypatch.setattr("OffPolicy.graphs._on_a_stream", lambda function, inputs: function(inputs))

    def updated(agent: Any, updates: int = 5) -> int:
        """Return how often a graph was recorded."""
        for _ in range(updates):
            noise = torch.from_numpy(agent.update_noise(6))
            agent._graphs.replay(agent.config, False, random_batch(), noise, agent.lr, WeightedRanks())
        return len(recorded)

    agent = DDPG(OBSERVATIONS, ACTIONS, **SMALL)
    assert updated(agent) == 1
    agent.lr = 1e-2
    assert updated(agent) == 1, "the learning rate is an input of the graph"
    agent.tau = 0.5
    assert updated(agent, 3) == 1, "the first updates are not replayed"
    assert updated(agent) == 2
    copied, before = copy.deepcopy(agent), agent.actor_learner.vector.clone()
    assert updated(copied) == 3
    assert torch.equal(agent.actor_learner.vector, before)


def test_a_clamped_deviation_gets_no_gradient() -> None:
    agent = shaken(SAC, alpha=0.3)
    *_, last = agent.actor_learner.network.layers.biases
    last.data[0, 0, 3] = 100.0  # the log-std of the second dimension
    agent.learn_from(random_batch())
    assert (last.grad[0, 0] != 0).tolist() == [True, True, True, False]


@ALL
def test_actions_reach_their_bounds_and_no_further(kind: Any) -> None:
    agent = kind(OBSERVATIONS, ACTIONS, **SMALL, learning_starts=10)
    obs = np.zeros((4000, 2), np.float32)
    random, _ = agent.act(obs)  # before learning starts: uniform
    np.testing.assert_allclose(random.min(axis=0), [-3, 1], atol=0.01)
    np.testing.assert_allclose(random.max(axis=0), [1, 2], atol=0.01)
    np.testing.assert_allclose(random.mean(axis=0), [-1, 1.5], atol=0.1)
    np.testing.assert_allclose(agent.policy.to_environment(agent.to_network_action(random)), random, atol=1e-6)
    agent.steps = 10
    agent.actor_learner.vector.mul_(1000)
    for actions in (agent.act(obs)[0], agent.get_action(obs), agent.get_action(obs, deterministic=True)):
        assert actions.dtype == np.float32
        assert all(ACTIONS.contains(action) for action in actions[:100])
    assert agent.get_action(obs[0]).shape == (2,)


def test_eps_greedy_replaces_actions_independently_in_each_environment() -> None:
    agent = TD3(OBSERVATIONS, ACTIONS, **SMALL, learning_starts=0, eps_greedy=0.25, action_noise="none")
    obs = np.zeros((20_000, 2), np.float32)
    actions, _ = agent.act(obs)
    greedy = agent.get_action(obs)
    assert (actions != greedy).any(axis=1).mean() == pytest.approx(0.25, abs=0.01)


@ALL
def test_unsupported_spaces_are_named(kind: Any) -> None:
    for space in (spaces.Box(0, 10, (2,), np.int64), spaces.Box(np.float32([-1, 2]), np.float32([1, 2]))):
        with pytest.raises(TypeError, match="float actions with different, finite bounds"):
            kind(OBSERVATIONS, space, **SMALL)
    with pytest.raises(TypeError, match="finite bounds"):
        kind(OBSERVATIONS, spaces.Box(-np.inf, np.inf, (1,)), **SMALL)
    with pytest.raises(TypeError, match="finite bounds"):
        kind(OBSERVATIONS, spaces.Discrete(2), **SMALL)
    masked = spaces.Dict({"x": OBSERVATIONS, "action_mask": spaces.MultiBinary(2)})
    with pytest.raises(TypeError, match=rf"{kind.__name__} takes no action_mask, .*: DQN and PPO take masks"):
        kind(masked, ACTIONS, **SMALL)
    with pytest.raises(TypeError, match="no images"):
        kind(spaces.Box(0, 255, (40, 40, 3), np.uint8), ACTIONS, **SMALL)


@pytest.mark.parametrize("way", ["weights", "shared state"])
def test_a_perturbed_actor_has_the_weights_that_were_loaded(way: str, tmp_path: Path) -> None:
    agent, other = (
        DDPG(OBSERVATIONS, ACTIONS, parameter_noise=0.2, action_noise="none", **(SMALL | {"seed": seed}))
        for seed in (1, 2)
    )
    if way == "weights":
        other.save_weights(tmp_path)
        agent.load_weights(tmp_path)
    else:
        agent.load_shared_state(other.shared_state())
    obs = np.random.default_rng(0).uniform(-1, 1, (5, *OBSERVATIONS.shape)).astype(np.float32)
    agent.steps = agent.learning_starts
    np.testing.assert_array_equal(agent.act(obs)[0], other.get_action(obs))


def test_parameter_noise_changes_actions_by_its_target() -> None:
    agent = DDPG.for_env(Identity(True), parameter_noise=0.2, action_noise="none", buffer_size=2000, seed=0,
                         hidden_sizes=(32,), learning_starts=64, batch_size=64, lr=1e-30, utd=0.1)  # fmt: skip
    loop = Loop(agent, partial(Identity, True), 4)
    metrics = loop.run(400)
    obs = np.random.default_rng(0).uniform(-1, 1, (500, 1)).astype(np.float32)
    distances = []
    for _ in range(15):
        loop.run(40)  # an episode of each environment
        actions = (agent.act(obs)[0] - agent.get_action(obs)) / 2
        distances.append(np.sqrt((actions**2).mean()))
    assert np.mean(distances) == pytest.approx(0.2, abs=0.06)
    assert metrics[-1]["parameter_noise"] != metrics[0]["parameter_noise"]


def test_parameter_noise_stays_as_it_is_until_an_episode_has_ended() -> None:
    agent = DDPG.for_env(OneState(True), parameter_noise=0.2, action_noise="none", buffer_size=99, seed=0,
                         hidden_sizes=(32,), learning_starts=5, batch_size=8, lr=1e-30)  # fmt: skip
    loop = Loop(agent, partial(OneState, True))
    loop.run(5)  # an episode
    obs, changes = np.random.default_rng(0).uniform(-1, 1, (50, 1)).astype(np.float32), []
    for _ in range(10):
        loop.run(1)
        change = (agent.act(obs)[0] - agent.get_action(obs)).ravel()
        changes.append(change / np.linalg.norm(change))  # its size is adapted in each update
    alike = np.array(changes) @ np.transpose(changes) > 0.99
    np.testing.assert_array_equal(alike, np.kron(np.eye(3), np.ones((5, 5)))[1:11, 1:11])


def learned(kind: Any, env: Any, steps: int, **settings: Any) -> Any:
    options: dict[str, Any] = {"lr": 1e-2, "hidden_sizes": (16,), "learning_starts": 50, "utd": 0.5, "tau": 0.3}
    options |= (
        {"batch_size": 64, "buffer_size": 5000, "alpha": 1e-6}
        if kind is SAC
        else {"batch_size": 64, "buffer_size": 5000}
    )
    agent = kind.for_env(env(), seed=0, **(options | settings))
    Loop(agent, env, num_envs=2).run(steps)
    return agent


def q_of(agent: Any, obs: float) -> np.ndarray:
    columns = torch.full((5, 1), obs)
    return agent.critic_learner.network(columns, torch.linspace(-0.5, 0.5, 5)[:, None]).detach().numpy()


@pytest.mark.parametrize("kind", rest_slow(SAC, DDPG, TD3))
def test_values_with_truncation_only_are_those_of_the_infinite_horizon(kind: Any) -> None:
    """If these ends were terminations, the value would be at most 2.3."""
    agent = learned(kind, partial(OneState, True), 450, gamma=0.6)
    np.testing.assert_allclose(q_of(agent, 1.0), 2.5, rtol=0.05)


@pytest.mark.parametrize("kind", rest_slow(TD3, DDPG, SAC))
def test_values_after_termination_are_zero(kind: Any) -> None:
    agent = learned(kind, partial(TwoStates, True), 500, gamma=0.5)
    np.testing.assert_allclose(q_of(agent, 0.0), 1.0, atol=0.1)
    np.testing.assert_allclose(q_of(agent, 1.0), 2.0, atol=0.1)


@pytest.mark.slow
@ALL
def test_policy_learns_the_action_that_the_observation_shows(kind: Any) -> None:
    agent = learned(kind, partial(Identity, True), 1400, gamma=0.0, hidden_sizes=(32,), lr=5e-3)
    assert evaluate(agent, partial(Identity, True), 10, backend="inline").mean() > -1.5  # at random it is about -12
