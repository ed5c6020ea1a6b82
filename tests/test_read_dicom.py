"""Reader of DICOM objects: an instance for each frame, with the transforms of its own functional groups."""

import struct
import tracemalloc
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedUSVolumeStorage,
    EnhancedXAImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from imaging.dicom.dicom_object import open_object
from imaging.errors import DataFault
from imaging.formats.dicom import parent_uids, read_dicom
from imaging.image.window import Window
from imaging.preprocess.slice import prepare
from imaging.preprocess.spec import PreprocessSpec
from tests.dicom_objects import dataset, fault, file_bytes, images, made, ramp

FRAMES = ramp((3, 16, 16), np.uint16)
CLASSES = {
    "CT": EnhancedCTImageStorage,
    "MR": EnhancedMRImageStorage,
    "US": EnhancedUSVolumeStorage,
    "XA": EnhancedXAImageStorage,
}


def group(**macros: dict[str, Any]) -> Dataset:
    """Return functional groups: each macro by its sequence's keyword and what its item says."""
    made = Dataset()
    for keyword, attributes in macros.items():
        item = Dataset()
        for name, value in attributes.items():
            setattr(item, name, value)
        setattr(made, keyword, Sequence([item]))
    return made


def rescale(slope: float, intercept: float) -> dict[str, Any]:
    return {"RescaleSlope": slope, "RescaleIntercept": intercept, "RescaleType": "US"}


def enhanced(modality: str = "CT", **changes: Any) -> Dataset:
    """Return three frames: the scale of the first is its own, that of the others is shared; each has its window."""
    own = [
        group(
            FrameVOILUTSequence={"WindowCenter": 100 * n, "WindowWidth": 50 + n},
            PlanePositionSequence={"ImagePositionPatient": [0, 0, 2.5 * n]},
        )
        for n in range(3)
    ]
    scaled = group(PixelValueTransformationSequence=rescale(5, 6))
    own[0].PixelValueTransformationSequence = scaled.PixelValueTransformationSequence
    shared = group(
        PixelValueTransformationSequence=rescale(2, -3),
        PixelMeasuresSequence={"PixelSpacing": [0.5, 0.5], "SliceThickness": 2.5},
        PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
    )
    return dataset(
        FRAMES,
        SOPClassUID=CLASSES[modality],
        Modality=modality,
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(own),
        **changes,
    )


@pytest.mark.parametrize("modality", CLASSES)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_each_frame_of_an_enhanced_object_has_its_own_scale_and_window(modality: str, syntax: str) -> None:
    result = images(file_bytes(enhanced(modality), syntax), modality)
    assert [(one.slope, one.intercept) for one in result] == [(5, 6), (2, -3), (2, -3)]
    assert [one.vois for one in result] == [(Window(center=100 * n, width=50 + n),) for n in range(3)]
    assert [one.spacing_mm for one in result] == [(0.5, 0.5)] * 3
    for n, one in enumerate(result):
        np.testing.assert_array_equal(one.values, FRAMES[n] * one.slope + one.intercept)


def test_a_compressed_enhanced_object_is_read_the_same() -> None:
    plain = file_bytes(enhanced())
    packed = dcmread(BytesIO(plain))
    packed.compress(RLELossless)
    for one_frame, other in zip(images(plain), images(file_bytes(packed, RLELossless)), strict=True):
        np.testing.assert_array_equal(one_frame.values, other.values)
        assert one_frame.vois == other.vois


def test_the_position_of_each_frame_is_its_own() -> None:
    one = open_object(file_bytes(enhanced()))
    assert [one.frame_attributes(n)["ImagePositionPatient"] for n in range(3)] == [
        (0.0, 0.0, 0.0),
        (0.0, 0.0, 2.5),
        (0.0, 0.0, 5.0),
    ]


def test_what_stands_at_the_top_is_weaker_than_the_groups() -> None:
    result = images(file_bytes(enhanced(RescaleSlope=99, RescaleIntercept=99)))
    assert [one.slope for one in result] == [5, 2, 2]


