"""Checkpoints of a run, saved at intervals."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from AsyncPPO.callbacks.base import Callback
from parallel_rl.utils import Metrics, remove_unfinished

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncTrainer

CHECKPOINT_DIRECTORY = "checkpoints"
CHECKPOINT_SUFFIX = ".state"


class Checkpoints(Callback):
    """Keeps the newest checkpoints of a run: at intervals, and at its end, unless an error ended it."""

    def __init__(self, directory: str | os.PathLike[str], every_seconds: float = 60.0, keep: int = 3) -> None:
        """Write into `directory`, which is made if it is missing.

        Args:
            directory: of the checkpoints, each a file named after its steps.
            every_seconds: how much training time may be lost at most, beside an update.
            keep: how many of the newest stay.

        Raises:
            ValueError: no time, or none to keep.
        """
        if not every_seconds > 0 or keep < 1:
            raise ValueError(
                f"every_seconds must be positive and keep at least 1, not {every_seconds:g} and {keep}: "
                "a run without checkpoints is one without this callback"
            )
        self.directory, self.every_seconds, self.keep = Path(directory), every_seconds, keep

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """Make the directory, and clear away what a killed process had not finished writing."""
        self.directory.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.directory)
        self._last, self._steps = trainer.seconds, trainer.steps_done

    def on_update(self, trainer: "AsyncTrainer", metrics: Metrics) -> None:
        """Save, if it is time."""
        if trainer.seconds >= self._last + self.every_seconds:
            self._save(trainer)

    def on_end(self, trainer: "AsyncTrainer") -> None:
        """Save what has been learnt since."""
        if trainer.error is None and trainer.steps_done > self._steps:
            self._save(trainer)

    def _save(self, trainer: "AsyncTrainer") -> None:
        trainer.save_checkpoint(self.directory / f"{trainer.steps_done:012d}{CHECKPOINT_SUFFIX}")
        self._last, self._steps = trainer.seconds, trainer.steps_done
        for old in checkpoints_in(self.directory)[: -self.keep]:
            old.unlink()


def checkpoints_in(directory: Path) -> list[Path]:
    """Return the checkpoints in a directory, the newest last."""
    return sorted(path for path in directory.glob(f"*{CHECKPOINT_SUFFIX}") if path.stem.isdecimal())


def steps_of(checkpoint: Path) -> int:
    """Return after how many steps a checkpoint was saved."""
    return int(checkpoint.stem)
