"""Parsing by pydicom: a whole file becomes a data set, any other has its reason."""

import logging
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from imaging.dicom.limits import LIMITS
from imaging.dicom.parse import FREE_RATIO_BYTES, MAGIC_AT, parse
from imaging.errors import DataFault
from tests.synthetic import write_dicom

META_AT = MAGIC_AT + 4


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    return write_dicom(tmp_path / "whole", PatientName="DOE^JANE").read_bytes()


def fault_of(data: bytes) -> DataFault:
    with pytest.raises(DataFault) as caught:
        parse(data)
    return caught.value


def without_meta(data: bytes) -> bytes:
    """Return the data set alone, as some archives export it."""
    length = struct.unpack_from("<I", data, META_AT + 8)[0]
    return data[META_AT + 12 + length :]


def recoded(data: bytes, syntax: str) -> bytes:
    """Return the same data set in another transfer syntax without compression of the pixels."""
    dataset, buffer = dcmread(BytesIO(data)), BytesIO()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.save_as(
        buffer, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True
    )
    return buffer.getvalue()


def elements(*parts: tuple[int, int, bytes, bytes]) -> bytes:
    """Return explicit little-endian elements with short lengths, without any check."""
    return b"".join(
        struct.pack("<HH2sH", group, number, vr, len(value)) + value for group, number, vr, value in parts
    )


def test_a_file_with_a_preamble_is_read(whole: bytes) -> None:
    assert parse(whole).PatientID == "P"


def test_a_file_without_the_magic_word_is_read(whole: bytes) -> None:
    assert parse(whole[META_AT:]).PatientID == "P"


def test_a_data_set_without_its_file_meta_is_read(whole: bytes) -> None:
    assert parse(without_meta(whole)).PatientID == "P"


def test_an_implicit_data_set_without_its_file_meta_is_read(whole: bytes) -> None:
    assert parse(without_meta(recoded(whole, ImplicitVRLittleEndian))).PatientID == "P"


def test_a_deflated_file_is_read(whole: bytes) -> None:
    assert parse(recoded(whole, DeflatedExplicitVRLittleEndian)).PatientID == "P"


def test_the_transfer_syntax_is_that_of_the_file(whole: bytes) -> None:
    assert parse(whole).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_a_transfer_syntax_is_named_where_the_file_has_none(whole: bytes) -> None:
    assert parse(without_meta(whole)).file_meta.TransferSyntaxUID.is_transfer_syntax


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"DICM",
        b"Dear colleague",
        bytes(4096),
        b"\x89PNG\r\n\x1a\n" + bytes(500),
        b"SOPInstanceUID,label\n" * 90,
    ],
    ids=["empty", "magic at the start", "text", "zeros", "picture", "table"],
)
def test_other_files_are_no_dicom(data: bytes) -> None:
    assert fault_of(data).reason == "not-dicom"


def test_a_directory_is_recognised_by_its_class(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "x", SOPClassUID=MediaStorageDirectoryStorage)
    assert fault_of(path.read_bytes()).reason == "dicomdir"


def test_a_value_that_overruns_the_file_gives_the_lengths(whole: bytes) -> None:
    assert fault_of(whole[:-100]).detail == "(7FE0,0010) has 8192 bytes, 8092 are left"


def test_a_cut_inside_a_sequence_of_unknown_length_is_truncation(tmp_path: Path) -> None:
    item = Dataset()
    item.CodeMeaning = "x" * 60
    path = write_dicom(tmp_path / "x", PixelData=None, ProcedureCodeSequence=Sequence([item]))
    dataset = dcmread(path)
    dataset["ProcedureCodeSequence"].is_undefined_length = True
    dataset.save_as(path)
    at = path.read_bytes().index(b"xxxx")
    assert fault_of(path.read_bytes()[: at + 10]).reason == "truncated"


def test_encapsulated_pixels_without_their_end_are_truncated(tmp_path: Path) -> None:
    dataset = dcmread(write_dicom(tmp_path / "x"))
    dataset.compress("1.2.840.10008.1.2.5")
    dataset.save_as(tmp_path / "x")
    assert fault_of((tmp_path / "x").read_bytes()[:-8]).reason == "truncated"


def test_a_cut_in_the_file_meta_is_truncation(whole: bytes) -> None:
    assert fault_of(whole[: META_AT + 40]).reason == "truncated"


def test_a_cut_in_the_deflated_data_is_truncation(whole: bytes) -> None:
    assert "deflated data set ends" in fault_of(recoded(whole, DeflatedExplicitVRLittleEndian)[:-30]).detail


def test_deflated_data_that_are_broken_are_unreadable(whole: bytes) -> None:
    data = bytearray(recoded(whole, DeflatedExplicitVRLittleEndian))
    meta_length = struct.unpack_from("<I", data, META_AT + 8)[0]
    data[META_AT + 12 + meta_length] |= 0b110  # a block type that does not exist
    assert fault_of(bytes(data)).reason == "unreadable"


