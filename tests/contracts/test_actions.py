"""Actions of several parts: every backend hands them to the environments as their spaces say."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from torch import distributions as td

from AsyncPPO import ActionMasks, AsyncPPO, EnvVectorizer, VecMemory, evaluate
from parallel_rl import utils
from parallel_rl.commands.play import show
from parallel_rl.networks import JointHead
from PPO import PPO
from tests.AsyncPPO.test_checkpoint import check_exact
from tests.contracts.test_backends import BACKENDS, EACH, assert_same
from tests.covering import rest_slow
from tests.envs import Hybrid

pytestmark = pytest.mark.covering

SMALL: dict[str, Any] = {"batch_size": 64, "mini_batch_size": 32, "seed": 0}


class Pair(Hybrid):
    """The same with a Tuple around it, for ten steps."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Tuple((self.action_space, spaces.Discrete(3)))  # type: ignore[assignment]
        self.inner = Hybrid()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.count = 0
        return self.inner.reset(seed=seed)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        _, reward, _, _, info = self.inner.step(action[0])
        self.count += 1
        obs, _ = self.inner.reset()
        return obs, reward + float(action[1]), self.count == 10, False, info


def play(env: EnvVectorizer, ppo: PPO, steps: int) -> list[Any]:
    obs, _ = env.reset()
    seen: list[Any] = [(obs,)]
    for _ in range(steps):
        result = env.step(ppo.get_action(obs))
        obs = result[0]
        seen.append(result)
        if not env.autoreset:
            over = result[2] | result[3]
            obs = utils.inactive_states_dropout(obs, over)
            utils.update_active_environments_list(env.finished, over)
            if env.finished.all():
                obs, _ = env.reset()
    return seen


@pytest.mark.parametrize("autoreset", [False, True])
@pytest.mark.parametrize("env", [Hybrid, Pair])
@pytest.mark.parametrize("backend", EACH)
def test_environments_receive_elements_of_their_action_space(backend: str, env: Any, autoreset: bool) -> None:
    with (
        EnvVectorizer(env, 5, seed=3, autoreset=autoreset, **BACKENDS[backend]) as vectorizer,
        EnvVectorizer(env, 5, seed=3, autoreset=autoreset, backend="inline") as oracle,
    ):
        assert_same(*(play(envs, PPO.for_env(env(), seed=1), 30) for envs in (vectorizer, oracle)))


@pytest.mark.parametrize("env", [Hybrid, Pair])
def test_actions_come_in_any_form_that_gymnasium_has(env: Any) -> None:
    """Structured rows, a batch of Gymnasium's, a list of elements: the same rewards."""
    space = env().action_space
    batched = batch_space(space, 4)
    batched.seed(0)
    batch = batched.sample()
    elements = list(gym.vector.utils.iterate(batched, batch))
    rows = utils.rows_of(space, batch, 4)
    rewards = []
    for actions in (rows, batch, elements):
        with EnvVectorizer(env, 4, backend="inline", seed=0) as envs:
            envs.reset()
            rewards.append(envs.step(actions)[1].tolist())
    assert rewards[0] == rewards[1] == rewards[2]
    assert len(set(rewards[0])) > 1


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("move", None, "must have a part move"),
        ("move", [3, 3], r"move of the actions has shape \(2,\), but 3 environments are running"),
        ("move", [3.5, 3, 3], r"move of the action in row 0 is 3\.5: its space is Discrete"),
        ("move", [3, np.nan, 3], "move of the action in row 1 is nan: its space is Discrete"),
        ("move", ["a", "b", "c"], "move of the action in row 0 is a: its space is Discrete"),
        ("aim", (np.full((3, 1, 1), np.inf), np.zeros((3, 2))), r"aim\.0 of the action in row 0 is .*inf"),
        ("aim", (np.zeros((3, 1, 1)), np.full((3, 2), 300)), r"aim\.1 of the action in row 0 is \[300 300\]"),
        ("aim", (np.zeros((3, 1, 1)),), r"must have a part aim\.1"),
    ],
)
def test_wrong_actions_name_the_part_and_the_vectorizer_stays_usable(part: str, value: Any, message: str) -> None:
    with EnvVectorizer(Hybrid, 3, backend="inline", seed=0) as env:
        env.reset()
        good = {"move": [3, 3, 3], "aim": (np.zeros((3, 1)), np.zeros((3, 2))), "gears": np.full((3, 2), [0, 5])}
        with pytest.raises(ValueError, match=message):
            env.step({name: item for name, item in {**good, part: value}.items() if item is not None})
        with pytest.raises(ValueError, match="there are 2 actions, but 3 environments are running"):
            env.step([Hybrid().action_space.sample()] * 2)
        assert len(env.step(good)[1]) == 3


def test_action_for_a_single_state_is_accepted_by_the_environment() -> None:
    env, ppo = Hybrid(), PPO.for_env(Hybrid(), seed=0)
    for _ in range(20):
        obs, _ = env.reset()
        action, extras = ppo.act(obs)
        env.step(action)  # type: ignore[arg-type]
        assert extras["log_prob"].shape == ()


