"""The strict walk reads what pydicom reads, bit by bit, and leaves to it whatever it does not know."""

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
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    RLELossless,
)

from imaging.dicom.limits import LIMITS
from imaging.dicom.opened import Opened, _by_pydicom, open_object
from imaging.dicom.pixels import check_present, layout_of, stored_frame
from imaging.dicom.walk import walk
from imaging.errors import DataFault
from imaging.formats.dicom import read_dicom
from tests.dicom_objects import (
    NATIVE,
    PREAMBLE,
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
    meta,
    nested,
    ramp,
    stored_frames,
)

LOSSY_JPEG = (JPEGBaseline8Bit, JPEGExtended12Bit)
SMALL = ramp((4, 4))


def content(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" and data[:2] == b"\x1f\x8b" else data


def frames(one: Opened) -> list[Any]:
    """Return the bits of each frame, or the reason why there are none."""
    found: list[Any] = []
    try:
        layout = layout_of(one.attributes)
        check_present(one, layout)
        for index in range(layout.frames):
            stored = stored_frame(one, layout, index)
            found.append((stored.dtype.str, stored.shape, stored.tobytes()))
    except DataFault as fault:
        found.append(fault.reason)
    return found


def seen(opener: Callable[[bytes], Opened], data: bytes) -> Any:
    """Return all that an opened object tells, or why it cannot be opened."""
    try:
        one = opener(data)
    except DataFault as fault:
        return fault.reason
    return one.syntax, dict(one.attributes), frames(one)


def test_both_ways_give_the_same_bits_of_every_file(data_dir: Path) -> None:
    differ = [
        path.name
        for path in corpus(data_dir)
        if seen(open_object, content(path)) != seen(_by_pydicom, content(path))
    ]
    assert differ == []


def test_the_walk_takes_most_files(data_dir: Path) -> None:
    ways: Counter[str] = Counter()
    for path in corpus(data_dir):
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


@pytest.mark.filterwarnings("ignore")
def test_the_bits_are_those_of_pydicoms_own_pixel_array(data_dir: Path) -> None:
    compared = 0
    for path in corpus(data_dir):
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
    assert compared > 100


def sequences() -> dict[str, Any]:
    """Return sequences of undefined and of defined length that come before the pixels."""
    inner = Dataset()
    inner.CodeMeaning = "x" * 6
    outer = Dataset()
    outer.PurposeOfReferenceCodeSequence = Sequence([inner])
    return {"ReferencedImageSequence": Sequence([outer]), "ProcedureCodeSequence": Sequence([inner])}


def small(kind: str) -> bytes:
    one = dataset(SMALL, **sequences())
    one["ReferencedImageSequence"].is_undefined_length = True
    one.ReferencedImageSequence[0].is_undefined_length_sequence_item = True
    if kind == "rle":
        one.file_meta = dcmread(BytesIO(file_bytes(one))).file_meta
        one.compress(RLELossless)
        return file_bytes(one, RLELossless)
    return file_bytes(one, {"explicit": ExplicitVRLittleEndian, "implicit": ImplicitVRLittleEndian}[kind])


@pytest.mark.parametrize("kind", ["explicit", "implicit", "rle"])
def test_a_file_cut_at_any_byte_is_whole_or_refused(kind: str) -> None:
    data = small(kind)
    np.testing.assert_array_equal(image(data).stored, SMALL)
    for end in range(len(data)):
        # Only a cut in the delimiter behind the last fragment could leave the pixels whole, and is refused too.
        assert fault(data[:end]).reason in {"truncated", "not-dicom", "missing-identifier", "no-pixels"}, end


@pytest.mark.parametrize("kind", ["explicit", "implicit", "rle"])
def test_a_file_cut_behind_its_pixels_is_read(kind: str) -> None:
    data = small(kind)
    behind = element(0xFFFCFFFC, b"OB", bytes(40))
    for end in range(len(behind)):
        np.testing.assert_array_equal(image(data + behind[:end]).stored, SMALL)


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


@pytest.mark.parametrize("length", [2**16, 2**31, UNDEFINED - 1])
def test_a_huge_length_is_truncation(length: int) -> None:
    data = insert(made(SMALL), element(0x00091001, b"OB", b"", length), 0x00280002)
    assert fault(data).reason == "truncated"


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


def test_a_head_says_where_the_pixels_begin() -> None:
    data = made(ramp((128, 128)))
    walked = walk(data[:1000], len(data))
    assert walked is not None
    assert walked.pixels == ((len(data) - 2 * 128**2, 2 * 128**2),)


def test_a_head_that_ends_before_the_pixels_says_nothing() -> None:
    data = made(ramp((128, 128)))
    walked = walk(data)
    assert walked is not None
    assert all(walk(data[:end], len(data)) is None for end in range(132, walked.header_end, 7))


def test_a_head_knows_that_the_file_is_too_short() -> None:
    data = made(ramp((128, 128)))
    with pytest.raises(DataFault) as caught:
        walk(data[:1000], len(data) - 1)
    assert caught.value.reason == "truncated"


def test_pixels_of_a_compressed_syntax_are_not_read_as_they_lie() -> None:
    data = made(SMALL).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0")
    assert fault(data).reason == "undecodable"


def test_fragments_of_a_native_syntax_are_not_read_as_they_lie() -> None:
    data = compressed([bytes(300)], SMALL, RLELossless)
    assert fault(data.replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.1\0")).reason == "undecodable"


def test_a_private_syntax_is_not_guessed() -> None:
    data = made(SMALL).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.113619.5.2\0\0")
    assert fault(data).reason == "undecodable"


def test_a_wanted_value_of_undefined_length_is_not_taken_from_what_follows() -> None:
    data = insert(made(SMALL, ImplicitVRLittleEndian), struct.pack("<HHI", 0x10, 0x10, UNDEFINED), 0x00100020)
    patient = struct.pack("<HHI", 0x10, 0x20, UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    assert walk(insert(made(SMALL, ImplicitVRLittleEndian), patient, 0x00100020)) is None
    assert fault(data).reason in {"truncated", "unreadable", "missing-identifier"}


def test_a_patient_in_japanese_is_left_to_pydicom() -> None:
    one = dataset(SMALL, SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientID="山田")
    data = file_bytes(one)
    assert b"\x1b" in data
    assert open_object(data).attributes["PatientID"] == "山田"


def test_zero_is_a_number() -> None:
    data = made(SMALL, DiffusionBValue=0.0, TriggerTime="0", PixelPaddingValue=0)
    told = open_object(data).attributes
    assert told["DiffusionBValue"] == told["TriggerTime"] == told["PixelPaddingValue"] == (0.0,)


def mutated(data: bytes, changes: list[tuple[float, int]]) -> bytes:
    changed = bytearray(data)
    for at, value in changes:
        changed[132 + int(at * (len(data) - 132))] = value
    return bytes(changed)


@pytest.mark.filterwarnings("error")  # what pydicom warns of quotes values
@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["explicit", "implicit", "rle"]),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_any_bytes_changed_give_images_or_a_fault(kind: str, changes: list[tuple[float, int]]) -> None:
    data = mutated(small(kind), changes)
    for modality in ("CT", ""):
        try:
            for one in read_dicom(data, modality):
                assert one.image.stored.ndim == 2
        except DataFault as found:
            assert found.reason


@pytest.mark.filterwarnings("error")  # what pydicom warns of quotes values
@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(NATIVE))
def test_any_bytes_behind_the_meta_give_images_or_a_fault(rest: bytes, syntax: str) -> None:
    for start in (PREAMBLE, meta(syntax)):
        try:
            list(read_dicom(start + rest, "CT"))
        except DataFault as found:
            assert found.reason
