"""Recurrent cores: sequences that are concatenated in flat rows."""

from typing import Any

import pytest
import torch

from parallel_rl.networks import Core

KINDS = pytest.mark.parametrize("kind", ["gru", "lstm"])


def make(kind: Any) -> Core:
    core = Core(kind, 3, 5, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(0.1)
    return core


@KINDS
def test_core_with_packed_sequences_equals_a_loop_over_time(kind: Any) -> None:
    """The lengths are neither equal nor sorted. The mistake: to pass a state on to the next sequence."""
    core, generator = make(kind), torch.Generator().manual_seed(1)
    lengths = [2, 5, 1, 4]
    features = torch.randn(12, 3, dtype=torch.float64, generator=generator)
    state = torch.randn(12, core.state_size, dtype=torch.float64, generator=generator)
    starts = torch.zeros(12, dtype=torch.bool)
    starts[[0, 2, 7, 8]] = True
    expected, row = [], 0
    for length in lengths:
        now = state[row : row + 1]
        for _ in range(length):
            output, now = core.step(features[row : row + 1], now)
            expected.append(output)
            row += 1
    torch.testing.assert_close(core(features, state, starts), torch.cat(expected), rtol=0, atol=1e-12)


@KINDS
def test_core_state_comes_out_as_it_went_in(kind: Any) -> None:
    core = make(kind)
    features = torch.ones(2, 3, dtype=torch.float64)
    state = torch.zeros(2, core.state_size, dtype=torch.float64)
    output, after = core.step(features, state)
    assert output.shape == (2, 5)
    assert after.shape == state.shape
    assert torch.equal(after[:, :5], output)
    assert not torch.equal(core.step(features, after)[0], output)


def test_core_of_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="core must be 'none', 'gru' or 'lstm', not 'rnn'"):
        Core("rnn", 3, 5, torch.Generator())  # type: ignore[arg-type]
