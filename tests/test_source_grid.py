"""Source grid of each kind of image, as its readers find it, and in the rows of a dataset."""

from dataclasses import replace
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, RTDoseStorage

from imaging.dataset.ingest.prepare_files import item_of, prepare_payloads
from imaging.dataset.tables.schemas import GRID, LATER_COLUMNS
from imaging.errors import UserFault
from imaging.formats import dicom
from imaging.formats.dicom import read_dicom
from imaging.formats.nifti import read_nifti
from imaging.formats.series import read_series
from imaging.image.instance import Instance
from imaging.image.source_grid import SourceGrid, grid_of_row, pack_grid, unpack_grids
from imaging.preprocess.spec import PreprocessSpec
from imaging.sources.protocol import Payload
from tests.dicom_objects import dataset, file_bytes, made, ramp
from tests.slices import AXIAL, OBLIQUE

STORED = ramp((4, 6), np.int16)
POSITION = (-10.0, 20.5, 30.25)
PLACED = {
    "ImagePositionPatient": list(POSITION),
    "ImageOrientationPatient": list(OBLIQUE),
    "PixelSpacing": [0.5, 0.25],
    "FrameOfReferenceUID": "1.2.9",
}
NORMAL = np.cross(OBLIQUE[:3], OBLIQUE[3:])


def only(data: bytes, modality: str = "CT") -> Instance:
    (one,) = read_dicom(data, modality)
    return one


def affine_of(one: Instance) -> NDArray[np.float64]:
    affine = one.image.affine
    assert affine is not None
    return affine


def test_a_slice_lies_at_the_place_in_its_header() -> None:
    # PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1: the direction of a row goes with the spacing of columns.
    one = only(made(STORED, **PLACED))
    wanted = np.array(POSITION) + 3 * 0.25 * np.array(OBLIQUE[:3]) + 2 * 0.5 * np.array(OBLIQUE[3:])
    assert np.allclose(affine_of(one) @ (3, 2, 0, 1), [*wanted, 1])
    assert np.allclose(affine_of(one)[:3, 2], NORMAL)
    assert one.frame_of_reference_uid == "1.2.9"


@pytest.mark.parametrize(
    "lacks",
    [
        {"ImagePositionPatient": None},
        {"ImageOrientationPatient": None},
        {"ImageOrientationPatient": [1, 0, 0, 0.5, 1, 0]},
        {"PixelSpacing": None},
        {"PixelSpacing": None, "PixelAspectRatio": [1, 2]},
    ],
)
def test_a_slice_whose_place_is_not_known_has_no_affine(lacks: dict[str, Any]) -> None:
    assert only(made(STORED, **PLACED | lacks)).image.affine is None


def test_slices_with_equal_headers_have_their_own_position() -> None:
    # The header cache skips parsing from the third slice of a series on.
    dicom._header_cache.cache_clear()
    for number in range(6):
        place = {"ImagePositionPatient": [1.0, 2.0, float(number)], "FrameOfReferenceUID": f"1.2.9.{number}"}
        one = only(made(STORED, SOPInstanceUID=f"1.2.3.{number}", **PLACED | place))
        assert affine_of(one)[:3, 3].tolist() == [1.0, 2.0, number]
        assert one.frame_of_reference_uid == f"1.2.9.{number}"
    assert dicom._header_cache("CT")._headers


def enhanced(*positions: Any) -> bytes:
    one = dataset(
        np.stack([STORED] * len(positions)), SOPClassUID=EnhancedMRImageStorage, Modality="MR",
        FrameOfReferenceUID="1.2.9",
    )  # fmt: skip
    shared, measures, turned = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, turned.ImageOrientationPatient = [0.5, 0.25], list(OBLIQUE)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([turned])
    one.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for position in positions:
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = list(position)
        frame.PlanePositionSequence = Sequence([place])
        frames.append(frame)
    one.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return file_bytes(one)


def test_each_frame_lies_at_the_place_in_its_functional_groups() -> None:
    places = [(1.0, 2.0, 3.0), (1.0, 2.0, 8.0)]
    frames = list(read_dicom(enhanced(*places), "MR"))
    assert [tuple(affine_of(one)[:3, 3]) for one in frames] == places
    assert {one.frame_of_reference_uid for one in frames} == {"1.2.9"}


def test_frames_of_a_dose_lie_along_the_normal_by_their_offsets() -> None:
    # PS3.3 C.8.8.3.2: GridFrameOffsetVector.
    data = made(
        ramp((3, 4, 6), np.uint16), SOPClassUID=RTDoseStorage, Modality="RTDOSE", **PLACED,
        GridFrameOffsetVector=[0, 2, 5], FrameIncrementPointer=0x3004000C,
    )  # fmt: skip
    frames = list(read_dicom(data, "RTDOSE"))
    for one, offset in zip(frames, (0, 2, 5), strict=True):
        assert np.allclose(affine_of(one)[:3, 3], np.array(POSITION) + offset * NORMAL)


def test_frames_that_share_one_position_without_a_rule_have_no_affine() -> None:
    frames = read_dicom(made(ramp((3, 4, 6), np.uint16), **PLACED), "CT")
    assert [one.image.affine for one in frames] == [None] * 3


