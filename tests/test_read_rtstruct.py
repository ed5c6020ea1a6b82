"""RTSTRUCT as masks: holes, several and doubled contours, slices that are absent, and what is refused."""

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from imaging.annotations.masks.contours import inside_contours
from imaging.annotations.masks.mask import SourceMask
from imaging.annotations.masks.read_mask import read_mask
from imaging.errors import DataFault
from imaging.image.source_grid import SourceGrid
from tests.mask_objects import CLASSES, contour, grid, named_image, one_slice, rtstruct, slice_grid, volume

SIDE = 24
BIG = volume(grid=grid(4, SIDE, SIDE))


def box(low: float, high: float) -> list[tuple[float, float]]:
    """Return a square contour around the pixels low to high - 1."""
    low, high = low - 0.5, high - 0.5
    return [(low, low), (high, low), (high, high), (low, high)]


def read(data: bytes, target: Any = BIG) -> SourceMask:
    return read_mask("dicom", data, target, CLASSES)


def refused(data: bytes, target: Any = BIG) -> DataFault:
    with pytest.raises(DataFault) as caught:
        read(data, target)
    return caught.value


def pool(*contours: Dataset) -> tuple[int, str, list[Dataset]]:
    return (1, "Blood Pool", list(contours))


def of_slice(data: bytes, number: int = 1) -> np.ndarray:
    """Return the mask of one slice of the volume, after a look that the others are empty."""
    mask = read(data).classes
    assert [n for n in range(4) if mask[n].any()] in ([], [number])
    return np.asarray(mask[number])


def filled(*boxes: tuple[int, int, int]) -> np.ndarray:
    """Return boxes of pixels, painted one after the other with a value each."""
    wanted = np.zeros((SIDE, SIDE), np.uint8)
    for low, high, value in boxes:
        wanted[low:high, low:high] = value
    return wanted


def test_a_contour_encloses_pixels_by_their_centres() -> None:
    assert np.array_equal(of_slice(rtstruct(pool(contour(1, box(3, 9))))), filled((3, 9, 1)))


def test_a_contour_in_a_contour_is_a_hole_and_one_in_that_is_none() -> None:
    # PS3.3 C.8.8.6.3: contours of a region are combined by exclusive disjunction.
    data = rtstruct(pool(*(contour(1, box(*one)) for one in ((2, 20), (5, 15), (8, 10)))))
    assert np.array_equal(of_slice(data), filled((2, 20, 1), (5, 15, 0), (8, 10, 1)))


def test_contours_side_by_side_are_both_taken() -> None:
    data = rtstruct(pool(contour(1, box(2, 5)), contour(1, box(8, 12))))
    assert np.array_equal(of_slice(data), filled((2, 5, 1)) + filled((8, 12, 1)))


@pytest.mark.parametrize("again", ["same", "backwards", "from another point", "rounded", "closed"])
def test_a_contour_that_is_there_twice_counts_once(again: str) -> None:
    # By even-odd alone the second would take all away; rt-utils leaves a ring.
    points = box(4, 12)
    other = {
        "same": points,
        "backwards": points[::-1],
        "from another point": points[2:] + points[:2],
        "rounded": [(x + 0.002, y) for x, y in points],
        "closed": [*points, points[0]],
    }[again]
    data = rtstruct(pool(contour(1, points), contour(1, other)))
    assert np.array_equal(of_slice(data), filled((4, 12, 1)))


def test_a_keyhole_leaves_its_inside_out() -> None:
    # PS3.3 C.8.8.6.3: the outer and the inner line are joined by a channel of no width.
    outer, inner = box(2, 20), box(6, 14)
    points = [*outer, outer[0], *(inner[n] for n in (0, 3, 2, 1)), inner[0], outer[0]]
    assert np.array_equal(of_slice(rtstruct(pool(contour(1, points)))), filled((2, 20, 1), (6, 14, 0)))


