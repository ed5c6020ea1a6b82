"""Limits of elements and depth: counted before pydicom makes objects of them, in every form of encoding."""

import struct
import tracemalloc

import pytest

from imaging.dicom.element_limits import check_element_limits
from imaging.dicom.limits import LIMITS, Limits
from imaging.errors import DataFault
from tests.dicom_objects import UNDEFINED, dataset, element, file_bytes, item, nested, ramp

ENDS = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def reason(data: bytes, *, implicit: bool = False, little: bool = True) -> str:
    try:
        check_element_limits(data, 0, implicit=implicit, little=little)
    except DataFault as fault:
        return fault.reason
    return ""


def implicit_nested(depth: int) -> bytes:
    opening = struct.pack("<HHI", 0x0008, 0x1111, UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    return opening * depth + (struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + ENDS) * depth


def defined_nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = element(0x00081111, b"SQ", item(data, defined=True))
    return data


@pytest.mark.parametrize("depth", [1, 31, LIMITS.depth])
def test_a_depth_up_to_the_limit_is_allowed(depth: int) -> None:
    assert [reason(nested(depth)), reason(defined_nested(depth))] == ["", ""]


@pytest.mark.parametrize("depth", [LIMITS.depth + 1, 1000])
def test_a_greater_depth_is_refused_in_each_form(depth: int) -> None:
    assert reason(nested(depth)) == "too-deep"
    assert reason(implicit_nested(depth), implicit=True) == "too-deep"
    assert reason(defined_nested(depth)) == "too-deep"


def test_a_big_endian_depth_is_counted() -> None:
    swapped = struct.pack(">HH2sHI", 0x0008, 0x1111, b"SQ", 0, UNDEFINED)
    opening = swapped + struct.pack(">HHI", 0xFFFE, 0xE000, UNDEFINED)
    assert reason(opening * 40, little=False) == "too-deep"


def test_sequences_of_unknown_vr_are_followed_in_implicit_form() -> None:
    header = struct.pack("<HH2sHI", 0x0009, 0x1001, b"UN", 0, UNDEFINED)
    inside = header + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED) + implicit_nested(40)
    assert reason(inside) == "too-deep"


def test_an_explicit_data_set_in_an_implicit_file_is_followed() -> None:
    assert reason(nested(40), implicit=True) == "too-deep"


def test_fragments_are_stepped_over_and_what_follows_is_counted() -> None:
    # What lies in the fragment looks like sequences; what lies behind them is some.
    fragments = element(0x7FE00010, b"OB", item(nested(40), defined=True) + ENDS, UNDEFINED)
    assert reason(fragments) == ""
    assert reason(fragments + nested(40, 0xFFFA_FFFA)) == "too-deep"


def test_elements_are_counted_at_all_depths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging.dicom.element_limits.LIMITS", Limits(elements=20))
    assert reason(element(0x00080100, b"SH", b"") * 20) == ""
    assert reason(element(0x00080100, b"SH", b"") * 21) == "too-many-elements"
    assert (
        reason(element(0x00081111, b"SQ", item(element(0x00080100, b"SH", b"") * 19))) == "too-many-elements"
    )


@pytest.mark.slow
def test_a_million_elements_are_too_many() -> None:
    data = element(0x00080100, b"SH", b"") * LIMITS.elements
    assert [reason(data), reason(data + data[:8])] == ["", "too-many-elements"]


def test_the_count_needs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 40_000
    monkeypatch.setattr("imaging.dicom.element_limits.LIMITS", Limits(elements=count))
    data = element(0x00080100, b"SH", b"") * (count + 1)
    tracemalloc.start()
    assert reason(data) == "too-many-elements"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Not a byte for an element.
    assert peak < count


@pytest.mark.parametrize("cut", [1, 7, 9, 30])
def test_what_cannot_be_followed_is_left_to_pydicom(cut: int) -> None:
    assert reason(nested(2)[:-cut]) == ""
    assert reason(b"\xff" * 200) == ""


def test_a_whole_file_passes() -> None:
    data = file_bytes(dataset(ramp((4, 4))))
    assert reason(data[132:]) == ""
