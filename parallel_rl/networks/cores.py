"""Cores: the recurrent part of a policy."""

from typing import Literal

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from parallel_rl.networks.encoders import orthogonal

CoreName = Literal["none", "gru", "lstm"]


class Core(nn.Module):
    """A GRU or an LSTM over sequences that are concatenated in flat rows.

    The recurrent state is a row of S numbers, zeros at the start of an episode: the hidden state, followed in an LSTM
    by the cell state.
    """

    def __init__(self, kind: CoreName, inputs: int, size: int, generator: torch.Generator) -> None:
        """Make the layer, with orthogonal weights and zero biases.

        Args:
            kind: gru or lstm.
            inputs: features in.
            size: H, features out.
            generator: of the initial weights.

        Raises:
            ValueError: `kind` is neither.
        """
        super().__init__()
        if kind not in ("gru", "lstm"):
            raise ValueError(f"core must be 'none', 'gru' or 'lstm', not {kind!r}")
        layer: nn.GRU | nn.LSTM = (nn.GRU if kind == "gru" else nn.LSTM)(inputs, size, device="meta")
        self.layer = orthogonal(layer, 1.0, generator)
        self.state_size = size if kind == "gru" else 2 * size

    def step(self, features: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one step of B sequences: `(B, F)` and states `(B, S)` to `(B, H)` and the next states."""
        output, after = self.layer(features.unsqueeze(0), self._split(state))
        return output[0], torch.cat(after, dim=-1)[0] if isinstance(after, tuple) else after[0]

    def forward(self, features: torch.Tensor, state: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """Return the outputs `(B, H)` of whole sequences.

        Args:
            features: `(B, F)`, sequence after sequence.
            state: `(B, S)`, the recurrent state before each row; only that of each sequence's first row is used.
            starts: bool `(B,)`, true for the first row of each sequence, so also for row 0.
        """
        first = starts.nonzero()[:, 0].tolist()
        lengths = [stop - start for start, stop in zip(first, [*first[1:], len(features)], strict=True)]
        packed = pack_sequence(features.split(lengths), enforce_sorted=False)
        output, _ = self.layer(packed, self._split(state[first]))
        return torch.cat(unpack_sequence(output))

    def _split(self, state: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        parts = state.unsqueeze(0).split(self.layer.hidden_size, dim=-1)
        return tuple(part.contiguous() for part in parts) if isinstance(self.layer, nn.LSTM) else parts[0].contiguous()
