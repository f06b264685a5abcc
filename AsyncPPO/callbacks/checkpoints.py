"""Checkpoints of a run, saved at intervals."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from AsyncPPO.agent import optional
from AsyncPPO.callbacks.base import Callback
from AsyncPPO.episodes import Episode
from parallel_rl.utils import Metrics, counted, remove_unfinished
from parallel_rl.utils.counts import checked_positive
from parallel_rl.utils.names import names_checked

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncTrainer

CHECKPOINT_DIRECTORY = "checkpoints"
CHECKPOINT_SUFFIX = ".state"


class Checkpoints(Callback):
    """Saves checkpoints at intervals and at the end of the run, unless an error ended it; keeps the newest.

    A run from the beginning, or from an older checkpoint, replaces the later ones in its directory once it saves.
    Every rank of a run needs it, since each has its own environments; the first rank writes the files.
    """

    stores = True

    @names_checked
    def __init__(self, directory: str | os.PathLike[str], every_seconds: float = 60.0, keep: int = 3) -> None:
        """Write into `directory`, which is created if necessary.

        Args:
            directory: of the checkpoints; each is a file with the number of steps as its name.
            every_seconds: seconds of training between checkpoints; a killed process loses at most these and one update.
            keep: number of the newest checkpoints to keep.

        Raises:
            ValueError: `every_seconds` is not a positive number, or `keep` is below 1.
        """
        self.directory, self.every_seconds = Path(directory), checked_positive("every_seconds", every_seconds)
        self.keep = counted("keep", keep)

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """Make the directory; remove the unfinished files of a killed process."""
        if trainer.ranks.node == 0:
            self.directory.mkdir(parents=True, exist_ok=True)
            remove_unfinished(self.directory)
        self._interval, self._steps = self._interval_of(trainer), trainer.steps_done

    def on_rollout(self, trainer: "AsyncTrainer", steps: int, episodes: Sequence[Episode]) -> None:
        """Save an off-policy agent if `every_seconds` have passed.

        If a row of metrics is due, `on_update` follows and saves it, too.
        """
        if not (trainer.row_is_due or optional(trainer.agent, "on_policy")):
            self._save_in_time(trainer)

    def on_update(self, trainer: "AsyncTrainer", metrics: Metrics) -> None:
        """Save if `every_seconds` have passed."""
        self._save_in_time(trainer)

    def on_end(self, trainer: "AsyncTrainer") -> None:
        """Save if there were steps since the last checkpoint."""
        if trainer.error is None and trainer.steps_done > self._steps:
            self._save(trainer)

    def _save_in_time(self, trainer: "AsyncTrainer") -> None:
        """Save if `every_seconds` have passed; in mask mode only between episodes."""
        between = trainer.mode != "mask" or trainer.env.finished.all()
        if between and self._interval_of(trainer) > self._interval:
            self._save(trainer)

    def _interval_of(self, trainer: "AsyncTrainer") -> float:
        """Return the number of the current interval; a rank that joins later counts as the others do."""
        return trainer.seconds // self.every_seconds

    def _save(self, trainer: "AsyncTrainer") -> None:
        trainer.save_checkpoint(self.directory / f"{trainer.steps_done:012d}{CHECKPOINT_SUFFIX}")
        self._interval, self._steps = self._interval_of(trainer), trainer.steps_done
        if trainer.ranks.node == 0:
            saved = checkpoints_in(self.directory)
            own = [checkpoint for checkpoint in saved if steps_of(checkpoint) <= trainer.steps_done]
            for other in {*saved} - {*own[-self.keep :]}:
                other.unlink()


def checkpoints_in(directory: str | os.PathLike[str]) -> list[Path]:
    """Return the checkpoints in a directory, the newest last."""
    return sorted(path for path in Path(directory).glob(f"*{CHECKPOINT_SUFFIX}") if path.stem.isdecimal())


def steps_of(checkpoint: Path) -> int:
    """Return the number of steps that the run had taken at a checkpoint."""
    return int(checkpoint.stem)
