"""Attributes that are read from a DICOM header: the list of keywords, and the decoding of their values."""

import math
import struct
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

Value = str | tuple[float, ...]
Attributes = Mapping[str, Value]
"""Values by DICOM keyword: texts as in the file, numbers as tuples. An absent or empty element has no key; a number
that cannot be used is the empty tuple (but of PLACED it is NaN); a value longer than VALUE_BYTES counts as absent."""

TEXTS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Modality"),
    *("Manufacturer", "PhotometricInterpretation", "VOILUTFunction", "ImageType", "SpecificCharacterSet"),
    *("StackID", "BodyPartExamined", "PresentationLUTShape", "ManufacturerModelName", "InstitutionName"),
    *("PixelIntensityRelationship", "FrameOfReferenceUID"),
)
OPAQUE = frozenset({"InstitutionName"})
"""Texts in any character set that are only compared, never shown: each byte is a character."""
NUMBERS = (
    *("Rows", "Columns", "SamplesPerPixel", "PlanarConfiguration", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    *("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
    *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"),
    *("SliceThickness", "SpacingBetweenSlices", "ImagePositionPatient", "ImageOrientationPatient"),
    *("GantryDetectorTilt", "InstanceNumber", "AcquisitionNumber", "TemporalPositionIdentifier"),
    *("TemporalPositionIndex", "TriggerTime", "EchoNumbers", "EchoTime", "EffectiveEchoTime"),
    *("DiffusionBValue", "KVP", "TotalPixelMatrixColumns", "TotalPixelMatrixRows"),
)
"""With TEXTS the allow-list: no other element of a header is looked at."""

PLACED = frozenset({"WindowCenter", "WindowWidth"})
"""Numbers whose place has a meaning: one that cannot be used is NaN in its place, so that the others keep theirs."""
ANY_FLOAT = frozenset(
    {
        *("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
        *("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
    }
)
"""Numbers that may be NaN or infinite (PS3.3 C.7.6.24.1 and C.7.6.25.1)."""

VALUE_BYTES = 2**16
"""The longest value that is looked at: the longest that a length of two bytes can give (PS3.5 7.1.2)."""

BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
"""The struct codes of the VRs that are numbers in binary (PS3.5 6.2)."""


@cache
def wanted() -> Mapping[int, tuple[str, str]]:
    """Return keyword and VR of each attribute by its tag, from pydicom's dictionary."""
    tags = {keyword: tag_for_keyword(keyword) or 0 for keyword in (*TEXTS, *NUMBERS)}
    return {tag: (keyword, dictionary_VR(tag)) for keyword, tag in tags.items()}


def decode_numbers(raw: bytes, vr: str, order: str = "<", *, finite: bool = True) -> tuple[float, ...]:
    """Return the numbers of an element's bytes, empty where one of them is no number or, if asked for, not finite.

    >>> decode_numbers(b"0.5\\\\0.7 ", "DS"), decode_numbers(b"0.5\\\\wide", "DS"), decode_numbers(b"1_0", "DS")
    ((0.5, 0.7), (), ())
    """
    if len(raw) > VALUE_BYTES:
        return ()
    try:
        if vr in BINARY:
            code = BINARY[vr]
            count = len(raw) // struct.calcsize(code)
            numbers = tuple(map(float, struct.unpack(f"{order}{count}{code}", raw)))
        elif b"_" in raw:
            # Python reads 1_000 as a number; DICOM does not.
            return ()
        else:
            numbers = tuple(map(float, raw.rstrip(b" \0").split(b"\\")))
    except (ValueError, struct.error):
        return ()
    return numbers if not finite or all(map(math.isfinite, numbers)) else ()


def decode_places(raw: bytes) -> tuple[float, ...]:
    """Return the numbers of a text with NaN in the place of each that is empty or no finite number.

    >>> decode_places(b"128\\\\"), decode_places(b"128,5\\\\40 ")
    ((128.0, nan), (nan, 40.0))
    """
    if len(raw) > VALUE_BYTES:
        return ()
    # One object for all of them: tuples with it are equal then, and can be found in a cache.
    return tuple((decode_numbers(part, "DS") or (math.nan,))[0] for part in raw.rstrip(b" \0").split(b"\\"))


def decode_text(raw: bytes) -> str:
    """Return an ASCII text without its padding (PS3.5 6.2); raise UnicodeDecodeError for any other."""
    text = raw.decode("ascii").strip(" \0")
    return "\\".join(part.strip(" \0") for part in text.split("\\")) if "\\" in text else text


def decode_opaque(raw: bytes) -> str:
    """Return a text of OPAQUE without its padding."""
    return raw.decode("latin-1").strip(" \0")


def of_dataset(dataset: Dataset) -> dict[str, Value]:
    """Return the wanted attributes at the top level of a data set that pydicom parsed."""
    attributes: dict[str, Value] = {}
    for tag, (keyword, vr) in wanted().items():
        if tag in dataset and not _is_long(dataset, tag):
            value = (
                _number_value(dataset, tag, keyword, vr) if keyword in NUMBERS else _text_value(dataset, tag)
            )
            if vr == "US or SS" and isinstance(value, tuple):
                value = signed_16(value, signed=attributes.get("PixelRepresentation") == (1.0,))
            if value is not None and value != "":
                attributes[keyword] = value
    return attributes


def _is_long(dataset: Dataset, tag: int) -> bool:
    raw = dataset.get_item(tag)
    return isinstance(raw, RawDataElement) and len(raw.value or b"") > VALUE_BYTES


def signed_16(value: tuple[float, ...], *, signed: bool) -> tuple[float, ...]:
    """Return numbers of 16 bits read as signed or unsigned like the pixels, whether the VR is US or SS (PS3.5 6.2).

    >>> signed_16((63536.0,), signed=True), signed_16((-2000.0,), signed=False)
    ((-2000.0,), (63536.0,))
    """
    offset = 2**15 if signed else 0
    return tuple((number + offset) % 2**16 - offset for number in value)


def _number_value(dataset: Dataset, tag: int, keyword: str, vr: str) -> tuple[float, ...] | None:
    raw = dataset.get_item(tag)
    if isinstance(raw, RawDataElement) and (raw.VR or vr) in ("DS", "IS"):
        # Read as the strict walk reads it: pydicom refuses a whole data set for one bad number.
        text = bytes(raw.value or b"")
        return _decoded(keyword, text) if text.strip(b" \0") else None
    value: Any = quietly(lambda: dataset[tag].value)
    if value is None or value == "" or (hasattr(value, "__len__") and not len(value)):
        return () if value is None and raw is not None and raw.value else None
    return _decoded(keyword, "\\".join(map(str, parts_of(value))).encode())


def _decoded(keyword: str, text: bytes) -> tuple[float, ...]:
    if keyword in PLACED:
        return decode_places(text)
    return decode_numbers(text, "DS", finite=keyword not in ANY_FLOAT)


def _text_value(dataset: Dataset, tag: int) -> str | None:
    raw = dataset.get_item(tag)
    if wanted()[tag][0] in OPAQUE and isinstance(raw, RawDataElement):
        return decode_opaque(raw.value or b"")
    value: Any = quietly(lambda: dataset[tag].value)
    if value is None:
        return None
    # A backslash separates two values: with the first one alone, two patients could become one.
    return "\\".join(str(part).strip(" \0") for part in parts_of(value)).strip(" \0")


def quietly(read: Callable[[], Any]) -> Any:
    """Return what is read by pydicom, None where it cannot be read."""
    try:
        return read()
    except Exception:  # pydicom raises whatever a damaged value leads to; its messages quote the value
        return None


def parts_of(value: Any) -> Iterable[Any]:
    """Return the values of a value that pydicom read: one or several."""
    return value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]


def first(attributes: Attributes, keyword: str) -> float | None:
    """Return the first number of an attribute, or None where there is none that can be used."""
    value = attributes.get(keyword)
    return value[0] if isinstance(value, tuple) and value else None


def whole(attributes: Attributes, keyword: str, default: int) -> int:
    """Return the first number of an attribute as an integer, or the default where there is none."""
    number = first(attributes, keyword)
    return default if number is None else int(number)


def text(attributes: Attributes, keyword: str) -> str:
    """Return a text attribute, empty where there is none."""
    value = attributes.get(keyword, "")
    return value if isinstance(value, str) else ""
