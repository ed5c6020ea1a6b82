"""DICOM objects with an identifier planted in every row of the profile's table; none may be in the output."""

import base64
import struct
import zlib
from collections.abc import Iterator
from datetime import date, timedelta

import numpy as np
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian

from imaging.deidentify.profile.profile import load_profile
from tests.dicom_objects import dataset, file_bytes, ramp

NESTING = 0x00081115
"""Referenced Series Sequence: no row of the table, so that it is followed."""
FIRST_DAY = date(1700, 1, 1)
APART_DAYS = 7
"""So that no shifted date is another one, with a shift that is no multiple of it."""


def rows() -> list[int]:
    """Return a tag for each row of the table that a data set can have."""
    tags = []
    for row in load_profile().rows:
        text = row.tag.replace("x", "0").replace("X", "0")
        if len(text) == 8 and all(digit in "0123456789abcdefABCDEF" for digit in text):
            tags.append(int(text, 16))
    return [
        tag for tag in tags if tag >> 16 >= 8 and tag not in (0x00080018, 0x0020000D, 0x0020000E, 0x00100020)
    ]


def value_of(vr: str, number: int) -> tuple[object, str] | None:
    """Return a legal value and the part of it that must be gone; None for a VR that cannot have one."""
    name = f"Sen{number:05d}tinel"
    day = f"{FIRST_DAY + timedelta(days=APART_DAYS * number):%Y%m%d}"
    texts = dict.fromkeys(("LO", "SH", "ST", "LT", "UT", "UC", "AE", "CS", "UR"), (name, name))
    data = dict.fromkeys(("OB", "OW", "UN"), (f"{name} {name}".encode().ljust(32), name))
    uid, digits = f"1.2.826.0.1.99.{number}", f"87{number:05d}"
    dates = {"DA": (day, day), "DT": (f"{day}101500.5+0100", day)}
    numbers = {"DS": (digits, digits), "IS": (digits, digits)}
    return {**texts, **data, **dates, **numbers, "PN": (f"{name}^Given", name), "UI": (uid, uid)}.get(vr)


def planted(depth: int, numbers: Iterator[int]) -> tuple[Dataset, set[str]]:
    """Return a data set with a value of its own in each row, inside so many sequences, and these values."""
    made, secrets = Dataset(), set[str]()
    for tag in rows():
        vr = _vr(tag)
        number = next(numbers)
        if vr == "SQ":
            item, inner = _item(number)
            made[tag] = DataElement(tag, "SQ", Sequence([item]))
            secrets |= inner
        elif (value := value_of(vr, number)) is not None:
            made[tag] = DataElement(tag, vr, value[0])
            secrets.add(value[1])
    secrets |= _plant_private(made, numbers)
    for _ in range(depth):
        made = _around(made)
    return made, secrets


def _vr(tag: int) -> str:
    """Return the VR of the dictionary, or UN, which takes any bytes."""
    if tag >> 16 & 1 or not dictionary_has_tag(tag):
        return "UN"
    return dictionary_VR(tag).replace("OB or OW", "OW")


def _item(number: int) -> tuple[Dataset, set[str]]:
    """Return an item with a code, a reference and a private element, each of them telling."""
    item, secrets = Dataset(), {f"1.2.826.0.1.99.{number}"}
    item.CodeValue, item.CodingSchemeDesignator = f"S{number:05d}tinel", "99LOCAL"
    item.ReferencedSOPInstanceUID = f"1.2.826.0.1.99.{number}"
    item.add_new(0x00990010, "LO", "SOMEBODY")
    item.add_new(0x00991001, "LO", f"Sen{number:05d}tinel")
    return item, secrets | {f"Sen{number:05d}tinel"}


def _plant_private(made: Dataset, numbers: Iterator[int]) -> set[str]:
    names = [f"Sen{next(numbers):05d}tinel" for _ in range(3)]
    made.add_new(0x00290010, "LO", names[0])
    made.add_new(0x00291001, "LO", names[1])
    made.add_new(0x00291002, "UN", names[2].encode())
    return set(names)


def _around(inner: Dataset) -> Dataset:
    outer = Dataset()
    outer[NESTING] = DataElement(NESTING, "SQ", Sequence([inner]))
    return outer


def whole(extra: Dataset, syntax: str) -> bytes:
    """Return a small image's file with further elements, the preamble and the file meta group telling too."""
    made = dataset(ramp((8, 8), np.uint16), PatientName="Sen99999tinel^X", PatientID="Sen99998tinel")
    for element in extra:
        if element.tag not in made:
            made[element.tag] = element
    data = bytearray(file_bytes(made, syntax))
    data[:16] = b"Sen99997tinel   "
    return bytes(data)


def plain(data: bytes) -> bytes:
    """Return a file whose data set is not deflated any more."""
    if DeflatedExplicitVRLittleEndian.encode() not in data[:400]:
        return data
    (length,) = struct.unpack_from("<I", data, 140)
    return data[: 144 + length] + zlib.decompress(data[144 + length :], -zlib.MAX_WBITS)


def spelt(secret: str) -> Iterator[bytes]:
    """Yield the bytes in which a value may come out."""
    raw = secret.encode()
    yield from (raw, raw[::-1], raw.hex().encode(), secret.encode("utf-16-le"), secret.encode("utf-16-be"))
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + raw)
        yield coded[4 * bool(shift) : len(coded) // 4 * 4 - 4]


def leaks(output: bytes, secrets: set[str]) -> set[str]:
    """Return the values that stand in a file in one of those forms."""
    searched = plain(output)
    return {secret for secret in secrets if any(form in searched for form in spelt(secret))}
