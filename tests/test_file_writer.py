"""The bytes of a de-identified file."""

from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, JPEGLSLossless

from imaging.deidentify.objects.file_writer import write_object
from imaging.deidentify.objects.scrub import scrub
from imaging.deidentify.options import DeidentifyOptions
from imaging.dicom.parse import parse
from tests.codestreams import DEEP, LOSSLESS
from tests.dicom_objects import NATIVE, compressed, dataset, file_bytes, ramp
from tests.planted_identifiers import plain
from tests.scrubbed_objects import KEY


def written_by_pydicom(data: bytes) -> bytes:
    """Return the same file as pydicom alone writes it."""
    made = scrub(parse(data), DeidentifyOptions(), KEY)
    made.file_meta = pydicom.dcmread(BytesIO(write_object(made))).file_meta
    made.preamble = bytes(128)
    buffer = BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def written(data: bytes) -> bytes:
    return write_object(scrub(parse(data), DeidentifyOptions(), KEY))


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda uid: UID(uid).name)
def test_native_pixels_are_written_as_pydicom_writes_them(syntax: str) -> None:
    data = file_bytes(dataset(ramp((8, 8), np.uint16)), syntax)
    assert written(data) == written_by_pydicom(data)


def test_compressed_pixels_are_written_as_pydicom_writes_them() -> None:
    data = compressed([LOSSLESS[JPEGLSLossless](DEEP, 16)], DEEP, JPEGLSLossless)
    assert written(data) == written_by_pydicom(data)


def test_an_object_without_pixels_is_written() -> None:
    data = file_bytes(dataset(ramp((8, 8), np.uint16), PixelData=None))
    assert "PixelData" not in parse(written(data))


def test_bytes_of_odd_length_are_padded() -> None:
    data = file_bytes(dataset(ramp((3, 3), np.uint8)))
    after = parse(written(data))
    assert (len(after.PixelData), after.PixelData[-1]) == (10, 0)


def test_nothing_lies_behind_the_last_element() -> None:
    made = dataset(ramp((8, 8), np.uint16))
    made.add_new(0xFFFCFFFC, "OB", b"Doe^Johanna 4711")
    assert written(file_bytes(made)).endswith(made.PixelData)


def test_a_deflated_file_is_deflated_again() -> None:
    data = written(file_bytes(dataset(ramp((8, 8), np.uint16)), DeflatedExplicitVRLittleEndian))
    assert plain(data) != data
    assert parse(data).Rows == 8
