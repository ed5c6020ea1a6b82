"""DICOM SEG as masks: types, packed bits, sparse frames, and what is refused."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from imaging.annotations.masks.mask import MaskClasses, SourceMask
from imaging.annotations.masks.read_mask import read_mask
from imaging.errors import DataFault
from imaging.image.source_grid import SourceGrid
from tests.dicom_objects import file_bytes
from tests.mask_objects import CLASSES, COLUMNS, ROWS, derived_from, group, one_slice, seg, source, volume

RANDOM = np.random.default_rng(7)
TRUTH = RANDOM.integers(0, 3, (4, ROWS, COLUMNS)).astype(np.uint8)


def binary(truth: NDArray[np.uint8] = TRUTH, **changes: Any) -> bytes:
    """Return a segmentation with a frame for each slice and class."""
    frames = np.stack([truth == value for value in (1, 2)], axis=1).reshape(-1, ROWS, COLUMNS)
    groups = [group(n, value) for n in range(len(truth)) for value in (1, 2)]
    return seg(frames.astype(np.uint8), groups, **changes)


def read(data: bytes, target: Any = None, classes: MaskClasses = CLASSES) -> SourceMask:
    return read_mask("dicom", data, target or volume(), classes)


def refused(data: bytes, target: Any = None) -> DataFault:
    with pytest.raises(DataFault) as caught:
        read(data, target)
    return caught.value


def test_a_binary_segmentation_is_read_bit_by_bit() -> None:
    mask = read(binary())
    assert np.array_equal(mask.classes, TRUTH)
    assert mask.unknown_classes == frozenset()


def test_each_slice_gets_its_frames() -> None:
    for number in range(4):
        assert np.array_equal(read(binary(), one_slice(number)).classes, TRUTH[number])


def test_frames_that_are_left_out_are_empty_and_their_class_is_known() -> None:
    frames = (TRUTH[2:3] == 1).astype(np.uint8)
    mask = read(seg(frames, [group(2, 1)]))
    assert np.array_equal(mask.classes[2], frames[0])
    assert (mask.classes.sum(axis=(1, 2)) > 0).tolist() == [False, False, True, False]
    assert mask.unknown_classes == frozenset()
    assert read(seg(frames, [group(2, 1)]), one_slice(0)).classes.max() == 0


def test_a_class_without_a_segment_is_unknown() -> None:
    mask = read(seg((TRUTH[:1] == 1).astype(np.uint8), [group(0, 1)], segments=[(1, "blood pool")]))
    assert mask.unknown_classes == {2}


def test_segments_go_by_their_names_and_not_by_their_numbers() -> None:
    mask = read(binary(segments=[(2, "BLOOD  pool"), (1, "MYOCARDIUM")]))
    assert np.array_equal(mask.classes, np.array([0, 2, 1], np.uint8)[TRUTH])


def test_a_class_may_have_other_names_and_several_segments() -> None:
    classes = MaskClasses(names=("heart",), aliases={"blood pool": "heart", "myocardium": "heart"})
    assert np.array_equal(read(binary(), classes=classes).classes, TRUTH > 0)


def test_segments_of_no_class_are_left_out() -> None:
    mask = read(binary(segments=[(1, "blood pool"), (2, "table")]))
    assert np.array_equal(mask.classes, TRUTH == 1)
    assert mask.unknown_classes == {2}


def test_of_segments_that_overlap_the_later_class_is_on_top() -> None:
    frames = np.ones((2, ROWS, COLUMNS), np.uint8)
    for groups in ([group(0, 2), group(0, 1)], [group(0, 1), group(0, 2)]):
        assert np.unique(read(seg(frames, groups), one_slice(0)).classes).tolist() == [2]


def test_the_largest_fraction_of_at_least_one_half_counts() -> None:
    # PS3.3 C.8.20.2.3: a fraction is the value by Maximum Fractional Value, here 200.
    frames = np.zeros((2, ROWS, COLUMNS), np.uint8)
    frames[0, 0, :4], frames[1, 0, :4] = (99, 100, 150, 120), (0, 0, 120, 120)
    mask = read(seg(frames, [group(0, 1), group(0, 2)], kind="FRACTIONAL"), one_slice(0))
    assert mask.classes[0, :5].tolist() == [0, 1, 1, 2, 0]


@pytest.mark.parametrize("padding", [None, 9])
def test_a_label_map_has_segment_numbers_as_values(padding: int | None) -> None:
    # PS3.3 C.8.20.2 (Supplement 243): numbers need not begin at 1, and the background is Pixel Padding Value.
    number_of = np.array([padding or 0, 7, 4], np.uint8)
    data = seg(
        number_of[TRUTH], [group(n, None) for n in range(4)], [(7, "blood pool"), (4, "myocardium")],
        "LABELMAP", PixelPaddingValue=padding,
    )  # fmt: skip
    assert np.array_equal(read(data).classes, TRUTH)


def test_a_value_of_a_label_map_that_is_not_described_is_refused() -> None:
    data = seg(TRUTH, [group(n, None) for n in range(4)], [(1, "blood pool")], "LABELMAP")
    assert refused(data).reason == "mask-segments"
    assert "segment 2" in refused(data).detail


def test_frames_lie_at_their_positions_whatever_their_order() -> None:
    order = [3, 1, 0, 2]
    frames = (TRUTH[order] == 1).astype(np.uint8)
    assert np.array_equal(read(seg(frames, [group(n, 1) for n in order])).classes, TRUTH == 1)


def test_a_segmentation_with_turned_rows_is_turned_back() -> None:
    # Rows from right to left and columns from below: the same plane, looked at from behind twice.
    from pydicom.sequence import Sequence as Items

    from tests.mask_objects import COLUMN, ROW, SPACING, item, position

    frames = (TRUTH[:1] == 1).astype(np.uint8)[:, ::-1, ::-1].copy()
    corner = position(0) + ROW * SPACING[1] * (COLUMNS - 1) + COLUMN * SPACING[0] * (ROWS - 1)
    one = group(0, 1)
    one.PlanePositionSequence = Items([item(ImagePositionPatient=corner.round(6).tolist())])
    data = seg(frames, [one], orientation=[*-ROW, *-COLUMN])
    assert np.array_equal(read(data, one_slice(0)).classes, TRUTH[0] == 1)


def test_without_a_place_of_the_image_a_frame_is_put_on_the_image_that_it_names() -> None:
    flat = SourceGrid((ROWS, COLUMNS))
    frames = (TRUTH[:2] == 1).astype(np.uint8)
    data = seg(frames, [group(n, 1, **derived_from(n)) for n in range(2)])
    for number in range(2):
        mask = read(data, one_slice(number, grid=flat))
        assert np.array_equal(mask.classes, TRUTH[number] == 1)
    unnamed = seg(frames, [group(n, 1) for n in range(2)])
    assert refused(unnamed, one_slice(0, grid=flat)).reason == "mask-grid"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"segments": [(1, "blood pool"), (1, "myocardium")]}, "mask-segments"),
        ({"segments": [(1, "blood pool")]}, "mask-segments"),
        ({"segments": []}, "mask-empty"),
        ({"NumberOfFrames": 0}, "mask-empty"),
        ({"PixelData": None}, "mask-empty"),
        ({"FrameOfReferenceUID": "1.2.10"}, "mask-frame-of-reference"),
        ({"orientation": [1, 0, 0, 0, 1, 0]}, "mask-grid"),
        ({"SegmentationType": "LABELMAP"}, "unsupported"),
        ({"NumberOfFrames": 9}, "truncated"),
        ({"Rows": 2**16 - 1, "Columns": 2**16 - 1}, "too-large"),
    ],
)  # fmt: skip
def test_what_is_no_mask_of_the_image_is_refused(changes: dict[str, Any], reason: str) -> None:
    assert refused(binary(**changes)).reason == reason


def test_a_mask_of_another_size_is_refused() -> None:
    data = seg(np.zeros((1, ROWS + 1, COLUMNS), np.uint8), [group(0, 1)])
    fault = refused(data, one_slice(0))
    assert (fault.reason, f"{ROWS + 1} x {COLUMNS}" in fault.detail) == ("mask-grid", True)


def test_a_frame_between_two_slices_is_refused() -> None:
    frames = np.ones((1, ROWS, COLUMNS), np.uint8)
    assert refused(seg(frames, [group(0.5, 1)])).reason == "mask-grid"


def test_a_segmentation_of_another_part_of_the_body_is_refused() -> None:
    frames = np.ones((1, ROWS, COLUMNS), np.uint8)
    assert refused(seg(frames, [group(40, 1)])).reason == "mask-grid"


def test_an_image_is_no_mask() -> None:
    assert refused(file_bytes(source(0))).reason == "unsupported"


def test_an_empty_frame_is_a_class_that_is_absent() -> None:
    mask = read(seg(np.zeros((1, ROWS, COLUMNS), np.uint8), [group(0, 1)]))
    assert (int(mask.classes.max()), mask.unknown_classes) == (0, frozenset())
