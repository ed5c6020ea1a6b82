"""Decoding of text from its bytes, strictly: a text that cannot be decoded for certain is not decoded at all."""

import re
import warnings
from collections.abc import Callable
from functools import lru_cache

from pydicom.charset import convert_encodings, decode_bytes, python_encoding

from imaging.deidentify.identity.identifiers import RESETS

ESCAPE = b"\x1b"
CONTROL = re.compile(r"[\0-\x08\x0b\x0e-\x1f\x7f-\x9f\ufffd]")
"""Characters that text must not have (PS3.5 6.1.3), and the one that a decoder writes where it fails."""
PADDING = " \0"

Decode = Callable[[bytes], str | None]


def terms_of(raw: bytes) -> tuple[str, ...]:
    """Return the defined terms of a Specific Character Set (PS3.3 C.12.1.1.2).

    >>> terms_of(b"\\\\ISO 2022 IR 87 ")
    ('', 'ISO 2022 IR 87')
    """
    return tuple(term.strip(PADDING) for term in raw.decode("latin-1").split("\\"))


def is_known(terms: tuple[str, ...]) -> bool:
    """Tell whether the standard has all these terms."""
    return all(term in python_encoding for term in terms)


@lru_cache(256)
def decoder(terms: tuple[str, ...]) -> Decode:
    """Return the decoder of a value without its padding; it returns None for bytes outside the character set.

    >>> decoder(("ISO_IR 192",))("Müller ".encode()), decoder(())(b"M\\xfcller")
    ('Müller', None)
    """
    known = is_known(terms) and not set(terms) <= {"", "ISO_IR 6"}
    encodings = convert_encodings(list(terms)) if known else []

    def decode(raw: bytes) -> str | None:
        text = raw.decode("ascii") if raw.isascii() and ESCAPE not in raw else _decoded(raw, encodings)
        text = None if text is None else text.rstrip(PADDING)
        return None if text is None or CONTROL.search(text) else text

    return decode


def _decoded(raw: bytes, encodings: list[str]) -> str | None:
    if not encodings:
        return None
    try:
        # pydicom only warns where it falls back to another character set.
        with warnings.catch_warnings(action="error"):
            return decode_bytes(raw, encodings, RESETS)
    except (Warning, ValueError, LookupError):
        return None
