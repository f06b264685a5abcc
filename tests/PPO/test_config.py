"""PPOConfig: each hyperparameter is declared once."""

import inspect
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any, get_args

import numpy as np
import pytest

from parallel_rl.networks import CoreName
from parallel_rl.networks.encoders import ACTIVATIONS
from parallel_rl.utils import Trajectory, settings_in
from parallel_rl.utils.settings import hints
from PPO import PPO, PPOConfig
from tests.settings_tables import DOCS, TABLES, with_table


def small(**settings: Any) -> PPO:
    return PPO(False, 4, 2, **({"batch_size": 8, "mini_batch_size": 4, "hidden_sizes": (8,), "seed": 0} | settings))


def test_the_config_holds_what_the_agent_was_made_with() -> None:
    ppo = small(lr=0.5, core="gru", hidden_sizes=[3], max_grad_norm=2.0)
    expected = PPOConfig(lr=0.5, core="gru", hidden_sizes=(3,), max_grad_norm=2.0, batch_size=8, mini_batch_size=4)
    assert ppo.config == expected
    assert {name: getattr(ppo, name) for name in vars(expected) if name != "device"} == {
        name: value for name, value in vars(expected).items() if name != "device"
    }
    with pytest.raises(FrozenInstanceError):
        ppo.config.lr = 0.1
    with pytest.raises(AttributeError, match="'PPO' object has no attribute 'gama'"):
        _ = ppo.gama


def test_defaults_are_those_of_the_signature() -> None:
    parameters = inspect.signature(PPO).parameters
    defaults = {each.name: each.default for each in fields(PPOConfig) if each.name in parameters}
    assert {name: parameters[name].default for name in defaults} == defaults
    assert PPO(False, 4, 2).config == PPOConfig()


def test_an_assigned_setting_is_in_the_config_and_in_range() -> None:
    ppo = small()
    before = ppo.config
    ppo.gamma = 0.5
    assert (ppo.gamma, ppo.config, before.gamma) == (0.5, replace(before, gamma=0.5), 0.995)
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\], not 2"):
        ppo.gamma = 2
    assert ppo.gamma == 0.5
    ppo.batch_size = 2  # less than a minibatch: that may be assigned next
    ppo.mini_batch_size = 2
    assert ppo.settings()["mini_batch_size"] == 2


def test_assigned_settings_that_exclude_each_other_are_an_error_of_the_next_update() -> None:
    ppo = small()
    obs, never = np.zeros((8, 4), np.float32), np.zeros(8, bool)
    action, extras = ppo.act(obs)
    ppo.memory.append(Trajectory(0, obs, action, np.ones(8, np.float32), never, never, obs[:1], extras))
    ppo.mini_batch_size = 9
    with pytest.raises(ValueError, match=r"mini_batch_size \(9\) is larger than batch_size \(8\)"):
        ppo.learn()
    ppo.mini_batch_size = 8
    assert ppo.learn(), "nothing was taken from the memory"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("gama", "gamma"), ("batchsize", "batch_size"), ("learning_rate", "lr"), ("ent_coef", "entropy_coef")],
)
def test_an_attribute_that_misspells_a_setting_is_an_error(name: str, nearest: str) -> None:
    class Subclass(PPO):
        pass

    with pytest.raises(AttributeError, match=f"^PPO has no setting '{name}': did you mean '{nearest}'"):
        setattr(small(), name, 0.3)
    setattr(Subclass(False, 4, 2), name, 0.3)  # the own attribute of a subclass


@pytest.mark.parametrize(("value", "ours"), [(True, "minibatch"), (False, "none")])
def test_normalize_advantage_of_stable_baselines3_is_named_as_here(value: Any, ours: str) -> None:
    with pytest.raises(ValueError, match=f"batch, returns, none, not {value}: did you mean '{ours}'"):
        small(normalize_advantage=value)


FIXED = [name for name, about in settings_in(PPOConfig).items() if about.fixed]


@pytest.mark.parametrize("name", sorted({*FIXED, "hidden_sizes", "core", "normalize_obs", "compile", "device"}))
def test_a_fixed_setting_cannot_be_assigned(name: str) -> None:
    with pytest.raises(AttributeError, match=f"^{name} cannot be changed once the agent is made: make another with"):
        setattr(small(), name, getattr(PPOConfig(), name))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gama", "PPO() got an unexpected keyword argument 'gama': did you mean 'gamma'?"),
        ("learning_rate", "did you mean 'lr'?"),
        ("lerning_rate", "did you mean 'lr'?"),
        ("net_arch", "did you mean 'hidden_sizes'?"),
        ("ent_coef", "did you mean 'entropy_coef'?"),
        ("n_steps", "did you mean 'batch_size'? (n_steps times the environments; the former batch_size is mini_batch_"),
        ("policy_kwargs", "'policy_kwargs': hidden_sizes= and activation= are arguments of their own"),
        ("verbose", "'verbose': a run shows a progress bar"),
        ("observation_spaces", "did you mean 'observation_space'?"),
        ("zzz", "PPO() got an unexpected keyword argument 'zzz'"),
    ],
)
def test_an_unknown_argument_is_named_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        small(**{name: 1})
    assert message in str(caught.value)


OUT_OF_RANGE: dict[str, Any] = {
    "lr": [0, -1, float("nan"), float("inf"), "x", None, lambda remaining: -1.0],
    "k_epochs": [0, 1.5, 2**63, None],
    "policy_clip": [0.0],
    "GAE_lambda": [-0.1, 1.1],
    "gamma": [-0.1, 1.1, 10**400],
    "batch_size": [0],
    "mini_batch_size": [0, 2000],
    "beta": [-1],
    "companions": [("rmd",), "rnd", 5],
    "icm_beta": [-1],
    "icm_forward_share": [1.1],
    "core": ["rnn", None, [1]],
    "core_size": [0, 10**9],
    "hidden_sizes": [(0,), (1.5,), (10**9,), 5, "ab", [[1]]],
    "activation": ["gelu"],
    "log_std": [-800, 800],
    "sde_sample_freq": [0, -2],
    "normalize_advantage": [True],
    "entropy_coef": [-1],
    "value_coef": [-1],
    "value_clip": [0],
    "max_grad_norm": [0, float("inf")],
    "target_kl": [0],
    "intrinsic_gamma": [2],
    "rnd_update_proportion": [2],
    "rnd_warmup": [-1],
    "learner": ["numpy"],
}


def test_every_number_and_choice_has_a_range() -> None:
    free = {bool, bool | None, str}
    assert OUT_OF_RANGE.keys() == {name for name, hint in hints(PPOConfig).items() if hint not in free}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in OUT_OF_RANGE.items() for value in values]
)
def test_a_value_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^(each of )?{name} (must be|\(2000\) is larger than)"):
        PPOConfig(**{name: value})


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"lr must be positive and finite, not -1; gamma must be in \[0, 1\], not 2"):
        PPOConfig(lr=-1, gamma=2)


def test_none_and_values_beside_the_range_pass() -> None:
    PPOConfig(value_clip=None, target_kl=None, share_encoder=None, sde_sample_freq=-1, hidden_sizes=())


def test_choices_are_those_of_the_networks() -> None:
    assert {*get_args(hints(PPOConfig)["activation"])} == ACTIVATIONS.keys()
    assert get_args(hints(PPOConfig)["core"]) == get_args(CoreName)


@pytest.mark.parametrize("page", TABLES)
def test_the_docs_list_the_settings_as_they_are(page: str) -> None:
    assert (DOCS / page).read_text() == with_table(page), "write them: python -m tests.settings_tables"
