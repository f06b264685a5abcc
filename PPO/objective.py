"""The coefficients of the loss."""

import math
from typing import Any, NamedTuple

import numpy as np

Number = Any
"""A float, or a tensor of one."""


class Objective(NamedTuple):
    """The coefficients of `losses.objective_loss`."""

    clip: Number
    """The clip range of the probability ratio."""
    value_coef: float
    entropy_coef: Number | None
    """The coefficient of the entropy bonus, which may have been annealed to 0; None without one."""
    value_clip: float | None
    """The clip range of normalized values; None without clipping."""

    def numbers(self) -> list[float]:
        """Return all coefficients as floats."""
        value_clip = math.inf if self.value_clip is None else self.value_clip
        return [self.clip, self.value_coef, self.entropy_coef or 0.0, value_clip]

    @classmethod
    def of(cls, numbers: np.ndarray) -> "Objective":
        """Undo `numbers`; no entropy bonus becomes one of 0."""
        clip, value_coef, entropy_coef, value_clip = numbers.tolist()
        return cls(clip, value_coef, entropy_coef, None if math.isinf(value_clip) else value_clip)
