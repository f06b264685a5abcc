"""Ranks: sums, what is gathered, and errors."""

import os
import signal
import socket
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed import FileStore, HashStore

from parallel_rl.ranks.gloo import RING_BYTES, Gloo, take_gpu
from parallel_rl.utils import ALONE, RankError, Ranks, merged, stream_of
from tests.ranks import errors_on_ranks, on_ranks


def vectors(count: int, size: int, dtype: str = "float32") -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    return [(rng.standard_normal(size) * 10.0 ** rng.integers(-4, 4, size)).astype(dtype) for _ in range(count)]


def pairwise_sum(parts: list[np.ndarray]) -> np.ndarray:
    while len(parts) > 1:
        pairs = [parts[index : index + 2] for index in range(0, len(parts), 2)]
        parts = [pair[0] + pair[1] if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0]


@pytest.mark.parametrize("count", range(1, 9))
def test_total_has_the_bits_of_the_pairwise_sum_on_every_rank(count: int) -> None:
    for dtype in ("float32", "float64"):
        parts = vectors(count, 501, dtype)
        totals = on_ranks(
            count, lambda ranks, parts=parts: ranks.all_reduce(torch.from_numpy(parts[ranks.rank])).numpy()
        )  # type: ignore[misc]
        assert {total.tobytes() for total in totals} == {pairwise_sum(parts).tobytes()}
        assert totals[0].dtype == dtype


