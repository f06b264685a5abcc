"""The progress bar of a population."""

import math
from collections.abc import Sequence

import numpy as np

from AsyncPPO.progress import Bar
from Population.records import Record
from Population.schedule import Count
from Population.statistics import RECENT


class Display:
    """Shows the progress of the members, and the mean return of the last 100 episodes of each."""

    def __init__(self, finish: Count, members: int, shown: bool) -> None:
        """Show the bar, if it is `shown`; `finish` is the length of each member's run."""
        total = finish.steps * members if finish.steps < math.inf else None
        self._bar = Bar(total=total, unit="step", disable=not shown)

    def show_steps(self, steps: int) -> None:
        """Move the bar."""
        self._bar.update((steps if self._bar.total is None else min(steps, self._bar.total)) - self._bar.n)

    def show_returns(self, records: Sequence[Record]) -> None:
        """Show the mean returns."""
        if not self._bar.disable and any(record.returns for record in records):
            returns = [np.mean(record.returns[-RECENT:] or [np.nan]) for record in records]
            words = ", ".join("-" if np.isnan(mean) else f"{mean:.1f}" for mean in returns)
            self._bar.set_description(f"mean return {words}", refresh=False)

    def close(self) -> None:
        """Close the bar, and leave it on the screen."""
        self._bar.close()
