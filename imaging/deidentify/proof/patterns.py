"""Patterns of an original value: its spellings in each encoding, as they may stand in any bytes.

How much a hit proves depends on the information in the spelling, in bits against chance: 3.3 a digit, 4.7 a letter.

    sure    46 bits or more: no chance even among the noise of a thousand frames; counts wherever its bytes stand
    plain   26 bits or more, and a digit or two words: counts between the borders of words, in values and texts
    weak    at least 4 characters: counts as a whole word in a text of the same object alone

A part of a name, a date, or a number such as "1234" is weak: another patient's "Long" or study date is no leak, and
1234 is an exposure too. A description ("text") counts whole, from 12 characters or with a digit and a blank in it.
In files of no object a date is plain where it is older than any run and has its whole year: it is not of today.
"""

import base64
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from imaging.deidentify.identity.identifier_kinds import Kind
from imaging.deidentify.identity.identifiers import Identifier, spellings
from imaging.pseudonyms import is_standard_uid

Strength = Literal["weak", "plain", "sure"]

SURE_BITS, PLAIN_BITS = 46.0, 26.0
DIGIT_BITS, LETTER_BITS, IDEOGRAPH_BITS, MARK_BITS = 3.3, 4.7, 12.0, 0.5
LEAST_CHARACTERS = 4
WHOLE_TEXT = 12
CODED_CHARACTERS = {"base64": 8, "hexadecimal": 12}
"""Characters below which a coded value occurs by chance; 48 bits each."""
IDEOGRAPHS_FROM = "\u2e80"
NO_NAMES = frozenset({"anonymous", "anonymized", "anonymised", "unknown", "none", "null", "test", "patient"})
"""Texts that mean that there is no name, in originals and outputs."""
SHARED_KINDS = frozenset({"date", "place", "device", "text"})
"""Kinds whose values many patients share: a hit proves something in the outputs of the same object alone."""
NO_OBJECT = -1
"""Owner of files that come from no object."""
WORD = re.compile(r"[^\W_]+")
DAY = re.compile(r"\d{8}(\d{2,6}(\.\d{1,6})?)?([+-]\d{4})?|\d{4}([.-])\d{2}\4\d{2}")
"""A date (DA) or one with time (DT); a time of day alone identifies nobody."""
FIRST_YEAR = "2016"
"""Days from this year on prove nothing outside of objects: programs write the days of their runs and releases."""
UNKNOWN_DAY = "0101"
"""Month and day written for an unknown day, and first day of the time of computers (1970)."""
PLAIN_ENCODINGS = frozenset({"UTF-8", "UTF-16 LE", "UTF-16 BE"})
ESCAPES = re.compile(rb"\x1b[\x20-\x2f]+[\x30-\x7e]")
"""Escape sequences that switch between character sets (ISO 2022) around a value."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One way to write one original value; `key` is it in lower case, a character for each byte.

    `exact` are the bytes where case matters. `unit` is how many bytes a character takes. `owner` is the number of the
    object in whose outputs alone it counts.
    """

    key: str
    kind: Kind
    tag: int
    encoding: str
    strength: Strength
    exact: bytes = b""
    unit: int = 1
    owner: int | None = None


def _utf8(text: str) -> Iterator[bytes]:
    # Bytes are compared in lower case, which knows ASCII alone.
    for form in {text, text.lower(), text.upper()} if not text.isascii() else {text}:
        for normal in ("NFC", "NFD") if not text.isascii() else ("NFC",):
            yield unicodedata.normalize(normal, form).encode("utf-8", "surrogateescape")


def _as(charset: str) -> Callable[[str], Iterator[bytes]]:
    def encode(text: str) -> Iterator[bytes]:
        for form in {text, text.lower(), text.upper()} if not text.isascii() else {text}:
            try:
                yield ESCAPES.sub(b"", form.encode(charset))
            except (UnicodeError, LookupError):
                continue

    return encode


