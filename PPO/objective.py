"""What an update minimises, as numbers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Objective:
    """The coefficients of `losses.objective_loss`."""

    value_coef: float
    entropy_coef: float
    value_clip: float | None
    normalize_advantage: bool
