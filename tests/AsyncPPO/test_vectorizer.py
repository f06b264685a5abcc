"""EnvVectorizer: what it accepts, its mask, and how it chooses a backend."""

import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from AsyncPPO import ActionMasks, EnvVectorizer
from tests.envs import Counter


class Uncopiable(Counter):
    def __deepcopy__(self, memo: dict) -> "Uncopiable":
        raise RuntimeError("it holds a socket")


class Timed(Counter):
    """Advances its own clock by its cost in each step; in its hundredth step by a thousand times that."""

    now = 0.0

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.steps = seconds, 0

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        Timed.now += self.seconds * (1000 if self.steps == 100 else 1)
        return super().step(action)


@pytest.mark.parametrize(
    "env",
    ["CartPole-v1", gym.spec("CartPole-v1"), gym.make("CartPole-v1"), lambda: gym.make("CartPole-v1")],
    ids=["id", "spec", "env", "callable"],
)
def test_env_as_id_spec_env_or_callable_is_accepted(env: object) -> None:
    with EnvVectorizer(env, 3, backend="inline") as envs:
        obs, infos = envs.reset()
        assert obs.shape == (3, 4)
        assert infos == [{}] * 3
        assert len(envs) == 3


def test_parallel_environments_keep_the_arguments_of_the_environment() -> None:
    with EnvVectorizer(gym.make("CartPole-v1", max_episode_steps=7), 2, backend="inline", seed=0) as envs:
        envs.reset()
        truncated = [envs.step([i % 2, i % 2])[3].any() for i in range(7)]
        assert truncated == [False] * 6 + [True]


def test_a_changed_environment_is_copied_as_it_is() -> None:
    env = Counter()
    env.length = 2
    with EnvVectorizer(env, 2, backend="inline") as envs:
        envs.reset()
        envs.step([0, 0])
        assert envs.step([0, 0])[2].all()


def test_an_environment_that_cannot_be_copied_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"it holds a socket.*pass a callable"):
        EnvVectorizer(Uncopiable(), 2)


def test_unknown_id_or_argument_error_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="no environment 'CartPoel-v1'; did you mean 'CartPole-v1'"):
        EnvVectorizer("CartPoel-v1", 2)
    with pytest.raises(TypeError, match=r"EnvVectorizer\(\) got .* argument 'n_envs': did you mean 'num_envs'"):
        EnvVectorizer("CartPole-v1", n_envs=2)  # type: ignore[call-arg]


@pytest.mark.parametrize("env", [3, None, lambda: 5])
def test_env_of_another_type_is_refused(env: object) -> None:
    with pytest.raises(TypeError, match=r"5, which is not|env must be"):
        EnvVectorizer(env, 2)


def test_a_callable_that_needs_another_argument_than_num_envs_says_which() -> None:
    make = lambda n: gym.make_vec("CartPole-v1", n)  # noqa: E731
    with pytest.raises(TypeError, match=r"missing a required argument: 'n'; if it makes a VectorEnv, call its .* num_"):
        EnvVectorizer(make, 2)


@pytest.mark.parametrize("sizes", [{"num_envs": 0}, {"num_envs": -1}, {"num_workers": 0}])
def test_sizes_below_one_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(sizes))} must be at least 1"):
        EnvVectorizer("CartPole-v1", **sizes)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="backend must be"):
        EnvVectorizer("CartPole-v1", backend="threads")


@pytest.mark.parametrize("space", [gym.spaces.Text(5), gym.spaces.Dict(a=gym.spaces.Text(2))])
def test_a_space_that_is_not_supported_is_named(space: gym.Space) -> None:
    def factory() -> gym.Env:
        env = Counter()
        env.observation_space = space
        return env

    with pytest.raises(TypeError, match=r"space Text.* is not supported"):
        EnvVectorizer(factory)


def test_the_mask_is_one_array_under_two_names_and_checked_when_assigned() -> None:
    with EnvVectorizer(Counter, 3, backend="inline") as env:
        env.reset()
        assert env.envs_active is env.finished
        assert not env.finished.any()
        env.envs_active[1] = True
        assert env.step([0, 0])[1].shape == (2,)
        env.envs_active = [True, False, True]
        assert env.step([0])[1].shape == (1,)
        for bad in ([True, False], [0, 1, 0], True):
            with pytest.raises(ValueError, match=r"bool array of shape \(3,\)"):
                env.envs_active = bad


