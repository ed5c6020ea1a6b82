"""Owns the swift way through a plain file: what became of an element elsewhere becomes of the same bytes again.

An object's own identifiers are searched for in all the texts of its elements, in one go; where one is found, the
element is treated anew. On any doubt there is no swift way, and `scrub` decides.
"""

import re
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from imaging.deidentify.identity.identifiers import Identifier
from imaging.deidentify.identity.kinds import Kind
from imaging.deidentify.identity.text import WIDEST_BREAK, TextCleaner
from imaging.deidentify.objects.context import CHARACTER_SET, Case, Place
from imaging.deidentify.objects.documents import check_class
from imaging.deidentify.objects.element_cache import GONE, Known, Made, Memory, holds_elements, memory_of
from imaging.deidentify.objects.element_parser import PIXEL_DATA, Elements, Piece, Split, dataset_of, split
from imaging.deidentify.objects.engine import (
    IDENTIFIERS,
    begin,
    character_set,
    goes,
    hidden,
    legal_vr,
    treated_element,
    written_terms,
)
from imaging.deidentify.objects.file_writer import (
    SOP_CLASS,
    SOP_INSTANCE,
    encoded,
    header,
    in_file,
    with_header,
)
from imaging.deidentify.objects.pixel_data import clean_native, layout_by
from imaging.deidentify.objects.raw import Element, padded, raw_bytes
from imaging.deidentify.objects.rules import PATIENT_ID, rules_for
from imaging.deidentify.objects.statement import state
from imaging.deidentify.objects.values import treated
from imaging.deidentify.options import DeidentifyOptions
from imaging.dicom.elements import Buffer, Doubt
from imaging.dicom.parse import reading
from imaging.pseudonyms import Pseudonyms

APART = "\n" * (WIDEST_BREAK + 2)
"""So far from each other, two texts never make one spelling."""
SIMPLE = re.compile(rb"[0-9A-Fa-f.]+\0?")
BEFORE: deque[Split] = deque(maxlen=1)
"""The last file: neighbours share most of their elements."""


@dataclass(frozen=True, slots=True)
class Nobody:
    """A cleaner that finds nobody, and remembers what it was asked."""

    texts: list[str] = field(default_factory=list)

    def found_in(self, text: str) -> bool:
        """Find nobody."""
        self.texts.append(text)
        return False

    def clean(self, text: str) -> str:
        """Return the text as it is."""
        self.texts.append(text)
        return text


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

    def twin(self) -> tuple[tuple[Buffer, ...], dict[str, str]] | None:
        """Return the bytes that `write_object` makes of what `scrub` returns, and the new identifiers by keyword.

        In parts: pixels that stay as they are lie where the file was read. None where `scrub` must decide, by the same
        data set.
        """
        with suppress(Exception):  # `scrub` says what is wrong
            return self._twin()
        return None

    def _twin(self) -> tuple[tuple[Buffer, ...], dict[str, str]]:
        check_class(self.dataset, self.options)
        nobody = Nobody()
        case, place = begin(self.dataset, self.options, self.pseudonyms, nobody)
        self._check_untouched(place)
        made = self._made(case, place, nobody)
        told = {name: _told(made, tag) for name, tag in IDENTIFIERS.items()}
        case.traces.beyond_ascii = any(one.beyond_ascii for one in made.values())
        parts = {tag: one.written for tag, one in made.items()} | self._own(case, place)
        begun, *pixels = self._pixels(case, made)
        body = [*(part for _, part in sorted(parts.items())), begun]
        head = in_file(str(self.split.syntax), made[SOP_CLASS].value, made[SOP_INSTANCE].value, body)
        return (head, *pixels), told

    def _check_untouched(self, place: Place) -> None:
        """Raise Doubt where somebody looked at an element, and pydicom would write it otherwise than it was."""
        for tag, element in self.elements.seen.items():
            if type(element) is RawDataElement:
                continue
            piece = self.elements.pieces[tag]
            raw = padded(str(element.VR), raw_bytes(element, place.terms))
            if not isinstance(piece, Piece) or element.VR == "SQ":
                raise Doubt
            if piece.vr not in (None, element.VR) or raw != piece.value():
                raise Doubt

    def _made(self, case: Case, place: Place, nobody: Nobody) -> dict[int, Made]:
        """Return what becomes of each element but the pixels."""
        patient, memory = raw_bytes(self.dataset.get_item(PATIENT_ID)), self.memory
        made: dict[int, Made] = {}
        for piece, known in zip(self.split.pieces, self.known, strict=True):
            found = memory.made(piece, known, patient)
            if found is None:
                nobody.texts.clear()
                value, written = self._treated(case, place, piece)
                found = Made(value, written, APART.join(nobody.texts), case.traces.beyond_ascii)
                memory.keep(piece, known, found, patient if case.traces.personal else None)
            if found is not GONE:
                made[piece.tag] = found
        cleaner = TextCleaner(self.identifiers)
        if cleaner.found_in(APART.join([one.searched for one in made.values() if one.searched])):
            named = replace(case, cleaner=cleaner)
            for piece in self.split.pieces:
                if piece.tag in made and cleaner.found_in(made[piece.tag].searched):
                    value, written = self._treated(named, place, piece)
                    made[piece.tag] = Made(value, written, "", case.traces.beyond_ascii)
        return made

    def _treated(self, case: Case, place: Place, piece: Piece) -> tuple[bytes, bytes]:
        """Return value and all bytes of what an element becomes; no bytes where it goes."""
        case.traces.beyond_ascii = case.traces.personal = False
        if not holds_elements(piece):
            return _treated_value(case, place, piece)
        dataset = self.memory.parsed(piece)
        # What pydicom converts it may speak of.
        with reading("unreadable"):
            element = treated_element(case, place, dataset, dataset.get_item(piece.tag))
        return b"", _written(element, case) if element is not None else b""

    def _own(self, case: Case, place: Place) -> dict[int, bytes]:
        """Return what an object says of itself, the same in many: its character set, and how it was de-identified."""
        held = self.memory.own.get(case.traces.beyond_ascii)
        if held is None:
            own: dict[BaseTag, Element] = {}
            state(case, own)
            declared = character_set(case, written_terms(case, place))
            if declared is not None:
                own[declared.tag] = declared
            held = {int(tag): _written(element, case) for tag, element in own.items()}
            self.memory.own[case.traces.beyond_ascii] = held
        return held

    def _pixels(self, case: Case, made: dict[int, Made]) -> tuple[Buffer, ...]:
        if self.split.pixels is None:
            return (b"",)
        vr, value = self.split.pixels
        layout = layout_by(lambda tag: made[tag].value if tag in made else b"", little=True)
        clean = clean_native(value, layout, floating=False, little=True)
        return header(PIXEL_DATA, vr or "OW", len(clean), case.implicit, True), clean


