"""Environments on the command line: wrappers, modules, how many exist at once, and endless episodes."""

import json
import multiprocessing
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv

import AsyncPPO.wrappers
from AsyncPPO import EnvVectorizer, evaluate
from AsyncPPO.callbacks import read_table
from parallel_rl import main
from parallel_rl.commands.build import factory_of
from parallel_rl.commands.play import SCREENS, show
from parallel_rl.commands.run_directory import config_of
from parallel_rl.commands.trust import TRUST
from PPO import PPO
from tests.envs import Counter
from tests.program import Forked, config_from
from tests.test_main import untrained_run

QUICK = ["--steps", "600", "--num-envs", "2", "--batch-size", "256", "--k-epochs", "2", "--eval-episodes", "5"]
QUICK += ["--backend", "inline"]


class Countdown(gym.Env):
    """Observes a text, which is not supported, and the remaining steps; counts how many environments exist."""

    observation_space = gym.spaces.Dict(left=gym.spaces.Discrete(6), mission=gym.spaces.Text(9))
    action_space = gym.spaces.Discrete(2)
    alive, most = multiprocessing.Value("i"), multiprocessing.Value("i")

    def __init__(self, length: int = 5, render_mode: str | None = None) -> None:
        self.length, self.render_mode = length, render_mode
        with self.alive, self.most:
            self.alive.value += 1
            self.most.value = max(self.most.value, self.alive.value)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.left = self.length
        return {"left": self.left, "mission": "wait"}, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return {"left": self.left, "mission": "wait"}, 1.0, self.left == 0, False, {}

    def close(self) -> None:
        with self.alive:
            self.alive.value -= 1

    def render(self) -> Any:
        return "a text"


class Left(gym.ObservationWrapper):
    """Drops the text."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = env.observation_space["left"]  # type: ignore[index]

    def observation(self, obs: Any) -> Any:
        return obs["left"]


class Endless(gym.Env):
    """One step after the other."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), -1.0, False, False, {}


