"""Owns what is remembered of elements: what each tells by itself, and what became of it when nobody was found in it.

What depends on who the patient is, is remembered for that patient alone.
"""

from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from imaging.deidentify.identity.identifiers import ITEMS, Identifier, collect_from
from imaging.deidentify.identity.kinds import kind_of, vr_of
from imaging.deidentify.objects.raw import Element
from imaging.deidentify.objects.rules import RuleOf, rules_for
from imaging.deidentify.objects.split import META_GROUP, Piece, raw_of
from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.pseudonyms import Pseudonyms
from imaging.dicom.elements import Doubt
from imaging.dicom.parse import reading
from imaging.dicom.structure import check_structure

REMEMBERED_BYTES, PIECE_BYTES, ENTRY_BYTES = 2**22, 2**12, 512
"""Of a memory, of the longest element in it, and what an entry takes beside its bytes."""
MEMORIES = 8
BEGIN, BEGIN_TAG = bytes.fromhex("08000000"), BaseTag(0x00080000)
"""An element before the one that is parsed: pydicom tells the form of the rest by its first bytes."""
END, END_TAG = bytes.fromhex("fcfffcff"), BaseTag(0xFFFCFFFC)
"""An element behind it: it is met there only if that one ends where it says."""
OF_THE_PATIENT = frozenset({"patient", "shift", "items", "masked items"})
"""Rules whose outcome depends on who the patient is."""
EMPTY = Dataset()


class Made(NamedTuple):
    """What became of an element: none, or one and its bytes, if nobody is found in the texts that were searched."""

    element: Element | None
    written: bytes
    searched: str
    beyond_ascii: bool


class Known(NamedTuple):
    """What an element tells by itself, and what became of it, if that is the same for every patient."""

    identifiers: tuple[Identifier, ...]
    made: Made | None


GONE = Made(None, b"", "", False)
DULL, DULL_AND_GONE = Known((), None), Known((), GONE)


class Memory:
    """What was learned under the same key, options, character set and form of files; of bounded size."""

    def __init__(self, options: DeidentifyOptions, implicit: bool, charset: Piece | None) -> None:
        self._implicit, self._charset, self._rule_of = implicit, charset, rules_for(options)
        self._known: dict[bytes, Known] = {}
        self._personal: dict[tuple[bytes, bytes], Made] = {}
        self._held_bytes = 0
        self.own: dict[bool, dict[int, bytes]] = {}
        """The bytes of what every object gets, with and without characters beyond ASCII."""
        if charset is not None:
            with reading("unreadable"):
                self._parsed(b"")

    def known(self, piece: Piece) -> Known:
        """Return what an element tells by itself; raise Doubt where it cannot be followed."""
        return self._known.get(piece.whole) or self._learned(piece)

    def made(self, piece: Piece, known: Known, patient: bytes) -> Made | None:
        """Return what became of an element, of this patient's where that matters; None where it was never met."""
        return known.made or self._personal.get((patient, piece.whole))

    def keep(self, piece: Piece, known: Known, made: Made, patient: bytes) -> None:
        """Remember what became of an element in which nobody was found."""
        if len(piece.whole) > PIECE_BYTES:
            return
        self._make_room(len(piece.whole) + len(made.written) + len(made.searched))
        rule = self._rule_of(piece.tag)
        if rule.how in OF_THE_PATIENT or rule.otherwise in OF_THE_PATIENT:
            self._personal[patient, piece.whole] = made
        else:
            self._known[piece.whole] = known._replace(made=made)

    def held(self, piece: Piece) -> tuple[Dataset, Element]:
        """Return an element and the data set it lies in."""
        if not holds_elements(piece):
            return EMPTY, raw_of(piece, implicit=self._implicit)
        with reading("unreadable"):
            dataset = self._parsed(piece.whole)
        element = dataset.get_item(piece.tag)
        assert element is not None
        return dataset, element

    def _learned(self, piece: Piece) -> Known:
        dull = _dull(piece.tag, piece.vr, self._rule_of)
        if dull is not None and not holds_elements(piece):
            known = dull
        else:
            gone = self._rule_of(piece.tag).how == "remove"
            told = tuple(one for one in self._told(piece) if one.kind != "text")
            known = Known(told, GONE if gone else None)
        if known is not DULL and len(piece.whole) <= PIECE_BYTES:
            self._make_room(len(piece.whole))
            self._known[piece.whole] = known
        return known

    def _told(self, piece: Piece) -> tuple[Identifier, ...]:
        """Return what an element tells under its character set; in the file meta group there is none."""
        if holds_elements(piece):
            with reading("unreadable"):
                return collect_from(self._parsed(piece.whole))
        of_meta = piece.tag >> 16 == META_GROUP
        around = [] if of_meta or self._charset is None else [self._charset]
        raws = [raw_of(one, implicit=self._implicit and not of_meta) for one in (*around, piece)]
        return collect_from(Dataset({raw.tag: raw for raw in raws}))

    def _parsed(self, whole: bytes) -> Dataset:
        """Return what pydicom reads of an element that ends where it says; raise Doubt where it does not."""
        charset = self._charset.whole if self._charset else b""
        form = bytes(4) if self._implicit else b"OB" + bytes(6)
        data = BEGIN + form + charset + whole + END + form
        check_structure(data, 0, implicit=self._implicit, little=True)
        made = read_dataset(BytesIO(data), self._implicit, True)
        if END_TAG not in made or len(made) != 2 + bool(charset) + bool(whole):
            raise Doubt
        del made[BEGIN_TAG], made[END_TAG]
        return made

    def _make_room(self, count: int) -> None:
        self._held_bytes += count + ENTRY_BYTES
        if self._held_bytes > REMEMBERED_BYTES:
            self._known.clear()
            self._personal.clear()
            self._held_bytes = count + ENTRY_BYTES


@lru_cache(MEMORIES)
def memory_of(
    options: DeidentifyOptions, pseudonyms: Pseudonyms, implicit: bool, charset: Piece | None
) -> Memory:
    """Return the memory of this process for files of a kind; other keys and options have others."""
    return Memory(options, implicit, charset)


@lru_cache(2**15)
def _dull(tag: int, vr: str | None, rule_of: RuleOf) -> Known | None:
    """Return what an element tells that holds no others, where that does not hang on its value."""
    found = vr_of(tag) if vr in (None, "UN") else vr
    if kind_of(tag, str(found)) not in (None, "text"):
        return None
    return DULL_AND_GONE if rule_of(tag).how == "remove" else DULL


def holds_elements(piece: Piece) -> bool:
    """Tell whether a sequence is in an element, or might be."""
    if piece.vr in (None, "UN") and (vr_of(piece.tag) == "SQ" or piece.value()[:4] in ITEMS):
        return True
    return piece.is_open or piece.vr == "SQ"
