"""Owns what identifies somebody in a data set: the values by kind, and how people spell each."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.values import convert_SQ

from imaging.deidentify.identity.dates import shift_dt
from imaging.deidentify.identity.folding import fold, telling
from imaging.deidentify.identity.kinds import SECRET_CODES, STRINGS, Kind, kind_of, vr_of
from imaging.deidentify.identity.spellings import DATE_DIGITS, as_it_is, of_date, of_name, of_number, of_place
from imaging.dicom.parse import reading
from imaging.pseudonyms import is_standard_uid

SPELLINGS: Mapping[Kind, Callable[[str], frozenset[str]]] = MappingProxyType(
    {
        "name": of_name,
        "id": of_number,
        "uid": as_it_is,
        "date": of_date,
        "place": of_place,
        "device": of_number,
        "text": as_it_is,
    }
)
LARGEST_BYTES = 65536
"""A longer value is a document or an image, and no identifier."""
CHARACTER_SET = 0x00080005
FIRST_ENCODINGS = ("iso8859",)
"""Where no character set is named."""
ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
"""How a sequence begins, in little and in big endian."""
ONE_VALUE = frozenset({"ST", "LT", "UT", "UR"})
"""VRs in which a backslash is a character (PS3.5 6.2)."""
RESETS = {ord(character) for character in "\t\n\f\r\\^="}
"""Behind them the first character set holds again (PS3.5 6.1.2.5.3)."""
NOBODY = frozenset(
    {
        "anonymous",
        "anonymized",
        "anonymised",
        "unknown",
        "unspecified",
        "none",
        "undefined",
        "notavailable",
        "patient",
    }
)
"""What stands where a value is not known."""


@dataclass(frozen=True, slots=True)
class Identifier:
    """One identifying value, decoded, and the tag of the element where it stood first."""

    kind: Kind
    value: str
    tag: int


def collect(dataset: Dataset) -> tuple[Identifier, ...]:
    """Return every identifying value of an original at every depth, private elements and file meta included.

    The data set is one that `parse` returned; it stays as it is. Values shorter than three letters and those that
    stand for nobody are left out. Raises DataFault "unreadable" where a sequence cannot be read.
    """
    with reading("unreadable"):
        return collect_from(dataset.file_meta, dataset)


def collect_from(*parts: Dataset) -> tuple[Identifier, ...]:
    """Return every identifying value of data sets, as `collect` does; whatever pydicom raises is raised."""
    return _distinct(told for part in parts for told in _walk(part, FIRST_ENCODINGS, None))


def collect_from_value(tag: int, vr: str | None, value: bytes, charset: bytes) -> tuple[Identifier, ...]:
    """Return what `collect` does of an element that holds no others, but for texts, by its bytes as they stand.

    `charset` is the value of the Specific Character Set that holds there.
    """
    vr = vr_of(tag) if vr in (None, "UN") else str(vr)
    kind = kind_of(tag, vr)
    if kind is None or kind == "text" or not value:
        return ()
    encodings = _encodings(charset) if charset else FIRST_ENCODINGS
    return _distinct((kind, text, tag) for text in _texts(value, vr, encodings))


def spellings(identifier: Identifier) -> frozenset[str]:
    """Return the ways in which people write a value, itself among them unless it is too short to point to somebody."""
    return SPELLINGS[identifier.kind](identifier.value)


def _distinct(told: Iterable[tuple[Kind, str, int]]) -> tuple[Identifier, ...]:
    found: dict[tuple[Kind, str], int] = {}
    for kind, text, tag in told:
        for value in _identifying(kind, text):
            found.setdefault((kind, value), tag)
    return tuple(Identifier(kind, value, tag) for (kind, value), tag in found.items())


def _walk(
    dataset: Dataset, encodings: tuple[str, ...], secret: Kind | None
) -> Iterator[tuple[Kind, str, int]]:
    """Yield kind, text and tag; `secret` is the kind of all strings of the sequence around."""
    declared = dataset.get_item(CHARACTER_SET) if CHARACTER_SET in dataset else None
    encodings = _encodings(declared.value) if declared is not None and declared.value else encodings
    for held in list(dataset.values()):
        tag = int(held.tag)
        vr, value = _opened(dataset, held)
        if vr == "SQ":
            inside = SECRET_CODES.get(tag, secret)
            for item in value if isinstance(value, Sequence) else ():
                yield from _walk(item, encodings, inside)
            continue
        kind = secret if secret and vr in STRINGS else kind_of(tag, vr)
        if kind is not None and value:
            yield from ((kind, text, tag) for text in _texts(value, vr, encodings))


def _opened(dataset: Dataset, held: DataElement | RawDataElement) -> tuple[str, object]:
    """Return VR and value, a value as bytes where it need not be converted."""
    vr = vr_of(held.tag) if held.VR in (None, "UN") else held.VR
    if not isinstance(held, RawDataElement):
        return vr, held.value
    if vr == "SQ":
        return vr, dataset[held.tag].value
    if vr == "UN" and held.value is not None and held.value[:4] in ITEMS:
        # A vendor's sequence, whose VR nobody told: implicit (PS3.5 6.2.2), or as pydicom finds.
        with suppress(Exception):
            return "SQ", convert_SQ(held.value, True, held.value[:4] == ITEMS[0])
    return vr, held.value


def _texts(value: object, vr: str, encodings: tuple[str, ...]) -> Iterable[str]:
    if isinstance(value, bytes):
        if len(value) > LARGEST_BYTES:
            return ()
        decoded = _decoded(value, encodings)
        if vr in ("UN", "OB"):
            decoded = [text for text in decoded if "".join(text.strip(" \0").split()).isprintable()]
        return decoded if vr in ONE_VALUE else [one for text in decoded for one in text.split("\\")]
    return [str(one) for one in (value if isinstance(value, MultiValue | list) else [value])]


def _decoded(value: bytes, encodings: tuple[str, ...]) -> list[str]:
    if value.isascii() and b"\x1b" not in value:
        return [value.decode("ascii")]
    text = decode_bytes(value, encodings, RESETS)
    # Somebody declared another character set than the one that was used.
    return [text, value.decode("latin-1")] if "\ufffd" in text else [text]


@lru_cache(maxsize=64)
def _charsets(declared: str) -> tuple[str, ...]:
    return tuple(convert_encodings(declared.split("\\")))


def _encodings(declared: object) -> tuple[str, ...]:
    if isinstance(declared, bytes):
        return _charsets(declared.decode("ascii", "replace").strip(" \0"))
    return _charsets("\\".join(_texts(declared, "CS", ())))


def _identifying(kind: Kind, text: str) -> Iterator[str]:
    value = text.strip(" \0\t\r\n")
    if kind == "name":
        value = value.strip("^= ")
    folded = fold(value)
    if not telling(folded) or folded in NOBODY or not folded.strip("0"):
        return
    if kind == "uid" and is_standard_uid(value):
        return
    # A year or month alone is nobody's.
    if kind == "date" and not DATE_DIGITS.match(value) and shift_dt(value, 0) is not None:
        return
    yield value