class Unreachable(Left):
    """Says that the goal is infinitely far, and gives its threshold as a number of NumPy."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        assert env.spec is not None
        env.spec.reward_threshold = np.float32(99.5)  # type: ignore[assignment]

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, _ = super().step(action)
        return obs, float(reward), terminated, truncated, {"distance": float("inf")}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(gym.envs.registration, "registry", registry := dict(gym.registry))
    monkeypatch.setattr(gym, "registry", registry)
    gym.register("Countdown-v0", Countdown)
    gym.register("Countdown-v1", Countdown)
    gym.register("Endless-v0", Endless)
    Countdown.most.value = 0
    yield
    sys.modules.pop("corridors", None)  # other tests have other modules of that name
    assert Countdown.alive.value == 0


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    wrapper = [f"--wrapper={__name__}:Left", "--wrapper", "gymnasium.wrappers:FlattenObservation"]
    flags = ["--env-id", "Countdown-v1", *wrapper, *QUICK, "--eval-every", "0"]
    assert main.main([*flags, "--run-dir", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


def test_recorded_wrappers_are_applied_by_later_commands(run_dir: Path, capsys: pytest.CaptureFixture) -> None:
    assert config_of(run_dir).run.wrapper == (f"{__name__}:Left", "gymnasium.wrappers:FlattenObservation")
    with factory_of(config_of(run_dir).run)() as env:
        assert env.observation_space == gym.spaces.Box(0, 1, (6,), np.int64), "the first is the innermost"
    assert config_from(["--load-weights", str(run_dir), TRUST]).run.wrapper == config_of(run_dir).run.wrapper
    capsys.readouterr()
    assert main.main(["evaluate", str(run_dir), "--episodes", "3", TRUST]) == 0
    assert "mean 5.00" in capsys.readouterr().out
    assert main.main(["resume", str(run_dir), "--steps", "256", TRUST]) == 0


def test_an_infinite_info_ends_no_run_and_is_null_in_json(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def strict(text: str) -> Any:
        return json.loads(text, parse_constant=pytest.fail)  # called for Infinity and NaN

    flags = ["--env-id", "Countdown-v1", f"--wrapper={__name__}:Unreachable", "--info-keys", "distance", *QUICK]
    assert main.main([*flags, "--eval-every", "300", "--run-dir", str(tmp_path)]) == 0
    summary = strict((tmp_path / "summary.json").read_text())
    assert (summary["evaluation"]["mean"], summary["evaluation"]["info_distance"]) == (5.0, None)
    assert (summary["best"]["info_distance"], summary["threshold"]) == (None, 99.5)
    assert strict((tmp_path / "best" / "evaluation.json").read_text())["info_distance"] is None
    assert read_table(tmp_path / "metrics.csv")[-1]["info_distance"] == float("inf"), "a table has such numbers"
    capsys.readouterr()
    assert main.main(["evaluate", str(tmp_path), "--episodes", "2", "--json", TRUST]) == 0
    assert strict(capsys.readouterr().out)["info_distance"] is None
    assert main.main(["resume", str(tmp_path), "--steps", "300", TRUST]) == 0


def test_of_the_recorded_wrappers_those_of_gymnasium_need_no_trust(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main.main(["evaluate", str(run_dir)]) == 1
    assert f"names the module {__name__}, which would be imported" in capsys.readouterr().err
    flags = ["--wrapper", "gymnasium.wrappers:FlattenObservation", *QUICK, "--eval-every", "0"]
    assert main.main([*flags, "--run-dir", str(tmp_path / "flat")]) == 0
    assert main.main(["evaluate", str(tmp_path / "flat"), "--episodes", "1"]) == 0


def test_flags_of_several_values_may_be_repeated() -> None:
    flags = ["--env-kwargs", "a=1", "b=2", "--steps", "5", "--env-kwargs=c=3", "--wrapper", "a:A", "--wrapper", "b:B"]
    config = config_from(flags)
    assert (config.run.env_kwargs, config.run.wrapper, config.run.steps) == (("a=1", "b=2", "c=3"), ("a:A", "b:B"), 5)


def test_a_run_without_recorded_wrappers_has_none(run_dir: Path) -> None:
    file = run_dir / "config.json"
    content = json.loads(file.read_text())
    for name in ("wrapper", "eval_envs"):
        del content["run"][name]
    file.write_text(json.dumps(content))
    assert config_of(run_dir).run.wrapper == ()


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        ("ActionMasks", "a wrapper is MODULE:CLASS, not 'ActionMasks'"),
        (
            "nowhere:Class",
            "no wrapper 'nowhere:Class': no module 'nowhere': it is neither installed nor in the current directory",
        ),
        ("AsyncPPO.wrappers:Nothing", "no wrapper 'AsyncPPO.wrappers:Nothing' (module"),
        ("AsyncPPO.wrappers:Nothing", f"'Nothing', in {AsyncPPO.wrappers.__file__})"),
        ("AsyncPPO.wrappers:__doc__", "the wrapper 'AsyncPPO.wrappers:__doc__' is neither a class nor a function"),
        (
            "gymnasium.wrappers:TimeLimit",
            "alone (missing a required argument: 'max_episode_steps'): name a function of your",
        ),
    ],
)
def test_an_invalid_wrapper_is_named(wrapper: str, message: str, capsys: pytest.CaptureFixture) -> None:
    assert main.main(["--wrapper", wrapper, *QUICK]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert wrapper in said
    assert said.count("\n") == 1


def test_a_part_that_is_not_supported_is_named(capsys: pytest.CaptureFixture) -> None:
    assert main.main(["--env-id", "Countdown-v1", *QUICK]) == 1
    assert re.search(r"the space Text\(.*\) of the part 'mission' is not supported", capsys.readouterr().err)
    with pytest.raises(TypeError, match="of the part 'mission' is not supported"):
        EnvVectorizer(Countdown, 2)
    space = gym.spaces.Dict(a=gym.spaces.Tuple([gym.spaces.Discrete(2), gym.spaces.Box(0, 1, (0,))]))
    with pytest.raises(TypeError, match=r"of the part 'a\.1' is not supported: it has no elements"):
        PPO(False, 2, 2, observation_space=space)


def test_the_environments_of_a_module_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    lines = "import gymnasium as gym\nfor i in (0, 1): gym.register(f'Corridor-v{i}', 'somewhere:Corridor')\n"
    (tmp_path / "corridors.py").write_text(lines)
    assert main.main(["envs", "corridors:"]) == 0
    assert capsys.readouterr().out == "  corridors:Corridor-v1\n"
    assert main.main(["envs", "gymnasium.envs.toy_text:LAKE-"]) == 0
    assert capsys.readouterr().out == "  gymnasium.envs.toy_text:FrozenLake-v1\n", "known before it is imported"
    assert main.main(["envs", "corridors:lake"]) == 1
    assert "no environment of corridors has 'lake' in its id" in capsys.readouterr().err
    assert main.main(["envs", "nowhere:"]) == 1
    assert "no module 'nowhere'" in capsys.readouterr().err


def show_warnings() -> None:
    """Show warnings as Python does, where pytest would keep them."""
    warnings.simplefilter("default")
    warnings.showwarning = lambda *warning: print(warnings.formatwarning(*warning[:4]), end="", file=sys.stderr)


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the directory and the standard error of a command with a module in the current directory."""
    directory = tmp_path_factory.mktemp("here")
    lines = "import gymnasium as gym\ngym.register('Corridor-v0', 'gymnasium.envs.toy_text:FrozenLakeEnv')\n"
    (directory / "corridors.py").write_text(lines)
    flags = ["--env-id", "corridors:Corridor-v0", "--env-kwargs", "max_episode_steps=20", "--steps", "100"]
    flags += ["--num-envs", "1", "--batch-size", "1024", "--backend", "inline", "--eval-every", "0"]
    code, _, errors = Forked(*flags, "--eval-episodes", "1", cwd=directory, prepare=show_warnings).finish()
    assert code == 0, errors
    return directory, errors


