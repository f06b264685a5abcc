"""Companions: further losses and intrinsic rewards."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn
from torch.nn.utils import parameters_to_vector

from parallel_rl.networks import limit_norm
from parallel_rl.utils import ALONE, Batch, Features, Trajectory, load_state, save_state
from PPO import ICM, PPO, RND, ActorCritic, Companion, RewardScale, Transitions
from PPO.minibatches import standardize
from PPO.update import add_companion_gradients, minibatch_gradients

SMALL: dict[str, Any] = {"batch_size": 32, "mini_batch_size": 16, "k_epochs": 3, "hidden_sizes": (8,), "seed": 0}
Targets = tuple[torch.Tensor, ...]


class Counts(Companion):
    """A companion with a reward only, from counts."""

    name, beta = "count", 0.5

    def build(self, features: Features, action_space: spaces.Space, generator: torch.Generator) -> None:
        self.scale = RewardScale(self.gamma)
        self.register_buffer("seen", torch.zeros(2, dtype=torch.float64))

    def reward(self, transitions: Transitions) -> np.ndarray:
        side = (transitions.next_obs[:, 0] > 0).long()
        self.seen.index_add_(0, side, torch.ones(len(side), dtype=torch.float64))
        return self.scale.scale(self.seen[side].rsqrt().numpy(), transitions.batch)


class Mirror(Companion):
    """A companion with a loss only, on the policy's parameters and on its own weight."""

    shares = True

    def build(self, features: Features, action_space: spaces.Space, generator: torch.Generator) -> None:
        self.weight = nn.Parameter(torch.ones(features.columns))

    def targets(self, transitions: Transitions) -> Targets:
        return (transitions.obs,)

    def loss(self, targets: Targets, rng: np.random.Generator, policy: ActorCritic) -> torch.Tensor:
        return 0.3 * policy.distribution(policy.normalize(targets[0] * self.weight)).entropy().mean()


class Selfish(Mirror):
    """The same, without training the policy."""

    shares = False


class OwnLoss(PPO):
    """Overrides `loss`, by itself."""

    def loss(self, minibatch: Any, progress: float = 0.0) -> Any:
        return super().loss(minibatch, progress)


class Broken(Mirror):
    def loss(self, targets: Targets, rng: np.random.Generator, policy: ActorCritic) -> torch.Tensor:
        return super().loss(targets, rng, policy) * float("nan")


def agent(*companions: Companion | str, kind: type[PPO] = PPO, **settings: Any) -> PPO:
    return kind(False, 4, 3, companions=companions, **(SMALL | settings))


def collected(ppo: PPO, seed: int = 0, value: float | None = None) -> PPO:
    """Append trajectories to the memory of an agent; give one observation a value."""
    rng = np.random.default_rng(seed)
    for env_id in range(2):
        obs, over = rng.normal(size=(16, 4)).astype(np.float32), rng.random(16) < 0.2
        action, extras = ppo.act(obs)
        obs[3, 1] = obs[3, 1] if value is None else value
        final = rng.normal(size=(int(over[:-1].sum()) + 1, 4)).astype(np.float32)
        reward = rng.normal(size=16).astype(np.float32)
        ppo.memory.append(Trajectory(env_id, obs, action, reward, over, np.zeros(16, bool), final, extras))
    return ppo


def weights(ppo: PPO) -> dict[str, torch.Tensor]:
    return {
        f"{file} {name}": tensor.clone()
        for module, file in ppo.modules()
        for name, tensor in module.state_dict().items()
    }


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("way", ["a name", "an object", "both"])
def test_rnd_among_companions_equals_use_rnd_to_the_bit(way: str) -> None:
    settings = {"beta": 0.5, "intrinsic_gamma": 0.9, "rnd_update_proportion": 0.5, "rnd_warmup": 20}
    expected = PPO(False, 4, 3, use_RND=True, **(SMALL | settings))
    if way == "an object":
        ppo = agent(RND(beta=0.5, gamma=0.9, update_proportion=0.5, warmup=20))
    else:
        ppo = agent("rnd", **settings, use_RND=way == "both")
    for seed in range(4):
        metrics, wanted = collected(ppo, seed).learn(), collected(expected, seed).learn()
        assert metrics == wanted
        assert (metrics["rnd_reward"] > 0) == (seed > 0)
    assert_same(weights(ppo), weights(expected))
    if way != "an object":
        ppo.check_signature(expected.signature(), "the other")
        expected.check_signature(ppo.signature(), "the other")