def head_of(ppo: PPO) -> JointHead:
    assert isinstance(ppo.policy.policy_head, JointHead)
    return ppo.policy.policy_head


def test_density_and_entropy_are_sums_over_the_parts() -> None:
    """Against torch.distributions, part by part."""
    ppo = PPO.for_env(Hybrid(), seed=0, log_std=-0.5, squash_actions=False)
    head, obs = head_of(ppo), np.random.default_rng(0).uniform(-1, 1, (500, 2)).astype(np.float32)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(3)
        features = ppo.policy.actor(torch.from_numpy(obs))
        action, extras = ppo.act(obs)
        move, aim, switches, gears = head.heads
        choice, offset = td.Categorical(logits=move.logits(features)), torch.tensor([0, 5])  # type: ignore[operator, union-attr]
        normal = td.Normal(aim.mean(features)[:, 0], aim.log_std.exp())  # type: ignore[operator, union-attr]
        bits = [td.Categorical(logits=part) for part in switches.logits(features).split(2, dim=1)]  # type: ignore[operator, union-attr]
        wheels = [td.Categorical(logits=part) for part in gears.logits(features).split([2, 3], dim=1)]  # type: ignore[operator, union-attr]
        raw_action = torch.from_numpy(extras["raw_action"])
        log_prob = choice.log_prob(torch.from_numpy(action["move"]) - 3) + normal.log_prob(raw_action[:, 1])
        for k, bit in enumerate(bits):
            log_prob += bit.log_prob(torch.from_numpy(action["aim"]["1"][:, k].astype(np.int64)))
        for k, wheel in enumerate(wheels):
            log_prob += wheel.log_prob(torch.from_numpy(action["gears"][:, k]) - offset[k])
        entropy = sum(part.entropy() for part in (choice, normal, *bits, *wheels))
        ours = ppo.policy.distribution(torch.from_numpy(obs)).entropy()
    np.testing.assert_allclose(extras["log_prob"], log_prob, atol=1e-5)
    np.testing.assert_allclose(ours, entropy, atol=1e-5)
    np.testing.assert_allclose(action["aim"]["0"][:, 0, 0], np.clip(2 * extras["raw_action"][:, 1], -2, 2), rtol=1e-6)
    assert {*action["move"].tolist()} == {3, 4}
    assert {*action["gears"][:, 1].tolist()} == {5, 6, 7}


@pytest.mark.parametrize("keep", [True, False])
def test_the_first_ratio_of_an_update_is_one(keep: bool) -> None:
    """Also in a loop by hand that keeps the actions alone."""
    ppo = PPO.for_env(Hybrid(), seed=0, k_epochs=1, batch_size=64, mini_batch_size=64)
    buffer = VecMemory(8)
    with EnvVectorizer(Hybrid, 8, backend="inline", seed=0, autoreset=True) as env:
        states, _ = env.reset()
        for _ in range(8):
            actions, extras = ppo.act(states)
            next_states, rewards, dones, _, _ = env.step(actions)
            rows = (buffer, states, actions, rewards, dones, np.zeros(8, bool), 8)
            utils.buffer_append(*rows, **(extras if keep else {}))
            states = next_states
    utils.buffer_to_target_buffer_transfer(buffer, ppo.memory)
    metrics = ppo.learn()
    assert abs(metrics["approx_kl"]) < 1e-6
    assert metrics["grad_norm"] > 0


@pytest.mark.parametrize("loop", rest_slow({"mode": "mask"}, {"backend": "process"}, {}), ids=str)
def test_resumed_run_equals_uninterrupted_run_to_the_bit(tmp_path: Path, loop: dict[str, Any]) -> None:
    check_exact(
        tmp_path,
        Pair,
        loop,
        backend=loop.get("backend", "inline"),
        core="gru",
        use_RND=False,
        k_epochs=1,
        steps=600 if "mode" in loop else 400,
    )


def test_weights_are_saved_and_loaded(tmp_path: Path) -> None:
    one, other = PPO.for_env(Hybrid(), seed=0), PPO.for_env(Hybrid(), seed=1)
    one.save_weights(tmp_path)
    other.load_weights(tmp_path)
    obs = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    assert (one.get_action(obs, deterministic=True) == other.get_action(obs, deterministic=True)).all()


