"""Slices whose headers are built like one that was read: what is known of them is what reading them would tell."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from imaging.errors import DataFault
from imaging.formats import dicom
from imaging.formats.dicom import VARYING, read_dicom
from imaging.formats.header_cache import TRIED, Twins
from tests.dicom_objects import dataset, file_bytes, ramp

STORED = ramp((4, 6), np.int16)


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    dicom._twins.cache_clear()
    yield
    dicom._twins.cache_clear()


def piece(number: int, syntax: str = ExplicitVRLittleEndian, **changes: Any) -> bytes:
    inner = Dataset()
    inner.ReferencedSOPInstanceUID = "1.2.3"
    one = dataset(
        STORED + number,
        SOPInstanceUID=f"1.2.3.{number}",
        **{"InstanceNumber": number, "InstitutionName": "Harbour", "WindowCenter": 40, "WindowWidth": 400}
        | changes,
    )
    one.ReferencedImageSequence = Sequence([inner])
    one["ReferencedImageSequence"].is_undefined_length = True
    return file_bytes(one, syntax)


def told(data: bytes) -> Any:
    """Return all that reading a file tells, or the reason why it cannot be read."""
    try:
        found = list(read_dicom(data, "CT"))
    except DataFault as fault:
        return fault.reason, fault.detail
    return [
        (
            *(
                one.patient_id,
                one.study_uid,
                one.series_uid,
                one.sop_instance_uid,
                one.institution,
                one.frame,
            ),
            *(one.content_blake3, one.pixel_blake3, dict(one.attributes), one.image.stored.tolist()),
            *(one.image.vois, one.image.padding, one.image.spacing_mm, one.image.inverted),
            *(one.image.slope, one.image.intercept),
        )
        for one in found
    ]


def hits(monkeypatch: pytest.MonkeyPatch, files: list[bytes]) -> int:
    """Return how many files are taken for a twin of another."""
    found = []
    find = Twins.find

    def counted(self: Any, data: Any) -> Any:
        found.append(find(self, data))
        return found[-1]

    monkeypatch.setattr(Twins, "find", counted)
    for data in files:
        told(data)
    return sum(one is not None for one in found)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_slices_of_a_series_are_twins_from_the_third_on(monkeypatch: pytest.MonkeyPatch, syntax: str) -> None:
    assert hits(monkeypatch, [piece(n, syntax) for n in range(1, 8)]) == 5


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_whatever_byte_of_a_header_differs_a_twin_is_what_reading_tells(syntax: str) -> None:
    for number in (1, 2):
        told(piece(number, syntax))
    kept = dicom._twins("CT")
    assert len(kept._known) == 1
    data = piece(3, syntax)
    for at in range(128, len(data) - STORED.nbytes):
        for flip in (0x01, 0x40):
            changed = bytearray(data)
            changed[at] ^= flip
            warm = told(bytes(changed))
            dicom._twins.cache_clear()
            assert warm == told(bytes(changed)), at
            for number in (1, 2):
                told(piece(number, syntax))


@pytest.mark.parametrize("lost", [1, 10, STORED.nbytes])
def test_a_twin_that_is_cut_short_is_truncated(lost: int) -> None:
    for number in (1, 2):
        told(piece(number))
    assert told(piece(3)[:-lost])[0] == "truncated"


def test_a_longer_value_is_read_and_then_known(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [piece(1), piece(2), piece(3, StationName="A"), piece(4, StationName="B"), piece(5)]
    assert hits(monkeypatch, files) == 2


def test_series_that_have_no_twins_are_not_remembered_for_long() -> None:
    for number in range(1, 20):
        told(piece(number, ImageComments="A" * 2 * number))
    assert len(dicom._twins("CT")._known) == TRIED


def test_slices_of_different_series_are_not_remembered() -> None:
    for number in range(1, 9):
        told(piece(number, SeriesInstanceUID=f"1.7.{number}"))
    assert not dicom._twins("CT")._known


def test_what_may_vary_tells_nothing_of_how_pixels_are_shown() -> None:
    changes: dict[str, Any] = {
        "InstanceNumber": 9,
        "ImagePositionPatient": [1, 2, 3],
        "TriggerTime": 5,
        "TemporalPositionIndex": 3,
    }
    assert {"SOPInstanceUID", *changes} == {*VARYING}
    plain = told(piece(1))[0][7:]
    for keyword, value in changes.items():
        dicom._meaning.cache_clear()
        assert told(piece(1, **{keyword: value}))[0][7:] == plain