@pytest.mark.parametrize("learner", ["auto", "torch"])
def test_gradient_with_a_loss_that_shares_is_autograds_of_the_sum(learner: Any) -> None:
    ppo = collected(agent(Mirror(), learner=learner, mini_batch_size=32, max_grad_norm=1e9))
    prepared = ppo.prepare()
    order = np.arange(32)
    _, objective = ppo._annealed(0.0)
    gradient = minibatch_gradients(ppo, 32, objective, None)
    gradient.load(prepared.rows)
    standardize(ALONE, gradient.shuffle(order).advantage, [0, 32])
    gradient.compute(0, 32)
    alone = ppo.optimizers[0].gradient.clone()
    add_companion_gradients(ppo, prepared.targets, order, ppo.rng)
    ours = [parameter.grad.clone() for parameter in ppo.parameters()]

    for parameter in ppo.parameters():
        parameter.grad.zero_()
    (minibatch,) = ppo.minibatches(prepared)
    loss, metrics = ppo.loss(minibatch)
    loss.backward()
    for parameter, own in zip(ppo.parameters(), ours, strict=True):
        torch.testing.assert_close(parameter.grad, own, rtol=0, atol=1e-6)
    assert (ppo.optimizers[0].gradient - alone).abs().max() > 1e-3, "the companion has a part in it"
    assert (ppo.companions[0].weight.grad != 0).all()
    assert metrics.keys() == {"policy_loss", "value_loss", "approx_kl", "clip_fraction", "mirror_loss"}


@pytest.mark.parametrize("kind", [PPO, OwnLoss])
def test_losses_on_parameters_of_their_own_are_learned_each_as_if_alone(kind: type[PPO]) -> None:
    """Also one that uses the policy's networks without sharing them."""
    plain, selfish = agent(kind=kind), agent(Selfish(), kind=kind)
    for seed in range(3):
        collected(plain, seed).learn()
        collected(selfish, seed).learn()
    assert_same(weights(plain), {name: tensor for name, tensor in weights(selfish).items() if "Policy" in name})
    assert (selfish.companions[0].weight != 1).all()


def test_loss_in_a_custom_loop_has_no_gradient_of_a_companion_for_a_policy_that_it_does_not_share() -> None:
    gradients = []
    for companions in ([], [Selfish()]):
        ppo = collected(agent(*companions))
        ppo.loss(next(ppo.minibatches(ppo.prepare())))[0].backward()
        gradients.append(ppo.optimizers[0].gradient)
    assert torch.equal(*gradients)
    assert (ppo.companions[0].weight.grad != 0).all()


def test_a_frozen_layer_of_the_policy_stays_frozen_beside_a_companion() -> None:
    ppo = agent(Selfish(), learner="torch")
    layer = ppo.policy.actor[0]  # type: ignore[index]
    layer.weight.requires_grad_(False)
    before = layer.weight.clone()
    collected(ppo).learn()
    assert torch.equal(layer.weight, before)
    assert not layer.weight.requires_grad


def test_steps_of_learn_in_a_custom_loop_equal_learn() -> None:
    """The README's loop: the statistics, the gradients and the steps are those of `learn`."""
    learns, steps = (agent(RND(warmup=0), Mirror(), learner="torch", normalize_obs=True) for _ in range(2))
    for seed in range(3):
        collected(learns, seed).learn()
        prepared = collected(steps, seed).prepare()
        for _ in range(steps.k_epochs):
            for minibatch in steps.minibatches(prepared):
                loss, _ = steps.loss(minibatch)
                for optimizer in steps.optimizers:
                    optimizer.gradient.zero_()
                loss.backward()
                limit_norm(steps.optimizers[0].gradient, steps.max_grad_norm)
                for optimizer in steps.optimizers:
                    optimizer.step(steps.lr)
    for name, tensor in weights(learns).items():
        torch.testing.assert_close(weights(steps)[name], tensor, rtol=0, atol=1e-5, msg=name)
    assert len(steps.memory) == 0


def test_a_loop_with_an_optimizer_of_torch_learns_and_so_does_learn_after_it() -> None:
    """`zero_grad` sets gradients to None, of which `learn` needs views."""
    ppo = agent(RND(warmup=0, update_proportion=1.0))
    optimizer = torch.optim.Adam(ppo.parameters(), lr=0.001)
    before = parameters_to_vector(ppo.parameters())
    for minibatch in ppo.minibatches(collected(ppo).prepare()):
        optimizer.zero_grad()
        ppo.loss(minibatch)[0].backward()
        optimizer.step()
    steps = parameters_to_vector(ppo.parameters())
    assert (steps != before).float().mean() > 0.8
    collected(ppo).learn()
    assert (parameters_to_vector(ppo.parameters()) != steps).float().mean() > 0.8


