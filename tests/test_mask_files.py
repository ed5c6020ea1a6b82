"""Masks as NIfTI and PNG: read by affine and by value, written so that other readers agree."""

import struct
from io import BytesIO
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import pytest
import SimpleITK
from numpy.typing import NDArray

from imaging.annotations.masks.mask import MaskClasses, SourceMask
from imaging.annotations.masks.read_mask import read_mask
from imaging.annotations.masks.write_files import nifti_bytes, png_bytes
from imaging.errors import DataFault, UserFault
from imaging.image.source_grid import SourceGrid
from tests.mask_objects import CLASSES, COLUMNS, ROWS, grid, one_slice, volume

TRUTH = np.random.default_rng(3).integers(0, 3, (4, ROWS, COLUMNS)).astype(np.uint8)
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINE = RAS @ grid().affine
FLAT = one_slice(0, grid=SourceGrid((ROWS, COLUMNS)))


def refused(form: str, data: bytes, target: Any, classes: MaskClasses = CLASSES) -> DataFault:
    with pytest.raises(DataFault) as caught:
        read_mask(form, data, target, classes)
    return caught.value


def nifti(stored: NDArray[Any] = TRUTH, affine: NDArray[np.float64] = AFFINE, order: str = "xyz") -> bytes:
    """Return a mask (slices, rows, columns) as NIfTI, with its axes in another order; capitals run backwards."""
    voxels, change = stored.T, np.eye(4)[:, [*("xyz".index(axis.lower()) for axis in order), 3]]
    voxels = voxels.transpose(["xyz".index(axis.lower()) for axis in order])
    for axis, name in enumerate(order):
        if name.isupper():
            flip = np.eye(4)
            flip[axis, axis], flip[axis, 3] = -1, voxels.shape[axis] - 1
            voxels, change = np.flip(voxels, axis), change @ flip
    content: bytes = nibabel.Nifti1Image(voxels, affine @ change).to_bytes()
    return content


@pytest.mark.parametrize("order", ["xyz", "XYz", "zyx", "yXZ", "Zxy"])
def test_a_nifti_mask_is_placed_by_its_affine_and_not_by_the_order_of_its_axes(order: str) -> None:
    mask = read_mask("nifti", nifti(order=order), volume(), CLASSES)
    assert np.array_equal(mask.classes, TRUTH)
    assert mask.unknown_classes == frozenset()


def test_each_slice_gets_its_part_of_a_nifti_volume() -> None:
    for number in range(4):
        mask = read_mask("nifti", nifti(order="Zxy"), one_slice(number), CLASSES)
        assert np.array_equal(mask.classes, TRUTH[number])


def test_whole_numbers_as_floats_and_with_a_slope_are_values() -> None:
    data = bytearray(nifti(TRUTH.astype(np.float32) / 2))
    struct.pack_into("<ff", data, 112, 2.0, 0.0)  # scl_slope and scl_inter
    assert np.array_equal(read_mask("nifti", bytes(data), volume(), CLASSES).classes, TRUTH)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (nifti(TRUTH.astype(np.float32) / 2), "mask-values"),
        (nifti(np.full(TRUTH.shape, np.nan, np.float32)), "mask-values"),
        (nifti(TRUTH + np.uint8(7)), "mask-values"),
        (nifti(TRUTH[:, :-1]), "mask-grid"),
        (nifti(TRUTH[:3]), "mask-grid"),
        (nifti(affine=AFFINE @ np.diag([1, 1, 1.2, 1])), "mask-grid"),
        (nifti(affine=np.eye(4)), "mask-grid"),
        (nifti()[:400], "truncated"),
        (b"no header", "truncated"),
        (nibabel.Nifti1Image(np.stack([TRUTH.T] * 2, -1), AFFINE).to_bytes(), "unsupported"),
    ],
)
def test_a_nifti_that_is_no_mask_of_the_image_is_refused(data: bytes, reason: str) -> None:
    assert refused("nifti", data, volume()).reason == reason


def test_a_nifti_mask_of_an_image_without_a_place_is_refused() -> None:
    assert refused("nifti", nifti(), FLAT).reason == "no-geometry"


def test_a_nifti_mask_may_not_be_larger_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging.annotations.masks.read_nifti_mask.MOST_BYTES", 100)
    assert refused("nifti", nifti(), volume()).reason == "too-large"
    assert refused("nifti", nifti_bytes(TRUTH, grid()), volume()).reason == "too-large"


