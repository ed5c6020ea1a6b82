"""Tables in the store: parts of bounded size, named by their bytes; the digest follows the content alone."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imaging.dataset.tables import table_files
from imaging.dataset.tables.schemas import EXAMPLES
from imaging.dataset.tables.table_files import (
    cut_by_prefix,
    parquet_bytes,
    prefix_digits,
    read_parts,
    rows_digest,
    write_parts,
)
from imaging.store.content_digest import digest_of
from imaging.store.folder_store import FolderStore
from imaging.store.protocol import Damaged, Missing
from tests.synthetic import example, examples

KEYS = pa.schema([pa.field("k", pa.string())])


def keyed(*keys: str) -> pa.Table:
    return pa.table({"k": list(keys)}, KEYS)


def written(store: FolderStore, table: pa.Table, key: str = "k") -> list[str]:
    """Write a table; return the names of its parts."""
    return [
        part.name for part in write_parts(store, [table], table.schema, key, prefix_digits(table.num_rows))
    ]


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def test_a_table_comes_back_as_it_was(store: FolderStore) -> None:
    table = examples(*(example(number) for number in range(5)))
    names = written(store, table, "instance_key")
    assert read_parts(store, names, EXAMPLES).equals(table)


def test_some_columns_come_back_alone(store: FolderStore) -> None:
    names = written(store, examples(example(3)), "instance_key")
    assert read_parts(store, names, EXAMPLES, ["row", "shard"]).to_pylist() == [{"row": 3, "shard": ""}]


def test_an_empty_table_has_no_parts_and_keeps_its_columns(store: FolderStore) -> None:
    assert written(store, EXAMPLES.empty_table(), "instance_key") == []
    assert read_parts(store, (), EXAMPLES).schema == EXAMPLES


def test_a_large_table_is_cut_by_the_first_digits_of_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "PART_ROWS", 2)
    table = keyed("0a", "0b", "1a", "fa", "fb")
    cuts = cut_by_prefix(table, "k", prefix_digits(table.num_rows))
    assert [part["k"].to_pylist() for part in cuts] == [["0a", "0b"], ["1a"], ["fa", "fb"]]


def test_parts_are_in_the_order_of_their_key(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "PART_ROWS", 2)
    names = written(store, keyed("fa", "0b", "1a", "0a"))
    assert read_parts(store, names, KEYS)["k"].to_pylist() == ["0a", "0b", "1a", "fa"]


def test_a_new_row_leaves_the_other_parts_alone(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "PART_ROWS", 2)
    before = written(store, keyed("0a", "1a", "2a"))
    after = written(store, keyed("0a", "1a", "1b", "2a"))
    assert (len(before), len(after), len({*before, *after})) == (3, 3, 4)


def test_a_part_is_named_by_its_bytes(store: FolderStore) -> None:
    (name,) = written(store, keyed("0a"))
    assert digest_of(name)


def test_a_part_that_is_gone_is_missing(store: FolderStore) -> None:
    (name,) = written(store, keyed("0a"))
    store.remove(name)
    with pytest.raises(Missing):
        read_parts(store, [name], KEYS)


def test_a_part_that_is_cut_is_damaged(store: FolderStore) -> None:
    (name,) = written(store, keyed("0a"))
    path = store.path(name)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(Damaged, match=r"manifests/.*radloop dataset verify"):
        read_parts(store, [name], KEYS)


def test_parquet_gives_the_table_back() -> None:
    table = examples(example(0))
    assert pq.read_table(io.BytesIO(parquet_bytes(table))).equals(table)


def test_equal_tables_have_equal_digests_however_they_lie_in_memory() -> None:
    rows = [example(number) for number in range(6)]
    joined = pa.concat_tables([examples(*rows[:2]), examples(*rows[2:])])
    assert rows_digest(joined) == rows_digest(examples(*rows))


def test_a_part_of_a_larger_table_has_the_digest_of_its_own_rows() -> None:
    rows = [example(number, source_label=None if number % 2 else "a") for number in range(6)]
    assert rows_digest(examples(*rows).slice(3, 2)) == rows_digest(examples(*rows[3:5]))


@pytest.mark.parametrize("labels", [("ab", "c"), ("a", "bc"), ("", "abc"), (None, "abc"), ("abc", None)])
def test_texts_differ_by_where_one_ends(labels: tuple[str | None, str | None]) -> None:
    def digest(*of_rows: str | None) -> str:
        return rows_digest(
            examples(*(example(number, source_label=label) for number, label in enumerate(of_rows)))
        )

    assert (digest(*labels) == digest("ab", "c")) == (labels == ("ab", "c"))


def test_a_digest_survives_parquet() -> None:
    table = examples(example(0))
    assert rows_digest(pq.read_table(io.BytesIO(parquet_bytes(table)))) == rows_digest(table)


def test_every_value_counts_in_a_digest() -> None:
    tables = [examples(example(0, spacing_mm=value)) for value in (0.5, 0.6, None)]
    assert len({rows_digest(table) for table in tables}) == 3


def test_a_part_that_is_known_by_its_content_is_not_written(store: FolderStore) -> None:
    table = keyed("0a")
    parts = write_parts(store, [table], KEYS, "k", 0, known={rows_digest(table): "manifests/there.parquet"})
    assert [part.name for part in parts] == ["manifests/there.parquet"]
    assert not list(store.names())