def test_three_companions_have_metrics_files_and_values_of_their_own(tmp_path: Path) -> None:
    ppo = agent(RND(warmup=0), ICM(beta=0.1), Counts(), Mirror())
    metrics = collected(ppo).learn()
    names = {name for name in metrics if name.split("_")[0] in {"rnd", "icm", "count", "mirror"}}
    assert names == {"rnd_loss", "rnd_reward", "icm_loss", "icm_reward", "count_reward", "mirror_loss"}
    assert len({metrics[name] for name in names}) == len(names)
    assert ppo.policy.value_head.stats.mean.shape == (4,)
    ppo.save_weights(tmp_path)
    files = ["ICM", "Mirror", "Policy", "RND", "count"]
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"{name}_weights.pth" for name in files]
    again = agent(RND(warmup=0), ICM(beta=0.1), Counts(), Mirror(), seed=5)
    again.load_weights(tmp_path)
    assert_same(weights(again), weights(ppo))


def test_three_companions_resume_to_the_bit(tmp_path: Path) -> None:
    def make() -> PPO:
        return agent(RND(warmup=0), ICM(), Counts(), Mirror())

    whole = collected(make())
    whole.learn()
    save_state(tmp_path / "half.state", whole.state())
    resumed = make()
    resumed.load_state(load_state(tmp_path / "half.state"))
    copied = copy.deepcopy(whole)
    expected = collected(whole, 1).learn()
    for ppo in (resumed, copied):
        assert collected(ppo, 1).learn() == expected
        assert_same(weights(ppo), weights(whole))


def test_agents_that_loaded_the_same_state_share_nothing() -> None:
    collected(first := agent(RND(warmup=0))).learn()
    state = first.state()
    agents = [agent(RND(warmup=0)) for _ in range(3)]
    for ppo in agents[:2]:
        ppo.load_state(state)
    metrics = [collected(ppo, 1).learn() for ppo in agents[:2]]
    agents[2].load_state(state)
    assert [*metrics, collected(agents[2], 1).learn()] == [metrics[0]] * 3


def test_returns_of_rnd_in_an_older_state_are_a_tensor() -> None:
    ppo = collected(agent("rnd", rnd_warmup=0))
    ppo.learn()
    state = ppo.state()
    (state["intrinsic_returns"],) = state["intrinsic_returns"].values()
    resumed = agent("rnd", rnd_warmup=0)
    resumed.load_state(state)
    assert torch.equal(resumed.rnd.return_stats.discounted, ppo.rnd.return_stats.discounted)
    assert resumed.rnd.return_stats.discounted.all()
    resumed.forget_environments()
    assert len(resumed.rnd.return_stats.discounted) == 0


@pytest.mark.parametrize("learner", ["auto", "torch"])
def test_a_loss_that_is_not_finite_is_named_and_the_weights_are_as_before(learner: Any) -> None:
    ppo = collected(agent(RND(warmup=0), Broken(), learner=learner))
    before = weights(ppo)
    with pytest.raises(FloatingPointError, match=r"^broken_loss, grad_norm became infinite or NaN in update 1 "):
        ppo.learn()
    assert not ppo.state()["rewarded"]
    assert_same(weights(ppo), before)


class Rewarding(Counts):
    beta = None


def test_a_reward_without_beta_is_refused() -> None:
    with pytest.raises(ValueError, match="the companion Rewarding has a reward, but no beta"):
        agent(Rewarding())


class Wrong(Mirror):
    result: Any = None

    def loss(self, targets: Targets, rng: np.random.Generator, policy: ActorCritic) -> torch.Tensor:
        return self.result


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (torch.ones(()), "the loss of Wrong has no gradient"),
        (torch.ones(3), r"the loss of Wrong must be a tensor with one number, not a tensor \(3,\)"),
        (0.5, "the loss of Wrong must be a tensor with one number, not 0.5"),
        (None, "the loss of Wrong must be a tensor with one number, not None"),
    ],
)
@pytest.mark.parametrize("learner", ["auto", "torch"])
def test_a_loss_that_is_no_number_with_a_gradient_is_named(result: Any, message: str, learner: Any) -> None:
    ppo = collected(agent(Wrong(), learner=learner))
    ppo.companions[0].result = result
    with pytest.raises(TypeError, match=message):
        ppo.learn()


