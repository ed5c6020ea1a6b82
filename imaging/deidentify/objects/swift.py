"""Owns the swift way through a plain file: what became of an element elsewhere becomes of the same bytes again.

An object's own identifiers are searched for in all the texts of its elements, in one go; where one is found, the
element is treated anew. On any doubt there is no swift way, and `scrub` decides.
"""

import re
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from imaging.deidentify.identity.identifiers import Identifier
from imaging.deidentify.identity.kinds import Kind
from imaging.deidentify.identity.text import WIDEST_BREAK, TextCleaner
from imaging.deidentify.objects.case import CHARACTER_SET, Case, Place
from imaging.deidentify.objects.documents import check_class
from imaging.deidentify.objects.engine import (
    IDENTIFIERS,
    begin,
    character_set,
    hidden,
    treated_element,
    written_terms,
)
from imaging.deidentify.objects.memory import Known, Made, Memory, memory_of
from imaging.deidentify.objects.pixel_data import LAYOUT, clean_pixel_data
from imaging.deidentify.objects.raw import Element, make_raw, raw_bytes
from imaging.deidentify.objects.rules import PATIENT_ID, rules_for
from imaging.deidentify.objects.split import Elements, Piece, Split, dataset_of, split
from imaging.deidentify.objects.statement import state
from imaging.deidentify.objects.written import SOP_CLASS, SOP_INSTANCE, encoded, in_file
from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.pseudonyms import Pseudonyms
from imaging.dicom.elements import Buffer, Doubt
from imaging.dicom.parse import reading

APART = "\n" * (WIDEST_BREAK + 2)
"""So far from each other, two texts never make one spelling."""
SIMPLE = re.compile(rb"[0-9A-Fa-f.]+\0?")
BEFORE: deque[Split] = deque(maxlen=1)
"""The last file: neighbours share most of their elements."""
LAYOUT_TAGS = tuple(tag for tag, _ in LAYOUT.values())


@dataclass(slots=True)
class Searched:
    """A cleaner that remembers what it was asked and whether anybody was found; made when it is first needed."""

    identifiers: Sequence[Identifier]
    texts: list[str] = field(default_factory=list)
    found: bool = False
    _made: TextCleaner | None = None

    def found_in(self, text: str) -> bool:
        """Tell whether the text names somebody."""
        self.texts.append(text)
        self.found |= (found := self._cleaner().found_in(text))
        return found

    def clean(self, text: str) -> str:
        """Return the text without what names somebody."""
        return self._cleaner().clean(text) if self.found_in(text) else text

    def forget(self) -> None:
        """Begin anew with the next element."""
        self.texts, self.found = [], False

    def _cleaner(self) -> TextCleaner:
        self._made = self._made or TextCleaner(self.identifiers)
        return self._made


