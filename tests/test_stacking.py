"""Stacking of slices in any order: order, grid and findings of volumes."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging.dicom.findings import FINDINGS
from imaging.dicom.slice_grouping import COPY_TRAITS, TRAITS
from imaging.dicom.stacking import SPACING_FINDINGS, Stacking, stack_slices
from tests.slices import (
    AXIAL,
    CORONAL,
    OBLIQUE,
    ORIENTATIONS,
    SAGITTAL,
    codes,
    detail,
    off_mm,
    one,
    only,
    seen,
    series,
    tilt,
)


def test_slices_are_ordered_by_position_and_not_by_instance_number() -> None:
    assert only(stack_slices(series(10, 0, 5))).order == (1, 2, 0)


def test_a_plain_series_is_one_volume_without_findings() -> None:
    stacking = stack_slices(series(0, 5, 10, 15))
    assert (only(stacking).findings, only(stacking).label, stacking.left_out) == ((), "", ())


def test_spacing_is_of_slices_then_rows_then_columns() -> None:
    assert only(stack_slices(series(0, 5, 10))).spacing_mm == (5.0, 0.5, 0.25)


@pytest.mark.parametrize("cosines", ORIENTATIONS)
def test_the_affine_maps_the_index_of_each_slice_to_its_position(cosines: tuple[float, ...]) -> None:
    slices = series(7, 1, 4, 10, cosines=cosines)
    assert off_mm(only(stack_slices(slices)), slices) < 1e-9


@pytest.mark.parametrize("cosines", ORIENTATIONS)
def test_the_frame_of_a_volume_is_right_handed_whichever_way_it_was_scanned(
    cosines: tuple[float, ...],
) -> None:
    forward, backward = (
        stack_slices(series(0, 5, 10, cosines=cosines)),
        stack_slices(series(10, 5, 0, cosines=cosines)),
    )
    assert seen(forward) == seen(backward)
    assert np.linalg.det(only(forward).affine) > 0


def many() -> list[dict[str, Any]]:
    """Return a series with something of everything."""
    return [
        *series(0, 5, 10, 20, 25, 30, EchoNumbers=(1.0,), SOPInstanceUID="1"),
        one(35, EchoNumbers=(1.0,), ImageOrientationPatient=(0.99999, 0.0004, 0.0, -0.0004, 0.99999, 0.0)),
        *series(0, 5, 10, 20, 25, 30, EchoNumbers=(2.0,), SOPInstanceUID="2"),
        *series(0, 8, 16, cosines=SAGITTAL, SOPInstanceUID="3"),
        *series(1, 1, 2, 3.3, cosines=OBLIQUE, SOPInstanceUID="4"),
        one(0, Rows=(99.0,)),
        one(0, ImagePositionPatient=None),
    ]


@given(st.permutations(range(len(many()))))
@settings(max_examples=50)
def test_the_order_of_what_is_given_changes_nothing(permutation: list[int]) -> None:
    slices = many()
    plain, mixed = stack_slices(slices), stack_slices([slices[n] for n in permutation])
    assert seen(plain) == seen(mixed)
    assert [s.order for s in plain.stacks] == [tuple(permutation[n] for n in s.order) for s in mixed.stacks]
    assert plain.left_out == tuple(sorted((permutation[n], why) for n, why in mixed.left_out))


def test_each_slice_comes_out_once() -> None:
    stacking = stack_slices(many())
    out = [n for s in stacking.stacks for n in s.order] + [n for n, _ in stacking.left_out]
    assert sorted(out) == list(range(len(many())))


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 20))
@settings(max_examples=50)
def test_turning_the_patient_keeps_order_spacing_and_findings(seed: int, step: float) -> None:
    draw = np.random.default_rng(seed)
    turn = np.linalg.qr(draw.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    at = draw.permutation(np.array([0, 1, 2, 3, 5, 6]) * step)
    slices = series(*at)
    turned = [
        slice_
        | {
            "ImageOrientationPatient": tuple((np.array(AXIAL).reshape(2, 3) @ turn.T).ravel().tolist()),
            "ImagePositionPatient": tuple((turn @ slice_["ImagePositionPatient"] + 3).tolist()),
        }
        for slice_ in slices
    ]
    before, after = only(stack_slices(slices)), only(stack_slices(turned))
    assert (after.order, after.places, after.findings) == (before.order, before.places, before.findings)
    np.testing.assert_allclose(after.spacing_mm, before.spacing_mm)
    assert off_mm(after, turned) < 1e-6


def planes(*cosines: tuple[float, ...], count: int) -> Stacking:
    return stack_slices([one for each in cosines for one in series(*range(0, 5 * count, 5), cosines=each)])


@pytest.mark.parametrize("count", [2, 5, 20])
@pytest.mark.parametrize("third", [CORONAL, (0.9, 0.0, 0.436, 0.0, 0.3, -0.954)])
def test_few_slices_in_three_planes_that_cross_are_a_localizer(count: int, third: tuple[float, ...]) -> None:
    # Scouts of MR often have ORIGINAL PRIMARY M NORM for ImageType, without LOCALIZER.
    across = np.array(third[3:]) - np.dot(third[:3], third[3:]) * np.array(third[:3]) / np.dot(
        third[:3], third[:3]
    )
    turned = (*(np.array(third[:3]) / np.linalg.norm(third[:3])), *(across / np.linalg.norm(across)))
    stacks = planes(AXIAL, SAGITTAL, turned, count=count).stacks
    assert [(one.is_volume, one.codes) for one in stacks] == [(False, {"mixed-orientation", "localizer"})] * 3


def test_three_volumes_two_planes_and_slanted_stacks_of_one_series_stay_volumes() -> None:
    # Discs of a spine are scanned at their own angles.
    for stacking in (
        planes(AXIAL, SAGITTAL, CORONAL, count=21),
        planes(AXIAL, SAGITTAL, count=3),
        planes(AXIAL, SAGITTAL, OBLIQUE, count=3),
        planes(AXIAL, SAGITTAL, CORONAL, OBLIQUE, count=3),
    ):
        assert all(one.is_volume for one in stacking.stacks)


def test_no_slices_make_no_volume() -> None:
    assert stack_slices([]) == Stacking((), ())


# What keeps a slice out of every volume.


@pytest.mark.parametrize("missing", ["ImagePositionPatient", "ImageOrientationPatient"])
def test_a_slice_without_geometry_is_left(missing: str) -> None:
    stacking = stack_slices([*series(0, 5), one(10, **{missing: None})])
    assert (only(stacking).order, stacking.left_out) == ((0, 1), ((2, "no-geometry"),))


def test_a_slice_whose_directions_are_not_orthonormal_is_left() -> None:
    stacking = stack_slices([*series(0, 5), one(10, ImageOrientationPatient=(1.0, 0, 0, 0.2, 1, 0))])
    assert stacking.left_out == ((2, "bad-orientation"),)


def test_of_copies_without_a_difference_the_lowest_number_stays() -> None:
    slices = [*series(0, 5, 10, SOPInstanceUID="1"), one(5, InstanceNumber=(1.5,), SOPInstanceUID="2")]
    stacking = stack_slices(slices)
    assert (only(stacking).order, stacking.left_out) == ((0, 3, 2), ((1, "duplicate-position"),))
    assert detail(stacking, "duplicate-position") == "slices: 1"


def test_a_series_sent_twice_is_one_volume() -> None:
    stacking = stack_slices(series(0, 5, 10) * 2)
    assert (only(stacking).places, [why for _, why in stacking.left_out]) == (
        (0, 1, 2),
        ["duplicate-position"] * 3,
    )


# What is to be known of a volume.


def test_a_gap_counts_the_slices_that_are_missing() -> None:
    stacking = stack_slices(series(0, 5, 10, 25, 30, 40))
    assert only(stacking).places == (0, 1, 2, 5, 6, 8)
    assert (codes(stacking), detail(stacking, "gap")) == ({"gap"}, "slices missing: 3, gaps: 2")


def test_a_gap_leaves_every_slice_at_its_position() -> None:
    slices = series(0, 5, 10, 25, 30, 40, cosines=OBLIQUE)
    assert off_mm(only(stack_slices(slices)), slices) < 1e-9


def test_slices_off_the_even_grid_are_reported() -> None:
    stacking = stack_slices(series(0, 5, 10.4, 15, 20))
    assert (codes(stacking), detail(stacking, "uneven-spacing")) == ({"uneven-spacing"}, "up to 0.4 mm")


def test_positions_of_two_decimals_are_even() -> None:
    assert codes(stack_slices(series(*[round(n / 3, 2) for n in range(200)]))) == set()


def test_slices_off_the_line_are_reported() -> None:
    slices = series(0, 5, 10, 15)
    x, y, z = slices[1]["ImagePositionPatient"]
    slices[1]["ImagePositionPatient"] = (x + 3, y - 4, z)
    stacking = stack_slices(slices)
    assert (codes(stacking), detail(stacking, "crooked")) == ({"crooked"}, "up to 5 mm")


@pytest.mark.parametrize("degrees", [-20, 12.5])
def test_a_tilt_is_reported_in_degrees(degrees: float) -> None:
    stacking = stack_slices(tilt(degrees))
    assert (codes(stacking), detail(stacking, "tilted")) == ({"tilted"}, f"{abs(degrees):.2f} degrees")


def test_a_tilted_volume_has_a_sheared_affine_and_the_distance_of_its_planes() -> None:
    stacking = only(stack_slices(tilt(20)))
    assert off_mm(stacking, tilt(20)) < 1e-9
    assert stacking.spacing_mm[0] == pytest.approx(5)
    assert np.linalg.norm(stacking.affine[:3, 2]) == pytest.approx(5 / np.cos(np.radians(20)))


def test_positions_come_before_the_stated_distance() -> None:
    stacking = stack_slices(series(0, 5, 10, SpacingBetweenSlices=(2.5,)))
    assert (only(stacking).spacing_mm[0], codes(stacking)) == (5.0, {"other-step"})
    assert detail(stacking, "other-step") == "told: 2.5 mm, found: 5 mm"


@pytest.mark.parametrize("stated", [5.0, -5.0, 0.0])
def test_a_sign_or_a_zero_in_the_stated_distance_is_no_difference(stated: float) -> None:
    assert codes(stack_slices(series(0, 5, 10, SpacingBetweenSlices=(stated,)))) == set()


@pytest.mark.parametrize(
    ("stated", "step"),
    [
        ({}, 1.0),
        ({"SliceThickness": (3.0,)}, 3.0),
        ({"SliceThickness": (3.0,), "SpacingBetweenSlices": (4.0,)}, 4.0),
    ],
)
def test_a_single_slice_is_as_thick_as_stated(stated: dict[str, Any], step: float) -> None:
    stacking = stack_slices([one(0, **stated)])
    assert (only(stacking).spacing_mm[0], codes(stacking)) == (step, {"single-slice"})
    np.testing.assert_allclose(only(stacking).affine[:3, 2], (0, 0, step))


@pytest.mark.parametrize(
    ("keyword", "code"),
    [(keyword, code) for keyword, code in SPACING_FINDINGS.items()],
    ids=str,
)
def test_a_spacing_from_elsewhere_is_flagged(keyword: str | None, code: str) -> None:
    stated = {keyword: (0.5, 0.25)} if keyword else {}
    assert codes(stack_slices(series(0, 5, PixelSpacing=None, **stated))) == {code}


def test_every_code_is_in_the_table_and_no_other() -> None:
    named = {trait.finding for trait in (*TRAITS, *COPY_TRAITS)} | set(SPACING_FINDINGS.values())
    assert named <= set(FINDINGS)
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [code for code in set(FINDINGS) - named if f'"{code}"' not in tests] == []


def test_findings_and_labels_quote_no_text_of_the_files() -> None:
    secret = "DOE^JANE"
    slices = [
        s
        for kind in "MP"
        for s in series(0, 5, ImageType=f"{secret}{kind}", StackID=secret, SeriesInstanceUID=secret)
    ]
    assert secret not in repr(stack_slices(slices))


@pytest.mark.slow
def test_a_hundred_thousand_headers_take_seconds() -> None:
    slices = [one(float(n % 1000), TemporalPositionIdentifier=(float(n // 1000),)) for n in range(1000)] * 100
    slices = [s | {"TemporalPositionIdentifier": (float(n // 1000),)} for n, s in enumerate(slices)]
    start = time.process_time()
    assert len(stack_slices(slices).stacks) == 100
    assert time.process_time() - start < 20
