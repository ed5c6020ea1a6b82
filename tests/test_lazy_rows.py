"""Rows that are read when asked for: whatever is selected of them equals what a table in memory would give."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.dataset.tables.lazy_rows import Block, LazyRows
from imaging.dataset.tables.table_files import write_parts
from imaging.store.folder_store import FolderStore
from imaging.store.protocol import Damaged, Missing

SCHEMA = pa.schema([pa.field("n", pa.int64()), pa.field("k", pa.string())])


def table(numbers: Sequence[int]) -> pa.Table:
    return pa.table([list(numbers), [f"{number:02x}" for number in numbers]], schema=SCHEMA)


def blocks(*tables: Sequence[int]) -> LazyRows:
    return LazyRows(SCHEMA, [block for numbers in tables for block in LazyRows.of(table(numbers)).blocks])


def values_of(rows: LazyRows, *columns: str) -> list[Any]:
    return [tuple(row.values()) for row in rows.select(list(columns or ["n"])).to_pylist()]


@pytest.fixture
def stored(tmp_path: Path) -> tuple[FolderStore, list[str]]:
    """Return a store with two parts, of three rows and of two."""
    store = FolderStore(tmp_path)
    made = [write_parts(store, [table(numbers)], SCHEMA, "k", 0) for numbers in ([0, 1, 2], [3, 4])]
    return store, [part.name for parts in made for part in parts]


@pytest.mark.slow
@given(st.lists(st.lists(st.integers(0, 255), max_size=6), max_size=4), st.data())
def test_masks_on_masks_leave_what_they_leave_of_a_table(parts: list[list[int]], data: st.DataObject) -> None:
    rows, whole = blocks(*parts), [number for part in parts for number in part]
    for _ in range(3):
        mask = data.draw(st.lists(st.booleans(), min_size=len(whole), max_size=len(whole)))
        rows = rows.filter(pa.array(mask, pa.bool_()))
        whole = [number for number, stays in zip(whole, mask, strict=True) if stays]
        assert (rows.num_rows, values_of(rows, "n")) == (len(whole), [(number,) for number in whole])


def test_parts_of_a_store_are_one_table(stored: tuple[FolderStore, list[str]]) -> None:
    assert values_of(LazyRows.stored(*stored, SCHEMA), "k", "n") == [(f"{n:02x}", n) for n in range(5)]


def test_columns_beside_rows_take_the_place_of_their_own_and_go_with_them() -> None:
    rows = blocks([0, 1], [2, 3]).with_columns(pa.table({"n": [10, 11, 12, 13], "new": list("abcd")}))
    kept = rows.filter(pa.array([False, True, True, False]))
    assert values_of(kept, "new", "n", "k") == [("b", 11, "01"), ("c", 12, "02")]


def test_columns_beside_rows_stay_when_others_come() -> None:
    rows = blocks([0, 1]).with_columns(pa.table({"a": [1, 2]})).with_columns(pa.table({"b": [3, 4]}))
    assert values_of(rows, "a", "b") == [(1, 3), (2, 4)]
    assert rows.schema.names == ["n", "k", "a", "b"]


def test_columns_come_in_the_types_of_the_rows() -> None:
    coded = pa.array(["x", "x"]).dictionary_encode()
    assert blocks([0, 1]).with_columns(pa.table({"k": coded})).select(["k"]).schema == pa.schema(
        [SCHEMA.field("k")]
    )


def test_rows_that_are_not_asked_for_are_not_read() -> None:
    def read(columns: Sequence[str]) -> pa.Table:
        raise AssertionError(columns)

    rows = LazyRows(SCHEMA, [Block(read, 2), Block(read, 3)])
    assert (
        rows.with_columns(pa.table({"n": range(5)})).filter(pa.array([True] * 5)).select(["n"]).num_rows == 5
    )
    assert rows.filter(pa.array([False] * 5)).select(["n", "k"]).num_rows == 0


def test_no_rows_have_their_columns() -> None:
    assert LazyRows(SCHEMA).select(["k"]).schema == pa.schema([SCHEMA.field("k")])


def test_rows_that_are_gone_are_missing(stored: tuple[FolderStore, list[str]]) -> None:
    store, names = stored
    rows = LazyRows.stored(store, names, SCHEMA)
    store.remove(names[1])
    with pytest.raises(Missing):
        rows.select(["n"])


def test_rows_that_are_others_than_they_were_are_not_taken_for_them() -> None:
    with pytest.raises(Damaged, match="had 3 rows has 2 now"):
        Block(table([0, 1]).select, 3).select(["n"])
