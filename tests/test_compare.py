"""Comparison of versions: equal to one of dictionaries, and a changed split never goes unnoticed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging.dataset.tables import table_files
from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.dataset.version.compare import Difference, compare
from imaging.dataset.version.publish import build_version
from imaging.errors import UserFault
from imaging.store.folder_store import FolderStore
from tests.requirements import MEMORY
from tests.synthetic import GREY, built, example, examples, finding_tables, recipe, refusal, refusals

KEY = "0123456789abcdef"


def numbered(number: int, **changes: Any) -> Mapping[str, Any]:
    """Return a row of which the split is fixed, under a key of hex digits: parts are cut by them."""
    fixed = {"instance_key": KEY[number % 16] + str(number), "source_split": "train", "source_label": "a"}
    return example(number, **fixed | changes)


def difference_of(
    folder: Path, old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], **rest: Any
) -> Difference:
    store = FolderStore(folder)
    return compare(built(store, old), built(store, new), **{"first": 10} | rest)


def test_a_version_is_the_same_as_itself(tmp_path: Path) -> None:
    rows = [numbered(n) for n in range(5)]
    difference = difference_of(tmp_path, rows, rows)
    assert (difference.same, difference.changed, difference.alarms, difference.head) == (5, {}, {}, {})


def test_what_came_and_what_went_is_named(tmp_path: Path) -> None:
    difference = difference_of(tmp_path, [numbered(0), numbered(1)], [numbered(1), numbered(2)])
    assert (difference.added.first, difference.removed.first, difference.same) == (("22",), ("00",), 1)


def test_only_the_first_keys_are_named_and_all_are_counted(tmp_path: Path) -> None:
    difference = difference_of(tmp_path, [], [numbered(n) for n in range(9)], first=2)
    assert (difference.added.count, len(difference.added.first)) == (9, 2)


def test_what_went_for_good_has_a_tombstone(tmp_path: Path) -> None:
    store, went = FolderStore(tmp_path), examples(numbered(0))
    stones = went.select(["instance_key", "patient_key", "source_key"])
    old = built(store, [numbered(0), numbered(1), numbered(2)])
    new = build_version(store, recipe(), LazyRows.of(examples(numbered(2))), refusals(), None, stones)
    difference = compare(old, new, 10)
    assert (difference.removed.count, difference.removed_for_good) == (2, 1)


@pytest.mark.parametrize("column", ["spacing_mm", "content_blake3", "model", "fingerprint", "row"])
def test_a_changed_value_is_reported_under_its_column(tmp_path: Path, column: str) -> None:
    other = {"spacing_mm": 0.7, "fingerprint": bytes(64), "row": 9}.get(column, "other")
    difference = difference_of(
        tmp_path, [numbered(0), numbered(1)], [numbered(0, **{column: other}), numbered(1)]
    )
    assert ({name: keys.first for name, keys in difference.changed.items()}, difference.same) == (
        {column: ("00",)},
        1,
    )


def test_a_value_that_went_missing_is_a_change(tmp_path: Path) -> None:
    assert "spacing_mm" in difference_of(tmp_path, [numbered(0)], [numbered(0, spacing_mm=None)]).changed


def test_a_missing_value_is_the_same_as_a_missing_one(tmp_path: Path) -> None:
    rows = [numbered(0, spacing_mm=None)]
    assert difference_of(tmp_path, rows, [*rows, numbered(1)]).changed == {}


@pytest.mark.parametrize(
    ("column", "value"), [("source_split", "test"), ("pixel_blake3", "other"), ("patient_key", "other")]
)
def test_what_never_changes_is_an_alarm(tmp_path: Path, column: str, value: str) -> None:
    difference = difference_of(tmp_path, [numbered(0)], [numbered(0, **{column: value})])
    assert difference.alarms[column.removeprefix("source_")].first == ("00",)


def test_another_label_is_distinguished_from_a_late_one(tmp_path: Path) -> None:
    old = [numbered(0, source_label="a"), numbered(1, source_label=None), numbered(2, source_label="b")]
    new = [numbered(0, source_label="b"), numbered(1, source_label="b"), numbered(2, source_label="b")]
    difference = difference_of(tmp_path, old, new)
    assert (difference.changed["label"].count, difference.relabelled.first, difference.alarms) == (
        2,
        ("00",),
        {},
    )


def test_a_side_that_comes_with_a_late_label_is_no_alarm(tmp_path: Path) -> None:
    old = [numbered(0, source_label=None, source_split=None)]
    new = [numbered(0, source_split=None)]
    difference = difference_of(tmp_path, old, new)
    assert (set(difference.changed) >= {"label", "split"}, difference.alarms) == (True, {})


def test_a_patient_who_changed_sides_is_an_alarm_without_images_too(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    old, new = built(store, [], splits={"p": "test"}), built(store, [], splits={"p": "train", "q": "val"})
    assert compare(old, new, 10).alarms["side of the patient"].first == ("p",)


def test_two_datasets_draw_their_sides_apart(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    old = built(store, [numbered(0, source_split="test")], splits={"p": "test"})
    new = built(store, [numbered(0, source_split="train")], splits={"p": "train"}, by=recipe(dataset="e"))
    difference = compare(old, new, 10)
    assert (difference.alarms, difference.changed["split"].count) == ({}, 1)


def test_refusals_are_reported_where_their_number_differs(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    old = built(store, [], [refusal(1), refusal(2, "no-pixels")])
    new = built(store, [], [refusal(2, "no-pixels")])
    assert compare(old, new, 10).refusals == {"truncated": (1, 0)}


def test_another_preparation_is_reported(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    other = recipe(spec=GREY.model_copy(update={"size_px": 32}))
    was, now = compare(built(store, []), built(store, [], by=other), 10).head["spec"]
    assert (was["size_px"], now["size_px"]) == (16, 32)


def test_versions_of_two_keys_are_not_compared(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    old, new = built(store, []), built(store, [], by=recipe(key_fingerprint="other"))
    with pytest.raises(UserFault, match="the keys k and other"):
        compare(old, new, 10)


@pytest.mark.parametrize("part_rows", [2, 1000])
def test_parts_of_both_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_rows: int) -> None:
    monkeypatch.setattr(table_files, "PART_ROWS", part_rows)
    store, rows = FolderStore(tmp_path), [numbered(n) for n in range(32)]
    old, new = built(store, rows), built(store, [*rows[:-1], numbered(31, model="other")])
    read: list[str] = []

    def spy(store: FolderStore, names: Sequence[str], *rest: Any) -> Any:
        read.extend(names)
        return table_files.read_parts(store, names, *rest)

    monkeypatch.setattr("imaging.dataset.version.compare.read_parts", spy)
    shared = set(old.head.parts["examples"]).intersection(new.head.parts["examples"])
    assert (compare(old, new, 10).changed["model"].count, bool(shared)) == (1, part_rows == 2)
    assert shared.isdisjoint(read)


ANY = st.dictionaries(
    st.integers(0, 15),
    st.fixed_dictionaries(
        {
            "model": st.sampled_from("ab"),
            "kvp": st.sampled_from([None, 100.0, 120.0]),
            "source_label": st.sampled_from([None, "x", "y"]),
        }
    ),
)


@pytest.mark.slow
@settings(max_examples=25)
@given(old=ANY, new=ANY, part_rows=st.sampled_from([1, 4, 1000]))
def test_the_difference_agrees_with_dictionaries(
    old: dict[int, dict[str, Any]], new: dict[int, dict[str, Any]], part_rows: int
) -> None:
    with TemporaryDirectory(dir=MEMORY) as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_files, "PART_ROWS", part_rows)
        difference = difference_of(
            Path(folder), *([numbered(n, **values) for n, values in side.items()] for side in (old, new))
        )
    both = old.keys() & new.keys()
    assert (difference.added.count, difference.removed.count) == (
        len(new.keys() - both),
        len(old.keys() - both),
    )
    assert difference.same == sum(old[n] == new[n] for n in both)
    for column in ("model", "kvp", "source_label"):
        changed = sum(old[n][column] != new[n][column] for n in both)
        assert (difference.changed[column].count if column in difference.changed else 0) == changed


def test_another_finding_is_a_change_though_the_rows_of_the_examples_are_the_same(tmp_path: Path) -> None:
    store, rows = FolderStore(tmp_path), [example(n) for n in range(4)]
    codes = {"o0": "1", "o1": "0", "o2": "?", "o3": "1"}
    # Another value, one that went, one that came late, and one that stays.
    later = {"o0": "0", "o1": "?", "o2": "1", "o3": "1"}
    old, new = (
        built(
            store, rows, by=recipe(findings=finding_tables(("a", "b"), {k: f"{v}0" for k, v in some.items()}))
        )
        for some in (codes, later)
    )
    seen = compare(old, new, 10)
    assert (seen.same, seen.changed["annotations"].count) == (1, 3)
    assert seen.relabelled.first == ("i0", "i1")
    assert seen.alarms == {}


def test_other_findings_are_in_the_heads(tmp_path: Path) -> None:
    store, rows = FolderStore(tmp_path), [example(0)]
    old = built(store, rows)
    new = built(store, rows, by=recipe(findings=finding_tables(("a",), {"o0": "1"})))
    assert compare(old, new, 1).head["findings"] == ([], ["a"])
