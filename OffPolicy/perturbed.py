"""Parameter noise: exploration by an actor with perturbed parameters (Plappert et al. 2018, arXiv:1706.01905)."""

from typing import Any

import numpy as np
import torch

from OffPolicy.learner import Learner
from parallel_rl.networks import copy_on
from parallel_rl.utils import Ranks, State, mean_metrics

ADAPTION = 1.01
"""Factor by which the noise grows and shrinks (section 3)."""


class PerturbedActor:
    """A copy of an actor with noise on its parameters, whose standard deviation is adaptive.

    It aims at a distance between the actions of the two, in [-1, 1]: the root of their mean squared difference
    (section 3 and appendix C).
    """

    def __init__(self, learner: Learner[Any], target: float, rng: np.random.Generator) -> None:
        """Sample the noise; `perturb` adds it for the first time.

        Args:
            learner: of the actor.
            target: the distance to aim at, and the first standard deviation.
            rng: the random stream of the noise.
        """
        self.target = self.std = target
        self._rng, self._learner, self._vector = rng, learner, learner.vector.clone()
        self.network = copy_on(learner.network, self._vector)
        self.resample()

    def resample(self) -> None:
        """Sample other noise, a standard normal number for each parameter."""
        vector = self._learner.vector
        self._draws = torch.from_numpy(self._rng.standard_normal(len(vector), np.float32)).to(vector.device)

    def reset(self) -> None:
        """Take over the parameters of the actor; they are not perturbed until the next `perturb`."""
        self._vector.copy_(self._learner.vector)

    @torch.no_grad()
    def perturb(self, obs: torch.Tensor, ranks: Ranks) -> None:
        """Perturb the present parameters of the actor; adapt the noise to the distance of actions for `obs`."""
        self._add_noise()
        difference = (self._learner.network(obs) - self.network(obs)).cpu().numpy()
        distance = {"distance": float(np.sqrt(np.mean(difference**2)))}
        self.adapt(mean_metrics(ranks, len(obs), distance)["distance"])
        self._add_noise()

    def adapt(self, distance: float) -> None:
        """Adapt the standard deviation to a distance."""
        self.std = self.std * ADAPTION if distance < self.target else self.std / ADAPTION

    def _add_noise(self) -> None:
        self._vector.copy_(self._learner.vector + self.std * self._draws)

    def state(self) -> State:
        """Return everything, for `utils.save_state`."""
        tensors = {"perturbed": self._vector, "draws": self._draws}
        return {"std": self.std} | {name: tensor.cpu().numpy() for name, tensor in tensors.items()}

    def load_state(self, state: State) -> None:
        """Restore what `state` returned."""
        self.std = float(state["std"])
        self._vector.copy_(torch.as_tensor(state["perturbed"]))
        if "draws" in state:  # older checkpoints lack them
            self._draws = torch.as_tensor(state["draws"]).to(self._draws)