@pytest.mark.parametrize("companion", [lambda: RND(warmup=0), ICM, Counts])
def test_a_nan_observation_spoils_one_update_only(companion: Any) -> None:
    ppo = agent(companion())
    collected(ppo).learn()
    before, returns = weights(ppo), ppo.state()["intrinsic_returns"]
    with pytest.raises(FloatingPointError, match=r"\(then also observations, "):
        collected(ppo, 1, value=np.nan).learn()
    assert_same(weights(ppo), before)
    assert_same(ppo.state()["intrinsic_returns"], returns)
    assert np.isfinite([*collected(ppo, 2).learn().values()]).all()


def test_a_reward_that_is_not_finite_is_named_and_the_weights_are_as_before() -> None:
    ppo = collected(agent(RND(warmup=0), Counts()))
    ppo.companions[1].reward = lambda transitions: np.full(32, np.nan)
    before = weights(ppo)
    with pytest.raises(FloatingPointError, match=r"^the reward of count became infinite or NaN in update 1 "):
        ppo.learn()
    assert_same(weights(ppo), before)


@pytest.mark.parametrize("episodic", [False, True])
def test_the_return_of_a_companion_ends_with_episodes_if_it_says_so(episodic: bool) -> None:
    counts = Counts()
    counts.beta, counts.gamma, counts.episodic = 1.0, 0.5, episodic
    ppo = agent(counts, GAE_lambda=1.0, normalize_advantage="none", batch_size=16)
    with torch.no_grad():
        ppo.policy.value_head.normal.weight.zero_()
    ppo.companions[0].reward = lambda transitions: np.array([0.0, 0.0, 8.0])
    obs, over = np.zeros((3, 4), np.float32), np.array([True, False, False])
    nothing = np.zeros(3, np.float32)
    ppo.memory.append(Trajectory(0, obs, nothing, nothing, over, np.zeros(3, bool), obs[:2]))
    assert ppo.prepare().rows.advantage.tolist() == pytest.approx([0.0 if episodic else 2.0, 4.0, 8.0])


def test_learner_reason_says_how_gradients_are_computed() -> None:
    assert agent().learner_reason == "analytic gradients"
    assert agent(RND()).learner_reason == "analytic gradients"
    assert (
        agent(Mirror()).learner_reason == "analytic gradients; mirror_loss by autograd, added to the policy's gradient"
    )
    assert agent(learner="torch").learner_reason == "autograd, as learner='torch' asks for"
    assert "no analytic gradient" in agent(core="gru").learner_reason


class NoParameters(Companion):
    def loss(self, targets: Targets, rng: np.random.Generator, policy: ActorCritic) -> torch.Tensor:
        return torch.zeros(())


class Policy(Companion):
    pass


