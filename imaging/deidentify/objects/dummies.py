"""Owns the values that stand where the standard wants one and the original must not stay (PS3.15 E.1, code D)."""

from types import MappingProxyType

TEXT = b"Anonymized"
WORD = b"ANONYMIZED"
DUMMIES = MappingProxyType(
    {
        "AE": WORD,
        "AS": b"000Y",
        "AT": bytes(4),
        "CS": WORD,
        "DA": b"19000101",
        "DS": b"0",
        "DT": b"19000101000000",
        "FD": bytes(8),
        "FL": bytes(4),
        "IS": b"0",
        "LO": TEXT,
        "LT": TEXT,
        "OB": bytes(2),
        "OD": bytes(8),
        "OF": bytes(4),
        "OL": bytes(4),
        "OV": bytes(8),
        "OW": bytes(2),
        "PN": b"Anonymous",
        "SH": TEXT,
        "SL": bytes(4),
        "SS": bytes(2),
        "ST": TEXT,
        "SV": bytes(8),
        "TM": b"000000",
        "UC": TEXT,
        "UL": bytes(4),
        "UR": b"urn:anonymized",
        "US": bytes(2),
        "UT": TEXT,
        "UV": bytes(8),
    }
)
"""A legal value of each VR (PS3.5 6.2); UIDs are never invented, they are mapped."""

SCHEME = 0x00080102
SPECIAL = MappingProxyType({SCHEME: b"99RADLOOP"})
"""Coding schemes of one's own begin with 99 (PS3.16 8)."""


def dummy(tag: int, vr: str) -> bytes | None:
    """Return a legal value that tells nothing, or None where there is none (UN, UI).

    >>> dummy(0x00080020, "DA")
    b'19000101'
    """
    return SPECIAL.get(tag) or DUMMIES.get(vr)