def test_a_module_in_the_current_directory_is_found_and_its_runs_need_no_colon(short_run: tuple[Path, str]) -> None:
    assert [path.name for path in (short_run[0] / "runs" / "corridors" / "Corridor-v0").glob("*/")]


def test_no_more_environments_exist_than_num_envs(run_dir: Path) -> None:
    assert Countdown.most.value == 2, "neither while it looked at them, nor in the evaluation at the end"
    Countdown.most.value = 0
    assert main.main(["evaluate", str(run_dir), "--episodes", "7", TRUST]) == 0
    assert Countdown.most.value == 2


def test_evaluations_use_eval_envs_environments(tmp_path: Path) -> None:
    flags = ["--env-id", "Countdown-v1", "--wrapper", f"{__name__}:Left", *QUICK, "--eval-envs", "1"]
    flags += ["--start-method", "fork"]  # the counter is shared with forks
    assert main.main([*flags, "--eval-every", "300", "--run-dir", str(tmp_path / "run")]) == 0
    assert Countdown.most.value == 3
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["evaluation"]["episodes"] == 5


class Right:
    """Never ends."""

    def get_action(self, states: np.ndarray, *, deterministic: bool = False) -> np.ndarray:
        return np.ones(len(states), np.int64)


def test_an_evaluation_of_endless_episodes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("AsyncPPO.evaluation.LONGEST_EPISODE", 30)
    told = (
        r"3 of 3 episodes were truncated after 30 steps, .* \(on the command line --env-kwargs max_episode_steps=200\)"
    )
    with pytest.warns(RuntimeWarning, match=told):
        assert evaluate(Right(), "Endless-v0", 3, num_envs=2, backend="inline").tolist() == [-30.0] * 3


@pytest.mark.filterwarnings("error")
def test_an_evaluation_whose_episodes_end_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("AsyncPPO.evaluation.LONGEST_EPISODE", 30)
    assert evaluate(Right(), "Endless-v0", 2, max_steps=9, backend="inline").tolist() == [-9.0] * 2, "as was asked"
    short = gym.make("Endless-v0", max_episode_steps=40)
    assert evaluate(Right(), short, 2, backend="inline").tolist() == [-40.0] * 2
    assert evaluate(Right(), lambda: Left(Countdown(5)), 2, backend="inline").tolist() == [5.0] * 2


def test_a_warning_of_the_command_line_is_one_line(short_run: tuple[Path, str]) -> None:
    warned = "warning: steps (100) is less than the 1024 transitions that the agent waits for: it will not learn\n"
    assert warned in short_run[1]
    assert ".py" not in short_run[1]


