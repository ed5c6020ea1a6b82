"""Strict walk: it reads the same values as pydicom, and leaves unusual files to it."""

import gzip
import struct
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    RLELossless,
)

from imaging.dicom.attributes import of_dataset
from imaging.dicom.dicom_object import DicomObject, _by_pydicom, open_object
from imaging.dicom.limits import LIMITS
from imaging.dicom.pixel_length import check_present
from imaging.dicom.pixels import layout_of, stored_frame
from imaging.dicom.walk import walk
from imaging.errors import DataFault
from tests.dicom_objects import (
    UNDEFINED,
    compressed,
    corpus,
    dataset,
    element,
    fault,
    file_bytes,
    image,
    insert,
    item,
    made,
    nested,
    ramp,
    stored_frames,
)
from tests.requirements import DATA

LOSSY_JPEG = (JPEGBaseline8Bit, JPEGExtended12Bit)
SMALL = ramp((4, 4))


def content(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" and data[:2] == b"\x1f\x8b" else data


def frames(one: DicomObject) -> list[Any]:
    """Return the bits of each frame, or the reason why there are none."""
    result: list[Any] = []
    try:
        layout = layout_of(one.attributes)
        check_present(one, layout)
        for index in range(layout.frames):
            stored = stored_frame(one, layout, index)
            result.append((stored.dtype.str, stored.shape, stored.tobytes()))
    except DataFault as fault:
        result.append(fault.reason)
    return result


def seen(opener: Callable[[bytes], DicomObject], data: bytes) -> Any:
    """Return all that can be read from an opened object, or why it cannot be opened."""
    try:
        one = opener(data)
    except DataFault as fault:
        return fault.reason
    return one.syntax, dict(one.attributes), frames(one)


@pytest.mark.slow
def test_both_ways_give_the_same_bits_of_every_file() -> None:
    differ = [
        path.name for path in corpus() if seen(open_object, content(path)) != seen(_by_pydicom, content(path))
    ]
    assert differ == []


def test_the_walk_takes_most_files() -> None:
    ways: Counter[str] = Counter()
    for path in corpus():
        data = content(path)
        if data[128:132] != b"DICM":
            continue
        try:
            walked = walk(data)
        except DataFault:
            continue
        ways["pydicom" if walked is None else "walk" if walked.simple else "both"] += 1
    assert ways["walk"] > 0.85 * ways.total()
    assert ways["both"] >= 5
    assert ways["pydicom"] >= 5


def decodable(data: bytes) -> Dataset | None:
    """Return a grey data set that pydicom alone can decode."""
    try:
        one = dcmread(BytesIO(data))
        if "PixelData" not in one or one.get("SamplesPerPixel") != 1:
            return None
        one.pixel_array  # noqa: B018
    except Exception:
        return None
    return one


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_bits_equal_pydicoms_own_pixel_array() -> None:
    compared = 0
    for path in corpus():
        data = content(path)
        one = decodable(data)
        if one is None:
            continue
        expected = one.pixel_array[None] if one.pixel_array.ndim < 3 else one.pixel_array
        # Of lossy JPEG two decoders may differ by one, for cosines are rounded (ITU-T T.83).
        allowed = 1 if one.file_meta.TransferSyntaxUID in LOSSY_JPEG else 0
        for index, stored in enumerate(stored_frames(data)):
            np.testing.assert_allclose(
                stored.astype(np.float64), expected[index], 0, allowed, err_msg=path.name
            )
        compared += 1
    assert compared > (170 if DATA.is_dir() else 70)


def test_zeros_behind_a_file_are_padding() -> None:
    without = file_bytes(dataset(SMALL, PixelData=None))
    assert walk(without + bytes(100_000)) is not None
    np.testing.assert_array_equal(image(made(SMALL) + bytes(513)).stored, SMALL)


@settings(max_examples=20)
@given(st.binary(min_size=128, max_size=128))
def test_the_preamble_is_ignored(preamble: bytes) -> None:
    np.testing.assert_array_equal(image(preamble + made(SMALL)[128:]).stored, SMALL)


def test_a_file_that_is_a_tiff_file_too_is_read_as_dicom() -> None:
    preamble = (b"II*\0" + struct.pack("<I", 0x80)).ljust(128, b"\0")
    np.testing.assert_array_equal(image(preamble + made(SMALL)[128:]).stored, SMALL)


def test_a_value_of_odd_length_is_read() -> None:
    data = insert(made(SMALL), element(0x00180015, b"CS", b"CHEST"), 0x00280002)
    assert open_object(data).attributes["BodyPartExamined"] == "CHEST"
    np.testing.assert_array_equal(image(data).stored, SMALL)


def test_tags_out_of_order_are_for_pydicom() -> None:
    data = insert(made(SMALL), element(0x00080060, b"CS", b"CT"), 0x00280010)
    assert walk(data) is None
    np.testing.assert_array_equal(image(data).stored, SMALL)


@pytest.mark.parametrize(("depth", "reason"), [(31, ""), (32, ""), (33, "too-deep"), (1000, "too-deep")])
def test_sequences_may_lie_in_one_another_up_to_a_limit(depth: int, reason: str) -> None:
    data = insert(made(SMALL), nested(depth), 0x00100020)
    if reason:
        assert fault(data).reason == reason
    else:
        np.testing.assert_array_equal(image(data).stored, SMALL)


def test_the_depth_is_counted_where_pydicom_reads_too() -> None:
    # The second tag is out of order, so that the walk hands over.
    data = insert(insert(made(SMALL), nested(33), 0x00100020), element(0x00080060, b"CS", b"CT"), 0x00280010)
    assert fault(data).reason == "too-deep"


def test_elements_are_counted_in_the_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging.dicom.walk.LIMITS", type(LIMITS)(elements=5))
    assert fault(made(SMALL)).reason == "too-many-elements"


def test_a_million_elements_in_a_sequence_are_refused() -> None:
    many = item(element(0x00080100, b"SH", b"")) * (LIMITS.elements // 3 + 1)
    sequence = element(0x00081111, b"SQ", many, UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    assert fault(insert(made(SMALL), sequence, 0x00100020)).reason == "too-many-elements"


def test_a_million_fragments_are_refused() -> None:
    value = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * (LIMITS.elements + 1)
    assert fault(compressed([], SMALL, RLELossless, value)).reason == "too-many-elements"


def test_a_head_gives_the_place_of_the_pixels() -> None:
    data = made(ramp((128, 128)))
    walked = walk(data[:1000], len(data))
    assert walked is not None
    assert walked.pixels == ((len(data) - 2 * 128**2, 2 * 128**2),)


def test_a_head_that_ends_before_the_pixels_is_not_enough() -> None:
    data = made(ramp((128, 128)))
    walked = walk(data)
    assert walked is not None
    assert all(walk(data[:end], len(data)) is None for end in range(132, walked.header_end, 7))


def test_a_head_knows_that_the_file_is_too_short() -> None:
    data = made(ramp((128, 128)))
    with pytest.raises(DataFault) as caught:
        walk(data[:1000], len(data) - 1)
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize(("tag", "before"), [(0x00100020, 0x0020000D), (0x00180050, 0x0020000D)])
def test_a_wanted_value_of_undefined_length_is_not_taken_from_what_follows(tag: int, before: int) -> None:
    value = struct.pack("<HHI", tag >> 16, tag & 0xFFFF, UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    assert walk(insert(made(SMALL, ImplicitVRLittleEndian, PatientID=None), value, before)) is None


def test_a_patient_in_japanese_is_left_to_pydicom() -> None:
    one = dataset(SMALL, SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientID="山田")
    data = file_bytes(one)
    assert b"\x1b" in data
    assert open_object(data).attributes["PatientID"] == "山田"


def test_zero_is_a_number() -> None:
    data = made(SMALL, DiffusionBValue=0.0, TriggerTime="0", PixelPaddingValue=0)
    attributes = open_object(data).attributes
    assert (
        attributes["DiffusionBValue"]
        == attributes["TriggerTime"]
        == attributes["PixelPaddingValue"]
        == (0.0,)
    )


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192"])
def test_an_institution_in_any_character_set_is_walked_over_and_read_as_pydicom_path_reads_it(
    charset: str,
) -> None:
    data = made(
        ramp((4, 4)), SpecificCharacterSet=charset, InstitutionName="Universitätsklinikum Süd", PatientID="P1"
    )
    walked = walk(data)
    assert walked is not None
    read = of_dataset(dcmread(BytesIO(data)))
    assert walked.attributes["InstitutionName"] == read["InstitutionName"] != ""