def test_total_of_a_large_vector_is_the_same_on_every_rank() -> None:
    parts = vectors(3, RING_BYTES // 4)
    totals = on_ranks(3, lambda ranks: ranks.all_reduce(torch.from_numpy(parts[ranks.rank])).numpy())
    assert len({total.tobytes() for total in totals}) == 1
    np.testing.assert_allclose(totals[0], np.sum(parts, axis=0, dtype=np.float64), rtol=1e-4, atol=1e-2)


def test_total_does_not_change_its_argument() -> None:
    parts = vectors(2, RING_BYTES // 4)
    before = [part.copy() for part in parts]
    on_ranks(
        2,
        lambda ranks: (
            ranks.all_reduce(torch.from_numpy(parts[ranks.rank])).numpy(),
            ranks.all_reduce(torch.from_numpy(parts[ranks.rank][:10])),
        ),
    )
    np.testing.assert_array_equal(parts, before)


@pytest.mark.parametrize(("visible", "taken"), [(None, "2"), ("4,5,6,7", "6")])
def test_a_rank_takes_one_gpu_of_several(visible: str | None, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    take_gpu(6)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == taken


@pytest.mark.parametrize("name", ["all_gather", "gather"])
def test_gather_returns_every_tree_in_the_order_of_the_ranks(name: str) -> None:
    def tree(number: int) -> dict:
        return {"rows": np.arange(3000.0 * number).reshape(3, -1), "names": ["a", None, number], "flag": number > 0}

    results = on_ranks(3, lambda ranks: getattr(ranks, name)(tree(ranks.rank)))
    for trees in results if name == "all_gather" else results[:1]:
        for number, found in enumerate(trees):
            np.testing.assert_equal(found, tree(number))
    assert name == "all_gather" or results[1:] == [None, None]


def test_merged_moments_are_those_of_the_joined_rows() -> None:
    rows = [np.random.default_rng(size).normal(1e6, 1.0, (size, 3)) for size in (1, 10, 500)]
    count, mean, variance = merged([(len(each), each.mean(axis=0), each.var(axis=0)) for each in rows])
    joined = np.concatenate(rows)
    assert count == 511
    np.testing.assert_allclose(mean, joined.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(variance, joined.var(axis=0), rtol=1e-9)


def test_merged_moments_of_one_are_its_own_to_the_last_bit() -> None:
    rows = np.random.default_rng(0).standard_normal((7, 1000))
    own = 7, rows.mean(axis=0), rows.var(axis=0)
    for one, other in zip(merged([own]), own, strict=True):
        np.testing.assert_array_equal(one, other)


def test_streams_of_ranks_differ_and_leave_the_common_generator_alike() -> None:
    def body(ranks: Ranks) -> tuple[float, float]:
        common = np.random.default_rng(3)
        return stream_of(ranks, common).random(), common.random()

    own, common = zip(*on_ranks(3, body), strict=True)
    assert len({*own}) == 3
    assert len({*common}) == 1
    generator = np.random.default_rng(3)
    assert stream_of(ALONE, generator) is generator


@pytest.mark.parametrize("failing", [0, 2])
def test_a_rank_that_fails_before_a_gather_is_named_on_all_others(failing: int) -> None:
    def body(ranks: Ranks) -> None:
        if ranks.rank == failing:
            raise ValueError("the pole broke")
        ranks.gather(np.zeros(10_000))
        ranks.gather(None)

    errors = errors_on_ranks(3, body)
    others = [error for rank, error in enumerate(errors) if rank != failing]
    assert {str(error) for error in others} == {f"rank {failing} on {socket.gethostname()} failed: the pole broke"}


@pytest.mark.parametrize("failing", range(8))
def test_a_rank_that_fails_before_a_sum_is_named_on_all_others(failing: int) -> None:
    def body(ranks: Ranks) -> None:
        for step in range(8):
            if ranks.rank == 1 and step == failing:
                raise ValueError("the pole broke")
            ranks.all_reduce(torch.ones(10 if step % 2 else RING_BYTES))

    errors = errors_on_ranks(3, body)
    assert str(errors[1]) == "the pole broke"
    for other in (errors[0], errors[2]):
        assert isinstance(other, RankError)
        assert str(other).startswith("rank 1 on ")
        assert str(other).endswith(" failed: the pole broke")


def test_a_silent_rank_is_named_after_the_timeout() -> None:
    over = threading.Event()

    def body(ranks: Ranks) -> None:
        if ranks.rank == 2:
            over.wait(20)
            return
        try:
            ranks.all_reduce(torch.ones(10))
        finally:
            if ranks.rank == 0:
                over.set()

    start = time.monotonic()
    errors = errors_on_ranks(3, body, timeout=0.5)
    assert time.monotonic() - start < 10
    for error in errors[:2]:
        assert isinstance(error, RankError)
        assert "rank 2 on " in str(error)
        assert "has not answered for 0.5 seconds" in str(error)


GONE = "is gone: it was killed, or its network is down"


@pytest.mark.parametrize(
    ("signal_name", "size", "timeout", "what"),
    [
        pytest.param("SIGKILL", 10, 300.0, GONE, id="killed, doubling"),
        pytest.param("SIGKILL", RING_BYTES // 8, 300.0, GONE, id="killed, ring"),
        pytest.param("SIGSTOP", 10, 3.0, "has not answered for 3 seconds", id="stopped", marks=pytest.mark.slow),
    ],
)
def test_a_lost_process_is_named_on_all_others(
    signal_name: str, size: int, timeout: float, what: str, tmp_path: Path
) -> None:
    context = get_context("fork")
    errors = context.SimpleQueue()

    def run(number: int) -> None:
        try:
            with Gloo(FileStore(str(tmp_path / "store"), 4), number, 4, timeout, 300.0) as ranks:
                ranks.all_reduce(torch.ones(size))
                if number == 2:
                    os.kill(os.getpid(), signal.Signals[signal_name])
                ranks.all_reduce(torch.ones(size))
        except RankError as error:
            errors.put(str(error))

    processes = [context.Process(target=run, args=(number,)) for number in range(4)]
    for process in processes:
        process.start()
    told = {errors.get() for _ in range(3)}
    processes[2].kill()
    for process in processes:
        process.join()
    assert told == {f"rank 2 on {socket.gethostname()} {what}"}


def test_a_rank_that_never_comes_is_named() -> None:
    with pytest.raises(RankError, match=r"^rank 1 has not answered for 0\.2 seconds$"):
        Gloo(HashStore(), 0, 2, timeout=0.2)
