"""Prioritized replay (Schaul et al. 2016, arXiv:1511.05952): sampling in proportion to the last TD errors."""

import numpy as np

from parallel_rl.utils import ALONE, Ranks, State, check_like

FAN_OUT = 32
RUNNING_SUM = np.triu(np.ones((FAN_OUT, FAN_OUT)))
"""The product with this matrix is `cumsum`, in half the time. It is the same for each row, and never decreases."""
LARGEST_TOP = 1024
SMALLEST_ERROR = 1e-6
"""Added to the absolute TD errors, so that a transition with an error of zero can be sampled again."""


class SumTree:
    """Numbers, and the sums of each 32, of each 32 * 32, ...: sampling in proportion reads only a few of them."""

    def __init__(self, size: int) -> None:
        self.levels = [_padded_zeros(size)]
        while len(self.levels[-1]) > LARGEST_TOP:
            self.levels.append(_padded_zeros(len(self.levels[-1]) // FAN_OUT))

    @property
    def leaves(self) -> np.ndarray:
        """The numbers, float64; change them by `set`."""
        return self.levels[0]

    @property
    def total(self) -> float:
        """The sum of all numbers."""
        return float(self.levels[-1].sum())

    def set(self, indexes: np.ndarray, values: np.ndarray | float) -> None:
        """Replace the numbers at `indexes` `(n,)`."""
        self.levels[0][indexes] = values
        for below, level in zip(self.levels, self.levels[1:], strict=False):
            indexes = indexes // FAN_OUT
            level[indexes] = below.reshape(-1, FAN_OUT).take(indexes, 0).sum(axis=1)

    def find(self, mass: np.ndarray) -> np.ndarray:
        """Return, for each m in `mass` `(n,)`, 0 <= m < total, the first index where the running sum exceeds m.

        A number of zero is never found.
        """
        sums = np.concatenate([[0.0], self.levels[-1].cumsum()])
        mass = np.minimum(mass, np.nextafter(sums[-1], 0))
        indexes = np.searchsorted(sums, mass, side="right") - 1
        mass = mass - sums[indexes]
        starts = np.arange(len(mass)) * FAN_OUT
        for level in reversed(self.levels[:-1]):
            sums = level.reshape(-1, FAN_OUT).take(indexes, 0) @ RUNNING_SUM
            mass = np.minimum(mass, np.nextafter(sums[:, -1], 0))  # sums in another order differ in their last bits
            child = (sums > mass[:, None]).argmax(axis=1)
            mass = mass - np.where(child, sums.take(starts + child - 1), 0.0)
            indexes = indexes * FAN_OUT + child
        return indexes


class Priorities:
    """The priority |TD error|^alpha of each row of a replay buffer; new rows get the largest priority so far."""

    def __init__(self, rows: int, alpha: float) -> None:
        """Start without priorities.

        Args:
            rows: of the buffer.
            alpha: 0 for uniform sampling, 1 for sampling in proportion to TD errors.
        """
        self.alpha, self.largest = alpha, 1.0
        self.tree = SumTree(rows)

    def clear(self) -> None:
        """Forget all priorities."""
        self.tree, self.largest = SumTree(len(self.tree.leaves)), 1.0

    def extend(self, rows: np.ndarray, is_transition: np.ndarray) -> None:
        """Give new rows `(n,)` their priorities; rows that are not transitions are never sampled."""
        self.tree.set(rows, self.largest * is_transition)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return rows `(count,)`, one from each of `count` equal parts of the total priority (appendix B.2.1)."""
        return self.tree.find((np.arange(count) + rng.random(count)) * (self.tree.total / count))

    def weights(self, rows: np.ndarray, beta: float, ranks: Ranks = ALONE) -> np.ndarray:
        """Return the importance weights of sampled rows, float32 `(B,)`: P(row)^-beta, scaled to a maximum of 1.

        The maximum is that of the rows of all ranks.
        """
        priorities = self.tree.leaves[rows]
        return ((priorities / min(ranks.all_gather(float(priorities.min())))) ** -beta).astype(np.float32)

    def update(self, rows: np.ndarray, errors: np.ndarray) -> None:
        """Record the TD errors `(B,)` of rows."""
        priorities = (np.abs(errors).astype(np.float64) + SMALLEST_ERROR) ** self.alpha
        self.largest = max(self.largest, float(priorities.max()))
        self.tree.set(rows, priorities)

    def state(self) -> State:
        """Return everything, for `utils.save_state`."""
        return {"largest": self.largest, "priorities": self.tree.leaves.copy()}

    def load_state(self, state: State) -> None:
        """Restore what `state` returned.

        Raises:
            ValueError: it has another number of rows.
        """
        check_like(state["priorities"], self.tree.leaves, "priorities")
        self.largest = float(state["largest"])
        self.tree.set(np.arange(len(self.tree.leaves)), state["priorities"])


def _padded_zeros(size: int) -> np.ndarray:
    return np.zeros(-(-size // FAN_OUT) * FAN_OUT)
