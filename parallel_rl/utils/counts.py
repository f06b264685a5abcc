"""Numbers of things: steps, episodes, environments."""

from numbers import Real


def counted(name: str, value: float) -> int:
    """Return a number of things as an int; 1e5 is 100000.

    Raises:
        ValueError: it is not a whole number, or is below 1; the message has its name.
    """
    if not isinstance(value, Real) or value != value // 1:
        raise ValueError(f"{name} must be a whole number, not {value!r:.40}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    return int(value)
