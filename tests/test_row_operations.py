"""Row operations: repeated instances are refused beside the first, and a bad slice may cost its study."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.dataset.tables.row_operations import (
    codes,
    concat,
    filter_batches,
    refuse_lost_studies,
    refuse_repeats,
)
from imaging.dataset.tables.schemas import EXAMPLES
from imaging.refusal_reasons import IGNORED, NO_LOSS, REASONS
from tests.synthetic import example, examples, refusal, refusals

Row = Mapping[str, Any]


def merged(
    *rows: Row, drop_equal_pixels: bool = True, turns: Sequence[int] | None = None
) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Return the files of the examples that stand, and file, reason and detail of the others."""
    turns = np.arange(len(rows)) if turns is None else np.array(turns)
    standing, refused = refuse_repeats(
        LazyRows.of(examples(*rows)), turns, drop_equal_pixels=drop_equal_pixels
    )
    columns = [refused[name].to_pylist() for name in ("source_key", "reason", "detail")]
    return standing.select(["source_key"])["source_key"].to_pylist(), list(zip(*columns, strict=True))


def dropped(rows: list[Row], *bad: Row) -> tuple[list[str], list[tuple[str, str, str]]]:
    gone, lost = refuse_lost_studies(LazyRows.of(examples(*rows)), refusals(*bad))
    columns = [lost[name].to_pylist() for name in ("source_key", "study_key", "reason")]
    kept = examples(*rows).filter(pc.invert(gone))
    return kept["source_key"].to_pylist(), list(zip(*columns, strict=True))


def test_different_instances_all_stand() -> None:
    assert merged(example(0), example(1), example(2)) == (["f0", "f1", "f2"], [])


def test_of_a_repeated_instance_the_first_stands() -> None:
    standing, refused = merged(example(0), example(0, source_key="again"))
    assert (standing, refused) == (["f0"], [("again", "duplicate-instance", "instance i0")])


def test_a_repeated_instance_with_other_pixels_is_a_conflict() -> None:
    _, refused = merged(example(0), example(0, source_key="again", pixel_blake3="other"))
    assert refused == [("again", "conflicting-instance", "instance i0")]


def test_equal_pixels_under_two_names_are_refused_and_name_the_first() -> None:
    assert merged(example(0), example(1, pixel_blake3="x0"))[1] == [("f1", "duplicate-pixels", "instance i0")]


def test_equal_pixels_are_kept_where_the_source_fixes_the_splits() -> None:
    assert merged(example(0), example(1, pixel_blake3="x0"), drop_equal_pixels=False)[1] == []


def test_a_refused_copy_does_not_claim_its_pixels() -> None:
    conflicting = example(0, source_key="again", pixel_blake3="other")
    standing, _ = merged(example(0), conflicting, example(1, pixel_blake3="other"))
    assert standing == ["f0", "f1"]


def test_two_frames_of_one_object_are_no_repetition() -> None:
    assert merged(example(0, frame=1), example(1, frame=2, object_key="o0"))[1] == []


def test_a_refusal_keeps_the_listed_properties_of_its_file() -> None:
    rows = examples(example(0), example(0, source_size=7, source_mtime_ns=8, source_tag="t"))
    _, refused = refuse_repeats(LazyRows.of(rows), np.arange(2), drop_equal_pixels=True)
    assert refused.select(["source_size", "source_mtime_ns", "source_tag"]).to_pylist() == [
        {"source_size": 7, "source_mtime_ns": 8, "source_tag": "t"}
    ]


def test_nothing_is_merged_to_nothing() -> None:
    assert merged() == ([], [])


def test_a_bad_slice_costs_its_study() -> None:
    slices = [example(0, study_key="s"), example(1, study_key="s"), example(2, study_key="t")]
    kept, lost = dropped(slices, refusal(9, study_key="s"))
    assert (kept, lost) == (["f2"], [("f0", "s", "bad-study"), ("f1", "s", "bad-study")])


def test_a_study_without_a_bad_slice_is_kept() -> None:
    assert dropped([example(0), example(1)], refusal(9, study_key="another")) == (["f0", "f1"], [])


def test_a_file_of_several_lost_frames_is_refused_once() -> None:
    frames = [example(number, study_key="s", source_key="f", frame=number) for number in (1, 2)]
    assert dropped(frames, refusal(9, study_key="s"))[1] == [("f", "s", "bad-study")]


def test_a_bad_file_of_no_known_study_costs_none() -> None:
    assert dropped([example(0), example(1, study_key="")], refusal(9))[1] == []


@pytest.mark.parametrize("reason", [*REASONS, *IGNORED])
def test_only_a_reason_that_takes_a_slice_costs_the_study(reason: str) -> None:
    kept, _ = dropped([example(0)], refusal(9, reason, study_key="s0"))
    assert bool(kept) == (reason in {*NO_LOSS, *IGNORED})


def test_tables_are_joined_by_their_columns_whatever_else_they_have() -> None:
    more = examples(example(0)).append_column("label", [["a"]])
    assert concat([more, examples(example(1))], EXAMPLES).schema == EXAMPLES


def in_batches(*batches: Sequence[int]) -> pa.Table:
    schema = pa.schema([("n", pa.int64())])
    return pa.concat_tables([pa.table({"n": pa.array(batch, pa.int64())}, schema) for batch in batches])


@pytest.mark.parametrize("mask", [[True] * 4, [False] * 4, [True, False, True, True]])
def test_the_rows_of_a_mask_stay(mask: list[bool]) -> None:
    table = in_batches([0, 1], [], [2, 3])
    assert filter_batches(table, pa.array(mask))["n"].to_pylist() == [n for n in range(4) if mask[n]]


def test_batches_of_which_all_stay_are_not_copied() -> None:
    table = in_batches([0, 1], [2, 3])
    kept = filter_batches(table, pa.array([True, True, False, True]))["n"].chunks
    assert kept[0].buffers()[1].address == table["n"].chunks[0].buffers()[1].address


def test_whose_turn_is_first_stands_wherever_it_lies() -> None:
    rows = [example(1, pixel_blake3="x0"), example(0, source_key="again"), example(0)]
    assert merged(*rows, turns=[3, 2, 1]) == (
        ["f0"],
        [("f1", "duplicate-pixels", "instance i0"), ("again", "duplicate-instance", "instance i0")],
    )


def test_a_column_is_numbered_by_its_values() -> None:
    assert codes(["b", None, "a", "b"]).tolist() == [0, -1, 1, 0]
