"""Weights in files: their meaning, their agent, and files that hold something else."""

import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from parallel_rl.utils import Features, Trajectory, load_state, save_state
from parallel_rl.utils.versions import VERSION, versions
from PPO import PPO, ActorCritic

ROOT = Path(__file__).parents[2]


def pendulum(**changes: Any) -> PPO:
    return PPO.for_env("Pendulum-v1", **({"seed": 0, "hidden_sizes": (8,)} | changes))


OBS = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("there", "here", "message"),
    [
        ({}, {"activation": "relu"}, "activation is 'tanh' there and 'relu' here"),
        ({"squash_actions": False}, {}, "squash_actions is False there and True here"),
        ({}, {"action_scaling": 50.0}, r"action_space is Box\(-2.0, 2.0, .* there and Box\(-50.0, 50.0, "),
        ({}, {"action_offset": 1.0}, r"action_space is Box\(-2.0, 2.0, .* there and Box\(-1.0, 3.0, "),
        ({}, {"hidden_sizes": (8, 8)}, r"hidden_sizes is \[8\] there and \[8, 8\] here"),
        ({"normalize_obs": True}, {}, "normalize_obs is True there and False here"),
        ({"use_RND": True}, {}, "use_RND is True there and False here"),
        ({}, {"use_RND": True}, "use_RND is False there and True here"),
        ({}, {"core": "gru"}, r"(?<!there and None here; )core is 'none' there and 'gru' here$"),
        ({"core": "gru"}, {"core": "lstm"}, "core is 'gru' there and 'lstm' here"),
        ({"share_encoder": True}, {}, "share_encoder is True there and None here"),
    ],
)
def test_weights_with_other_settings_are_refused_with_the_differences(
    there: dict[str, Any], here: dict[str, Any], message: str, tmp_path: Path
) -> None:
    pendulum(**there).save_weights(tmp_path)
    ppo = pendulum(seed=1, **here)
    before = {name: tensor.clone() for name, tensor in ppo.policy.state_dict().items()}
    with pytest.raises(ValueError, match=rf"the weights in .*Policy_weights\.pth do not fit: .*{message}"):
        ppo.load_weights(tmp_path)
    assert all(torch.equal(before[name], tensor) for name, tensor in ppo.policy.state_dict().items())


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ({"lr": 0.1, "gamma": 0.5, "batch_size": 64, "log_std": 1.0}, {"entropy_coef": 0.1, "learner": "torch"}),
        ({"core_size": 3, "share_encoder": None}, {"core_size": 5, "share_encoder": False}),
        ({"core": "gru", "share_encoder": True}, {"core": "gru"}),
        ({"hidden_sizes": (), "activation": "relu"}, {"hidden_sizes": ()}),
    ],
)
def test_settings_that_do_not_change_the_meaning_of_weights_may_differ(
    there: dict[str, Any], here: dict[str, Any], tmp_path: Path
) -> None:
    pendulum(**there).save_weights(tmp_path)
    pendulum(**here).load_weights(tmp_path)


def test_an_agent_made_by_hand_is_the_one_made_for_the_environment(tmp_path: Path) -> None:
    ours, by_hand = pendulum(), PPO(True, 3, 1, 2.0, hidden_sizes=(8,))
    ours.save_weights(tmp_path)
    by_hand.load_weights(tmp_path)
    assert by_hand.get_action(OBS, deterministic=True).tolist() == ours.get_action(OBS, deterministic=True).tolist()


class Odd(gym.Env):
    """Spaces with all kinds of parts."""

    def __init__(self, action_space: spaces.Space) -> None:
        inner = spaces.Tuple((spaces.Discrete(3, start=2), spaces.Box(-np.inf, np.inf, (2, 2))))
        picture = spaces.Box(0, 255, (8, 8, 3), np.uint8)
        self.observation_space = spaces.Dict([("z", inner), ("a", picture), ("m", spaces.MultiDiscrete([2, 3]))])
        self.action_space = action_space


ARGUMENTS = {
    "lr": 0.123, "k_epochs": 3, "policy_clip": 0.1, "GAE_lambda": 0.5, "gamma": 0.25, "batch_size": 32,
    "mini_batch_size": 16, "use_RND": True, "beta": 2.0, "squash_actions": False, "share_encoder": True, "core": "lstm",
    "core_size": 5, "hidden_sizes": (7,), "activation": "silu", "log_std": -0.5, "normalize_obs": True,
    "normalize_advantage": "returns", "recompute_advantage": True, "entropy_coef": 0.125, "value_coef": 0.75,
    "value_clip": 0.5, "max_grad_norm": 0.25, "target_kl": 0.5, "anneal_lr": True, "anneal_clip": True,
    "anneal_entropy": True, "intrinsic_gamma": 0.5, "rnd_update_proportion": 0.5, "rnd_warmup": 7, "learner": "torch",
    "compile": False, "bf16": True, "seed": 3,
}  # fmt: skip


