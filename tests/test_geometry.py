"""Geometry of one image: spacing, orientation, affine."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from imaging.dicom.geometry import (
    Spacing,
    affine,
    is_orthonormal,
    normal,
    orientation,
    pixel_spacing,
    position,
    to_ras,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
NONSENSE: list[Any] = [
    (),
    (0.5,),
    (0.5, 0.6, 0.7),
    (0.0, 0.5),
    (-0.5, 0.5),
    (0.5, 1e9),
    (1e-30, 0.5),
    "0.5\\0.6",
]


def test_the_first_value_is_the_distance_of_rows() -> None:
    assert pixel_spacing({"PixelSpacing": (0.3, 0.25)}) == Spacing(0.3, 0.25, "PixelSpacing")


def test_the_spacing_in_the_patient_wins_over_that_at_the_detector() -> None:
    both = {"ImagerPixelSpacing": (0.2, 0.2), "PixelSpacing": (0.1, 0.1)}
    assert pixel_spacing(both) == Spacing(0.1, 0.1, "PixelSpacing")


def test_the_spacing_at_the_detector_has_its_source() -> None:
    both = {"NominalScannedPixelSpacing": (0.3, 0.3), "ImagerPixelSpacing": (0.2, 0.1)}
    assert pixel_spacing(both) == Spacing(0.2, 0.1, "ImagerPixelSpacing")


def test_the_spacing_of_a_scanned_film_has_its_source() -> None:
    both = {"PixelAspectRatio": (1.0, 1.0), "NominalScannedPixelSpacing": (0.3, 0.3)}
    assert pixel_spacing(both).source == "NominalScannedPixelSpacing"


def test_an_aspect_ratio_is_vertical_size_over_horizontal() -> None:
    spacing = pixel_spacing({"PixelAspectRatio": (2.0, 1.0)})
    assert (spacing.row_mm / spacing.column_mm, spacing.source) == (2.0, "PixelAspectRatio")


def test_without_any_spacing_pixels_are_square() -> None:
    assert pixel_spacing({}) == Spacing(1.0, 1.0, None)


@pytest.mark.parametrize("value", NONSENSE)
def test_a_spacing_that_is_no_pair_of_lengths_counts_as_absent(value: Any) -> None:
    assert (
        pixel_spacing({"PixelSpacing": value, "ImagerPixelSpacing": (0.2, 0.2)}).source
        == "ImagerPixelSpacing"
    )


@pytest.mark.parametrize("value", [(), (1.0, 2.0), (0.0, 0.0, 2e6), "1\\2\\3"])
def test_a_position_that_cannot_be_meant_counts_as_absent(value: Any) -> None:
    assert position({"ImagePositionPatient": value}) is None


def test_an_orientation_has_six_numbers() -> None:
    assert orientation({"ImageOrientationPatient": AXIAL}) == AXIAL
    assert orientation({"ImageOrientationPatient": AXIAL[:5]}) is None


def test_cosines_of_four_decimals_are_good_enough() -> None:
    assert is_orthonormal(
        tuple(np.round([np.cos(0.2), np.sin(0.2), 0, -np.sin(0.2), np.cos(0.2), 0], 4).tolist())
    )


@pytest.mark.parametrize(
    "cosines", [(0.0,) * 6, (1.0, 0, 0, 1, 0, 0), (2.0, 0, 0, 0, 1, 0), (1.0, 0, 0, 0.01, 1, 0), (1e200,) * 6]
)
def test_directions_that_are_not_orthonormal_are_recognised(cosines: tuple[float, ...]) -> None:
    assert not is_orthonormal(cosines)


@pytest.mark.parametrize(
    ("cosines", "expected"), [(AXIAL, (0, 0, 1)), (SAGITTAL, (-1, 0, 0)), (CORONAL, (0, 1, 0))]
)
def test_the_normal_is_row_cross_column(cosines: tuple[float, ...], expected: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(normal(np.array(cosines)), expected)


@given(
    hnp.arrays(np.float64, 6, elements=st.floats(-1, 1)).filter(
        lambda c: np.linalg.norm(np.cross(c[:3], c[3:])) > 1e-3
    )
)
def test_the_normal_agrees_with_numpys_cross_product(cosines: np.ndarray) -> None:
    across = np.cross(cosines[:3], cosines[3:])
    np.testing.assert_allclose(normal(cosines), across / np.linalg.norm(across), atol=1e-9)


def test_a_step_to_the_next_column_goes_along_the_row_by_the_spacing_of_columns() -> None:
    matrix = affine(
        np.array(SAGITTAL), Spacing(0.3, 0.25, None), np.array([1.0, 2, 3]), np.array([-5.0, 0, 0])
    )
    np.testing.assert_allclose(matrix @ (0, 0, 0, 1), (1, 2, 3, 1))
    np.testing.assert_allclose(matrix @ (1, 0, 0, 1), (1, 2.25, 3, 1))
    np.testing.assert_allclose(matrix @ (0, 1, 0, 1), (1, 2, 2.7, 1))
    np.testing.assert_allclose(matrix @ (0, 0, 1, 1), (-4, 2, 3, 1))


def test_niftis_frame_has_right_and_anterior_positive() -> None:
    np.testing.assert_array_equal(to_ras(np.eye(4)) @ (1, 2, 3, 1), (-1, -2, 3, 1))