def test_agents_of_other_actions_are_refused() -> None:
    ppo = PPO.for_env(Hybrid(), **SMALL)
    with pytest.raises(ValueError, match=r"the PPO was made with action_dim=12, but .* needs 15"):
        AsyncPPO(Pair, ppo, 4, 100, backend="inline")

    def renamed() -> gym.Env:
        env = Hybrid()
        env.action_space = spaces.Dict({"fly" if name == "move" else name: p for name, p in env.action_space.items()})
        return env

    with pytest.raises(ValueError, match="the PPO was made for Dict"):
        AsyncPPO(renamed, ppo, 4, 100, backend="inline")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Dict(), "it has no parts"),
        (spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(0, 1, (0,))), "its part b has no elements"),
        (spaces.Tuple((spaces.Box(0, 9, (2,), np.int64),)), "PPO needs a Discrete, .* or a Box of floats"),
        (spaces.Dict(a=spaces.Text(3)), "is not supported"),
    ],
)
def test_invalid_actions_are_refused(space: spaces.Space, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        PPO(False, 2, 2, action_space=space)


def test_masks_have_the_choices_of_all_parts_one_after_the_other() -> None:
    def make() -> gym.Env:
        return ActionMasks(Hybrid())

    ppo = PPO.for_env(make(), **SMALL)
    with EnvVectorizer(make, 50, backend="inline", seed=0) as env:
        states, _ = env.reset()
        actions = ppo.get_action(states)
        first, second = states["observation"].T > 0
        assert (actions["move"] - 3 == first).all()
        assert (actions["aim"]["1"][:, 0] == second).all()
        assert 0 < (actions["aim"]["1"][:, 1] == 1).mean() < 1
        states["action_mask"][7, :2] = 0
        with pytest.raises(ValueError, match=r"no action is allowed in row 7 of 50$"):
            ppo.act(states)
    nested = spaces.Dict(x=spaces.Box(0, 1, (1,)), action_mask=spaces.Dict(move=spaces.MultiBinary(2)))
    with pytest.raises(TypeError, match=r"action_mask of .* must be one array"):
        PPO(False, 1, 12, observation_space=nested, action_space=Hybrid().action_space)
    with pytest.raises(TypeError, match="cannot be masked"):
        ActionMasks(gym.make("Pendulum-v1"))


class Exit(gym.Env):
    """A mask shows two of four doors, which the observation does not; the first of them is right, others are errors."""

    observation_space = spaces.Box(0, 1, (2,), np.float32)
    action_space = spaces.Discrete(4, start=3)

    def __init__(self, closed: int = -1) -> None:
        """At step `closed` the mask shows no door."""
        self.closed = closed

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._next()

    def _next(self) -> Any:
        self.doors = self.np_random.permutation(4)[:2]
        return np.zeros(2, np.float32), {}

    def action_masks(self) -> np.ndarray:
        return np.isin(np.arange(4), self.doors) & (self.steps != self.closed)

    def step(self, action: Any) -> Any:
        assert action - 3 in self.doors, "this door is not allowed"
        reward = float(action - 3 == self.doors.min())
        self.steps += 1
        return self._next()[0], reward, self.steps == 10, False, {}


def test_replicas_obey_masks_and_learn() -> None:
    """At random the return is 5, at best 10."""
    ppo = PPO.for_env(ActionMasks(Exit()), batch_size=256, mini_batch_size=64, lr=3e-3, normalize_obs=True, seed=0)
    with AsyncPPO(lambda: ActionMasks(Exit()), ppo, 8, 4_000, acting="replicas", seed=0, progress=False) as trainer:
        trainer.run()
    assert evaluate(ppo, lambda: ActionMasks(Exit()), 50, seed=1, backend="inline").mean() > 8
    for backend in ("inline", "process"):
        with AsyncPPO(
            lambda: ActionMasks(Exit(3)), ppo, 2, 6_000, acting="replicas", backend=backend, seed=0, progress=False
        ) as trainer, pytest.raises(Exception, match="no action is allowed"):  # fmt: skip
            trainer.run()


@pytest.mark.slow
def test_discrete_and_continuous_actions_are_learned_together() -> None:
    """At random the return is -3.8; with all choices right but aimed at the middle it is -0.5, at best 0."""
    ppo = PPO.for_env(Hybrid(), batch_size=256, mini_batch_size=64, lr=1e-2, seed=0)
    with AsyncPPO(Hybrid, ppo, 16, 3_000, backend="inline", seed=0, progress=False) as trainer:
        assert trainer.acting == "central"
        trainer.run()
    assert evaluate(ppo, Hybrid, 200, seed=1, backend="inline").mean() > -0.3


def test_episodes_of_actions_of_several_parts_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show(PPO.for_env(Pair(), seed=0, core="gru"), Pair(), 2, seed=0)
    assert "episode 2: return" in capsys.readouterr().out


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (0,)), spaces.MultiDiscrete([])])
def test_an_environment_that_takes_no_numbers_is_stepped(space: spaces.Space) -> None:
    class Uncontrolled(Hybrid):
        action_space = property(lambda self: space, lambda self, value: None)  # type: ignore[assignment]

        def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
            assert space.contains(action)
            return self.observation_space.sample(), 1.0, False, False, {}

    with EnvVectorizer(Uncontrolled, 2, backend="inline") as env:
        env.reset()
        assert (env.step(np.zeros((2, 0), space.dtype))[1] == 1).all()
        with pytest.raises(ValueError, match=r"actions have shape \(1, 0\), but 2 environments are running"):
            env.step(np.zeros((1, 0), space.dtype))


def test_actions_without_elements_are_refused() -> None:
    env = Hybrid()
    env.action_space = spaces.Tuple([spaces.Box(-1, 1, (0,))])
    with pytest.raises(TypeError, match="has no elements"):
        PPO.for_env(env)