def test_a_volume_lies_where_its_first_slice_does() -> None:
    # In reverse order, and with a gap that is filled.
    contents = tuple(
        made(
            STORED, **PLACED | {"ImageOrientationPatient": list(AXIAL), "ImagePositionPatient": [1.0, 2.0, z]},
            SOPInstanceUID=f"1.2.3.{n}",
        )
        for n, z in enumerate((10.0, 8.0, 4.0, 2.0), 1)
    )  # fmt: skip
    payload = Payload(format="series", name="s", contents=contents, metadata=(("bad-slice", "drop-slice"),))
    (one,) = read_series(payload, "CT")
    assert one.image.grid.shape == (5, 4, 6)
    assert np.allclose(affine_of(one) @ (0, 0, 4, 1), [1, 2, 10, 1])
    assert one.frame_of_reference_uid == "1.2.9"


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SAR", "IPL"])
def test_a_nifti_volume_lies_at_the_place_of_its_affine(codes: str) -> None:
    stored = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    turn = nibabel.orientations.axcodes2ornt(codes)
    affine = np.eye(4)
    for axis, (target, sign) in enumerate(turn):
        affine[axis, axis] = 0.0
        affine[int(target), axis] = sign * (axis + 1.5)
    affine[:3, 3] = (5, -6, 7)
    (one,) = read_nifti(nifti_payload(stored, affine), "CT")
    ras = np.diag([-1.0, -1, 1, 1]) @ affine_of(one)
    for index in np.ndindex(*stored.shape):
        # The inverse of the reader's affine finds each voxel where nibabel's puts it.
        column, row, number = np.rint((np.linalg.inv(ras) @ affine @ (*index, 1))[:3]).astype(int)
        assert one.image.stored[number, row, column] == stored[index]


def test_a_flat_nifti_lies_at_the_place_of_its_affine() -> None:
    stored = np.arange(12, dtype=np.int16).reshape(3, 4)
    affine = np.array([[0.0, 0, 2, 1], [3, 0, 0, 2], [0, -1.5, 0, 3], [0, 0, 0, 1]])
    (one,) = read_nifti(nifti_payload(stored, affine), "CT")
    ras = np.diag([-1.0, -1, 1, 1]) @ affine_of(one)
    for index in np.ndindex(*stored.shape):
        place = (np.linalg.inv(ras) @ affine @ (*index, 0, 1))[:3]
        column, row, number = np.rint(place).astype(int)
        assert (number, one.image.stored[row, column]) == (0, stored[index])


def nifti_payload(stored: NDArray[Any], affine: NDArray[np.float64]) -> Payload:
    content = nibabel.Nifti1Image(stored, affine).to_bytes()
    return Payload(format="nifti", name="a.nii", contents=(content,), metadata=(("patient", "P"),))


GRIDS = {
    "image": SourceGrid((4, 6), (0.5, 0.25), affine_of(only(made(STORED, **PLACED)))),
    "image without position": SourceGrid((4, 6), (0.5, 0.25)),
    "picture": SourceGrid((4, 6)),
    "volume": SourceGrid((3, 4, 6), (2.0, 0.5, 0.25), np.diag([0.25, 0.5, 2.0, 1.0])),
    "volume without spacing": SourceGrid((3, 4, 6)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_comes_back_from_its_row(name: str) -> None:
    grid = GRIDS[name]
    columns = unpack_grids(pack_grid(grid.shape, grid.spacing, grid.affine) * 2)
    assert [*columns] == [field.name for field in GRID]
    row = {key: values[1] for key, values in columns.items()} | {"rows": 4, "columns": 6, "spacing_mm": None}
    back = grid_of_row(row, volume=len(grid.shape) == 3)
    assert back.to_json() == grid.to_json() == SourceGrid.from_json(grid.to_json()).to_json()


def test_a_row_of_an_older_release_gives_what_follows_from_it() -> None:
    old = LATER_COLUMNS | {"rows": 4, "columns": 6, "spacing_mm": 0.5}
    assert grid_of_row(old, volume=False).to_json() == SourceGrid((4, 6), (0.5, 0.5)).to_json()
    assert grid_of_row(old | {"spacing_mm": None}, volume=False).spacing is None
    with pytest.raises(UserFault, match="ingest them into a new dataset"):
        grid_of_row(old, volume=True)


def test_a_worker_answers_with_the_grid_of_each_image() -> None:
    payloads = [
        Payload(format="dicom", name=str(n), contents=(made(STORED, **PLACED | more),))
        for n, more in enumerate(({}, {"PixelSpacing": None}))
    ]
    item = item_of(payloads)
    setup = {"spec": PreprocessSpec(size_px=16).model_dump_json()}
    _, (_, _, grids) = prepare_payloads(setup, item.value, item.blobs)
    columns = unpack_grids(memoryview(grids))
    assert columns["slices"] == [1, 1]
    assert columns["row_spacing"] == [0.5, None]
    assert columns["affine"][0] == affine_of(only(made(STORED, **PLACED)))[:3].tobytes()
    assert columns["affine"][1] == LATER_COLUMNS["affine"]


def test_no_identifier_is_in_a_grid() -> None:
    one = only(made(STORED, **PLACED))
    other = only(made(STORED, **PLACED | {"FrameOfReferenceUID": "1.2.10", "SOPInstanceUID": "1.2.11"}))
    packed = [pack_grid(x.image.stored.shape, x.image.spacing_mm, x.image.affine) for x in (one, other)]
    assert packed[0] == packed[1]
    assert replace(one, frame_of_reference_uid="") != one
