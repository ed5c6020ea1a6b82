"""Grouping of slices: which differences make several volumes, and which do not."""

from typing import Any

import pytest

from imaging.dicom.stacking import stack_slices
from tests.slices import SAGITTAL, codes, one, orders, series, tilt


def test_a_localizer_is_kept_apart() -> None:
    stacking = stack_slices([*series(0, 5, 10), one(0, SAGITTAL)])
    assert orders(stacking) == {frozenset({0, 1, 2}), frozenset({3})}
    assert all("mixed-orientation" in {f.code for f in s.findings} for s in stacking.stacks)


def test_rounding_of_cosines_keeps_slices_together() -> None:
    slices = series(0, 5, 10)
    slices[1]["ImageOrientationPatient"] = (0.99999, 0.0004, 0.0, -0.0004, 0.99999, 0.0)
    assert codes(stack_slices(slices)) == set()


def test_sizes_are_kept_apart() -> None:
    stacking = stack_slices([*series(0, 5), *series(10, 15, Rows=(128.0,))])
    assert (orders(stacking), codes(stacking)) == ({frozenset({0, 1}), frozenset({2, 3})}, {"mixed-size"})


def test_pixel_spacings_are_kept_apart() -> None:
    stacking = stack_slices([*series(0, 5), *series(10, 15, PixelSpacing=(0.5, 0.26))])
    assert (orders(stacking), codes(stacking)) == ({frozenset({0, 1}), frozenset({2, 3})}, {"mixed-spacing"})


def test_a_stretch_of_another_step_is_kept_apart() -> None:
    stacking = stack_slices(series(0, 2.5, 5, 7.5, 10, 15, 20, 25, 30))
    assert [(s.order, s.spacing_mm[0]) for s in stacking.stacks] == [
        ((0, 1, 2, 3, 4), 2.5),
        ((5, 6, 7, 8), 5.0),
    ]
    assert codes(stacking) == {"mixed-spacing"}


def test_series_are_kept_apart() -> None:
    stacking = stack_slices([*series(0, 5), *series(2, 7, SeriesInstanceUID="1.1")])
    assert [(s.order, s.label) for s in stacking.stacks] == [
        ((2, 3), "series 1 of 2"),
        ((0, 1), "series 2 of 2"),
    ]
    assert codes(stacking) == {"several-series"}


APART: list[tuple[str, str, Any, Any]] = [
    ("several-stacks", "StackID", "1", "2"),
    ("several-times", "TemporalPositionIdentifier", (1.0,), (2.0,)),
    ("several-times", "TemporalPositionIndex", (1.0,), (2.0,)),
    ("several-echoes", "EchoNumbers", (1.0,), (2.0,)),
    ("several-b-values", "DiffusionBValue", None, (1000.0,)),
]
COPIES: list[tuple[str, str, Any, Any]] = [
    ("several-echoes", "EchoTime", (12.0,), (96.0,)),
    ("several-echoes", "EffectiveEchoTime", (12.0,), (96.0,)),
    ("several-types", "ImageType", "ORIGINAL\\PRIMARY\\M", "ORIGINAL\\PRIMARY\\P"),
    ("several-acquisitions", "AcquisitionNumber", (3.0,), (4.0,)),
    ("several-times", "TriggerTime", (0.0,), (33.3,)),
]


@pytest.mark.parametrize(("code", "keyword", "first", "second"), APART + COPIES)
def test_copies_that_differ_in_an_attribute_are_volumes(
    code: str, keyword: str, first: Any, second: Any
) -> None:
    mixed = [s for z in (0, 5, 10) for value in (first, second) for s in series(z, **{keyword: value})]
    stacking = stack_slices(mixed)
    assert orders(stacking) == {frozenset({0, 2, 4}), frozenset({1, 3, 5})}
    assert (codes(stacking), stacking.left_out) == ({code}, ())


