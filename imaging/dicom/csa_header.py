"""CSA header: the private list of names and values that Siemens MR scanners write into an element of their own.

There are two forms; that of newer scanners begins with SV10. nibabel's documentation describes both (Siemens format
DICOM with CSA header), but its reader fails on the older one (its issue 817), so that this one does not use it.
"""

import struct
from collections.abc import Callable, Collection, Mapping

from imaging.dicom.elements import Buffer

NEWER = b"SV10"
ENTRY = struct.Struct("<64s i 4s i i i")
"""Name, multiplicity, VR, type, number of items, and one of CONSTANTS."""
ITEM = struct.Struct("<4i")
CONSTANTS = (77, 205)
"""Whoever reads lengths by a wrong rule arrives at other bytes, and sees it here."""

Length = Callable[[int, int, int], int]
LENGTHS: tuple[Length, ...] = (
    lambda first, second, offset: second,
    lambda first, second, offset: first - offset,
)
"""Length of a value from the first two numbers of its item and the number of items of the first entry.

The first rule is that of the newer form, and of the older one in GDCM; the second that of the older one in SPM.
"""


def csa_values(raw: Buffer, names: Collection[str]) -> Mapping[str, list[str]]:
    """Return the values of some entries, without the empty ones; none of a header that cannot be followed."""
    start = 8 if bytes(raw[:4]) == NEWER else 0
    for length in LENGTHS:
        values = _followed(raw, start, names, length)
        if values is not None:
            return values
    return {}


def _followed(
    raw: Buffer, at: int, names: Collection[str], length_of: Length
) -> Mapping[str, list[str]] | None:
    """Return values by a rule for their lengths, None where it leads astray; it only moves forward, and so it ends."""
    values: dict[str, list[str]] = {}
    offset: int | None = None
    try:
        (entries,) = struct.unpack_from("<I", raw, at)
        at += 8
        for _ in range(entries):
            name, _, _, _, items, constant = ENTRY.unpack_from(raw, at)
            at += ENTRY.size
            if constant not in CONSTANTS:
                return None
            offset = items if offset is None else offset
            texts = []
            for _ in range(items):
                first, second, _, _ = ITEM.unpack_from(raw, at)
                at += ITEM.size
                length = length_of(first, second, offset)
                if not 0 <= length <= len(raw) - at:
                    return None
                texts.append(_text(raw[at : at + length]))
                at += (length + 3) // 4 * 4
            if _text(name) in names:
                values[_text(name)] = [text for text in texts if text]
    except struct.error:
        return None
    return values


def _text(raw: Buffer) -> str:
    return bytes(raw).split(b"\0", 1)[0].decode("latin-1").strip()
