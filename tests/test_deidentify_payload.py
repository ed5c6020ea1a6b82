"""What a worker of the sandbox answers to one file that is to be de-identified."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from blake3 import blake3
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.payload import FUNCTION, deidentify_payload
from imaging.dicom.parse import parse
from imaging.sandbox.pool import Item, Pool
from imaging.sandbox.worker_process import Answer
from tests.codestreams import LOSSLESS
from tests.dicom_objects import compressed, element, file_bytes, made, ramp
from tests.scrubbed_objects import KEY, slice_of

SETUP = {"options": DeidentifyOptions().model_dump_json(), "secret": KEY.secret.hex()}
VALUE = {"format": "dicom", "name": "Doe/one.dcm", "metadata": []}


def answer(content: bytes | Path, **value: Any) -> tuple[Any, list[bytes]]:
    reply, parts = deidentify_payload(SETUP, VALUE | value, (content,))
    return reply, [b"".join(parts)] if parts else []


@pytest.fixture(scope="module")
def smooth() -> bytes:
    """Return a file whose pixels nobody takes for text."""
    return file_bytes(slice_of(Rows=64, Columns=64, PixelData=ramp((64, 64), np.uint16).tobytes()))


def test_the_answer_has_the_new_identifiers_and_the_file(smooth: bytes) -> None:
    reply, (written,) = answer(smooth)
    made = parse(written)
    assert reply["patient"] == made.PatientID == KEY.patient_id("4711-42")
    assert reply["study"] == made.StudyInstanceUID == KEY.uid("1.2")
    assert reply["series"] == made.SeriesInstanceUID == KEY.uid("1.2.3")
    assert reply["instance"] == made.SOPInstanceUID == KEY.uid("1.2.3.4")
    assert reply["blake3"] == blake3(written).hexdigest()


def test_a_file_of_this_machine_is_read(smooth: bytes, tmp_path: Path) -> None:
    path = tmp_path / "Doe.dcm"
    path.write_bytes(smooth)
    assert answer(path) == answer(smooth)


def test_a_worker_of_the_sandbox_answers_the_same(smooth: bytes) -> None:
    with Pool(FUNCTION, SETUP, workers=1) as pool:
        (result,) = pool.map(iter([Item(VALUE, (smooth,))]))
    assert isinstance(result, Answer), result
    assert (result.value, [b"".join(result.blobs)]) == answer(smooth)


@pytest.mark.parametrize(
    ("content", "value", "reason"),
    [
        (b"Dear colleague", {}, "not-dicom"),
        (b"", {"format": "picture"}, "not-dicom"),
        (file_bytes(slice_of(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")), {}, "document"),
        (file_bytes(slice_of(PatientID=None)), {}, "missing-identifier"),
    ],
)
def test_a_fault_is_an_answer_without_a_file(content: bytes, value: dict[str, str], reason: str) -> None:
    reply, blobs = answer(content, **value)
    assert (reply["fault"][0], blobs) == (reason, [])


def test_variants_of_a_patient_share_their_variant() -> None:
    pixels = ramp((64, 64), np.uint16).tobytes()
    files = (
        file_bytes(slice_of(Rows=64, Columns=64, PixelData=pixels, PatientID=patient))
        for patient in ("00123", "123")
    )
    one, other = (answer(content)[0] for content in files)
    assert one["patient"] != other["patient"]
    assert one["patient_variant"] == other["patient_variant"]


def burned_in() -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Return three frames, the last with a name in its pixels, and the first two."""
    grey = np.random.default_rng(0).normal(100, 8, (3, 160, 160)).astype(np.uint8)
    cv2.putText(grey[2], "DOE JOHN 1948", (8, 84), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 250, 1)
    frames = grey.astype(np.uint16)
    return frames, frames[:2]


@pytest.mark.parametrize("count", [None, 2])
@pytest.mark.parametrize("has_bot", [True, False])
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless])
def test_a_compressed_frame_that_was_not_searched_is_not_written(
    syntax: str, has_bot: bool, count: int | None
) -> None:
    frames, two = burned_in()
    value = encapsulate([LOSSLESS[syntax](one, 16) for one in frames], has_bot=has_bot)
    reply, written = answer(compressed([], two, syntax, value, NumberOfFrames=count))
    assert (reply["fault"][0], written) == ("burned-in-doubt", [])


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_a_native_frame_that_was_not_searched_is_not_written(syntax: str) -> None:
    frames, _ = burned_in()
    for data in (made(frames, syntax, NumberOfFrames=2), made(frames[1:], syntax, NumberOfFrames=None)):
        reply, written = answer(data)
        assert (reply["fault"][0], written) == ("burned-in-doubt", [])


def test_an_element_of_pixel_data_that_was_not_searched_is_not_written() -> None:
    # pydicom keeps the second of two elements, and the search stopped at the first.
    frames, two = burned_in()
    data = made(two[0]) + element(0x7FE00010, b"OW", frames[2].tobytes())
    reply, written = answer(data)
    assert (reply["fault"][0], written) == ("surplus-data", [])


def test_a_codestream_in_the_fragment_of_another_is_not_written() -> None:
    frames, two = burned_in()
    both = b"".join(LOSSLESS[JPEGLSLossless](one, 16) for one in frames[1:])
    reply, written = answer(compressed([both], two[0], JPEGLSLossless))
    assert (reply["fault"][0], written) == ("burned-in-doubt", [])
