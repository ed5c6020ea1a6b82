"""Grouping of rows by the first digits of their key: every row in its group, whatever block it was in before."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from tempfile import gettempdir

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.dataset.tables import spill
from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.dataset.tables.spill import grouped_by_prefix
from tests.test_lazy_rows import SCHEMA, blocks

Keys = list[list[str]]


def keys_of_groups(rows: LazyRows, digits: int) -> Keys:
    """Return the keys of each group, sorted."""
    with grouped_by_prefix(rows, "k", digits) as groups:
        return [sorted(group.select(["k"])["k"].to_pylist()) for group in groups]


def expected(parts: Sequence[Sequence[int]], digits: int) -> Keys:
    keys = sorted(f"{number:02x}" for part in parts for number in part)
    return [list(group) for _, group in groupby(keys, lambda key: key[:digits])]


def folders() -> set[Path]:
    return set(Path(gettempdir()).glob("radloop-rows-*"))


@pytest.mark.slow
@given(st.lists(st.lists(st.integers(0, 255), max_size=8), max_size=5), st.integers(0, 3))
def test_every_row_is_in_the_group_of_its_first_digits(parts: list[list[int]], digits: int) -> None:
    assert keys_of_groups(blocks(*parts), digits) == expected(parts, min(digits, 2))


def test_many_blocks_go_through_files_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "WAITING_ROWS", 5)
    parts = [[number, 255 - number, number // 2] for number in range(40)]
    assert keys_of_groups(blocks(*parts), 1) == expected(parts, 1)


def test_what_lies_in_one_group_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill.tempfile, "TemporaryDirectory", None)
    assert keys_of_groups(blocks([0x10, 0x1F], [0x20], [0x11]), 1) == [["10", "11", "1f"], ["20"]]


def test_columns_beside_rows_come_along() -> None:
    rows = blocks([0x10, 0x20], [0x11]).with_columns(pa.table({"n": [7, 8, 9]}))
    with grouped_by_prefix(rows, "k", 1) as groups:
        keys = [sorted(zip(*group.select(["k", "n"]).to_pydict().values(), strict=True)) for group in groups]
    assert keys == [[("10", 7), ("11", 9)], [("20", 8)]]


def test_no_file_stays() -> None:
    before = folders()
    with grouped_by_prefix(blocks([0x10, 0x20]), "k", 1) as groups:
        assert len(folders() - before) == 1
        assert groups[0].select(SCHEMA.names).num_rows == 1
    assert folders() == before