@pytest.mark.parametrize(
    "action_space",
    [
        spaces.Discrete(3, start=-1),
        spaces.MultiDiscrete([[2, 3], [4, 5]]),
        spaces.MultiBinary(2),
        spaces.Box(np.array([-1, 0], np.float32), np.array([1, np.inf], np.float32)),
    ],
    ids=str,
)
def test_load_makes_an_agent_from_a_directory_of_weights(action_space: spaces.Space, tmp_path: Path) -> None:
    env = Odd(action_space)
    ppo = PPO.for_env(env, **ARGUMENTS)
    ppo.save_weights(tmp_path)
    again = PPO.load(tmp_path)
    assert {name: getattr(again, name) for name in ARGUMENTS} == ARGUMENTS
    assert again.settings() == ppo.settings()
    assert again.settings().keys() >= ARGUMENTS.keys()
    assert (again.observation_space, again.action_space) == (env.observation_space, env.action_space)
    again.check_fits(env)
    for module, loaded in ((ppo.policy, again.policy), (ppo.rnd, again.rnd)):
        for name, tensor in module.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name


def test_load_accepts_arguments_that_weights_do_not_depend_on(tmp_path: Path) -> None:
    pendulum(lr=0.5).save_weights(tmp_path)
    assert PPO.load(tmp_path).lr == 0.5
    assert PPO.load(str(tmp_path), lr=0.25, device="cpu").lr == 0.25
    for changes, message in [
        ({"activation": "relu"}, "activation is 'tanh' there and 'relu' here"),
        ({"action_scaling": 50.0}, "action_space is"),
        ({"lr": -1.0}, "lr must be positive"),
    ]:
        with pytest.raises(ValueError, match=message):
            PPO.load(tmp_path, **changes)
    with pytest.raises(FileNotFoundError, match=r"no weights at .*nowhere"):
        PPO.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=f"pth is a file: .* of weights, such as {re.escape(str(tmp_path))}$"):
        PPO.load(tmp_path / "Policy_weights.pth")
    (tmp_path / "file").touch()
    (tmp_path / "Policy_weights.pth").unlink()
    with pytest.raises(FileNotFoundError, match=r"file is a file: pass a directory of weights$"):
        PPO.load(tmp_path / "file")
    with pytest.raises(TypeError, match=r"PPO\.load\(\) takes no environment: .* AsyncPPO\(env, agent\) takes both"):
        PPO.load(tmp_path, env="Pendulum-v1")
    with pytest.raises(
        TypeError, match=r"PPO\.load\(\) got an unexpected keyword argument 'gama': did you mean 'gamma'"
    ):
        PPO.load(tmp_path, gama=0.9)


def small_encoder(features: Features) -> nn.Module:
    return nn.Linear(features.columns, 4)


class Other(ActorCritic):
    """Another network of the same shape."""


@pytest.mark.parametrize(
    ("name", "value"),
    [("encoder", small_encoder), ("encoder", lambda features: nn.Identity()), ("actor_critic", Other)],
)
def test_load_without_a_custom_callable_names_it(name: str, value: Any, tmp_path: Path) -> None:
    ppo = pendulum(**{name: value})
    ppo.save_weights(tmp_path)
    with pytest.raises(ValueError, match=rf"the agent had its own {name}, .*, which no file holds: give {name}="):
        PPO.load(tmp_path)
    again = PPO.load(tmp_path, **{name: value})
    assert again.get_action(OBS, deterministic=True).tolist() == ppo.get_action(OBS, deterministic=True).tolist()
    with pytest.raises(ValueError, match=f"{name} is '.*' there and None here"):
        pendulum().load_weights(tmp_path)


def test_weights_of_earlier_versions_are_loaded_but_make_no_agent(tmp_path: Path) -> None:
    ppo, other = pendulum(use_RND=True), pendulum(use_RND=True, seed=1)
    torch.save(ppo.policy.state_dict(), tmp_path / "Policy_weights.pth")
    torch.save(ppo.rnd.state_dict(), tmp_path / "RND_weights.pth")
    other.load_weights(tmp_path)
    assert other.get_action(OBS, deterministic=True).tolist() == ppo.get_action(OBS, deterministic=True).tolist()
    with pytest.raises(ValueError, match=r"Policy_weights\.pth does not say how its agent was made: an older version"):
        PPO.load(tmp_path)