def test_backend_auto_reports_its_choice_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("AsyncPPO.backends.choice.perf_counter", lambda: Timed.now)
    with EnvVectorizer(lambda: Timed(3e-6), 2, num_workers=2) as cheap:
        assert cheap.backend == "inline"
        assert "should take 6 us in one process" in cheap.backend_reason
    with EnvVectorizer(lambda: Timed(1e-4), 8, num_workers=2) as slow:
        assert slow.backend == "process"
        assert slow.num_workers == 2
        assert "should take 800 us in one process and at best 405 us in 2 workers" in slow.backend_reason


class Strict(Counter):
    """Raises an error for masked actions: all but `allowed`, in the flat form of `ActionMasks`."""

    def __init__(self, space: gym.Space, allowed: list[int], choices: int, says: str) -> None:
        super().__init__(10**9)
        self.action_space, self.says = space, says
        self.mask = np.zeros(choices, np.int8)
        self.mask[allowed] = 1
        if says == "method":
            self.action_masks = lambda: self.mask

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        obs, _ = super().reset(seed=seed)
        return obs, self._info()

    def step(self, action: object) -> tuple[np.ndarray, float, bool, bool, dict]:
        space = self.action_space
        if isinstance(space, gym.spaces.Discrete):
            chosen = [int(action) - int(space.start)]  # type: ignore[call-overload]
        else:
            counts = space.nvec if isinstance(space, gym.spaces.MultiDiscrete) else np.full(space.shape or (), 2)
            chosen = (np.cumsum(counts) - counts.flatten() + np.asarray(action).flatten()).tolist()
        assert space.contains(action)
        assert self.mask[chosen].all(), "a forbidden action"
        return *super().step(0)[:4], self._info()

    def _info(self) -> dict:
        return {"action_mask": self.mask} if self.says == "info" else {}


@pytest.mark.covering
@pytest.mark.parametrize("says", ["info", "method", "observation"])
@pytest.mark.parametrize(
    ("space", "allowed", "choices"),
    [
        (gym.spaces.Discrete(4, start=2), [1, 3], 4),
        (gym.spaces.MultiDiscrete([2, 3]), [1, 2, 4], 5),
        (gym.spaces.MultiDiscrete([[2], [3]]), [0, 3], 5),
        (gym.spaces.MultiBinary(2), [0, 2, 3], 4),
    ],
)
def test_the_trial_of_auto_takes_allowed_actions(space: gym.Space, allowed: list[int], choices: int, says: str) -> None:
    def factory() -> gym.Env:
        env = Strict(space, allowed, choices, "info" if says == "observation" else says)
        return ActionMasks(env) if says == "observation" else env

    with EnvVectorizer(factory, 2) as env:
        assert "a step takes" in env.backend_reason


class Optional(Counter):
    """Cannot be reset without options."""

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        if options is None:
            raise ValueError("which map?")
        return super().reset(seed=seed)


@pytest.mark.parametrize(("num_workers", "backend"), [(1, "inline"), (2, "process")])
def test_a_trial_that_fails_is_no_error(num_workers: int, backend: str) -> None:
    with EnvVectorizer(Optional, 2, num_workers=num_workers) as env:
        assert env.backend == backend
        why, *_ = env.backend_reason.split("; start method")
        assert why == "its speed is not known, since a trial failed (ValueError: which map?)"
        assert env.reset(options={})[0].shape == (2, 2)


def test_workers_end_when_their_parent_is_killed() -> None:
    """Workers hold the other end of the pipe that this test reads, so the pipe closes only when all have ended."""
    script = (
        "import os, signal; from AsyncPPO import EnvVectorizer; "
        "env = EnvVectorizer('CartPole-v1', 4, backend='process', num_workers=2); env.reset(); "
        "print('up', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.read() == "up\n"


def test_an_unclosed_vectorizer_leaves_no_process_or_memory() -> None:
    script = (
        "from AsyncPPO import EnvVectorizer; "
        "env = EnvVectorizer('CartPole-v1', 4, backend='process', num_workers=2); env.reset(); print('up')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("up\n", "")


def test_an_id_with_a_module_imports_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_envs.py").write_text(
        "import gymnasium as gym\nfrom tests.envs import Counter\ngym.register('Mine-v0', Counter)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with EnvVectorizer("my_envs:Mine-v0", 2, backend="inline") as env:
        assert env.reset()[0].shape == (2, 2)
    with pytest.raises(ValueError, match="no module 'no_such_module'"):
        EnvVectorizer("no_such_module:Mine-v0", 2)