def deflated(whole: bytes, plain: bytes) -> bytes:
    """Return the file with this in place of its data set, deflated."""
    data = recoded(whole, DeflatedExplicitVRLittleEndian)
    length = struct.unpack_from("<I", data, META_AT + 8)[0]
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return data[: META_AT + 12 + length] + deflater.compress(plain) + deflater.flush()


def test_deflated_data_are_inflated_up_to_a_size(whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging.dicom.parse.LIMITS", replace(LIMITS, inflated_bytes=1000))
    fault = fault_of(recoded(whole, DeflatedExplicitVRLittleEndian))
    assert (fault.reason, fault.detail.partition("become ")[2]) == ("inflate-bomb", "more than 1000")


def test_deflated_data_are_inflated_up_to_a_ratio(whole: bytes) -> None:
    fault = fault_of(deflated(whole, bytes(2**28)))
    inflated, limit = (int(word) for word in fault.detail.split() if word.isdigit())
    assert fault.reason == "inflate-bomb"
    assert limit == inflated * LIMITS.inflate_ratio < LIMITS.inflated_bytes


def test_a_deflated_bomb_does_not_fill_the_memory(whole: bytes) -> None:
    bomb = deflated(whole, bytes(2**27))
    tracemalloc.start()
    assert fault_of(bomb).reason == "inflate-bomb"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * max(len(bomb), FREE_RATIO_BYTES) * LIMITS.inflate_ratio


def test_a_thousand_nested_sequences_are_refused(tmp_path: Path) -> None:
    header = struct.pack("<HH2sHI", 0x0008, 0x1111, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ends = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    meta = elements((2, 0x10, b"UI", b"1.2.840.10008.1.2.1\0"))
    data = bytes(MAGIC_AT) + b"DICM" + meta + (header + item) * 1000 + ends * 1000
    # pydicom reads a sequence's items lazily or at once; neither may end in a crash.
    assert fault_of(data).reason == "too-deep"


def test_a_fault_has_the_class_of_an_error_and_not_its_text(
    monkeypatch: pytest.MonkeyPatch, whole: bytes
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("DOE^JANE")

    monkeypatch.setattr("imaging.dicom.parse.read_dataset", fail)
    assert fault_of(whole).args == ("unreadable", "the data set cannot be read (ValueError)")


def test_the_cause_of_a_fault_is_not_chained(monkeypatch: pytest.MonkeyPatch, whole: bytes) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("DOE^JANE")

    monkeypatch.setattr("imaging.dicom.parse.read_dataset", fail)
    assert fault_of(whole).__suppress_context__


def loud(*_: object, **__: object) -> Dataset:
    for name in ("pydicom", "pydicom.pixels.utils"):
        logging.getLogger(name).error("DOE^JANE")
    warnings.warn("DOE^JANE", stacklevel=1)
    dataset = FileMetaDataset()
    dataset.MediaStorageSOPInstanceUID = UID("1.2")
    return dataset


def test_what_pydicom_logs_is_kept_back(
    monkeypatch: pytest.MonkeyPatch, whole: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("imaging.dicom.parse.read_dataset", loud)
    parse(whole)
    assert not caplog.records


def test_what_pydicom_warns_of_is_kept_back(
    monkeypatch: pytest.MonkeyPatch, whole: bytes, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr("imaging.dicom.parse.read_dataset", loud)
    parse(whole)
    assert not list(recwarn)


def test_pydicom_may_speak_again_afterwards(whole: bytes) -> None:
    logger = logging.getLogger("pydicom")
    before = (logger.level, logger.handlers, logger.propagate)
    fault_of(whole[:-100])
    assert (logger.level, logger.handlers, logger.propagate) == before


def read_or_fault(data: bytes) -> None:
    """Parse; anything but a data set or a DataFault fails the test."""
    try:
        parse(data)
    except DataFault as fault:
        assert fault.reason in {
            "not-dicom",
            "dicomdir",
            "truncated",
            "unreadable",
            "inflate-bomb",
            "too-deep",
            # As where a length is changed so that elements come to lie behind the pixel data.
            "surplus-data",
        }


@given(st.binary(max_size=400))
def test_any_bytes_behind_the_magic_word_are_read_or_refused(data: bytes) -> None:
    read_or_fault(bytes(MAGIC_AT) + b"DICM" + data)


@pytest.fixture(scope="module")
def mutate(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[tuple[int, int]]], bytes]:
    data = write_dicom(tmp_path_factory.mktemp("mutate") / "x", PatientName="DOE^JANE").read_bytes()

    def change(bytes_at: list[tuple[int, int]]) -> bytes:
        changed = bytearray(data)
        for at, value in bytes_at:
            changed[at] = value
        return bytes(changed)

    return change


@given(st.lists(st.tuples(st.integers(META_AT, 700), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_header_with_any_bytes_changed_is_read_or_refused(
    mutate: Callable[[list[tuple[int, int]]], bytes], changes: list[tuple[int, int]]
) -> None:
    read_or_fault(mutate(changes))
