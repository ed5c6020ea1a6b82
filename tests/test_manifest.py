"""The manifest: repeated instances are refused, tables keep their types, digests follow the content."""

import io

import pyarrow.parquet as pq
import pytest

from imaging.dataset.manifest import (
    drop_studies,
    example_schema,
    merge,
    parquet_bytes,
    refusal_schema,
    table_digest,
    to_table,
)
from imaging.dataset.quarantine import IGNORED, NO_LOSS, REASONS
from tests.synthetic import example, refusal


def reasons(kept: list[int], new: list[object], drop_equal_pixels: bool = True) -> list[str]:
    merged = merge([example(number) for number in kept], new, drop_equal_pixels=drop_equal_pixels)  # type: ignore[arg-type]
    return [row.reason for row in merged[1]]


def test_different_instances_all_stand() -> None:
    standing, refused = merge([example(0)], [example(1), example(2)], drop_equal_pixels=True)
    assert (len(standing), refused) == (3, [])


def test_a_repeated_instance_is_refused_with_the_file_it_came_from() -> None:
    _, (refused,) = merge([example(0)], [example(0, source_key="again")], drop_equal_pixels=True)
    assert (refused.reason, refused.source_key) == ("duplicate-instance", "again")


def test_the_first_copy_is_the_one_that_stands() -> None:
    standing, _ = merge([example(0)], [example(0, source_key="again")], drop_equal_pixels=True)
    assert [row.source_key for row in standing] == ["f0"]


def test_a_repeated_instance_with_other_pixels_is_a_conflict() -> None:
    assert reasons([0], [example(0, pixel_sha256="other")]) == ["conflicting-instance"]


def test_equal_pixels_under_two_names_are_refused() -> None:
    assert reasons([0], [example(1, pixel_sha256="x0")]) == ["duplicate-pixels"]


def test_equal_pixels_are_kept_where_the_source_fixes_the_splits() -> None:
    assert reasons([0], [example(1, pixel_sha256="x0")], drop_equal_pixels=False) == []


def test_a_refused_copy_does_not_hold_its_pixels() -> None:
    conflicting = example(0, pixel_sha256="other")
    assert reasons([0], [conflicting, example(1, pixel_sha256="other")]) == ["conflicting-instance"]


def test_two_frames_of_one_object_are_no_repetition() -> None:
    frames = [example(0, frame=1), example(1, frame=2, object_key="o0")]
    assert merge([], frames, drop_equal_pixels=True)[1] == []


def test_a_bad_slice_costs_its_study() -> None:
    slices = [example(0, study_key="s"), example(1, study_key="s"), example(2, study_key="t")]
    kept, lost = drop_studies(slices, [refusal(9, study_key="s")])
    assert kept == slices[2:]
    assert [(row.source_key, row.study_key, row.reason) for row in lost] == [
        ("f0", "s", "bad-study"),
        ("f1", "s", "bad-study"),
    ]


def test_a_study_without_a_bad_slice_is_kept() -> None:
    slices = [example(0), example(1)]
    assert drop_studies(slices, [refusal(9, study_key="another")]) == (slices, [])


def test_a_file_of_several_lost_frames_is_refused_once() -> None:
    frames = [example(number, study_key="s", source_key="f", frame=number) for number in (1, 2)]
    _, lost = drop_studies(frames, [refusal(9, study_key="s")])
    assert [row.source_key for row in lost] == ["f"]


def test_a_bad_file_of_no_known_study_costs_none() -> None:
    slices = [example(0), example(1, study_key="")]
    assert drop_studies(slices, [refusal(9)]) == (slices, [])


@pytest.mark.parametrize("reason", [*REASONS, *IGNORED])
def test_only_a_reason_that_takes_a_slice_costs_the_study(reason: str) -> None:
    kept, _ = drop_studies([example(0)], [refusal(9, reason, study_key="s0")])
    assert bool(kept) == (reason in {*NO_LOSS, *IGNORED})


@pytest.mark.parametrize("reason", ["wrong-modality", "no-pixels", "duplicate-instance"])
def test_a_file_that_never_was_a_slice_costs_nothing(reason: str) -> None:
    assert drop_studies([example(0)], [refusal(9, reason, study_key="s0")]) == ([example(0)], [])


def test_a_table_gives_its_rows_back() -> None:
    rows = [example(0), example(1, spacing_mm=None, source_label="yes")]
    table = to_table(rows, example_schema())
    assert [type(rows[0])(**row) for row in table.to_pylist()] == rows


def test_an_empty_table_keeps_its_types() -> None:
    assert to_table([], refusal_schema()).schema == to_table([refusal(1)], refusal_schema()).schema


def test_parquet_gives_the_table_back() -> None:
    table = to_table([example(0)], example_schema())
    assert pq.read_table(io.BytesIO(parquet_bytes(table))).equals(table)


def test_equal_tables_have_equal_digests_however_they_lie_in_memory() -> None:
    rows = [example(number) for number in range(6)]
    whole = to_table(rows, example_schema())
    parts = to_table(rows[:2], example_schema()), to_table(rows[2:], example_schema())
    joined = type(whole).from_batches([batch for part in parts for batch in part.to_batches()])
    assert table_digest([joined]) == table_digest([whole])


def test_a_digest_survives_parquet() -> None:
    table = to_table([example(0)], example_schema())
    assert table_digest([pq.read_table(io.BytesIO(parquet_bytes(table)))]) == table_digest([table])


def test_every_value_counts_in_a_digest() -> None:
    tables = [to_table([example(0, spacing_mm=value)], example_schema()) for value in (0.5, 0.6, None)]
    assert len({table_digest([table]) for table in tables}) == 3


def test_what_is_beside_the_tables_counts_in_a_digest() -> None:
    table = to_table([example(0)], example_schema())
    assert table_digest([table], "head") != table_digest([table], "other head")