def test_record_of_an_environment_that_renders_no_images_is_refused(
    run_dir: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main.main(["record", str(run_dir), "--out", str(run_dir / "new" / "video.mp4"), TRUST]) == 1
    assert "error: the environment renders no images (render_mode='rgb_array') but str" in capsys.readouterr().err
    assert not [*(run_dir / "new").glob("*")]


def test_record_of_an_environment_that_cannot_render_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    class Blind(CartPoleEnv):
        render = gym.Env.render

    monkeypatch.setitem(gym.registry, "CartPole-v1", gym.envs.registration.EnvSpec("CartPole-v1", Blind))
    untrained_run(tmp_path)
    assert main.main(["record", str(tmp_path)]) == 1
    assert capsys.readouterr().err.endswith("error: the environment cannot render: it has no method `render`\n")


@pytest.mark.parametrize("modes", [[], ["ansi"]])
def test_record_of_an_environment_without_a_mode_of_images_names_its_modes(
    modes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    class Plain(CartPoleEnv):
        metadata = {"render_modes": modes}  # noqa: RUF012

        def __init__(self) -> None:
            super().__init__()

    monkeypatch.setitem(gym.registry, "CartPole-v1", gym.envs.registration.EnvSpec("CartPole-v1", Plain))
    untrained_run(tmp_path)
    assert main.main(["record", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: CartPole-v1 cannot render rgb_array: its render_modes are {modes}\n"


def test_record_shows_small_images_of_fractions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fractions(CartPoleEnv):
        metadata = {"render_modes": ["rgb_array"], "render_fps": None}  # noqa: RUF012

        def render(self) -> Any:
            return np.full((10, 12, 3), 0.5)

    monkeypatch.setitem(gym.registry, "CartPole-v1", gym.envs.registration.EnvSpec("CartPole-v1", Fractions))
    untrained_run(tmp_path)
    assert main.main(["record", str(tmp_path)]) == 0
    frames = imageio_ffmpeg.read_frames(str(tmp_path / "video.mp4"))
    assert next(frames)["size"] == (120, 100)
    assert abs(np.frombuffer(next(frames), np.uint8).mean() - 128) < 3, "gray"


class Doomed(CartPoleEnv):
    """Gets a signal when it renders its third image."""

    def render(self) -> Any:
        self.rendered = getattr(self, "rendered", 0) + 1
        if self.rendered == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return np.zeros((100, 100, 3), np.uint8)


def test_a_signal_leaves_no_unfinished_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gym.registry, "CartPole-v1", gym.envs.registration.EnvSpec("CartPole-v1", Doomed))
    untrained_run(tmp_path / "run")
    before = {*(tmp_path / "run").iterdir()}
    assert Forked("record", str(tmp_path / "run"), cwd=tmp_path).finish()[0] == 128 + signal.SIGTERM
    assert {*(tmp_path / "run").iterdir()} == before


class Still:
    def initial_state(self, count: int) -> None:
        return None

    def get_action(self, obs: Any, **options: Any) -> int:
        return 0


@pytest.mark.parametrize(("limit", "said"), [(None, "-10000.00 in the first 10,000 steps"), (10_001, "-10001.00")])
def test_an_episode_without_an_end_is_shown_as_long_as_an_evaluation_takes(
    limit: int | None, said: str, capsys: pytest.CaptureFixture
) -> None:
    env = gym.make("Endless-v0", max_episode_steps=limit)
    show(Still(), env, 1, seed=0)  # type: ignore[arg-type]
    assert capsys.readouterr().out == f"episode 1: return {said}\n"


class Remembers(Still):
    """Its recurrent state counts the steps of the episode, in the place of the environment."""

    wants_env_ids = True

    def __init__(self) -> None:
        self.seen: list[tuple[float, list[int]]] = []

    def initial_state(self, count: int) -> Any:
        return np.zeros((count, 1), np.float32)

    def get_action(self, obs: Any, *, state: Any, env_ids: Any, **options: Any) -> int:
        self.seen.append((state.item(), env_ids.tolist()))
        state += 1
        return 0


def test_a_recurrent_policy_is_shown_with_its_state() -> None:
    agent = Remembers()
    show(agent, Counter(3), 2, seed=0)  # type: ignore[arg-type]
    assert agent.seen == [(0, [0]), (1, [0]), (2, [0])] * 2


def test_mujoco_is_told_to_render_without_a_screen(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SCREENS, "MUJOCO_GL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "platform", "linux")
    main.main(["record", str(run_dir)])
    assert (os.environ["MUJOCO_GL"], os.environ["SDL_VIDEODRIVER"]) == ("egl", "dummy")
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    main.main(["record", str(run_dir)])
    assert os.environ["MUJOCO_GL"] == "osmesa", "who says how is heard"