@pytest.mark.parametrize(
    ("companions", "message"),
    [
        (["rmd"], "companions must be of rnd, icm, or objects in Python, not rmd"),
        ([RND(), RND()], "two companions cannot both be called 'RND'"),
        (["rnd", RND()], "two companions cannot both be called 'RND'"),
        ([Policy()], "two companions cannot both be called 'Policy'"),
        ([NoParameters()], "NoParameters has a loss, but no parameters, and does not share the policy's"),
        ([RND], "a companion is 'rnd', 'icm' or an object of a subclass of Companion, not <class"),
    ],
)
def test_invalid_companions_are_named(companions: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        agent(*companions)


def test_icm_refuses_actions_that_it_cannot_predict() -> None:
    with pytest.raises(TypeError, match="ICM takes a Discrete or a Box of actions, not MultiBinary"):
        PPO(False, 4, 6, action_space=spaces.MultiBinary(3), companions=["icm"], **SMALL)


def test_a_list_of_companions_makes_several_agents() -> None:
    companions = [RND(warmup=0), Mirror()]
    one, other = agent(*companions), agent(*companions)
    collected(one).learn()
    assert_same(weights(other), weights(agent(*companions)))


def test_an_assigned_beta_changes_the_companion() -> None:
    ppo = agent("rnd", "icm")
    ppo.beta, ppo.icm_beta = 3.0, 4.0
    assert [companion.beta for companion in ppo.companions] == [3.0, 4.0]
    assert (ppo.beta, ppo.icm_beta) == (3.0, 4.0)


def test_the_beta_of_an_agent_is_that_of_its_companion() -> None:
    ppo = agent(RND(beta=1.0), Mirror())
    assert (ppo.beta, ppo.icm_beta) == (1.0, 0.001)
    copied = copy.deepcopy(ppo)
    assert copied.beta == 1.0
    ppo.beta = copied.beta
    assert [companion.beta for companion in ppo.companions] == [1.0, None]


def test_weights_with_custom_companions_need_the_objects_to_load(tmp_path: Path) -> None:
    collected(ppo := agent("rnd", Mirror())).learn()
    ppo.save_weights(tmp_path)
    with pytest.raises(
        ValueError, match=r"had companions, .*test_companions\.Mirror, which no file holds: give compan"
    ):
        PPO.load(tmp_path)
    assert_same(weights(PPO.load(tmp_path, companions=["rnd", Mirror()])), weights(ppo))
    with pytest.raises(ValueError, match=r"companions is \['rnd', .* there and \['rnd'\] here"):
        agent("rnd").load_weights(tmp_path)


def test_icm_rewards_what_its_forward_model_cannot_predict() -> None:
    """Two kinds of transitions. The error falls for those that are a function of the action, and not for noise."""
    icm, rng = ICM(), np.random.default_rng(0)
    icm.build(Features.of(spaces.Box(-1, 1, (2,))), spaces.Discrete(2), torch.Generator().manual_seed(0))
    action = torch.from_numpy(rng.integers(0, 2, 512))
    obs = torch.from_numpy(rng.normal(size=(512, 2)).astype(np.float32)) * 0.1
    known = torch.stack([2.0 * action - 1.0, torch.zeros(512)], dim=1)
    noise = torch.stack([2.0 * action - 1.0, torch.from_numpy(rng.choice([-1.0, 1.0], 512)).float()], dim=1)
    kind = torch.arange(512) % 2 == 0
    obs[:, 1] += kind
    following = torch.where(kind[:, None], known, noise)
    columns = nn.functional.one_hot(action, 2).float()
    optimizer = torch.optim.Adam(icm.parameters(), 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        loss = icm.loss((obs, following, columns), rng, None)  # type: ignore[arg-type]
        loss.backward()
        optimizer.step()
    error, inverse = icm.errors(obs, following, columns)
    assert inverse < 0.1, "the action shows in the next observation"
    assert error[~kind].mean() > 2 * error[kind].mean()


@pytest.mark.parametrize("actions", [spaces.Discrete(3), spaces.Box(-1, 1, (3,))])
def test_icm_weighs_its_models_and_only_the_inverse_one_trains_the_features(actions: spaces.Space) -> None:
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    raw_action = torch.arange(20) % 3 if isinstance(actions, spaces.Discrete) else torch.randn(20, 3)
    obs = rng.normal(size=(21, 2)).astype(np.float32)
    no, zeros = np.zeros(20, bool), np.zeros(20, np.float32)
    batch = Batch.of([Trajectory(0, obs[:-1], zeros, zeros, no, no, obs[-1:])])
    features = Features.of(spaces.Box(-1, 1, (2,)))
    icm = ICM()
    icm.build(features, actions, generator)
    targets = icm.targets(Transitions(batch, features, raw_action))
    forward, inverse = icm.errors(*targets)
    losses, moved = [], []
    for share in (0.0, 0.2, 1.0):
        icm.forward_share = share
        icm.zero_grad()
        losses.append(icm.loss(targets, rng, None))  # type: ignore[arg-type]
        losses[-1].backward()
        moved.append([bool(part.weight.grad.any()) for part in (icm.encoder[0], icm.next_features[-1])])
    weighted = [inverse, 0.2 * forward.mean() + 0.8 * inverse, forward.mean()]
    torch.testing.assert_close(torch.stack(losses), torch.stack(weighted))
    assert moved == [[True, False], [True, True], [False, True]]
    now, following = icm.encoder(targets[0]), icm.encoder(targets[1])
    error = icm.next_features(torch.cat([now, targets[2]], dim=1)) - following
    torch.testing.assert_close(forward, (error**2).mean(dim=1))
    guessed = icm.action(torch.cat([now, following], dim=1))
    discrete = -guessed.log_softmax(1).gather(1, raw_action[:, None]) if raw_action.ndim == 1 else None
    expected = (guessed - raw_action) ** 2 if discrete is None else discrete
    torch.testing.assert_close(inverse, expected.mean())


def test_settings_of_icm_are_those_of_the_agent() -> None:
    (icm,) = agent("icm", icm_beta=0.5, intrinsic_gamma=0.7, icm_forward_share=0.3).companions
    assert (icm.beta, icm.gamma, icm.scale.gamma, icm.forward_share) == (0.5, 0.7, 0.7, 0.3)
