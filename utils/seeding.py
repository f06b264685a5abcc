"""Independent random streams from one seed."""

import numpy as np


def spawn_seeds(seed: int | None, count: int) -> list[int]:
    """Return `count` seeds, one for each independent stream; the first k do not depend on `count`.

    Args:
        seed: where they come from; None takes fresh entropy from the operating system.
        count: how many.

    Raises:
        ValueError: `seed` is negative.
    """
    if seed is not None and seed < 0:
        raise ValueError(f"seed must not be negative, not {seed}")
    return [int(child.generate_state(1)[0]) for child in np.random.SeedSequence(seed).spawn(count)]
