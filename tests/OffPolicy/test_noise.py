import numpy as np
import pytest
from torch import nn

from OffPolicy.learner import Learner
from OffPolicy.noise import OrnsteinUhlenbeck, make_noise
from OffPolicy.perturbed import PerturbedActor


def walk(noise: OrnsteinUhlenbeck, steps: int, envs: int = 3) -> np.ndarray:
    rng, state = np.random.default_rng(0), noise.initial_state(envs)
    return np.array([noise.sample(rng.standard_normal((envs, noise.size)), state).copy() for _ in range(steps)])


def test_ornstein_uhlenbeck_noise_has_its_deviation_and_autocorrelation() -> None:
    path = walk(OrnsteinUhlenbeck(2, 0.2), 40_000).reshape(40_000, -1)
    np.testing.assert_allclose(path.std(axis=0), 0.2 / np.sqrt(1 - 0.85**2), rtol=0.05)
    for lag in (1, 5):
        memory = (path[lag:] * path[:-lag]).mean(axis=0) / path.var(axis=0)
        np.testing.assert_allclose(memory, 0.85**lag, atol=0.04)
    assert (
        np.abs(np.corrcoef(path.T) - np.eye(6)).max() < 0.1
    )  # environments and dimensions do not depend on each other


def test_the_noise_of_an_environment_is_its_state() -> None:
    noise = OrnsteinUhlenbeck(1, 0.2)
    normals = np.random.default_rng(0).standard_normal((3, 3, 1))
    state = noise.initial_state(3)
    paths = np.array([noise.sample(each, state).copy() for each in normals])
    for env_id in range(3):
        alone = noise.initial_state(1)
        np.testing.assert_array_equal(
            paths[:, [env_id]], [noise.sample(each[[env_id]], alone).copy() for each in normals]
        )
    with pytest.raises(ValueError, match=r"pass state=, at first initial_state\(n\)"):
        noise.sample(normals[0], None)


def test_make_noise_returns_the_noise_of_a_name() -> None:
    normal = make_noise("normal_0.3", 2)
    assert normal is not None
    normals = np.random.default_rng(0).standard_normal((9, 2))
    np.testing.assert_array_equal(normal.sample(normals, normal.initial_state(9)), 0.3 * normals)
    assert make_noise("none", 2) is None
    assert not make_noise("normal_0", 2).sample(normals, None).any()
    assert isinstance(make_noise("ou_0.2", 2), OrnsteinUhlenbeck)


@pytest.mark.parametrize("name", ["pink_0.1", "normal", "normal_x", "normal_-1", "normal_inf", "ou_nan", ""])
def test_make_noise_with_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="action_noise"):
        make_noise(name, 1)


def test_parameter_noise_adapts_to_the_target_distance() -> None:
    """A linear policy: actions change by as much as its parameters."""
    noise = PerturbedActor(Learner(nn.Linear(4, 2)), 0.2, np.random.default_rng(0))
    for _ in range(400):
        noise.adapt(3 * noise.std)
    assert noise.std == pytest.approx(0.2 / 3, rel=0.02)