@pytest.mark.parametrize(("code", "keyword", "first", "second"), APART)
def test_a_volume_never_mixes_them_even_at_other_positions(
    code: str, keyword: str, first: Any, second: Any
) -> None:
    stacking = stack_slices([*series(0, 5, **{keyword: first}), *series(10, 15, **{keyword: second})])
    assert (orders(stacking), codes(stacking)) == ({frozenset({0, 1}), frozenset({2, 3})}, {code})


@pytest.mark.parametrize("keyword", ["TriggerTime", "AcquisitionNumber", "EchoTime"])
def test_a_value_for_each_slice_is_no_reason_to_part_a_single_volume(keyword: str) -> None:
    slices = [one(5.0 * n, **{keyword: (float(n),)}) for n in range(6)]
    assert codes(stack_slices(slices)) == set()


def test_trigger_times_that_differ_from_slice_to_slice_count_by_their_order() -> None:
    slices = [one(5.0 * z, TriggerTime=(40.0 * t + z,)) for z in range(4) for t in range(3)]
    stacking = stack_slices(slices)
    assert orders(stacking) == {frozenset(range(t, 12, 3)) for t in range(3)}
    assert [s.label for s in stacking.stacks] == [f"time {t} of 3" for t in (1, 2, 3)]


def test_echo_times_that_differ_from_slice_to_slice_are_ignored() -> None:
    slices = [one(5.0 * z, EchoTime=(10.0 * e + z,)) for z in range(4) for e in range(2)]
    assert codes(stack_slices(slices)) == {"duplicate-position"}


def test_nobody_guesses_which_of_uneven_copies_is_missing() -> None:
    slices = [one(5.0 * z, TriggerTime=(40.0 * t + z,)) for z in range(4) for t in range(3)][1:]
    stacking = stack_slices(slices)
    assert codes(stacking) == {"duplicate-position"}
    assert len(stacking.left_out) == 7


def test_a_missing_copy_is_a_gap_where_the_times_are_stated() -> None:
    slices = [one(5.0 * z, TriggerTime=(40.0 * t,)) for z in range(4) for t in range(3)]
    del slices[4]
    stacking = stack_slices(slices)
    assert [s.places for s in stacking.stacks] == [(0, 1, 2, 3), (0, 2, 3), (0, 1, 2, 3)]


def test_types_and_times_together_make_a_volume_of_each_pair() -> None:
    slices = [
        one(5.0 * z, TriggerTime=(40.0 * t,), ImageType=kind)
        for z in range(3)
        for t in range(2)
        for kind in "MP"
    ]
    stacking = stack_slices(slices)
    assert orders(stacking) == {frozenset({n, n + 4, n + 8}) for n in range(4)}
    assert stacking.stacks[0].label == "type 1 of 2, time 1 of 2"


def test_copies_that_differ_in_instance_numbers_alone_are_volumes_with_a_finding() -> None:
    slices = [one(5.0 * z, InstanceNumber=(t * 4.0 + z,)) for z in range(4) for t in range(2)]
    stacking = stack_slices(slices)
    assert (orders(stacking), codes(stacking)) == (
        {frozenset({0, 2, 4, 6}), frozenset({1, 3, 5, 7})},
        {"copies-untold"},
    )


def test_fields_of_view_in_the_same_planes_are_kept_apart() -> None:
    left = series(0, 5, 10)
    right = series(0, 5, 10)
    for moved in right:
        x, y, z = moved["ImagePositionPatient"]
        moved["ImagePositionPatient"] = (x + 150, y, z)
    stacking = stack_slices(left + right)
    assert (orders(stacking), codes(stacking)) == (
        {frozenset({0, 1, 2}), frozenset({3, 4, 5})},
        {"side-by-side"},
    )


def test_a_tilted_series_at_two_times_is_two_tilted_volumes() -> None:
    slices = [tilted | {"TemporalPositionIndex": (t,)} for tilted in tilt(20) for t in (1.0, 2.0)]
    assert [s.places for s in stack_slices(slices).stacks] == [(0, 1, 2, 3)] * 2
