"""Contents of a DICOM object that are to be searched: its bytes, the value of each element, and its texts decoded."""

import zlib
from collections.abc import Iterator
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import DeflatedExplicitVRLittleEndian

from imaging.deidentify.proof.file_contents import Content
from imaging.dicom.elements import Buffer
from imaging.dicom.limits import LIMITS
from imaging.dicom.parse import parse, reading

TEXTS = frozenset({"AE", "DA", "LO", "LT", "PN", "SH", "ST", "UC", "UN", "UR", "UT"})
"""VRs whose values are written by people; a code string (CS) is from a list, where a name may be an organ's too, and
UIDs that an option keeps contain days of studies."""
META_AT = 144
"""Offset of the elements after the length of the file meta group."""
VALUE_BYTES = 1 << 16
"""Longer values are pixels, tables and documents: searched as bytes of the file."""


def object_contents(data: Buffer) -> Iterator[Content]:
    """Yield the contents of a DICOM file that are to be searched; raise DataFault where it cannot be parsed."""
    yield Content("file", "bytes", data)
    dataset = parse(data)
    if dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        yield Content("inflated", "bytes", _inflated(data))
    with reading("unreadable"):
        texts: list[str] = []
        values: list[bytes] = []
        for item in (dataset.file_meta, dataset):
            _gather(item, texts, values)
    yield Content("values", "values", b"\0".join(values))
    yield Content("texts", "text", "\0".join(texts).encode("utf-8", "surrogateescape"))


def is_object(path: Path) -> bool:
    """Tell whether a file begins as DICOM does (PS3.10 7.1)."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _inflated(data: Buffer) -> bytes:
    """Return the inflated data set after the file meta group, whose length is known to be right (PS3.10 7.1)."""
    start = META_AT + int.from_bytes(data[META_AT - 4 : META_AT], "little")
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(bytes(data[start:]), LIMITS.inflated_bytes)


def _gather(item: Dataset, texts: list[str], values: list[bytes]) -> None:
    for tag in list(item.keys()):
        raw = item.get_item(tag).value
        element = item[tag]
        if element.VR == "SQ":
            for nested in element.value:
                _gather(nested, texts, values)
        elif element.VR == "DT":
            # The day by itself: more digits follow it.
            texts += [part for text in _texts(element.value) for part in (text[:8], text[8:])]
        elif element.VR in TEXTS:
            texts += _texts(element.value)
        elif isinstance(raw, bytes) and len(raw) <= VALUE_BYTES:
            values.append(raw)


def _texts(value: object) -> list[str]:
    if isinstance(value, bytes):
        return [value.decode("latin-1")]
    return [str(one) for one in (value if isinstance(value, MultiValue) else (value,)) if one is not None]