def test_private_groups_do_not_change_the_pixels() -> None:
    one = enhanced()
    private = Dataset()
    private.RescaleSlope = 77
    private.VOILUTSequence = Sequence([])
    for own in one.PerFrameFunctionalGroupsSequence:
        own.private_block(0x2005, "SCANNER", create=True).add_new(0x0F, "SQ", Sequence([private]))
    assert [result.slope for result in images(file_bytes(one))] == [5, 2, 2]


def test_a_table_in_a_frames_group_is_that_frames() -> None:
    one = enhanced()
    lut = Dataset()
    lut.LUTDescriptor = [2, 0, 16]
    lut.LUTData = np.array([0, 65535], "<u2").tobytes()
    one.PerFrameFunctionalGroupsSequence[1].FrameVOILUTSequence[0].VOILUTSequence = Sequence([lut])
    assert [len(result.vois) for result in images(file_bytes(one))] == [1, 2, 1]


def test_groups_for_fewer_frames_than_there_are_are_a_fault() -> None:
    # PS3.3 C.7.6.16: one item for each frame. Without its item a frame had the shared slope, 2 and not 5.
    one = enhanced()
    one.PerFrameFunctionalGroupsSequence = one.PerFrameFunctionalGroupsSequence[:1]
    assert fault(file_bytes(one)).reason == "truncated"


def test_frames_count_from_one_and_a_single_image_is_none() -> None:
    assert [one.frame for one in read_dicom(made(FRAMES), "CT")] == [1, 2, 3]
    assert [one.frame for one in read_dicom(made(FRAMES[0]), "CT")] == [0]
    assert [one.frame for one in read_dicom(made(FRAMES[0], NumberOfFrames=1), "CT")] == [0]


