"""ICC profiles without their texts: what colours need stays, descriptions and dates go."""

import struct

HEADER_BYTES, TAG_BYTES, TYPE_BYTES = 128, 12, 8
KEPT_HEADER = ((0, 4), (8, 24), (36, 48), (56, 80))
"""Size, version, class, colour spaces, signature, platform, flags, attributes, intent and illuminant (ICC.1, 7.2). The
rest are names of makers and models, a date, a checksum and reserved bytes."""
MOST_TAGS = 100
NUMBERS = frozenset(
    {
        b"XYZ ",
        b"chrm",
        b"clro",
        b"curv",
        b"mAB ",
        b"mBA ",
        b"meas",
        b"mft1",
        b"mft2",
        b"mpet",
        b"para",
        b"sf32",
    }
    | {b"sig ", b"view"}
)
"""Types of data that are numbers (ICC.1, 10): of all others, texts among them, only the type stays."""


def without_texts(profile: bytes) -> bytes | None:
    """Return a profile in which texts, dates and bytes of no tag are zeros; None where it is no profile (ICC.1, 7).

    >>> without_texts(b"Doe^Johanna") is None
    True
    """
    if len(profile) < HEADER_BYTES + 4 or profile[36:40] != b"acsp":
        return None
    (size,), (count,) = struct.unpack_from(">I", profile), struct.unpack_from(">I", profile, HEADER_BYTES)
    table = HEADER_BYTES + 4
    if size > len(profile) or count > MOST_TAGS or table + count * TAG_BYTES > size:
        return None
    clean = bytearray(size)
    for start, end in (*KEPT_HEADER, (HEADER_BYTES, table + count * TAG_BYTES)):
        clean[start:end] = profile[start:end]
    for number in range(count):
        start, length = struct.unpack_from(">II", profile, table + number * TAG_BYTES + 4)
        if start < table + count * TAG_BYTES or length < TYPE_BYTES or start + length > size:
            return None
        kept = length if profile[start : start + 4] in NUMBERS else 4
        clean[start : start + kept] = profile[start : start + kept]
    return bytes(clean)
