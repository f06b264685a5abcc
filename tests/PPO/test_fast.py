"""The analytic gradient is the one that autograd computes, for every combination of options."""

import copy
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from parallel_rl.networks import flatten
from parallel_rl.utils import ALONE, Trajectory, choices_of
from PPO import PPO, ActorCritic
from PPO.fast.distributions import Choices, categorical, log_slope
from PPO.fast.gradient import METRICS, AnalyticGradient
from PPO.fast.policy import Networks
from PPO.losses import objective_loss
from PPO.memory import Rows
from PPO.minibatches import standardize
from PPO.objective import Objective
from PPO.update import minibatch_gradients
from tests.covering import rest_slow


def rows(policy: ActorCritic, continuous: bool, values: int, count: int) -> Rows:
    """Return rows of which some ratios and some values have left their clips."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    obs = normal(count, 5)
    if policy.features.mask is not None:
        counts = [choices for choices, _ in choices_of(policy.action_space)]
        masks = normal(count, sum(counts)).gt(0).split(counts, dim=1)
        for mask in masks:
            mask[:, -1] |= ~mask.any(dim=1)
        obs = torch.cat([obs, *masks], dim=1)
    with torch.no_grad():
        distribution, value = policy(obs)
        noise = normal(count, policy.policy_head.noise_size)
        raw_action = distribution.sample(noise if continuous else noise.exp())
        log_prob = distribution.log_prob(raw_action) + 0.3 * normal(count)
    return Rows(
        obs, raw_action, log_prob, 2 * normal(count) + 1, normal(count, values), value + 0.3 * normal(count, values)
    )


SCALE = np.array([1.0, 2.0, 0.4])
ACTIONS: dict[str, spaces.Space] = {
    "choice": spaces.Discrete(3),
    "choices": spaces.MultiDiscrete([3, 2, 4]),
    "masked choice": spaces.Discrete(3),
    "masked choices": spaces.MultiDiscrete([3, 2, 4]),
    "squashed": spaces.Box(-SCALE, SCALE, dtype=np.float64),
    "cut off": spaces.Box(-SCALE, SCALE, dtype=np.float64),
}
NUMBERS = spaces.Box(-1, 1, (5,))
MASKED = {
    name: spaces.Dict({"observation": NUMBERS, "action_mask": spaces.MultiBinary(size)})
    for name, size in (("masked choice", 3), ("masked choices", 9))
}


TOGETHER, APART = [Networks.BOTH], [Networks.CRITIC, Networks.ACTOR]
OPTIONS = [*product([None, 0.2], [0.0, 0.03], [1, 2], [TOGETHER, APART], [(), (16,), (16, 8)])]


@pytest.mark.covering
@pytest.mark.parametrize(
    ("offset", "actions", "activation"),
    [(number % 5, *both) for number, both in enumerate(product(ACTIONS, ["tanh", "relu", "silu"]))],
)
def test_analytic_gradient_of_every_network_equals_autograd(offset: int, actions: str, activation: str) -> None:
    """To 1e-10 in float64, for all options of value clipping, entropy, value heads and depths.

    Every fifth combination has each pair of options; all of them are taken by one test or another.
    """
    observation_space = MASKED.get(actions, NUMBERS)
    for value_clip, entropy_coef, values, chosen, hidden_sizes in OPTIONS[offset::5]:
        policy = ActorCritic(
            observation_space, ACTIONS[actions], squash=actions == "squashed", hidden_sizes=hidden_sizes,
            activation=activation, values=values, log_std=-0.4, generator=torch.Generator().manual_seed(0),
        ).double()  # fmt: skip
        for parameter in policy.policy_head.parameters():
            parameter.data.mul_(30 if parameter.ndim == 2 else 1)
        parameters, gradient = flatten(policy.stacked_parameters())
        architecture = policy.architecture()
        assert architecture is not None
        analytic = AnalyticGradient(architecture, parameters.numpy(), gradient.numpy())
        objective = Objective(0.2, 0.7, entropy_coef, value_clip)
        minibatch = rows(policy, isinstance(ACTIONS[actions], spaces.Box), values, 40)

        gradient.zero_()
        loss, expected_metrics = objective_loss(objective, policy, minibatch)
        loss.backward()
        expected = gradient.clone()
        gradient.fill_(9.0)
        arrays = minibatch.numpy()
        if actions == "squashed":
            scale = policy.policy_head.scale.numpy()
            arrays = arrays._replace(log_prob=arrays.log_prob + log_slope(arrays.raw_action, scale))
        numbers = np.full(4, 9.0)
        for networks in chosen:
            analytic.compute(objective, arrays, 40, numbers, networks)
        metrics = dict(zip(METRICS, numbers.tolist(), strict=True))

        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-10)
        assert expected.abs().max() > 1e-3
        assert metrics == pytest.approx({name: value.item() for name, value in expected_metrics.items()}, abs=1e-10)
        assert 0.1 < metrics["clip_fraction"] < 0.9


@pytest.mark.parametrize("continuous", rest_slow(True, False))
def test_analytic_learner_after_fifty_updates_equals_autograd(continuous: bool) -> None:
    """In float32, from the same experience: the same weights to 1e-4, and one optimizer state."""

    def run(learner: Any) -> PPO:
        ppo = PPO(
            continuous, 5, 3, lr=3e-4, k_epochs=2, batch_size=64, mini_batch_size=32, learner=learner, seed=0,
            use_RND=True, beta=0.1, value_clip=0.5, entropy_coef=0.01, rnd_warmup=0,
        )  # fmt: skip
        for seed in range(50):
            rng = np.random.default_rng(seed)
            obs = rng.normal(size=(64, 5)).astype(np.float32)
            action = np.tanh(rng.normal(size=(64, 3))) if continuous else rng.integers(0, 3, 64)
            flags = np.zeros(64, bool)
            reward = rng.normal(size=64).astype(np.float32)
            ppo.memory.append(Trajectory(0, obs, action, reward, flags, flags, obs[:1]))
            assert ppo.learn()
        return ppo

    analytic, autograd = run("auto"), run("torch")
    for ours, theirs in zip(analytic.policy.parameters(), autograd.policy.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    for ours, theirs in zip(analytic.optimizers, autograd.optimizers, strict=True):
        for name, moment in theirs.state.items():
            largest = moment.abs().max().item()
            torch.testing.assert_close(ours.state[name], moment, rtol=0, atol=1e-2 * largest)
            assert largest > 0


def test_other_networks_have_no_numpy_policy() -> None:
    ppo = PPO(False, 4, 2)
    assert ppo.numpy_policy is not None
    ppo.policy.actor[1] = torch.nn.GELU()
    assert copy.deepcopy(ppo).numpy_policy is None
    assert PPO(False, 4, 2, hidden_sizes=(1500, 1500)).numpy_policy is None


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
def test_numpy_policy_acts_as_torch_does(continuous: bool, deterministic: bool) -> None:
    obs = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    scaling = [2.0, 0.5, 1.0]
    ppo = PPO(continuous, 4, 3, scaling if continuous else None, action_offset=0.1, seed=0)
    by_torch = copy.deepcopy(ppo)
    by_torch.numpy_policy = None
    answers = [agent.act(obs, deterministic=deterministic) for agent in (ppo, by_torch)]
    (ours, our_extras), (theirs, their_extras) = answers
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert our_extras.keys() == their_extras.keys()
    for name, value in our_extras.items():
        np.testing.assert_allclose(value, their_extras[name], atol=1e-4)


@pytest.mark.parametrize(
    "space", [spaces.Discrete(3, start=5), spaces.MultiDiscrete([[3, 2], [2, 4]], start=[[0, 1], [2, 3]])]
)
@pytest.mark.parametrize("deterministic", [False, True])
def test_numpy_policy_obeys_masks_as_torch_does(space: spaces.Space, deterministic: bool) -> None:
    rng = np.random.default_rng(0)
    counts, starts = zip(*choices_of(space), strict=True)
    masks = [rng.integers(0, 2, (200, count)).astype(np.int8) for count in counts]
    for mask in masks:
        mask[:, 0] |= ~mask.any(axis=1)
    obs = {"observation": rng.normal(size=(200, 5)).astype(np.float32), "action_mask": np.concatenate(masks, axis=1)}
    observations = spaces.Dict({"observation": NUMBERS, "action_mask": spaces.MultiBinary(sum(counts))})
    ppo = PPO(False, 5, 3, observation_space=observations, action_space=space, seed=0)
    by_torch = copy.deepcopy(ppo)
    assert by_torch.numpy_policy is not None
    by_torch.numpy_policy = None
    (ours, extras), (theirs, expected) = (agent.act(obs, deterministic=deterministic) for agent in (ppo, by_torch))
    assert np.array_equal(ours, theirs)
    for mask, start, action in zip(masks, starts, ours.reshape(200, -1).T, strict=True):
        assert mask[np.arange(200), action - start].all()
        assert len(np.unique(action)) == mask.shape[1]
    np.testing.assert_allclose(extras["log_prob"], expected["log_prob"], atol=1e-6)


@pytest.mark.parametrize("continuous", [False, True])
def test_numpy_policy_output_does_not_depend_on_other_rows(continuous: bool) -> None:
    """Bit for bit, so the number of processes that share the environments does not matter."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(33, 17)).astype(np.float32)
    for actions in (1, 2, 3, 6, 9):
        ppo = PPO(continuous, 17, actions, seed=0)
        replica = ppo.replica()
        assert replica is not None
        player, noise = replica.policy(ppo.replica_weights()), ppo.noise(33)

        def play(part: slice, player: Any = player, noise: Any = noise) -> dict[str, np.ndarray]:
            answer, output = player.act(obs[part], noise[part])
            rows = {name: values[:, None] for name, values in answer.items()}
            return rows | player.complete(rows, output[:, None])

        together = play(slice(33))
        for part in (*(slice(row, row + 1) for row in range(33)), slice(3, 5), slice(1, 32), slice(17, 33)):
            for name, rows in play(part).items():
                assert np.array_equal(rows, together[name][part]), (name, actions, part)


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("by_minibatch", [False, True])
def test_sharded_gradient_adds_up_to_autograd(continuous: bool, by_minibatch: bool) -> None:
    """700 rows, three shards; advantages are standardized over all of them, and some values have left their clip."""
    results = []
    for learner in ("auto", "torch"):
        settings: dict[str, Any] = {"batch_size": 700, "mini_batch_size": 700, "entropy_coef": 0.01, "learner": learner}
        ppo = PPO(continuous, 5, 3, seed=0, **settings)
        some = rows(copy.deepcopy(ppo.policy).double(), continuous, 1, 700)
        minibatch = Rows(
            *(field.float() if field is not None and field.is_floating_point() else field for field in some)
        )
        minibatch = minibatch._replace(advantage=minibatch.advantage + torch.arange(700) / 100)
        objective = Objective(0.2, 0.5, 0.01, 0.2 if by_minibatch else None)
        gradient = minibatch_gradients(ppo, 700, objective, None)
        gradient.load(minibatch)
        shuffled = gradient.shuffle(np.arange(700))
        if by_minibatch:
            standardize(ALONE, shuffled.advantage, [0, 700])
        metrics = {name: float(value) for name, value in gradient.compute(0, 700).items()}
        results.append((ppo.optimizers[0].gradient.clone(), metrics))
    (ours, our_metrics), (theirs, their_metrics) = results
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert our_metrics == pytest.approx(their_metrics, rel=1e-3, abs=1e-5)


def test_choices_that_are_masked_or_missing_have_probability_zero() -> None:
    """Known answers: 2 of 3 and 1 of 2 choices are allowed, with logits 0 and log 3 for the two."""
    choices = Choices((3, 2), np.array([10, 20]))
    output, mask = np.array([0.0, 5.0, np.log(3.0), 7.0, 1.0])[:, None], np.array([[1, 0, 1, 0, 1]])
    logits = choices.logits(output, mask)
    assert logits.shape == (6, 1)
    for noise, expected in ((None, [2, 1]), (np.array([[1.0, 1e-9, 9.0, 1e-9, 1.0, 1e-9]]), [0, 1])):
        assert choices.sample(logits, noise).tolist() == [expected]
    log_prob, backward = categorical(logits, np.array([[2, 1]]))
    np.testing.assert_allclose(log_prob, [np.log(0.75)])
    d_output = choices.gradient(backward(np.ones(1), 0.0, None))
    np.testing.assert_allclose(d_output[:, 0], [-0.25, 0.0, 0.25, 0.0, 0.0], atol=1e-12)
