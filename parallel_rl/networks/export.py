"""Export of an agent's policy to a file that runs without this project: ONNX, or a program of `torch.export`."""

import copy
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector.utils import concatenate, create_empty_array
from torch import nn

from parallel_rl.utils import ACTION_MASK, leaves, name_of, reason_of, split_parts

Run = Callable[[Sequence[torch.Tensor]], Sequence[Any]]
"""Runs an exported policy: from inputs to results."""
TOLERANCE = 1e-5
"""Largest difference between exported actions and the agent's, relative to the largest action if that is above 1."""
TRIALS = 64
"""The number of states for which they are compared."""


class Deterministic(nn.Module):
    """From observations to deterministic actions; it also normalizes the observations."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, obs: torch.Tensor, core: torch.Tensor | None = None) -> Any:
        """Return actions `(B, ...)` for rows of columns `(B, D)`, and for a recurrent policy its next state `(B, S)`.

        For a Dict or Tuple space the actions of each part are separate results.
        """
        results = self.policy.deterministic_actions(obs, core)
        return results[0] if len(results) == 1 else results


def export_policy(agent: Any, path: str | os.PathLike[str]) -> float:
    """Write the deterministic policy into a file, and check that it acts as the agent does.

    The exported policy takes observations as rows of columns, as `utils.Features.flatten` returns them (a Box of
    numbers: flattened). It returns actions, or for a Dict or Tuple space one result for each part, `action.KEY`. A
    recurrent policy also takes the recurrent state `(B, S)`, initially zeros, and returns the next one.

    Args:
        agent: PPO or an off-policy agent; its device does not matter.
        path: of a file `.onnx` (needs requirements-export.txt) or `.pt2`.

    Returns:
        The largest difference found between its actions and the agent's.

    Raises:
        ValueError: the path has another suffix.
        ImportError: a library for ONNX is not installed.
        RuntimeError: the exported policy does not act as the agent does.
    """
    path = Path(path)
    if path.suffix not in {".onnx", ".pt2"}:
        raise ValueError(f"a policy is exported as .onnx or .pt2, not as {path.name!r}")
    if path.suffix == ".onnx" and getattr(agent.config, "bf16", False):
        raise ValueError(f"a policy with bf16 is exported as .pt2, not as {path.name!r}")
    states, core = _trial_states(agent), agent.actor().initial_state(TRIALS)  # an actor has no state of exploration
    inputs = [torch.from_numpy(part) for part in (agent.policy.features.rows(states)[0], core) if part is not None]
    names = ["obs", "core"][: len(inputs)]
    results = [name_of(("action", *keys)) for keys, _ in leaves(agent.action_space)] + ["next_core"][: len(inputs) - 1]
    module = Deterministic(copy.deepcopy(agent.policy).cpu()).eval()
    batch = {0: torch.export.Dim("batch")}
    torch.ones((), requires_grad=True).backward()  # else the first gradient is after an export, and fails in forks
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "The tensor attributes .* were assigned during export"
        )  # torch warns about its own recurrent layers
        program = torch.export.export(module, tuple(inputs), dynamic_shapes=dict.fromkeys(names, batch))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        aside = Path(directory) / path.name
        run = _save_onnx(program, names, results, aside) if path.suffix == ".onnx" else _save_program(program, aside)
        outputs = run(inputs)
        action = agent.get_action(states, deterministic=True, state=core)
        expected = split_parts(agent.action_space, action) + [part for part in [core] if part is not None]
        difference = max(
            float(np.abs(np.asarray(ours).reshape(TRIALS, -1) - np.asarray(theirs).reshape(TRIALS, -1)).max())
            for ours, theirs in zip(expected, outputs, strict=True)
        )
        largest = max(float(np.abs(part).max()) for part in expected)
        if not difference <= TOLERANCE * max(1.0, largest):
            raise RuntimeError(f"the actions of the policy in {path} differ from the agent's by up to {difference:g}")
        aside.replace(path)
    return difference


def _save_program(program: torch.export.ExportedProgram, path: Path) -> Run:
    """Write a `torch.export` program; return a function that runs it."""
    torch.export.save(program, path)
    module = torch.export.load(path).module()

    @torch.no_grad()
    def run(inputs: Sequence[torch.Tensor]) -> Sequence[Any]:
        outputs = module(*inputs)
        return outputs if isinstance(outputs, tuple) else [outputs]

    return run


def _save_onnx(program: torch.export.ExportedProgram, names: Sequence[str], results: Sequence[str], path: Path) -> Run:
    """Write ONNX; return a function that runs it."""
    try:
        import onnxruntime

        with _silent("torch.onnx"), warnings.catch_warnings():  # it warns that torchvision is missing
            warnings.simplefilter("ignore", FutureWarning)  # torch warns about its own code
            exported: Any = torch.onnx.export(program, input_names=names, output_names=results, verbose=False)
        for value in (*exported.model.graph.inputs, *exported.model.graph.outputs):
            value.shape[0] = "batch"
        exported.save(path, external_data=False)
    except ImportError as error:
        raise ImportError(reason_of(error)) from error
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, {name: part.numpy() for name, part in zip(names, inputs, strict=True)})


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Log no warnings of a library during a block."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _trial_states(agent: Any) -> Any:
    """Return random observations, `TRIALS` of them; all actions are allowed."""
    space = copy.deepcopy(agent.observation_space)
    space.seed(0)
    states: Any = create_empty_array(space, TRIALS)
    states = concatenate(space, [space.sample() for _ in range(TRIALS)], states)
    if isinstance(states, dict) and ACTION_MASK in states:
        states[ACTION_MASK][:] = 1
    return states
