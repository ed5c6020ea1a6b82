"""Identifiers of a data set: the values that identify somebody, by kind, and how people spell each."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.values import convert_SQ

from imaging.deidentify.identity.dates import shift_dt
from imaging.deidentify.identity.identifier_kinds import SECRET_CODES, STRINGS, Kind, kind_of, vr_of
from imaging.deidentify.identity.spellings import (
    DATE_DIGITS,
    date_spellings,
    name_spellings,
    number_spellings,
    only_itself,
    place_spellings,
)
from imaging.deidentify.identity.text_folding import fold, is_distinctive
from imaging.dicom.parse import reading
from imaging.pseudonyms import is_standard_uid

SPELLINGS: Mapping[Kind, Callable[[str], frozenset[str]]] = {
    "name": name_spellings,
    "id": number_spellings,
    "uid": only_itself,
    "date": date_spellings,
    "place": place_spellings,
    "device": number_spellings,
    "text": only_itself,
}
LARGEST_BYTES = 65536
"""A longer value is a document or an image, and no identifier."""
CHARACTER_SET = 0x00080005
FIRST_ENCODINGS = ("iso8859",)
"""The encodings where no character set is named."""
ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
"""First bytes of a sequence's value, in little and in big endian."""
ONE_VALUE = frozenset({"ST", "LT", "UT", "UR"})
"""VRs in which a backslash is a character (PS3.5 6.2)."""
RESETS = {ord(character) for character in "\t\n\f\r\\^="}
"""Characters after which the first character set applies again (PS3.5 6.1.2.5.3)."""
NOBODY = frozenset(
    {"anonymous", "anonymized", "anonymised", "unknown", "unspecified", "none", "undefined", "notavailable"}
    | {"patient"}
)
"""Folded values that mean that nothing is known."""


@dataclass(frozen=True, slots=True)
class Identifier:
    """One identifying value, decoded, and the tag of the element in which it was first met."""

    kind: Kind
    value: str
    tag: int


def collect_identifiers(dataset: Dataset) -> tuple[Identifier, ...]:
    """Return every identifying value of an original at every depth, private elements and file meta included.

    The data set is one that `parse` returned; it stays as it is. Values shorter than three letters and those that
    mean "nobody" are left out. Raises DataFault "unreadable" where a sequence cannot be read.
    """
    with reading("unreadable"):
        return collect_from_datasets(dataset.file_meta, dataset)


def collect_from_datasets(*parts: Dataset) -> tuple[Identifier, ...]:
    """Return the identifying values of several data sets; exceptions of pydicom pass as they are."""
    return _distinct(triple for part in parts for triple in _walk(part, FIRST_ENCODINGS, None))


def collect_from_value(tag: int, vr: str | None, value: bytes, charset: bytes) -> tuple[Identifier, ...]:
    """Return the identifying values of one element that is no sequence, from its bytes; texts are left out.

    `charset` is the value of the Specific Character Set that applies to it.
    """
    vr = vr_of(tag) if vr in (None, "UN") else str(vr)
    kind = kind_of(tag, vr)
    if kind is None or kind == "text" or not value:
        return ()
    encodings = _encodings(charset) if charset else FIRST_ENCODINGS
    return _distinct((kind, text, tag) for text in _texts(value, vr, encodings))


def spellings(identifier: Identifier) -> frozenset[str]:
    """Return the ways in which people write a value; the value itself is one, unless it is too short to identify."""
    return SPELLINGS[identifier.kind](identifier.value)


def _distinct(triples: Iterable[tuple[Kind, str, int]]) -> tuple[Identifier, ...]:
    first_tags: dict[tuple[Kind, str], int] = {}
    for kind, text, tag in triples:
        for value in _identifying(kind, text):
            first_tags.setdefault((kind, value), tag)
    return tuple(Identifier(kind, value, tag) for (kind, value), tag in first_tags.items())


def _walk(
    dataset: Dataset, encodings: tuple[str, ...], secret: Kind | None
) -> Iterator[tuple[Kind, str, int]]:
    """Yield kind, text and tag; `secret` is the kind of all strings of the sequence around."""
    charset = dataset.get_item(CHARACTER_SET) if CHARACTER_SET in dataset else None
    encodings = _encodings(charset.value) if charset is not None and charset.value else encodings
    for element in list(dataset.values()):
        tag = int(element.tag)
        vr, value = _opened(dataset, element)
        if vr == "SQ":
            inside = SECRET_CODES.get(tag, secret)
            for item in value if isinstance(value, Sequence) else ():
                yield from _walk(item, encodings, inside)
            continue
        kind = secret if secret and vr in STRINGS else kind_of(tag, vr)
        if kind is not None and value:
            yield from ((kind, text, tag) for text in _texts(value, vr, encodings))


def _opened(dataset: Dataset, element: DataElement | RawDataElement) -> tuple[str, object]:
    """Return VR and value of an element; the value stays bytes where nothing has to be converted."""
    vr = vr_of(element.tag) if element.VR in (None, "UN") else element.VR
    if not isinstance(element, RawDataElement):
        return vr, element.value
    if vr == "SQ":
        return vr, dataset[element.tag].value
    if vr == "UN" and element.value is not None and element.value[:4] in ITEMS:
        # A vendor's sequence without a VR: implicit (PS3.5 6.2.2), or as pydicom finds.
        with suppress(Exception):
            return "SQ", convert_SQ(element.value, True, element.value[:4] == ITEMS[0])
    return vr, element.value


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
def _charsets(charset: str) -> tuple[str, ...]:
    return tuple(convert_encodings(charset.split("\\")))


def _encodings(charset: object) -> tuple[str, ...]:
    if isinstance(charset, bytes):
        return _charsets(charset.decode("ascii", "replace").strip(" \0"))
    return _charsets("\\".join(_texts(charset, "CS", ())))


def _identifying(kind: Kind, text: str) -> Iterator[str]:
    value = text.strip(" \0\t\r\n")
    if kind == "name":
        value = value.strip("^= ")
    folded = fold(value)
    if not is_distinctive(folded) or folded in NOBODY or not folded.strip("0"):
        return
    if kind == "uid" and is_standard_uid(value):
        return
    # A year or month alone is nobody's.
    if kind == "date" and not DATE_DIGITS.match(value) and shift_dt(value, 0) is not None:
        return
    yield value