def _base64(text: str) -> Iterator[bytes]:
    for raw in _cases(text):
        # Wherever it begins in the coded stream, these characters hang on no byte before or after it.
        for before, first in enumerate((0, 2, 3)):
            coded = base64.b64encode(b"\0" * before + raw)
            yield coded[first : (before + len(raw)) * 8 // 6]


def _cases(text: str) -> set[bytes]:
    return {
        form.encode("utf-8", "surrogateescape") for form in (text, text.lower(), text.upper(), text.title())
    }


ENCODINGS: Mapping[str, Callable[[str], Iterator[bytes]]] = {
    "UTF-8": _utf8,
    "Latin-1": _as("latin-1"),
    "UTF-16 LE": _as("utf-16-le"),
    "UTF-16 BE": _as("utf-16-be"),
    "base64": _base64,
    "hexadecimal": lambda text: (raw.hex().encode() for raw in _cases(text)),
    "reversed": lambda text: _utf8(text[::-1]),
    "URL": lambda text: iter((quote(text, safe="").encode(),)),
}
"""Encodings in which a value may be written; the character sets of its object are added."""


def patterns(
    identifier: Identifier, charsets: Iterable[str] = (), owner: int | None = None
) -> Iterator[Pattern]:
    """Yield every way in which a value may stand in bytes; none for a value that identifies nobody.

    `owner` is the object to which patterns are restricted that prove nothing elsewhere; NO_OBJECT leaves them out.
    """
    past = owner == NO_OBJECT and long_past(identifier)
    for text in _spellings(identifier):
        dated = past and identifier.value.strip()[:4] in text
        strength = "plain" if dated else strength_of(text, identifier.kind)
        shared = not dated and (identifier.kind in SHARED_KINDS or strength == "weak" or not _distinct(text))
        if shared and owner == NO_OBJECT:
            continue
        seen: set[bytes] = set()
        for encoding, encode in [*ENCODINGS.items(), *((name, _as(name)) for name in charsets)]:
            for raw in encode(text):
                if raw in seen or not _worth(encoding, raw, strength):
                    continue
                if dated and encoding not in PLAIN_ENCODINGS:
                    continue
                seen.add(raw)
                yield Pattern(
                    key=raw.lower().decode("latin-1"),
                    kind=identifier.kind,
                    tag=identifier.tag,
                    encoding=encoding,
                    strength="sure" if encoding in CODED_CHARACTERS else strength,
                    exact=raw if encoding == "base64" else b"",
                    unit=2 if encoding.startswith("UTF-16") else 1,
                    owner=owner if shared else None,
                )


def strength_of(text: str, kind: Kind) -> Strength:
    """Return how much a hit of a text proves.

    >>> [strength_of(text, "id") for text in ("1234", "PH000012", "1.2.826.0.1.3680043.8.498.1")]
    ['weak', 'plain', 'sure']
    """
    bits = sum(map(_bits, text))
    if kind == "date":
        return "weak"
    if bits >= SURE_BITS:
        return "sure"
    return "plain" if bits >= PLAIN_BITS and _distinct(text) else "weak"


def long_past(identifier: Identifier) -> bool:
    """Tell whether a value is a day so long past that programs do not write it.

    >>> [long_past(Identifier("date", day, 0)) for day in ("19640812", "20260812", "19700101")]
    [True, False, False]
    """
    digits = "".join(filter(str.isdigit, identifier.value))
    return identifier.kind == "date" and digits[:4] < FIRST_YEAR and digits[4:8] not in ("", UNKNOWN_DAY)


def is_identifying(identifier: Identifier) -> bool:
    """Tell whether a value identifies at all; a short one, a standard UID and a time of day do not."""
    value = identifier.value.strip()
    if len(value) < (2 if _ideographic(value) else LEAST_CHARACTERS) or value.casefold() in NO_NAMES:
        return False
    match identifier.kind:
        case "uid":
            return not is_standard_uid(value)
        case "date":
            return DAY.fullmatch(value) is not None
        case "text":
            return len(value) >= WHOLE_TEXT or (" " in value and any(map(str.isdigit, value)))
    return True


def _spellings(identifier: Identifier) -> list[str]:
    if not is_identifying(identifier):
        return []
    if identifier.kind == "text":
        return [identifier.value.strip()]
    texts = {text.strip() for text in (identifier.value, *spellings(identifier))}
    least = LEAST_CHARACTERS
    return sorted(
        text
        for text in texts
        if (len(text) >= least or (_ideographic(text) and len(text) > 1)) and text.casefold() not in NO_NAMES
    )


def _worth(encoding: str, raw: bytes, strength: Strength) -> bool:
    if encoding in CODED_CHARACTERS:
        return strength != "weak" and len(raw) >= CODED_CHARACTERS[encoding]
    return bool(raw) and (strength != "weak" or encoding == "UTF-8")


def _distinct(text: str) -> bool:
    """Tell whether a text has a digit or two words: one word with an initial may be anybody's."""
    long_enough = [word for word in WORD.findall(text) if len(word) > 1]
    return any(map(str.isdigit, text)) or len(long_enough) > 1 or _ideographic(text)


def _ideographic(text: str) -> bool:
    return any(character >= IDEOGRAPHS_FROM for character in text)


def _bits(character: str) -> float:
    if character.isdigit():
        return DIGIT_BITS
    if character.isalpha():
        return IDEOGRAPH_BITS if character >= IDEOGRAPHS_FROM else LETTER_BITS
    return MARK_BITS
