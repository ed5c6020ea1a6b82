"""Written DICOM SEG: read back equal by other readers and ours, valid, and without anything of the patient."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import PIL.Image
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import EnhancedMRImageStorage

from imaging.annotations.masks.mask import MaskTarget
from imaging.annotations.masks.read_mask import read_mask
from imaging.annotations.masks.write_seg import (
    SegHeader,
    Segment,
    object_bytes,
    segmentation_object,
    series_of,
)
from imaging.errors import DataFault, UserFault
from imaging.formats.dicom import read_dicom
from imaging.sources.label_file import open_label_file
from tests.mask_objects import (
    CLASSES,
    COLUMNS,
    ROWS,
    SPACING,
    derived_from,
    group,
    item,
    one_slice,
    source,
    uid,
    volume,
)
from tests.requirements import program

KINDS = ("BINARY", "LABELMAP")
SEGMENTS = [Segment(name="blood pool"), Segment(name="myocardium", type=("74281007", "SCT", "Myocardium"))]
HEADER = SegHeader(
    series_uid="2.25.11", sop_instance_uid="2.25.12", created=datetime(2026, 1, 2, 3, 4, 5), algorithm="lesions",
    version="3",
)  # fmt: skip
TRUTH = np.random.default_rng(5).integers(0, 3, (4, ROWS, COLUMNS)).astype(np.uint8)
IMAGES = [source(n) for n in range(4)]


def written(
    mask: NDArray[np.uint8] = TRUTH,
    images: Sequence[Dataset] = IMAGES,
    header: SegHeader = HEADER,
    **more: Any,
) -> bytes:
    """Return the bytes of a segmentation."""
    return object_bytes(segmentation_object(mask, images, SEGMENTS, header, **more))


def by_highdicom(data: bytes, images: Sequence[Dataset]) -> NDArray[np.uint8]:
    """Return the class numbers of each image as highdicom reads them."""
    seg = highdicom.seg.segread(pydicom.filebase.DicomBytesIO(data))
    uids = [image.SOPInstanceUID for image in images]
    read = seg.get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    return np.asarray(read, np.uint8)


def by_pydicom(data: bytes, images: Sequence[Dataset]) -> NDArray[np.uint8]:
    """Return the class numbers of each image from the frames as pydicom unpacks them."""
    seg = pydicom.dcmread(pydicom.filebase.DicomBytesIO(data))
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    at = {image.SOPInstanceUID: n for n, image in enumerate(images)}
    mask = np.zeros((len(images), seg.Rows, seg.Columns), np.uint8)
    for groups, frame in zip(seg.PerFrameFunctionalGroupsSequence, frames, strict=True):
        named = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        if seg.SegmentationType == "LABELMAP":
            mask[at[named]] = frame
        else:
            number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            mask[at[named]][frame > 0] = number
    return mask


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("omit", [False, True])
def test_a_written_segmentation_is_read_back_voxel_by_voxel(kind: Any, omit: bool) -> None:
    truth = TRUTH.copy()
    truth[2] = 0
    data = written(truth, kind=kind, omit_empty_frames=omit)
    assert np.array_equal(by_highdicom(data, IMAGES), truth)
    assert np.array_equal(by_pydicom(data, IMAGES), truth)
    back = read_mask("dicom", data, volume(), CLASSES)
    assert (np.array_equal(back.classes, truth), back.unknown_classes) == (True, frozenset())
    for number in range(4):
        assert np.array_equal(read_mask("dicom", data, one_slice(number), CLASSES).classes, truth[number])


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_mask_is_written_whole(kind: Any) -> None:
    data = written(np.zeros_like(TRUTH), kind=kind, omit_empty_frames=True)
    seg = pydicom.dcmread(pydicom.filebase.DicomBytesIO(data))
    assert seg.NumberOfFrames == (8 if kind == "BINARY" else 4)
    back = read_mask("dicom", data, volume(), CLASSES)
    assert (int(back.classes.max()), back.unknown_classes) == (0, frozenset())


def test_a_highdicom_volume_has_the_slices_without_a_pixel_too() -> None:
    # With omit_empty_frames, highdicom's default, it would begin at the first slice that is not empty.
    truth = TRUTH.copy()
    truth[[0, 3]] = 0
    seg = highdicom.seg.segread(pydicom.filebase.DicomBytesIO(written(truth)))
    read = seg.get_volume(combine_segments=True)
    assert read.spatial_shape == TRUTH.shape
    positions = [read.affine @ (k, 0, 0, 1) for k in range(4)]
    order = [
        int(np.argmin([np.abs(p[:3] - np.array(i.ImagePositionPatient)).max() for p in positions]))
        for i in IMAGES
    ]
    assert np.array_equal(np.asarray(read.array)[order], truth)


def test_images_in_any_order_keep_their_slices() -> None:
    order = [2, 0, 3, 1]
    data = written(TRUTH[order], [IMAGES[n] for n in order])
    assert np.array_equal(read_mask("dicom", data, volume(), CLASSES).classes, TRUTH)


def test_images_with_a_frame_of_reference_each_need_one_for_all() -> None:
    apart = [source(n, FrameOfReferenceUID=f"1.2.9.{n}") for n in range(4)]
    with pytest.raises(UserFault, match="4 frames of reference"):
        written(TRUTH, apart)
    data = written(TRUTH, apart, replace(HEADER, frame_of_reference_uid="1.2.9"))
    for number in range(4):
        own = one_slice(number, frame_of_reference_uid=f"1.2.9.{number}")
        assert np.array_equal(read_mask("dicom", data, own, CLASSES).classes, TRUTH[number])
    with pytest.raises(DataFault, match="mask-frame-of-reference"):
        read_mask("dicom", data, one_slice(1, frame_of_reference_uid="1.3", instances=("1.4",)), CLASSES)


def test_orientations_that_differ_in_the_last_digit_are_one() -> None:
    turned = [source(n) for n in range(4)]
    turned[2].ImageOrientationPatient[3] = -0.6000001
    assert np.array_equal(read_mask("dicom", written(TRUTH, turned), volume(), CLASSES).classes, TRUTH)
    turned[2].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    with pytest.raises(UserFault, match="turned differently"):
        written(TRUTH, turned)


def test_one_image_alone_is_segmented() -> None:
    data = written(TRUTH[1], IMAGES[1:2])
    assert np.array_equal(read_mask("dicom", data, one_slice(1), CLASSES).classes, TRUTH[1])


def test_an_object_of_several_frames_is_segmented() -> None:
    frames = source(0, SOPClassUID=EnhancedMRImageStorage, Modality="MR", NumberOfFrames=4)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        del frames[keyword]
    turned = item(ImageOrientationPatient=list(source(0).ImageOrientationPatient))
    measures = item(PixelSpacing=list(SPACING), SliceThickness=3.0)
    frames.SharedFunctionalGroupsSequence = Items(
        [item(PlaneOrientationSequence=Items([turned]), PixelMeasuresSequence=Items([measures]))]
    )
    frames.PerFrameFunctionalGroupsSequence = Items([group(n, None, **derived_from(n)) for n in range(4)])
    data = written(TRUTH, [frames])
    assert np.array_equal(read_mask("dicom", data, volume(instances=(uid(0),)), CLASSES).classes, TRUTH)


def test_several_series_are_written_one_by_one() -> None:
    both = [source(n, SeriesInstanceUID=f"1.2.{n % 2}") for n in range(4)]
    with pytest.raises(UserFault, match="of 2 series"):
        written(TRUTH, both)
    for at in series_of(both).values():
        data = written(TRUTH[at], [both[n] for n in at])
        for number in at:
            assert np.array_equal(read_mask("dicom", data, one_slice(number), CLASSES).classes, TRUTH[number])


@pytest.mark.parametrize(
    ("mask", "changes", "match"),
    [
        (TRUTH, {"FrameOfReferenceUID": None}, "write the mask as PNG"),
        (TRUTH, {"ImagePositionPatient": None}, "write the mask as PNG"),
        (TRUTH, {"ImageOrientationPatient": None}, "write the mask as PNG"),
        (TRUTH[:, 1:], {}, "bring it to their grid"),
        (TRUTH[:3], {}, "bring it to their grid"),
        (TRUTH + np.uint8(1), {}, "has the value 3"),
        (np.where(TRUTH == 1, 255, TRUTH).astype(np.uint8), {}, "unknown pixels"),
    ],
)
def test_what_no_segmentation_has_room_for_is_refused(mask: Any, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(UserFault, match=match):
        written(mask, [source(n, **changes) for n in range(4)])


def test_nothing_of_the_patient_is_taken_from_the_images() -> None:
    data = written()
    for secret in (b"Doe", b"P-77", b"19500101", b"Harbour", b"A-77", b"20200102"):
        assert secret not in data
    seg = pydicom.dcmread(pydicom.filebase.DicomBytesIO(data))
    assert (seg.SOPInstanceUID, seg.SeriesInstanceUID) == (HEADER.sop_instance_uid, HEADER.series_uid)
    assert (seg.ContentDate, seg.InstanceCreationDate) == ("20260102", "20260102")
    header = replace(HEADER, identity={"PatientID": "anon-1"})
    given = segmentation_object(TRUTH, IMAGES, SEGMENTS, header)
    assert (given.PatientID, given.PatientName) == ("anon-1", "")


def test_an_attribute_that_is_no_identity_is_refused() -> None:
    header = replace(HEADER, identity={"InstitutionName": "Harbour"})
    with pytest.raises(UserFault, match="InstitutionName"):
        segmentation_object(TRUTH, IMAGES, SEGMENTS, header)


def test_the_same_mask_gives_the_same_object() -> None:
    assert written() == written()


def of_package(name: str, package: str) -> str:
    """Return a program that a Python package brought."""
    return program(name, package, path=str(Path(sys.executable).parent))


@pytest.mark.parametrize("kind", KINDS)
def test_the_validator_accepts_a_written_segmentation(kind: Any, tmp_path: Path) -> None:
    # Debian's dicom3tools (2022) know no label maps.
    validator = of_package("dciodvfy", "dicom3tools")
    images = [source(n, StudyInstanceUID="2.25.14", SeriesInstanceUID="2.25.15") for n in range(4)]
    for image in images:
        image.SOPInstanceUID = f"2.25.16.{image.InstanceNumber}"
        image.FrameOfReferenceUID = "2.25.17"
    path = tmp_path / "seg.dcm"
    path.write_bytes(written(images=images, kind=kind))
    output = subprocess.run([validator, str(path)], capture_output=True, check=False, timeout=60).stderr
    lines = output.decode("latin-1").splitlines()
    assert [line for line in lines if line.startswith("Error")] == []
    assert any(line.endswith("Segmentation") for line in lines)


@pytest.mark.parametrize("kind", KINDS)
def test_dcmqi_reads_a_written_segmentation_voxel_by_voxel(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    path.write_bytes(written(kind=kind))
    reader = of_package("segimage2itkimage", "dcmqi")
    order = [reader, "--inputDICOM", str(path), "--outputDirectory", str(tmp_path), "--outputType", "nifti"]
    subprocess.run(order, capture_output=True, check=True, timeout=60)
    read = np.zeros_like(TRUTH)
    for made in tmp_path.glob("*.nii.gz"):
        # A file for each segment of a binary one, with its number as value.
        mask = read_mask("nifti", made.read_bytes(), volume(), CLASSES).classes
        read = np.maximum(read, mask)
    assert np.array_equal(read, TRUTH)


def cardiac_series(folder: Path) -> Iterator[tuple[list[Dataset], NDArray[np.uint8]]]:
    """Yield the images of each series, of one time and with their masks, with pixels of the size of the masks."""
    objects: dict[str, tuple[Dataset, NDArray[np.uint8]]] = {}
    by_uid = {}
    for path in sorted(folder.rglob("*.dcm")):
        one = pydicom.dcmread(path, stop_before_pixels=True)
        by_uid[str(one.SOPInstanceUID)] = one
    with open_label_file(folder / "masks.csv") as file:
        for name, mask, *_ in file.reader():
            objects[name] = (by_uid[name], np.asarray(PIL.Image.open(folder / mask)).astype(np.uint8))
    groups: dict[tuple[str, int], list[str]] = {}
    for name, (one, _) in objects.items():
        place = tuple(np.round(one.ImagePositionPatient, 2))
        same = sum(
            1 for others in groups.values() for other in others
            if objects[other][0].SeriesInstanceUID == one.SeriesInstanceUID
            and tuple(np.round(objects[other][0].ImagePositionPatient, 2)) == place
        )  # fmt: skip
        groups.setdefault((str(one.SeriesInstanceUID), same), []).append(name)
    for names in groups.values():
        yield [objects[name][0] for name in names], np.stack([objects[name][1] for name in names])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_real_slices_are_written_and_read_back_voxel_by_voxel(kind: Any, cardiac_mr: Path) -> None:
    slices = 0
    for images, masks in cardiac_series(cardiac_mr):
        # Each slice of this set has a frame of reference of its own.
        data = written(masks, images, replace(HEADER, frame_of_reference_uid="2.25.13"), kind=kind)
        assert np.array_equal(by_highdicom(data, images), masks)
        assert np.array_equal(by_pydicom(data, images), masks)
        for image, mask in list(zip(images, masks, strict=True))[::4]:
            (instance,) = read_dicom(Path(image.filename).read_bytes(), "MR")
            target = MaskTarget(
                grid=instance.image.grid, instances=(instance.sop_instance_uid,),
                frame_of_reference_uid=instance.frame_of_reference_uid,
            )  # fmt: skip
            assert np.array_equal(read_mask("dicom", data, target, CLASSES).classes, mask)
        slices += len(images)
    assert slices == 74