def test_a_disc_has_its_area_and_its_middle() -> None:
    turn = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    points = np.stack([11.3 + 7.7 * np.cos(turn), 10.6 + 7.7 * np.sin(turn)], axis=1)
    mask = of_slice(rtstruct(pool(contour(1, points))))
    assert abs(mask.sum() / (np.pi * 7.7**2) - 1) < 0.03
    assert np.abs(np.argwhere(mask).mean(axis=0) - (10.6, 11.3)).max() < 0.2


def test_classes_go_by_name_and_the_later_one_is_on_top() -> None:
    muscle = (2, "myocardium", [contour(1, box(3, 15)), contour(1, box(6, 12))])
    data = rtstruct(muscle, pool(contour(1, box(5, 13))), (3, "COUCH", [contour(1, box(0, 24))]))
    assert np.array_equal(of_slice(data), np.maximum(filled((5, 13, 1)), filled((3, 15, 2), (6, 12, 0))))


def test_a_region_that_nobody_drew_is_unknown() -> None:
    data = rtstruct(pool(contour(1, box(3, 9))), (2, "myocardium", []))
    assert read(data).unknown_classes == {2}
    assert read(rtstruct(pool(contour(1, box(3, 9))))).unknown_classes == {2}


def test_points_and_open_lines_enclose_nothing() -> None:
    line = contour(1, box(3, 9), ContourGeometricType="OPEN_PLANAR")
    mask = read(rtstruct(pool(line)))
    assert (int(mask.classes.max()), mask.unknown_classes) == (0, {1, 2})


def test_an_image_gets_the_contours_of_its_own_slice() -> None:
    data = rtstruct(pool(contour(1, box(3, 9)), contour(2, box(4, 6))))
    for number, wanted in ((1, filled((3, 9, 1))), (2, filled((4, 6, 1))), (3, filled())):
        assert np.array_equal(
            read(data, one_slice(number, grid=slice_grid(number, SIDE, SIDE))).classes, wanted
        )
    named = rtstruct(pool(contour(1.2, box(3, 9), **named_image(1))))
    assert read(named, one_slice(1, grid=slice_grid(1, SIDE, SIDE))).classes.any()


def test_a_contour_that_leaves_the_image_is_cut_off() -> None:
    data = rtstruct(pool(contour(1, box(-200, 5))))
    assert np.array_equal(of_slice(data), filled((0, 5, 1)))


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (contour(9, box(3, 9)), "mask-absent-slice"),
        (contour(1.5, box(3, 9)), "mask-absent-slice"),
        (contour(1, box(3, 9), **named_image(7)), "mask-absent-slice"),
        (contour(1, box(3, 9), ContourData=[0.0, 0.0, 0.0, 0.0, 0.0, 30.0, 9.0, 9.0, 90.0]), "mask-grid"),
        (contour(1, box(3, 9), ContourData=[1.0, 2.0]), "undecodable"),
        (contour(1, box(3, 9), ContourData=[1e300] * 9), "undecodable"),
    ],
)
def test_contours_that_are_not_of_the_volume_are_refused(one: Dataset, reason: str) -> None:
    assert refused(rtstruct(pool(one))).reason == reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (rtstruct(), "mask-empty"),
        (rtstruct(pool()), "mask-empty"),
        (rtstruct(pool(contour(1, box(3, 9))), pool(contour(2, box(3, 9)))), "mask-segments"),
        (rtstruct(pool(contour(1, box(3, 9))), StructureSetROISequence=[]), "mask-empty"),
        (rtstruct(pool(contour(1, box(3, 9))), frame_of_reference="1.2.10"), "mask-frame-of-reference"),
    ],
)
def test_a_structure_set_that_contradicts_itself_is_refused(data: bytes, reason: str) -> None:
    assert refused(data).reason == reason


def test_without_a_place_of_the_image_no_contour_has_one() -> None:
    data = rtstruct(pool(contour(1, box(3, 9))))
    assert refused(data, one_slice(1, grid=SourceGrid((SIDE, SIDE)))).reason == "no-geometry"


def test_a_contour_may_not_cross_more_rows_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging.annotations.masks.contours.CROSSINGS", 20)
    with pytest.raises(DataFault) as caught:
        inside_contours([np.array(box(0, 20))], 24, 24)
    assert caught.value.reason == "too-large"
