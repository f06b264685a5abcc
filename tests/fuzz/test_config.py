"""Any combination of settings runs, or is refused with a message that names one of them."""

import math
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from parallel_rl import main
from parallel_rl.config import setting_names, setting_types

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import strategies as st  # noqa: E402

number = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf, 1e-12, 1e12]), st.floats(0.001, 2.0), st.floats(-2.0, 2.0)
)
maybe = st.one_of(st.none(), number)
small = st.integers(-1, 40)
SETTINGS: dict[str, Any] = {
    "env_id": st.sampled_from(["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "Taxi-v4", "Nothing-v0"]),
    "env_kwargs": st.sampled_from([(), (), ("render_mode=rgb_array",), ("no_such_argument=1",), ("x",)]),
    "wrapper": st.sampled_from([(), (), (), ("gymnasium.wrappers:FlattenObservation",), ("json:nothing",), ("x",)]),
    "action_masks": st.sampled_from([False, False, False, True]),
    "num_envs": small,
    "steps": st.integers(-1, 300),
    "seed": st.integers(-1, 2**40),
    "mode": st.sampled_from(["streaming", "mask"]),
    "acting": st.sampled_from(["auto", "central", "replicas"]),
    "backend": st.sampled_from(["auto", "inline", "inline", "inline", "process", "vector"]),
    "num_workers": st.one_of(st.none(), st.integers(0, 3)),
    "on_env_error": st.sampled_from(["raise", "restart"]),
    "step_timeout": st.one_of(st.none(), st.none(), st.none(), st.sampled_from([-1.0, 0.0, math.nan, 30.0])),
    "start_method": st.sampled_from(["auto", "auto", "auto", "fork", "spawn"]),
    "close_timeout": st.one_of(st.just(5.0), st.sampled_from([-1.0, 0.0, math.nan])),
    "eval_episodes": st.integers(0, 2),
    "eval_envs": st.sampled_from([None, None, 1, 3, 0, -1]),
    "eval_every": st.sampled_from([0, 0, 0, 0, 100, -1]),
    "checkpoint_seconds": st.one_of(st.just(60.0), number),
    "keep_checkpoints": st.integers(0, 3),
    "info_keys": st.sampled_from([(), (), ("is_success",), ("prob", "prob")]),
    "callback": st.sampled_from([(), (), ("nonsense",), ("missing:Callback",)]),
    "track": st.just("none"),  # a tracker that is installed would go online
    "max_seconds": maybe,
    "target_return": maybe,
    "k_epochs": st.integers(-1, 3),
    "batch_size": st.integers(-1, 200),
    "mini_batch_size": st.integers(-1, 100),
    "core": st.sampled_from(["none", "none", "gru", "lstm"]),
    "core_size": st.integers(-1, 8),
    "hidden_sizes": st.lists(st.integers(-1, 16), max_size=3).map(tuple),
    "log_std": st.one_of(number, st.sampled_from([-800.0, 800.0])),
    "sde_sample_freq": st.integers(-2, 4),
    "device": st.sampled_from(["cpu", "cpu", "cpu", "cpu", "cuda", "nonsense"]),
    "action_noise": st.sampled_from(["none", "normal_0.1", "ou_0.2", "ou", "normal_-1"]),
    "demo_path": st.sampled_from([None, "missing.npz", "minari:missing"]),
    "buffer_size": st.one_of(small, st.just(300)),
    "learning_starts": small,
    "target_update_interval": small,
    "companions": st.sampled_from([(), (), ("rnd",), ("icm",), ("rnd", "icm"), ("rnd", "rnd")]),
}


def any_of(hint: Any) -> Any:
    """Return a strategy for the values of a type, most of them in range."""
    kinds = get_args(hint) or (hint,)
    if get_origin(hint) is Literal:
        return st.sampled_from(kinds)
    of_kinds = {bool: st.booleans(), int: small, float: number, type(None): st.none()}
    return st.one_of(*(of_kinds[kind] for kind in kinds))


GIVEN = {"run_dir", "load_weights", "compile"}
OFF_POLICY = {"learning_starts": 10, "batch_size": 8, "buffer_size": 100, "hidden_sizes": (4,)}
BASES: dict[str, dict[str, Any]] = {
    "ppo": {"batch_size": 30, "mini_batch_size": 15, "k_epochs": 1},
    "dqn": OFF_POLICY,
    "sac": OFF_POLICY | {"env_id": "Pendulum-v1"},
    "td3": OFF_POLICY | {"env_id": "Pendulum-v1"},
    "ddpg": OFF_POLICY | {"env_id": "Pendulum-v1"},
}
"""The settings of each agent for a short run."""


def strategies_of(agent: str) -> dict[str, Any]:
    """Return a strategy for each setting of a run with an agent."""
    flags = setting_names(agent)
    return {
        flag: SETTINGS[flag] if flag in SETTINGS else any_of(setting_types(agent)[name])
        for flag, name in flags.items()
        if flag not in GIVEN
    }


def words_of(agent: str) -> list[str]:
    """Return the words of which an error must have one."""
    flags = setting_names(agent)
    words = ["Nothing-v0", "no_such_argument", "CUDA", "mask", "json:nothing", "missing.npz", "minari:missing"]
    return [*flags, *flags.values(), *words, "Box of float actions", "Discrete action space"]


def flags_of(settings: dict[str, Any]) -> list[str]:
    flags = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool) and name != "share_encoder":
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag}", *map(str, value if isinstance(value, tuple) else [value])]
    return flags


def check(agent: str, settings: dict[str, Any], directory: Path, capsys: pytest.CaptureFixture) -> None:
    base = BASES[agent] | {"agent": agent, "steps": 60, "num_envs": 3, "eval_episodes": 1}
    quiet = {"eval_every": 0, "backend": "inline"}
    run_dir = directory / str(len(list(directory.iterdir())))
    capsys.readouterr()
    code = main.main([*flags_of(base | quiet | settings), "--run-dir", str(run_dir)])
    error = capsys.readouterr().err.split("error: ")
    if code == 0:
        assert (run_dir / "summary.json").exists()
    else:
        assert code == 1
        assert any(name in error[-1] for name in words_of(agent)), error[-1]


def some_of(agent: str, count: int) -> Any:
    """Return a strategy for at most so many settings."""
    strategies = strategies_of(agent)
    return st.sets(st.sampled_from(sorted(strategies)), max_size=count).flatmap(
        lambda names: st.fixed_dictionaries({name: strategies[name] for name in names})
    )


LENIENT = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(
    "agent", ["ppo", *(pytest.param(name, marks=pytest.mark.slow) for name in BASES if name != "ppo")]
)
@hypothesis.settings(LENIENT, max_examples=5)
@hypothesis.given(data=st.data())
def test_random_settings_train_or_are_refused(
    agent: str, data: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    check(agent, data.draw(some_of(agent, 3)), tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("agent", BASES)
@hypothesis.settings(LENIENT, max_examples=200)
@hypothesis.given(data=st.data())
def test_many_random_settings_train_or_are_refused(
    agent: str, data: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    check(agent, data.draw(some_of(agent, 8)), tmp_path, capsys)
