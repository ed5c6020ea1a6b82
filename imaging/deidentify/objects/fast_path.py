"""Fast path of de-identification: reuses the result of an element for equal bytes in later files.

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

from imaging.deidentify.identity.identifiers import Identifier
from imaging.deidentify.identity.kinds import Kind
from imaging.deidentify.identity.text_cleaner import WIDEST_BREAK, TextCleaner
from imaging.deidentify.objects.context import CHARACTER_SET, ObjectContext, Scope
from imaging.deidentify.objects.element_cache import (
    GONE,
    CachedElement,
    ElementCache,
    TreatedBytes,
    cache_for,
    contains_elements,
)
from imaging.deidentify.objects.element_parser import (
    PIXEL_DATA,
    ElementBytes,
    Elements,
    ParsedFile,
    dataset_of,
    parse_elements,
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
from imaging.deidentify.objects.raw_elements import Element, padded, raw_bytes
from imaging.deidentify.objects.rules import PATIENT_ID, rules_for
from imaging.deidentify.objects.scrub import (
    IDENTIFIERS,
    begin,
    character_set,
    hidden,
    is_removed,
    legal_vr,
    treated_element,
    written_terms,
)
from imaging.deidentify.objects.sop_classes import check_sop_class
from imaging.deidentify.objects.statement import statement
from imaging.deidentify.objects.values import treated
from imaging.deidentify.options import DeidentifyOptions
from imaging.dicom.elements import Buffer, Doubt
from imaging.dicom.parse import reading
from imaging.pseudonyms import Pseudonyms

APART = "\n" * (WIDEST_BREAK + 2)
"""So far from each other, two texts never make one spelling."""
SIMPLE = re.compile(rb"[0-9A-Fa-f.]+\0?")
BEFORE: deque[ParsedFile] = deque(maxlen=1)
"""The last file: neighbours share most of their elements."""


@dataclass(frozen=True, slots=True)
class RecordingCleaner:
    """A cleaner that finds nobody, and remembers what it was asked."""

    texts: list[str] = field(default_factory=list)

    def matches(self, text: str) -> bool:
        """Find nobody."""
        self.texts.append(text)
        return False

    def clean(self, text: str) -> str:
        """Return the text as it is."""
        self.texts.append(text)
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class FastPath:
    """A file on the swift way; `dataset` is what `parse` returns for it."""

    options: DeidentifyOptions
    pseudonyms: Pseudonyms
    parsed: ParsedFile
    cache: ElementCache
    known: list[CachedElement]
    identifiers: Sequence[Identifier]
    elements: Elements
    dataset: Dataset

    def output(self) -> tuple[tuple[Buffer, ...], dict[str, str]] | None:
        """Return the bytes that `write_object` makes of what `scrub` returns, and the new identifiers by keyword.

        In parts: pixels that stay as they are lie where the file was read. None where `scrub` must decide, by the same
        data set.
        """
        with suppress(Exception):  # `scrub` says what is wrong
            return self._output()
        return None

    def _output(self) -> tuple[tuple[Buffer, ...], dict[str, str]]:
        check_sop_class(self.dataset, self.options)
        recorder = RecordingCleaner()
        context, scope = begin(self.dataset, self.options, self.pseudonyms, recorder)
        self._check_untouched(scope)
        made = self._made(context, scope, recorder)
        identifiers = {name: _identifier(made, tag) for name, tag in IDENTIFIERS.items()}
        context.notes.needs_utf8 = any(one.needs_utf8 for one in made.values())
        parts = {tag: one.written for tag, one in made.items()} | self._own(context, scope)
        begun, *pixels = self._pixels(context, made)
        body = [*(part for _, part in sorted(parts.items())), begun]
        head = in_file(str(self.parsed.syntax), made[SOP_CLASS].value, made[SOP_INSTANCE].value, body)
        return (head, *pixels), identifiers

    def _check_untouched(self, scope: Scope) -> None:
        """Raise Doubt where somebody looked at an element, and pydicom would write it otherwise than it was."""
        for tag, element in self.elements.seen.items():
            if type(element) is RawDataElement:
                continue
            piece = self.elements.pieces[tag]
            raw = padded(str(element.VR), raw_bytes(element, scope.terms))
            if not isinstance(piece, ElementBytes) or element.VR == "SQ":
                raise Doubt
            if piece.vr not in (None, element.VR) or raw != piece.value():
                raise Doubt

    def _made(
        self, context: ObjectContext, scope: Scope, recorder: RecordingCleaner
    ) -> dict[int, TreatedBytes]:
        """Return what becomes of each element but the pixels."""
        patient, cache = raw_bytes(self.dataset.get_item(PATIENT_ID)), self.cache
        made: dict[int, TreatedBytes] = {}
        for piece, known in zip(self.parsed.pieces, self.known, strict=True):
            found = cache.made(piece, known, patient)
            if found is None:
                recorder.texts.clear()
                value, written = self._treated(context, scope, piece)
                found = TreatedBytes(value, written, APART.join(recorder.texts), context.notes.needs_utf8)
                cache.keep(piece, known, found, patient if context.notes.is_patient_specific else None)
            if found is not GONE:
                made[piece.tag] = found
        cleaner = TextCleaner(self.identifiers)
        if cleaner.matches(APART.join([one.searched for one in made.values() if one.searched])):
            named = replace(context, cleaner=cleaner)
            for piece in self.parsed.pieces:
                if piece.tag in made and cleaner.matches(made[piece.tag].searched):
                    value, written = self._treated(named, scope, piece)
                    made[piece.tag] = TreatedBytes(value, written, "", context.notes.needs_utf8)
        return made

    def _treated(self, context: ObjectContext, scope: Scope, piece: ElementBytes) -> tuple[bytes, bytes]:
        """Return value and all bytes of what an element becomes; no bytes where it goes."""
        context.notes.needs_utf8 = context.notes.is_patient_specific = False
        if not contains_elements(piece):
            return _treated_value(context, scope, piece)
        dataset = self.cache.parsed(piece)
        # What pydicom converts it may speak of.
        with reading("unreadable"):
            element = treated_element(context, scope, dataset, dataset.get_item(piece.tag))
        return b"", _written(element, context) if element is not None else b""

    def _own(self, context: ObjectContext, scope: Scope) -> dict[int, bytes]:
        """Return what an object says of itself, the same in many: its character set, and how it was de-identified."""
        held = self.cache.own.get(context.notes.needs_utf8)
        if held is None:
            own = dict(statement(context.options, context.implicit, True))
            declared = character_set(context, written_terms(context, scope))
            if declared is not None:
                own[declared.tag] = declared
            held = {int(tag): _written(element, context) for tag, element in own.items()}
            self.cache.own[context.notes.needs_utf8] = held
        return held

    def _pixels(self, context: ObjectContext, made: dict[int, TreatedBytes]) -> tuple[Buffer, ...]:
        if self.parsed.pixels is None:
            return (b"",)
        vr, value = self.parsed.pixels
        layout = layout_by(lambda tag: made[tag].value if tag in made else b"", little=True)
        clean = clean_native(value, layout, floating=False, little=True)
        return header(PIXEL_DATA, vr or "OW", len(clean), context.implicit, True), clean


def open_fast_path(data: Buffer, options: DeidentifyOptions, pseudonyms: Pseudonyms) -> FastPath | None:
    """Return a file that can go the swift way, or None where `parse` must read it."""
    # Private elements hang on each other, and a blanked object is not the file any more.
    if (
        options.safe_private
        or options.burned_in == "blank"
        or (found := parse_elements(data, *BEFORE)) is None
    ):
        return None
    BEFORE.append(replace(found, pixels=None))
    charset = next((piece for piece in found.pieces if piece.tag == CHARACTER_SET), None)
    with suppress(Exception):  # `parse` says what is wrong
        cache = cache_for(options, pseudonyms, found.implicit, charset)
        known = cache.learn(found.meta + found.pieces)
        named = dict[tuple[Kind, str], Identifier]()
        for each in known:
            for one in each.identifiers:
                named.setdefault((one.kind, one.value), one)
        elements = Elements(found)
        return FastPath(
            options=options,
            pseudonyms=pseudonyms,
            parsed=found,
            cache=cache,
            known=known[len(found.meta) :],
            identifiers=hidden(named.values(), rules_for(options)),
            elements=elements,
            dataset=dataset_of(found, elements),
        )
    return None


def _identifier(made: dict[int, TreatedBytes], tag: int) -> str:
    raw = made[tag].value
    if not SIMPLE.fullmatch(raw):
        raise Doubt
    return raw.rstrip(b"\0").decode()


def _treated_value(context: ObjectContext, scope: Scope, piece: ElementBytes) -> tuple[bytes, bytes]:
    """Return what becomes of an element that holds no others, as `treated_element` does."""
    tag, rule = piece.tag, context.rule_of(piece.tag)
    if is_removed(tag, rule) or rule.vrs[0] == "SQ":
        return b"", b""
    legal = legal_vr(piece.vr, rule)
    vr = legal or rule.vrs[0]
    value = treated(context, scope, tag, vr, rule, piece.value() if legal else None)
    if value is None:
        return b"", b""
    return value, with_header(tag, vr, value, implicit=context.implicit, little=True)


def _written(element: Element, context: ObjectContext) -> bytes:
    return b"".join(encoded(element, context.implicit, context.little))
