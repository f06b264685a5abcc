"""The limits of threads are restored after each block."""

import pytest
import torch

from parallel_rl.utils import torch_threads


def test_thread_limits_are_restored_after_the_block() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError), torch_threads(before + 1):
        raise RuntimeError
    assert torch.get_num_threads() == before
