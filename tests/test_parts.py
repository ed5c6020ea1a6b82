"""Tables in the store: parts of bounded size, named by their bytes; the digest follows the content alone."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imaging.dataset import parts
from imaging.dataset.parts import Ordered, cut, parquet_bytes, read_parts, table_digest, write_parts
from imaging.dataset.rows import EXAMPLES
from imaging.store.digest import digest_of
from imaging.store.folder import FolderStore
from imaging.store.protocol import Damaged, Missing
from tests.synthetic import example, examples

KEYS = pa.schema([pa.field("k", pa.string())])


def keyed(*keys: str) -> pa.Table:
    return pa.table({"k": list(keys)}, KEYS)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def test_a_table_comes_back_as_it_was(store: FolderStore) -> None:
    table = examples(*(example(number) for number in range(5)))
    names = write_parts(store, Ordered.by(table, "instance_key"))
    assert read_parts(store, names, EXAMPLES).equals(table)


def test_some_columns_come_back_alone(store: FolderStore) -> None:
    names = write_parts(store, Ordered.by(examples(example(3)), "instance_key"))
    assert read_parts(store, names, EXAMPLES, ["row", "shard"]).to_pylist() == [{"row": 3, "shard": ""}]


def test_an_empty_table_has_no_parts_and_keeps_its_columns(store: FolderStore) -> None:
    assert write_parts(store, Ordered.by(EXAMPLES.empty_table(), "instance_key")) == ()
    assert read_parts(store, (), EXAMPLES).schema == EXAMPLES


def test_a_large_table_is_cut_by_the_first_digits_of_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 2)
    table = keyed("0a", "0b", "1a", "fa", "fb")
    assert list(cut(Ordered.by(table, "k"))) == [(0, 2), (2, 1), (3, 2)]


def test_parts_are_in_the_order_of_their_key(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 2)
    names = write_parts(store, Ordered.by(keyed("fa", "0b", "1a", "0a"), "k"))
    assert read_parts(store, names, KEYS)["k"].to_pylist() == ["0a", "0b", "1a", "fa"]


def test_a_new_row_leaves_the_other_parts_alone(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 2)
    before = write_parts(store, Ordered.by(keyed("0a", "1a", "2a"), "k"))
    after = write_parts(store, Ordered.by(keyed("0a", "1a", "1b", "2a"), "k"))
    assert (len(before), len(after), len({*before, *after})) == (3, 3, 4)


def test_a_part_is_named_by_its_bytes(store: FolderStore) -> None:
    (name,) = write_parts(store, Ordered.by(keyed("0a"), "k"))
    assert digest_of(name)


def test_a_part_that_is_gone_is_missing(store: FolderStore) -> None:
    (name,) = write_parts(store, Ordered.by(keyed("0a"), "k"))
    store.remove(name)
    with pytest.raises(Missing):
        read_parts(store, [name], KEYS)


def test_a_part_that_is_cut_is_damaged(store: FolderStore) -> None:
    (name,) = write_parts(store, Ordered.by(keyed("0a"), "k"))
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
    assert table_digest([joined]) == table_digest([examples(*rows)])


def test_a_part_of_a_larger_table_has_the_digest_of_its_own_rows() -> None:
    rows = [example(number, source_label=None if number % 2 else "a") for number in range(6)]
    assert table_digest([examples(*rows).slice(3, 2)]) == table_digest([examples(*rows[3:5])])


@pytest.mark.parametrize("labels", [("ab", "c"), ("a", "bc"), ("", "abc"), (None, "abc"), ("abc", None)])
def test_texts_are_told_apart_by_where_one_ends(labels: tuple[str | None, str | None]) -> None:
    def digest(*of_rows: str | None) -> str:
        return table_digest(
            [examples(*(example(number, source_label=label) for number, label in enumerate(of_rows)))]
        )

    assert (digest(*labels) == digest("ab", "c")) == (labels == ("ab", "c"))


def test_a_digest_survives_parquet() -> None:
    table = examples(example(0))
    assert table_digest([pq.read_table(io.BytesIO(parquet_bytes(table)))]) == table_digest([table])


def test_every_value_counts_in_a_digest() -> None:
    tables = [examples(example(0, spacing_mm=value)) for value in (0.5, 0.6, None)]
    assert len({table_digest([table]) for table in tables}) == 3


def test_what_is_beside_the_tables_counts_in_a_digest() -> None:
    table = examples(example(0))
    assert table_digest([table], "head") != table_digest([table], "other head")