def test_an_instance_carries_its_identifiers() -> None:
    data = made(FRAMES[0])
    (one,) = read_dicom(data, "CT")
    assert (one.patient_id, one.study_uid, one.series_uid, one.sop_instance_uid) == (
        "P",
        "1.2",
        "1.2.3",
        "1.2.3.4",
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PatientID": None}, "missing-identifier"),
        ({"StudyInstanceUID": None}, "missing-identifier"),
        ({"StudyInstanceUID": "1.2/../3"}, "missing-identifier"),
        ({"SeriesInstanceUID": "1" * 65}, "missing-identifier"),
        ({"Modality": "MR"}, "wrong-modality"),
        ({"PixelData": None}, "no-pixels"),
        ({"PhotometricInterpretation": "CMYK"}, "unsupported"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_each_object_that_is_no_image_has_its_reason(changes: dict[str, Any], reason: str) -> None:
    one = dataset(FRAMES[0])
    for keyword, value in changes.items():
        one.pop(keyword, None)
        if value is not None:
            setattr(one, keyword, value)
    data = file_bytes(one)
    assert fault(data).reason == reason


@pytest.mark.parametrize(
    "data",
    [made(FRAMES[0]), made(FRAMES[0], ImplicitVRLittleEndian), made(FRAMES[0])[:700], made(FRAMES[0])[132:]],
)
def test_the_rest_of_a_file_gives_its_series(data: bytes) -> None:
    assert parent_uids(data) == {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3"}


@pytest.mark.parametrize("data", [b"", b"Dear colleague", bytes(5000), made(FRAMES[0])[:200]])
def test_bytes_without_a_series_give_none(data: bytes) -> None:
    assert parent_uids(data) == {}


@pytest.mark.slow
def test_a_deflated_bomb_is_not_inflated_for_its_identifiers() -> None:
    head = made(FRAMES[0], DeflatedExplicitVRLittleEndian)
    (meta_bytes,) = struct.unpack_from("<I", head, 140)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = head[: 144 + meta_bytes] + deflater.compress(bytes(2**29)) + deflater.flush()
    assert len(bomb) < 2**20
    tracemalloc.start()
    assert parent_uids(bomb) == {}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def seeds() -> list[bytes]:
    tables: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in ("Red", "Green", "Blue"):
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 8]
        tables[f"{name}PaletteColorLookupTableData"] = bytes([1, 2, 3, 4])
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [2, 0, 16], np.array([0, 65535], "<u2").tobytes()
    lut.ModalityLUTType = "US"
    floats = {"PixelData": None, "FloatPixelData": np.ones((4, 4), np.float32).tobytes(), "BitsStored": None}
    return [
        file_bytes(enhanced()),
        file_bytes(enhanced(), ImplicitVRLittleEndian),
        made(ramp((4, 4), np.uint8), **tables),
        made(ramp((4, 4)), ModalityLUTSequence=Sequence([lut]), VOILUTSequence=Sequence([lut])),
        made(np.ones((4, 4), np.float32), **floats),
        made(ramp((4, 4)), ExplicitVRBigEndian),
        made(ramp((4, 4)), DeflatedExplicitVRLittleEndian),
        made(np.zeros((2, 4, 4, 3), np.uint8), PhotometricInterpretation="YBR_FULL"),
    ]


SEEDS = seeds()
SPEC = PreprocessSpec(window="file", size_px=16)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")  # what pydicom warns of quotes values
@settings(max_examples=500)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_any_bytes_changed_give_prepared_images_or_a_fault(
    seed: bytes, changes: list[tuple[float, int]]
) -> None:
    data = bytearray(seed)
    for at, value in changes:
        data[132 + int(at * (len(data) - 132))] = value
    try:
        for one in read_dicom(bytes(data), "CT"):
            assert prepare(one.image, SPEC).shape == (16, 16)
    except DataFault as result:
        assert result.reason


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_each_seed_is_read_whole(seed: int) -> None:
    assert images(SEEDS[seed])


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_each_seed_cut_anywhere_is_whole_or_refused(seed: int) -> None:
    whole = [one.values for one in images(SEEDS[seed])]
    for end in range(132, len(SEEDS[seed]), 3):
        try:
            result = [one.values for one in images(SEEDS[seed][:end])]
        except DataFault:
            continue
        np.testing.assert_array_equal(result, whole)


def test_slices_of_a_series_keep_what_is_their_own() -> None:
    attributes = {
        "RescaleIntercept": -1024,
        "WindowCenter": 40,
        "WindowWidth": 400,
        "InstitutionName": "Harbour",
    }
    changes: list[dict[str, Any]] = [
        {"SOPInstanceUID": "1.9.1", "ImagePositionPatient": [0, 0, 1]},
        {"SOPInstanceUID": "1.9.2", "WindowCenter": 300},
        {"SOPInstanceUID": "1.9.3", "RescaleIntercept": 0},
        {"SOPInstanceUID": "1.9.4", "PatientID": "Q"},
        {"SOPInstanceUID": "1.9.5", "PhotometricInterpretation": "MONOCHROME1"},
        {"SOPInstanceUID": "1.9.6", "PixelPaddingValue": 0},
        {"SOPInstanceUID": "1.9.7", "PixelSpacing": [2, 1]},
    ]
    files = [made(FRAMES[0] + n, **attributes | one) for n, one in enumerate(changes)]
    for _ in range(2):
        result = [one for data in files for one in read_dicom(data, "CT")]
        assert [one.sop_instance_uid for one in result] == [one["SOPInstanceUID"] for one in changes]
        assert [one.patient_id for one in result] == ["P", "P", "P", "Q", "P", "P", "P"]
        assert [one.image.intercept for one in result] == [-1024, -1024, 0, -1024, -1024, -1024, -1024]
        assert [one.image.vois[0] for one in result][:2] == [Window(center=c, width=400) for c in (40, 300)]
        assert [one.image.inverted for one in result] == [False] * 4 + [True, False, False]
        assert [one.image.padding for one in result] == [None] * 5 + [(0, 0), None]
        assert [one.image.spacing_mm for one in result] == [None] * 6 + [(2, 1)]
        assert {one.institution for one in result} == {"Harbour"}
        for n, one in enumerate(result):
            np.testing.assert_array_equal(one.image.stored, FRAMES[0] + n)


def test_a_slice_without_its_uid_is_refused_after_others_of_its_series() -> None:
    assert len(list(read_dicom(made(FRAMES[0]), "CT"))) == 1
    assert fault(made(FRAMES[0], SOPInstanceUID="1.x")).reason == "missing-identifier"


def test_a_bad_header_is_refused_each_time() -> None:
    for _ in range(2):
        assert fault(made(FRAMES[0], Modality="MR")).reason == "wrong-modality"