def test_a_written_nifti_is_read_back_by_ours_nibabel_and_simpleitk(tmp_path: Any) -> None:
    path = tmp_path / "mask.nii.gz"
    path.write_bytes(nifti_bytes(TRUTH, grid()))
    assert np.array_equal(read_mask("nifti", path.read_bytes(), volume(), CLASSES).classes, TRUTH)
    image = nibabel.load(path)
    assert np.array_equal(np.asarray(image.dataobj).T, TRUTH)
    assert np.allclose(image.affine, AFFINE, atol=1e-4)
    other = SimpleITK.ReadImage(str(path))
    assert np.array_equal(SimpleITK.GetArrayFromImage(other), TRUTH)
    # SimpleITK counts in LPS, as DICOM does, and takes the qform.
    assert np.allclose(
        other.TransformIndexToPhysicalPoint((2, 1, 3)), (grid().affine @ (2, 1, 3, 1))[:3], atol=1e-4
    )


def test_a_written_nifti_has_the_axes_of_the_file_that_the_image_came_from() -> None:
    like = nifti(order="yXZ")
    data = nifti_bytes(TRUTH, grid(), like, compressed=False)
    image, wanted = (nibabel.Nifti1Image.from_bytes(one) for one in (data, like))
    assert np.array_equal(np.asarray(image.dataobj), np.asarray(wanted.dataobj))
    assert np.allclose(image.affine, wanted.affine, atol=1e-4)


def test_the_same_mask_gives_the_same_bytes() -> None:
    assert nifti_bytes(TRUTH, grid()) == nifti_bytes(TRUTH, grid())


def png(stored: NDArray[Any], mode: str | None = None) -> bytes:
    buffer = BytesIO()
    image = PIL.Image.fromarray(stored)
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return buffer.getvalue()


def indexed() -> bytes:
    image = PIL.Image.frombytes("P", (COLUMNS, ROWS), TRUTH[0].tobytes())
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data", [png(TRUTH[0]), png(TRUTH[0].astype(np.uint16)), png(TRUTH[0], "RGB"), indexed()],
    ids=["grey", "16 bits", "grey as RGB", "palette"],
)  # fmt: skip
def test_a_png_has_classes_as_values(data: bytes) -> None:
    mask: SourceMask = read_mask("picture", data, FLAT, CLASSES)
    assert np.array_equal(mask.classes, TRUTH[0])
    assert mask.unknown_classes == frozenset()


def test_white_is_no_class_unless_it_is_given_one() -> None:
    # 0 and 255 are common in PNG masks; 255 is unknown inside, and must not become so by accident.
    data = png((TRUTH[0] > 0).astype(np.uint8) * np.uint8(255))
    fault = refused("picture", data, FLAT)
    assert (fault.reason, "values 255" in fault.detail) == ("mask-values", True)
    white = MaskClasses(names=("lesion",), values={0: 0, 255: 1})
    assert np.array_equal(read_mask("picture", data, FLAT, white).classes, TRUTH[0] > 0)
    unknown = MaskClasses(names=("lesion",), values={0: 0, 255: 255})
    assert set(np.unique(read_mask("picture", data, FLAT, unknown).classes)) == {0, 255}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png(TRUTH[0] + np.uint8(3)), "mask-values"),
        (png(TRUTH[0][1:]), "mask-grid"),
        (png(TRUTH[0].T), "mask-grid"),
        (png(np.dstack([TRUTH[0] * 90, TRUTH[0], TRUTH[0]])), "unsupported"),
        (png(TRUTH[0])[:-30], "truncated"),
        (b"GIF89a, no PNG", "unreadable"),
        (b"", "unreadable"),
    ],
)
def test_a_png_that_is_no_mask_of_the_image_is_refused(data: bytes, reason: str) -> None:
    assert refused("picture", data, FLAT).reason == reason


def test_a_written_png_is_read_back() -> None:
    assert np.array_equal(read_mask("picture", png_bytes(TRUTH[1]), FLAT, CLASSES).classes, TRUTH[1])


def test_what_no_format_has_room_for_is_not_written() -> None:
    with pytest.raises(UserFault, match="write each slice, or NIfTI"):
        png_bytes(TRUTH)
    with pytest.raises(UserFault, match="write the mask as PNG"):
        nifti_bytes(TRUTH[0], FLAT.grid)


@pytest.mark.parametrize(
    "wrong", [{"names": ()}, {"names": ("a", "A ")}, {"names": ("a",), "values": {3: 2}}]
)
def test_classes_that_contradict_themselves_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserFault):
        MaskClasses(**wrong)
