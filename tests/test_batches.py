"""Batches follow from the seed, the epoch and the rank alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.training.batches import (
    ArrayExamples,
    epoch_batches,
    generator,
    normalise,
    seed_of,
    share,
)


def test_an_epoch_shows_no_row_twice() -> None:
    seen = np.concatenate(list(epoch_batches(0, 0, 50, 8)))
    assert len(set(seen.tolist())) == len(seen) == 48


def test_every_batch_is_full() -> None:
    assert [len(batch) for batch in epoch_batches(0, 0, 50, 8)] == [8] * 6


def test_fewer_rows_than_a_batch_make_one_batch() -> None:
    (batch,) = epoch_batches(0, 0, 5, 8)
    assert sorted(batch.tolist()) == [0, 1, 2, 3, 4]


def test_the_same_seed_and_epoch_give_the_same_batches() -> None:
    first, second = (np.stack(list(epoch_batches(7, 3, 64, 8))) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(("seed", "epoch"), [(7, 4), (8, 3)])
def test_another_epoch_or_seed_gives_another_order(seed: int, epoch: int) -> None:
    first = np.stack(list(epoch_batches(7, 3, 64, 8)))
    assert not np.array_equal(first, np.stack(list(epoch_batches(seed, epoch, 64, 8))))


@given(count=st.integers(1, 200), size=st.integers(1, 16))
def test_shares_cover_a_batch_once_and_differ_by_at_most_one(count: int, size: int) -> None:
    rows = np.arange(count)
    shares = [rows[share(count, rank, size)] for rank in range(size)]
    assert np.array_equal(np.concatenate(shares), rows)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_key_names_a_stream() -> None:
    assert torch.equal(
        torch.rand(3, generator=generator(1, 2, 3)), torch.rand(3, generator=generator(1, 2, 3))
    )


def test_neighbouring_keys_name_different_streams() -> None:
    assert len({seed_of(0, 1), seed_of(1, 0), seed_of(0, 0), seed_of(1, 1), seed_of(0, 1, 1)}) == 5


def test_black_is_minus_one_and_white_is_one() -> None:
    assert normalise(torch.tensor([0.0, 127.5, 255.0])).tolist() == [-1.0, 0.0, 1.0]


def test_examples_in_memory_gather_by_index() -> None:
    rows = ArrayExamples(np.arange(4, dtype=np.uint8).reshape(4, 1, 1), np.zeros(4, np.int64))
    assert rows.gather(np.array([3, 1])).ravel().tolist() == [3, 1]


@pytest.mark.parametrize("epoch", range(3))
def test_sampled_classes_are_drawn_equally_often(epoch: int) -> None:
    labels = np.array([0] * 90 + [1] * 10)
    often = np.where(labels == 0, 100 / 180, 100 / 20)
    drawn = np.concatenate(list(epoch_batches(0, epoch, 100, 10, often)))
    counts = np.bincount(drawn, minlength=100)
    assert np.bincount(labels[drawn]).tolist() == [50, 50]
    # Each as often as asked, rounded down or up: 0.56 times and 5 times.
    assert (set(counts[:90]), set(counts[90:])) == ({0, 1}, {5})


def test_sampled_rows_differ_by_epoch_and_follow_from_the_seed() -> None:
    often = np.linspace(0.5, 1.5, 64)
    first, again, other = (np.stack(list(epoch_batches(7, e, 64, 8, often))) for e in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_batches_of_sampled_rows_are_mixed() -> None:
    often = np.array([0.5] * 60 + [3.5] * 12)
    firsts = [np.mean(batch >= 60) for batch in epoch_batches(0, 0, 72, 12, often)]
    assert 0.2 < min(firsts) <= max(firsts) < 0.95
