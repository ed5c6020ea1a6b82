"""Header cache of a series: a cached header gives what parsing would give, whatever byte differs."""

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
from imaging.formats.header_cache import UNMATCHED_HEADERS, HeaderCache
from tests.dicom_objects import dataset, file_bytes, ramp

STORED = ramp((4, 6), np.int16)


@pytest.fixture(autouse=True)
def empty_caches() -> Iterator[None]:
    dicom._header_cache.cache_clear()
    yield
    dicom._header_cache.cache_clear()


def piece(number: int, syntax: str = ExplicitVRLittleEndian, **changes: Any) -> bytes:
    inner = Dataset()
    inner.ReferencedSOPInstanceUID = "1.2.3"
    one = dataset(
        STORED + number,
        SOPInstanceUID=f"1.2.3.{number}",
        **{"InstanceNumber": number, "InstitutionName": "Harbour", "WindowCenter": 40, "WindowWidth": 400}
        | {
            "ImagePositionPatient": [1, 2, number],
            "FrameOfReferenceUID": "1.2.9",
            "PixelSpacing": [0.5, 0.25],
        }
        | {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        | changes,
    )
    one.ReferencedImageSequence = Sequence([inner])
    one["ReferencedImageSequence"].is_undefined_length = True
    return file_bytes(one, syntax)


def read(data: bytes) -> Any:
    """Return the instances in a file, or the reason why it cannot be read."""
    try:
        instances = list(read_dicom(data, "CT"))
    except DataFault as fault:
        return fault.reason, fault.detail
    return [
        (
            *(None if one.image.affine is None else one.image.affine.tolist(), one.frame_of_reference_uid),
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
        for one in instances
    ]


def hits(monkeypatch: pytest.MonkeyPatch, files: list[bytes]) -> int:
    """Return how many files have a header that is in the cache."""
    results = []
    find = HeaderCache.find

    def counted(self: Any, data: Any) -> Any:
        results.append(find(self, data))
        return results[-1]

    monkeypatch.setattr(HeaderCache, "find", counted)
    for data in files:
        read(data)
    return sum(one is not None for one in results)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_headers_of_a_series_are_cached_from_the_third_slice_on(
    monkeypatch: pytest.MonkeyPatch, syntax: str
) -> None:
    assert hits(monkeypatch, [piece(n, syntax) for n in range(1, 8)]) == 5


@pytest.mark.slow
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_whatever_byte_of_a_header_differs_the_cache_gives_what_parsing_gives(syntax: str) -> None:
    for number in (1, 2):
        read(piece(number, syntax))
    cache = dicom._header_cache("CT")
    assert len(cache._headers) == 1
    known = cache._headers.copy(), cache._series, cache._credit
    data = piece(3, syntax)
    for at in range(128, len(data) - STORED.nbytes):
        for flip in (0x01, 0x40):
            changed = bytearray(data)
            changed[at] ^= flip
            cache._headers, cache._series, cache._credit = known[0].copy(), *known[1:]
            warm = read(bytes(changed))
            cache._headers.clear()
            assert warm == read(bytes(changed)), at


@pytest.mark.parametrize("lost", [1, 10, STORED.nbytes])
def test_a_file_cut_short_is_truncated_although_its_header_is_cached(lost: int) -> None:
    for number in (1, 2):
        read(piece(number))
    assert read(piece(3)[:-lost])[0] == "truncated"


def test_a_longer_value_is_parsed_and_then_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [piece(1), piece(2), piece(3, StationName="A"), piece(4, StationName="B"), piece(5)]
    assert hits(monkeypatch, files) == 2


def test_few_headers_of_a_series_are_kept_if_none_matches() -> None:
    for number in range(1, 20):
        read(piece(number, ImageComments="A" * 2 * number))
    assert len(dicom._header_cache("CT")._headers) == UNMATCHED_HEADERS


def test_headers_of_different_series_are_not_kept() -> None:
    for number in range(1, 9):
        read(piece(number, SeriesInstanceUID=f"1.7.{number}"))
    assert not dicom._header_cache("CT")._headers


def test_attributes_that_may_vary_do_not_change_how_pixels_are_shown() -> None:
    changes: dict[str, Any] = {
        "InstanceNumber": 9,
        "ImagePositionPatient": [1, 2, 3],
        "TriggerTime": 5,
        "TemporalPositionIndex": 3,
        "FrameOfReferenceUID": "1.2.10",
    }
    assert {"SOPInstanceUID", *changes} == {*VARYING}
    plain = read(piece(1))[0][9:]
    for keyword, value in changes.items():
        dicom._cached_meaning.cache_clear()
        assert read(piece(1, **{keyword: value}))[0][9:] == plain