@dataclass(frozen=True, slots=True, kw_only=True)
class Swift:
    """A file on the swift way; `dataset` is what `parse` returns for it."""

    options: DeidentifyOptions
    pseudonyms: Pseudonyms
    split: Split
    memory: Memory
    known: list[Known]
    identifiers: Sequence[Identifier]
    elements: Elements
    dataset: Dataset

    def twin(self) -> tuple[bytes, dict[str, str]] | None:
        """Return the bytes that `write_object` makes of what `scrub` returns, and the new identifiers by keyword.

        None where `scrub` must decide, by the same data set.
        """
        with suppress(Exception):  # `scrub` says what is wrong
            return self._twin()
        return None

    def _twin(self) -> tuple[bytes, dict[str, str]]:
        check_class(self.dataset, self.options)
        searched = Searched(self.identifiers)
        case, place = begin(self.dataset, self.options, self.pseudonyms, searched)
        self._check_untouched(place)
        made = self._made(case, place, searched)
        told = {name: _told(made, tag) for name, tag in IDENTIFIERS.items()}
        case.charset.beyond_ascii = any(one.beyond_ascii for one in made.values())
        parts = {tag: one.written for tag, one in made.items()} | self._own(case, place)
        body = [part for _, part in sorted(parts.items())] + self._pixels(case, made)
        sop_class, sop_instance = (raw_bytes(made[tag].element) for tag in (SOP_CLASS, SOP_INSTANCE))
        return in_file(str(self.split.syntax), sop_class, sop_instance, body), told

    def _check_untouched(self, place: Place) -> None:
        """Raise Doubt where somebody looked at an element, and pydicom would write it otherwise than it was."""
        for piece in self.split.pieces:
            element = self.elements.seen.get(piece.tag)
            if element is None or type(element) is RawDataElement:
                continue
            raw = make_raw(
                piece.tag, str(element.VR), raw_bytes(element, place.terms), implicit=True, little=True
            )
            if element.VR == "SQ" or piece.vr not in (None, element.VR) or raw.value != piece.value():
                raise Doubt

    def _made(self, case: Case, place: Place, searched: Searched) -> dict[int, Made]:
        """Return what becomes of each element but the pixels."""
        patient = raw_bytes(self.dataset.get_item(PATIENT_ID))
        memory, again = self.memory, []
        made: dict[int, Made] = {}
        for piece, known in zip(self.split.pieces, self.known, strict=True):
            found = memory.made(piece, known, patient)
            if found is None:
                made[piece.tag] = self._treated(case, place, searched, piece, known, patient)
            else:
                made[piece.tag] = found
                if found.searched:
                    again.append((piece, known, found.searched))
        if again and searched.found_in(APART.join([text for _, _, text in again])):
            for piece, known, text in again:
                if searched.found_in(text):
                    made[piece.tag] = self._treated(case, place, searched, piece, known, patient)
        return made

    def _treated(
        self, case: Case, place: Place, searched: Searched, piece: Piece, known: Known, patient: bytes
    ) -> Made:
        case.charset.beyond_ascii = False
        searched.forget()
        dataset, before = self.memory.held(piece)
        # What pydicom converts it may speak of.
        with reading("unreadable") if len(dataset) else nullcontext():
            element = treated_element(case, place, dataset, before)
        written = _written(element, case) if element is not None else b""
        made = Made(element, written, APART.join(searched.texts), case.charset.beyond_ascii)
        if not searched.found:
            self.memory.keep(piece, known, made, patient)
        return made

    def _own(self, case: Case, place: Place) -> dict[int, bytes]:
        """Return what an object says of itself, the same in many: its character set, and how it was de-identified."""
        held = self.memory.own.get(case.charset.beyond_ascii)
        if held is None:
            own: dict[BaseTag, Element] = {}
            state(case, own)
            declared = character_set(case, written_terms(case, place))
            if declared is not None:
                own[declared.tag] = declared
            held = {int(tag): _written(element, case) for tag, element in own.items()}
            self.memory.own[case.charset.beyond_ascii] = held
        return held

    def _pixels(self, case: Case, made: dict[int, Made]) -> list[bytes]:
        pixels = self.split.pixels
        if pixels is None:
            return []
        found: dict[BaseTag, Element] = {
            BaseTag(tag): element for tag in LAYOUT_TAGS if tag in made and (element := made[tag].element)
        }
        found[pixels.tag] = pixels
        clean_pixel_data(case, self.dataset, found)
        return list(encoded(found[pixels.tag], case.implicit, case.little))


def begin_swiftly(data: Buffer, options: DeidentifyOptions, pseudonyms: Pseudonyms) -> Swift | None:
    """Return a file that can go the swift way, or None where `parse` must read it."""
    # Private elements hang on each other, and a blanked object is not the file any more.
    if options.safe_private or options.burned_in == "blank" or (found := split(data, *BEFORE)) is None:
        return None
    BEFORE.append(replace(found, pixels=None))
    charset = next((piece for piece in found.pieces if piece.tag == CHARACTER_SET), None)
    with suppress(Exception):  # `parse` says what is wrong
        memory = memory_of(options, pseudonyms, found.implicit, charset)
        known = [memory.known(piece) for piece in found.pieces]
        told = [*(memory.known(piece) for piece in found.meta), *known]
        named = dict[tuple[Kind, str], Identifier]()
        for one in (one for each in told for one in each.identifiers):
            named.setdefault((one.kind, one.value), one)
        elements = Elements(found)
        return Swift(
            options=options,
            pseudonyms=pseudonyms,
            split=found,
            memory=memory,
            known=known,
            identifiers=hidden(named.values(), rules_for(options)),
            elements=elements,
            dataset=dataset_of(found, elements),
        )
    return None


def _told(made: dict[int, Made], tag: int) -> str:
    raw = raw_bytes(made[tag].element)
    if not SIMPLE.fullmatch(raw):
        raise Doubt
    return raw.rstrip(b"\0").decode()


def _written(element: Element, case: Case) -> bytes:
    return b"".join(encoded(element, case.implicit, case.little))