def begin_swiftly(data: Buffer, options: DeidentifyOptions, pseudonyms: Pseudonyms) -> Swift | None:
    """Return a file that can go the swift way, or None where `parse` must read it."""
    # Private elements hang on each other, and a blanked object is not the file any more.
    if options.safe_private or options.burned_in == "blank" or (found := split(data, *BEFORE)) is None:
        return None
    BEFORE.append(replace(found, pixels=None))
    charset = next((piece for piece in found.pieces if piece.tag == CHARACTER_SET), None)
    with suppress(Exception):  # `parse` says what is wrong
        memory = memory_of(options, pseudonyms, found.implicit, charset)
        known = memory.learn(found.meta + found.pieces)
        named = dict[tuple[Kind, str], Identifier]()
        for each in known:
            for one in each.identifiers:
                named.setdefault((one.kind, one.value), one)
        elements = Elements(found)
        return Swift(
            options=options,
            pseudonyms=pseudonyms,
            split=found,
            memory=memory,
            known=known[len(found.meta) :],
            identifiers=hidden(named.values(), rules_for(options)),
            elements=elements,
            dataset=dataset_of(found, elements),
        )
    return None


def _told(made: dict[int, Made], tag: int) -> str:
    raw = made[tag].value
    if not SIMPLE.fullmatch(raw):
        raise Doubt
    return raw.rstrip(b"\0").decode()


def _treated_value(case: Case, place: Place, piece: Piece) -> tuple[bytes, bytes]:
    """Return what becomes of an element that holds no others, as `treated_element` does."""
    tag, rule = piece.tag, case.rule_of(piece.tag)
    if goes(tag, rule) or rule.vrs[0] == "SQ":
        return b"", b""
    legal = legal_vr(piece.vr, rule)
    vr = legal or rule.vrs[0]
    value = treated(case, place, tag, vr, rule, piece.value() if legal else None)
    if value is None:
        return b"", b""
    return value, with_header(tag, vr, value, implicit=case.implicit, little=True)


def _written(element: Element, case: Case) -> bytes:
    return b"".join(encoded(element, case.implicit, case.little))
