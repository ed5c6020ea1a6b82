"""Cache of elements by their bytes: the identifiers in each, and its treated form where the element names nobody.

Results that depend on the patient are kept for that patient alone.
"""

from collections.abc import Iterable
from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from imaging.deidentify.identity.identifiers import (
    ITEMS,
    Identifier,
    collect_from_datasets,
    collect_from_value,
)
from imaging.deidentify.identity.kinds import vr_of
from imaging.deidentify.objects.element_parser import META_GROUP, ElementBytes
from imaging.deidentify.objects.rules import rules_for
from imaging.deidentify.options import DeidentifyOptions
from imaging.dicom.element_limits import check_element_limits
from imaging.dicom.elements import Doubt
from imaging.dicom.parse import reading
from imaging.pseudonyms import Pseudonyms

CACHE_BYTES, PIECE_BYTES, ENTRY_BYTES = 2**22, 2**12, 512
"""Of a memory, of the longest element in it, and what an entry takes beside its bytes."""
CACHES = 8
BEGIN, BEGIN_TAG = bytes.fromhex("08000000"), BaseTag(0x00080000)
"""An element before the one that is parsed: pydicom tells the form of the rest by its first bytes."""
END, END_TAG = bytes.fromhex("fcfffcff"), BaseTag(0xFFFCFFFC)
"""An element behind it: it is met there only if that one ends where it says."""


class TreatedBytes(NamedTuple):
    """What became of an element if nobody is found in the texts that are to be searched: all its bytes, or none.

    `value` is that of an element that holds no others.
    """

    value: bytes
    written: bytes
    searched: str = ""
    needs_utf8: bool = False


class CachedElement(NamedTuple):
    """What an element tells by itself, and what became of it, if that is the same for every patient."""

    identifiers: tuple[Identifier, ...]
    made: TreatedBytes | None


GONE = TreatedBytes(b"", b"")


class ElementCache:
    """What was learned under the same key, options, character set and form of files; of bounded size."""

    def __init__(self, options: DeidentifyOptions, implicit: bool, charset: ElementBytes | None) -> None:
        self._implicit, self._charset, self._rule_of = implicit, charset, rules_for(options)
        self._charset_value = charset.value() if charset else b""
        self._known: dict[bytes, CachedElement] = {}
        self._personal: dict[tuple[bytes, bytes], TreatedBytes] = {}
        self._fresh: dict[bytes, Dataset] = {}
        self._kept_bytes = 0
        self.own: dict[bool, dict[int, bytes]] = {}
        """The bytes of what every object gets, with and without characters beyond ASCII."""
        if charset is not None:
            with reading("unreadable"):
                self._read(b"")

    def learn(self, pieces: Iterable[ElementBytes]) -> list[CachedElement]:
        """Return what each element of a file tells by itself; raise Doubt where one cannot be followed."""
        self._fresh.clear()
        known = self._known.get
        return [known(piece.whole) or self._learned(piece) for piece in pieces]

    def made(self, piece: ElementBytes, known: CachedElement, patient: bytes) -> TreatedBytes | None:
        """Return what became of an element, of this patient's where that matters; None where it was never met."""
        return known.made or self._personal.get((patient, piece.whole))

    def keep(
        self, piece: ElementBytes, known: CachedElement, made: TreatedBytes, patient: bytes | None
    ) -> None:
        """Remember what becomes of an element, of a patient's or of everybody's."""
        if len(piece.whole) > PIECE_BYTES:
            return
        self._make_room(len(piece.whole) + 2 * len(made.written) + len(made.searched))
        if patient is None:
            self._known[piece.whole] = CachedElement(known.identifiers, made)
        else:
            self._personal[patient, piece.whole] = made

    def parsed(self, piece: ElementBytes) -> Dataset:
        """Return the data set that holds an element with others in it; it must not be used again."""
        fresh = self._fresh.pop(piece.whole, None)
        if fresh is not None:
            return fresh
        with reading("unreadable"):
            return self._read(piece.whole)

    def _learned(self, piece: ElementBytes) -> CachedElement:
        gone = self._rule_of(piece.tag).treatment == "remove"
        known = CachedElement(self._identifiers(piece), GONE if gone else None)
        # What neither tells nor becomes anything yet is soon learned again.
        if any(known) and len(piece.whole) <= PIECE_BYTES:
            self._make_room(len(piece.whole))
            self._known[piece.whole] = known
        return known

    def _identifiers(self, piece: ElementBytes) -> tuple[Identifier, ...]:
        """Return what an element tells under its character set; in the file meta group there is none."""
        if not contains_elements(piece):
            charset = b"" if piece.tag >> 16 == META_GROUP else self._charset_value
            return collect_from_value(piece.tag, piece.vr, piece.value(), charset)
        with reading("unreadable"):
            self._fresh[piece.whole] = dataset = self._read(piece.whole)
            return tuple(one for one in collect_from_datasets(dataset) if one.kind != "text")

    def _read(self, whole: bytes) -> Dataset:
        """Return what pydicom reads of an element that ends where it says; raise Doubt where it does not."""
        charset = self._charset.whole if self._charset else b""
        form = bytes(4) if self._implicit else b"OB" + bytes(6)
        data = BEGIN + form + charset + whole + END + form
        check_element_limits(data, 0, implicit=self._implicit, little=True)
        made = read_dataset(BytesIO(data), self._implicit, True)
        if END_TAG not in made or len(made) != 2 + bool(charset) + bool(whole):
            raise Doubt
        del made[BEGIN_TAG], made[END_TAG]
        return made

    def _make_room(self, count: int) -> None:
        self._kept_bytes += count + ENTRY_BYTES
        if self._kept_bytes > CACHE_BYTES:
            self._known.clear()
            self._personal.clear()
            self._kept_bytes = count + ENTRY_BYTES


@lru_cache(CACHES)
def cache_for(
    options: DeidentifyOptions, pseudonyms: Pseudonyms, implicit: bool, charset: ElementBytes | None
) -> ElementCache:
    """Return the memory of this process for files of a kind; other keys and options have others."""
    return ElementCache(options, implicit, charset)


def contains_elements(piece: ElementBytes) -> bool:
    """Tell whether a sequence is in an element, or might be."""
    if piece.is_open or piece.vr == "SQ":
        return True
    if piece.vr not in (None, "UN"):
        return False
    return vr_of(piece.tag) == "SQ" or piece.whole.startswith(ITEMS, piece.value_at)
