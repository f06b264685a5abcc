"""Callbacks: the progress bar, the files of a run, background evaluation and stopping criteria.

Write your own: override methods of `Callback`, and pass it to `AsyncPPO(callbacks=[...])`; see docs/callbacks.md.
"""

from AsyncPPO.callbacks.background_evaluation import BackgroundEvaluation
from AsyncPPO.callbacks.base import Callback, ProgressBar
from AsyncPPO.callbacks.checkpoints import (
    CHECKPOINT_DIRECTORY,
    CHECKPOINT_SUFFIX,
    Checkpoints,
    checkpoints_in,
    steps_of,
)
from AsyncPPO.callbacks.logs import EVALUATIONS_FILE, METRICS_FILE, TAGS, CSVLog, Table, TensorBoard, read_table
from AsyncPPO.callbacks.stopping import StopAfter, StopAtReturn
from AsyncPPO.callbacks.tracking import MLflow, WeightsAndBiases
from AsyncPPO.episodes import Evaluation

__all__ = [
    "CHECKPOINT_DIRECTORY",
    "CHECKPOINT_SUFFIX",
    "EVALUATIONS_FILE",
    "METRICS_FILE",
    "TAGS",
    "BackgroundEvaluation",
    "CSVLog",
    "Callback",
    "Checkpoints",
    "Evaluation",
    "MLflow",
    "ProgressBar",
    "StopAfter",
    "StopAtReturn",
    "Table",
    "TensorBoard",
    "WeightsAndBiases",
    "checkpoints_in",
    "read_table",
    "steps_of",
]
