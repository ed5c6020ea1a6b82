"""Raw elements: the bytes of an element's value, and elements made of bytes."""

from typing import Any, cast

from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import writers
from pydicom.tag import BaseTag
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, VR

from imaging.dicom.elements import UNDEFINED

Element = DataElement | RawDataElement
ZERO_PADDED = frozenset({"UI", "OB", "OW", "OF", "OD", "OL", "OV", "UN"})
WIDTHS = {
    **{"AT": 4, "FD": 8, "FL": 4, "SL": 4, "SS": 2, "SV": 8, "UL": 4, "US": 2, "UV": 8},
    **{"OB": 1, "OD": 8, "OF": 4, "OL": 4, "OV": 8, "OW": 2},
}
"""Bytes of one number by VR (PS3.5 6.2); a value must be a whole number of them."""


def raw_bytes(element: Element | None, terms: tuple[str, ...] = (), *, little: bool = True) -> bytes:
    """Return the bytes of an element's value: those of the file, or as pydicom writes a value that it converted.

    Text is encoded in the character set that `terms` name; a sequence has no bytes.
    """
    if element is None or element.value is None:
        return b""
    if isinstance(element.value, bytes):
        return element.value
    element = cast(DataElement, element)
    if element.VR == "SQ" or element.is_empty:
        return b""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = little, False
    function, code = cast(tuple[Any, str | None], writers[VR(element.VR)])
    if element.VR in CUSTOMIZABLE_CHARSET_VR:
        function(buffer, element, encodings=convert_encodings(list(terms)))
    elif code is not None:
        function(buffer, element, code)
    else:
        function(buffer, element)
    return buffer.getvalue()


def value_bytes(
    element: Element, vr: str, terms: tuple[str, ...] = (), *, little: bool = True
) -> bytes | None:
    """Return the bytes of a value of a VR; None where they are no single value in the byte order of the output."""
    if type(element) is not RawDataElement:
        return raw_bytes(element, terms, little=little)
    if element.length == UNDEFINED or (element.is_little_endian != little and vr in WIDTHS):
        return None
    return element.value or b""


def padded(vr: str, value: bytes) -> bytes:
    """Return a value of an even length (PS3.5 6.2)."""
    if not len(value) % 2:
        return value
    return value + (b"\0" if vr in ZERO_PADDED else b" ")


def make_raw(tag: int, vr: str, value: bytes, *, implicit: bool, little: bool) -> RawDataElement:
    """Return an element of bytes, padded to an even length as its VR wants it."""
    value = padded(vr, value)
    key = tag if isinstance(tag, BaseTag) else BaseTag(tag)
    return RawDataElement(key, vr, len(value), value, 0, implicit, little)
