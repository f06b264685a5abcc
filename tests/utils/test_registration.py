"""Ids of environments that cannot be made: one line, with the nearest id or the package to install."""

import builtins
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from AsyncPPO import EnvVectorizer
from AsyncPPO.backends import EnvError
from parallel_rl.utils import check_env_id, register_games
from parallel_rl.utils.registration import spaces_in

CORRIDORS = """
import gymnasium as gym
gym.register("Corridor-v0", "gymnasium.envs.toy_text.frozen_lake:FrozenLakeEnv")
gym.register("Corridor-v1", "gymnasium.envs.toy_text.frozen_lake:FrozenLakeEnv")
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The user's own modules, as in the current directory."""
    (tmp_path / "corridors.py").write_text(CORRIDORS)
    (tmp_path / "broken.py").write_text("import gymnasium\n\nprint(gymnasium.nothing)\n")
    (tmp_path / "unfinished.py").write_text("def make(:\n")
    (tmp_path / "needy.py").write_text("import nowhere.at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for env_id in [env_id for env_id in gym.registry if env_id.startswith("Corridor")]:
        del gym.registry[env_id]
    for name in ("corridors", "broken", "unfinished", "needy"):
        sys.modules.pop(name, None)


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Let packages appear not to be installed."""
    real = builtins.__import__

    def importing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] in packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        monkeypatch.delitem(sys.modules, name)
    for env_id in [env_id for env_id in gym.registry if env_id.startswith(("ALE/", "MinAtar/", "Pong"))]:
        monkeypatch.delitem(gym.registry, env_id)
    monkeypatch.setattr(builtins, "__import__", importing)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("corridors:Coridor-v1", "no environment 'corridors:Coridor-v1'; did you mean 'corridors:Corridor-v1'?"),
        ("corridors:CartPole-v7", "no environment 'corridors:CartPole-v7'"),
        ("nowhere:Foo-v0", "no module 'nowhere': it is neither installed nor in the current directory"),
        ("corridors.inner:Foo-v0", "no module 'corridors.inner': it is neither installed nor in the current directory"),
        (
            "needy:Foo-v0",
            "the module 'needy' cannot be imported: ModuleNotFoundError: No module named 'nowhere' (needy",
        ),
        ("broken:Foo-v0", "the module 'broken' cannot be imported: AttributeError: module 'gymnasium' has no attribut"),
        ("unfinished:Foo-v0", "the module 'unfinished' cannot be imported: SyntaxError: invalid syntax (unfinished.py"),
        ("./corridors:Corridor-v0", "no module './corridors': a module has a name such as my_environments, not a path"),
        (":Corridor-v0", "no module '': a module has a name"),
        ("CartPole", "no environment 'CartPole'; did you mean 'CartPole-v1'?"),
        ("CartPole-v7", "no environment 'CartPole-v7'; did you mean 'CartPole-v1'?"),
        ("frozenlake-v1", "no environment 'frozenlake-v1'; did you mean 'FrozenLake-v1'?"),
        ("Zzz-v5", "no environment 'Zzz-v5'"),
    ],
)
def test_what_is_wrong_with_an_id_is_one_line(env_id: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"no (environment|module)|the module") as caught:
        check_env_id(env_id)
    said = str(caught.value)
    assert said.startswith(message)
    assert "\n" not in said
    if "did you mean" not in message:
        assert "did you mean" not in said


def test_the_spaces_of_an_id_name_what_is_missing() -> None:
    def needs_mujoco() -> gym.Env:
        missing = ModuleNotFoundError("No module named 'mujoco'", name="mujoco")
        raise gym.error.DependencyNotInstalled("MuJoCo is not installed") from missing

    with pytest.raises(ValueError, match=r"no environment 'cartpole-v1'; did you mean 'CartPole-v1'\?"):
        spaces_in("cartpole-v1")
    gym.register("Corridor-v2", needs_mujoco)
    with pytest.raises(
        ImportError, match=r"Corridor-v2 cannot be made: MuJoCo .* -r requirements-mujoco.txt in a check"
    ):
        spaces_in("Corridor-v2")


def test_a_game_without_its_namespace_is_found() -> None:
    for package, env_id, meant in (("ale_py", "Pong-v5", "ALE/Pong-v5"), ("minatar", "Breakout-v1", "MinAtar/Break")):
        pytest.importorskip(package)
        with pytest.raises(ValueError, match=f"did you mean '{meant}"):
            check_env_id(env_id)


@pytest.mark.parametrize(
    ("env_id", "extra"),
    [("ALE/Pong-v5", "atari"), ("MinAtar/Breakout-v1", "atari"), ("MiniGrid-Empty-5x5-v0", "minigrid")],
)
def test_a_missing_package_of_games_is_named_with_its_extra(
    env_id: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "ale_py", "minatar", "minigrid")
    with pytest.raises(ValueError, match=rf"no environment '{env_id}': .* \(pip install 'parallel-rl\[{extra}\]'"):
        check_env_id(env_id)
    with pytest.raises(ValueError, match=r"no environment 'Pong-v5'; if a module registers it"):
        check_env_id("Pong-v5")
    for wrong, meant in (("ale/Pong-v5", "ALE/Pong-v5"), ("MiniAtar/Breakout-v1", "MinAtar/Breakout-v1")):
        with pytest.raises(ValueError, match=rf"no environment '{wrong}'; did you mean '{meant}'\?"):
            check_env_id(wrong)
    with pytest.raises(ValueError, match=r"no environment 'foo/Bar-v0'; if a module registers it"):
        check_env_id("foo/Bar-v0")


def test_games_are_registered_by_their_ids() -> None:
    pytest.importorskip("ale_py")
    register_games("ALE/Pong-v5")
    assert "ALE/Pong-v5" in gym.registry


def test_a_package_that_an_environment_needs_is_named_with_its_extra() -> None:
    def factory() -> gym.Env:
        try:
            raise ModuleNotFoundError("No module named 'mujoco'", name="mujoco")
        except ImportError as error:
            raise gym.error.DependencyNotInstalled("MuJoCo is not installed") from error

    with pytest.raises(EnvError) as caught:
        EnvVectorizer(factory, 2)
    assert str(caught.value) == (
        "environment 0 cannot be made: MuJoCo is not installed (pip install 'parallel-rl[mujoco]', or "
        "-r requirements-mujoco.txt in a checkout)"
    )


@pytest.mark.parametrize(
    ("package", "words", "told"),
    [
        (
            "mujoco",
            'MuJoCo is not installed, run `pip install "gymnasium[mujoco]"`',
            "MuJoCo is not installed (pip install 'parallel-rl[mujoco]', or -r requirements-mujoco.txt in a checkout)",
        ),
        ("jax", "No module named 'jax'", "No module named 'jax' (pip install 'gymnasium[jax]')"),
    ],
)
def test_a_missing_package_is_named_with_one_command_that_installs_it(package: str, words: str, told: str) -> None:
    def factory() -> gym.Env:
        raise gym.error.DependencyNotInstalled(words) from ModuleNotFoundError(
            f"No module named {package}", name=package
        )

    with pytest.raises(EnvError) as caught:
        EnvVectorizer(factory, 2)
    assert str(caught.value) == f"environment 0 cannot be made: {told}"


def test_the_paragraph_of_gymnasium_robotics_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "gymnasium_robotics.py").write_text("import sys\nprint('Attention:', file=sys.stderr)\n")
    monkeypatch.delitem(sys.modules, "gymnasium_robotics", raising=False)
    register_games("FetchReach-v99")
    monkeypatch.delitem(sys.modules, "gymnasium_robotics")
    assert not capsys.readouterr().err


def test_an_environment_that_cannot_be_made_is_told_in_one_line_with_the_place() -> None:
    def factory() -> gym.Env:
        raise OSError("no such simulator\nat port 7001")

    with pytest.raises(EnvError) as caught:
        EnvVectorizer(factory, 2)
    assert str(caught.value).startswith(
        "environment 0 cannot be made: OSError: no such simulator (test_registration.py, line "
    )
