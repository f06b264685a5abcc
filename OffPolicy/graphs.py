"""Graphs: updates on a GPU, recorded once and replayed with one launch."""

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch

from OffPolicy.learner import Outputs, WeightedRanks
from OffPolicy.replay import Transitions

WARM_UP = 3
"""Updates of each kind that run as usual before one is recorded: libraries allocate memory in the first."""
Function = Callable[[tuple[torch.Tensor, ...]], Outputs]


class Graphs:
    """CUDA graphs of an agent's updates, one for each kind of update.

    An update of small networks is a hundred short kernels, which take longer to launch than to run. A graph launches
    all of them at once.
    """

    def __init__(self, make_update: Callable[..., Outputs]) -> None:
        """Store the function to record; it reads and writes the same tensors each time, and returns new ones."""
        self._make_update = make_update
        self._config: Any = None
        self._warm: dict[Hashable, int] = {}
        self._recorded: dict[Hashable, _Graph] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy has: it records graphs of its own, since these write into the tensors of this agent."""
        return vars(self) | {"_warm": {}, "_recorded": {}}

    def replay(
        self, config: Any, delayed: bool, batch: Transitions, noise: torch.Tensor, lr: float, ranks: WeightedRanks
    ) -> Outputs:
        """Make one update; the arguments besides the agent's config are those of `make_update`, for a single rank.

        A graph keeps the settings with which it was recorded, but for the learning rate. With others it is recorded
        again.
        """
        if config is not self._config:  # an assignment to a setting replaces the config
            if self._config is None or _without_lr(config) != _without_lr(self._config):
                self._warm.clear()
                self._recorded.clear()
            self._config = config
        kind, update = (delayed, len(batch.obs), ranks), partial(self._call, ranks, delayed)
        inputs = *batch, noise, torch.full((), lr, device=noise.device)
        if self._warm.setdefault(kind, 0) < WARM_UP:
            self._warm[kind] += 1
            return _on_a_stream(update, inputs)
        if kind not in self._recorded:
            self._recorded[kind] = _Graph(update, inputs)
        return self._recorded[kind](inputs)

    def _call(self, ranks: WeightedRanks, delayed: bool, inputs: tuple[torch.Tensor, ...]) -> Outputs:
        *batch, noise, lr = inputs
        return self._make_update(Transitions(*batch), noise, lr, ranks, delayed)


def _without_lr(config: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(config).items() if name != "lr"}


def _on_a_stream(function: Function, inputs: tuple[torch.Tensor, ...]) -> Outputs:
    """Call a function on a stream of its own, as it must be before it is recorded."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        outputs = function(inputs)
    torch.cuda.current_stream().wait_stream(stream)
    return outputs


class _Graph:
    """A recorded function of tensors that always have the same shapes."""

    def __init__(self, function: Function, inputs: tuple[torch.Tensor, ...]) -> None:
        self._inputs = tuple(tensor.clone() for tensor in inputs)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._metrics, self._errors = function(self._inputs)

    def __call__(self, inputs: tuple[torch.Tensor, ...]) -> Outputs:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return {name: value.clone() for name, value in self._metrics.items()}, self._errors.clone()