def test_moments_of_several_choices_in_an_older_state_are_put_in_order() -> None:
    """They followed `policy.parameters()`: all of the actor's, then all of the critic's."""
    settings: dict[str, Any] = {"batch_size": 8, "mini_batch_size": 8, "action_space": spaces.MultiDiscrete([2, 3])}
    ppo, other = PPO(False, 4, 5, seed=0, **settings), PPO(False, 4, 5, seed=1, **settings)
    flags = np.zeros(8, bool)
    obs, reward = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32), np.arange(8, dtype=np.float32)
    ppo.memory.append(Trajectory(0, obs, ppo.get_action(obs), reward, flags, flags, obs[:1]))
    ppo.learn()
    state, vector = ppo.state(), ppo.optimizers[0].vector
    expected = {name: tensor.clone() for name, tensor in state["optimiser"][0].items()}
    starts = [(each.data_ptr() - vector.data_ptr()) // vector.element_size() for each in ppo.policy.parameters()]
    order = torch.cat(
        [start + torch.arange(each.numel()) for start, each in zip(starts, ppo.policy.parameters(), strict=True)]
    )
    assert not torch.equal(order, torch.arange(len(vector)))
    for name in ("mean", "square"):
        state["optimiser"][0][name] = expected[name][order]
    del state["stacked"]
    other.load_state(state)
    for name, tensor in expected.items():
        assert torch.equal(other.optimizers[0].state[name], tensor), name


def test_saved_weights_record_the_versions(tmp_path: Path) -> None:
    pendulum().save_weights(tmp_path)
    assert load_state(tmp_path / "Policy_weights.pth")["versions"] == versions()
    assert versions().keys() == {"project", "python", "torch", "gymnasium", "numpy"}
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()
    assert f'\nversion = "{VERSION}"\n' in (ROOT / "pyproject.toml").read_text()


def forge(path: Path, **changes: Any) -> None:
    """Change some settings in a file of weights, and correct its checksum."""
    state = load_state(path)
    state["settings"] = {name: value for name, value in (state["settings"] | changes).items() if value is not forge}
    save_state(path, state)


@pytest.mark.parametrize(
    "changes",
    [
        {"gamma": "x"},
        {"lr": 10**400},
        {"hidden_sizes": "x"},
        {"hidden_sizes": [[1]]},
        {"hidden_sizes": [10**30]},
        {"observation_space": None},
        {"observation_space": forge},
        {"observation_space": {"os:system": "true"}},
        {"observation_space": {"Box": {"low": 0, "high": 1, "shape": [10**9, 10**9], "dtype": "float32"}}},
        {"action_space": {"Discrete": {"n": 10**15, "start": 0, "dtype": "int64"}}},
        {"is_continuous": forge},
        {"core": {"a": [1]}},
        {"invented": 1},
        {"encoder": "os.system"},
    ],
    ids=" ".join,
)
def test_forged_settings_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    pendulum().save_weights(tmp_path)
    forge(tmp_path / "Policy_weights.pth", **changes)
    with pytest.raises(ValueError, match=r"Policy_weights\.pth"):
        PPO.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"steps": 5}, "does not hold weights: it holds steps"),
        ({"weights": [], "settings": {}, "versions": {}}, "are not arrays of numbers by name"),
        ({"weights": {"a": "b"}, "settings": {}, "versions": {}}, "are not arrays of numbers by name"),
        ({"weights": {}, "settings": 5, "versions": {}}, "does not hold weights"),
        ({"weights": {}, "settings": {}, "versions": {}}, "do not (say|fit)"),
    ],
)
def test_a_file_that_holds_no_weights_is_named(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_state(tmp_path / "Policy_weights.pth", content)
    for load in (pendulum().load_weights, PPO.load):
        with pytest.raises(ValueError, match=r"Policy_weights\.pth"):
            load(tmp_path)
    with pytest.raises(ValueError, match=message):
        pendulum().load_weights(tmp_path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("networks",), None),
        (("networks", "Policy_weights.pth"), {}),
        (("networks", "Policy_weights.pth"), "x"),
        (("networks", "Policy_weights.pth", "actor.0.weight"), np.zeros((8, 4), np.float32)),
        (("networks", "Policy_weights.pth", "actor.0.weight"), np.zeros((8, 3), np.int64)),
        (("networks", "Policy_weights.pth", "actor.0.weight"), np.zeros((8, 3), [("a", np.float32)])),
        (("networks", "Policy_weights.pth", "actor.0.weight"), [1.0]),
        (("intrinsic_returns",), None),
        (("intrinsic_returns",), np.zeros((2, 2))),
        (("optimiser",), None),
        (("optimiser",), []),
        (("optimiser", 0), {"mean": np.zeros(3, np.float32)}),
        (("random",), None),
        (("random", "state"), {"state": 10**60, "inc": 1}),
        (("random", "bit_generator"), "MT19937"),
        (("updates",), "x"),
        (("updates",), -1),
        (("updates",), 10**400),
    ],
    ids=str,
)
def test_a_forged_state_is_refused_and_nothing_changes(path: tuple[Any, ...], value: Any, tmp_path: Path) -> None:
    ppo = pendulum(use_RND=True)
    save_state(tmp_path / "a.state", pendulum(use_RND=True, seed=1).state())
    state = part = load_state(tmp_path / "a.state")
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    save_state(tmp_path / "before.state", ppo.state())
    with pytest.raises(ValueError, match=r"saved|state"):
        ppo.load_state(state)
    save_state(tmp_path / "after.state", ppo.state())
    assert (tmp_path / "after.state").read_bytes() == (tmp_path / "before.state").read_bytes()
