"""Fast path of de-identification: reuses the result of an element for equal bytes in later files.

The texts of all elements are searched at once for the object's own identifiers; an element in which one is found is
treated again. In any doubt there is no fast path, and `scrub` decides.
"""

import re
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from imaging.deidentify.identity.identifier_kinds import Kind
from imaging.deidentify.identity.identifiers import Identifier
from imaging.deidentify.identity.text_cleaner import WIDEST_BREAK, TextCleaner
from imaging.deidentify.objects.context import CHARACTER_SET, ObjectContext, Scope
from imaging.deidentify.objects.element_cache import (
    REMOVED,
    CachedElement,
    ElementCache,
    TreatedBytes,
    cache_for,
)
from imaging.deidentify.objects.element_parser import (
    PIXEL_DATA,
    SYNTAX,
    ElementBytes,
    ParsedFile,
    parse_elements,
)
from imaging.deidentify.objects.file_writer import SOP_CLASS, SOP_INSTANCE, encoded, header, in_file
from imaging.deidentify.objects.method_statement import statement
from imaging.deidentify.objects.pixel_data import check_searched, clean_native, layout_by
from imaging.deidentify.objects.raw_elements import padded, raw_bytes
from imaging.deidentify.objects.rules import PATIENT_ID, rules_for
from imaging.deidentify.objects.scrub import (
    IDENTIFIERS,
    begin,
    character_set,
    hidden,
    treated_element,
    written_terms,
)
from imaging.deidentify.options import DeidentifyOptions
from imaging.dicom.elements import Buffer, Doubt
from imaging.dicom.parse import reading
from imaging.pseudonyms import Pseudonyms

SEPARATOR = "\n" * (WIDEST_BREAK + 2)
"""Text so wide that no spelling is found across it."""
ONE_IDENTIFIER = re.compile(rb"[0-9A-Fa-f.]+\0?")
PREVIOUS: deque[ParsedFile] = deque(maxlen=1)
"""The last file: neighbours in a series share most of their elements."""


class RecordingCleaner(TextCleaner):
    """A cleaner without identifiers, which records the texts that are searched."""

    __slots__ = ("texts",)

    def __init__(self) -> None:
        self.texts: list[str] = []

    def matches(self, text: str) -> bool:
        """Return False, as there are no identifiers."""
        self.texts.append(text)
        return False

    def clean(self, text: str) -> str:
        """Return the text as it is."""
        self.texts.append(text)
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class FastPath:
    """A file on the fast path; `dataset` is what `parse` returns for it, without the pixel data."""

    options: DeidentifyOptions
    pseudonyms: Pseudonyms
    parsed: ParsedFile
    cache: ElementCache
    known: list[CachedElement]
    identifiers: Sequence[Identifier]
    dataset: Dataset

    def output(self) -> tuple[tuple[Buffer, ...], dict[str, str]] | None:
        """Return the bytes that `write_object` returns for the result of `scrub`, and the new identifiers by keyword.

        The bytes are in parts: pixels that stay as they are lie where the file was read. Where the answer is None,
        `scrub` decides on the data set, which is then complete.
        """
        with suppress(Exception):  # `scrub` finds what is wrong
            return self._output()
        if self.parsed.pixels is not None:
            vr, value = self.parsed.pixels
            size, implicit = len(value), self.parsed.implicit
            raw = RawDataElement(BaseTag(PIXEL_DATA), vr, size, bytes(value), 0, implicit, True)
            self.dataset[PIXEL_DATA] = raw
        return None

    def _output(self) -> tuple[tuple[Buffer, ...], dict[str, str]]:
        context, scope = begin(self.dataset, self.options, self.pseudonyms, RecordingCleaner())
        self._check_unchanged(scope)
        treated = self._treated(context, scope)
        identifiers = {name: _identifier(treated[tag].value) for name, tag in IDENTIFIERS.items()}
        context.notes.needs_utf8 = any(one.needs_utf8 for one in treated.values())
        written = {tag: one.written for tag, one in treated.items()} | self._added(context, scope)
        begun, *pixels = self._pixels(context, treated)
        body = [*(written[tag] for tag in sorted(written)), begun]
        sop_class, instance = (treated[tag].value for tag in (SOP_CLASS, SOP_INSTANCE))
        return (in_file(str(self.parsed.syntax), sop_class, instance, body), *pixels), identifiers

    def _check_unchanged(self, scope: Scope) -> None:
        """Raise Doubt where an element was read from the data set and pydicom would write it differently now."""
        for element, known in zip(self.dataset.values(), self.known, strict=True):
            if type(element) is RawDataElement:
                continue
            vr, raw = known.raw.VR, padded(str(element.VR), raw_bytes(element, scope.terms))
            if element.VR == "SQ" or vr not in (None, element.VR) or raw != (known.raw.value or b""):
                raise Doubt

    def _treated(self, context: ObjectContext, scope: Scope) -> dict[int, TreatedBytes]:
        """Return the elements of the output without its pixel data."""
        patient, cache = raw_bytes(self.dataset.get_item(PATIENT_ID)), self.cache
        treated: dict[int, TreatedBytes] = {}
        for element, known in zip(self.parsed.elements, self.known, strict=True):
            result = known.treated or cache.of_patients.get((patient, element.whole))
            if result is None:
                result = self._treat(context, scope, element, known)
                cache.keep(element, known, result, patient if context.notes.is_patient_specific else None)
            if result is not REMOVED:
                treated[element.tag] = result
        cleaner = TextCleaner(self.identifiers)
        if cleaner.matches(SEPARATOR.join([one.searched for one in treated.values() if one.searched])):
            named = replace(context, cleaner=cleaner)
            for element, known in zip(self.parsed.elements, self.known, strict=True):
                if element.tag in treated and cleaner.matches(treated[element.tag].searched):
                    treated[element.tag] = self._treat(named, scope, element, known)
        return treated

    def _treat(
        self, context: ObjectContext, scope: Scope, element: ElementBytes, known: CachedElement
    ) -> TreatedBytes:
        """Return an element of the output; one without bytes is removed."""
        notes, cleaner = context.notes, context.cleaner
        notes.needs_utf8 = notes.is_patient_specific = False
        texts = cleaner.texts if isinstance(cleaner, RecordingCleaner) else []
        texts.clear()
        if not element.may_contain_elements():
            result = treated_element(context, scope, self.dataset, known.raw)
        else:
            dataset = self.cache.parsed(element)
            with reading("unreadable"):  # it silences pydicom's warnings, too, which quote values
                result = treated_element(context, scope, dataset, dataset.get_item(element.tag))
        value = written = b""
        if type(result) is RawDataElement:
            value = result.value or b""
            written = header(element.tag, result.VR or "", len(value), context.implicit, True) + value
        elif result is not None:
            written = b"".join(encoded(result, context.implicit, True))
        return TreatedBytes(value, written, SEPARATOR.join(texts), notes.needs_utf8)

    def _added(self, context: ObjectContext, scope: Scope) -> dict[int, bytes]:
        """Return the elements that are added to every object: the statement and the character set."""
        terms, implicit = written_terms(context, scope), context.implicit
        added = self.cache.added.get(terms)
        if added is None:
            elements = {
                **statement(self.options, implicit, True),
                **character_set(terms, implicit, little=True),
            }
            added = {int(tag): b"".join(encoded(one, implicit, True)) for tag, one in elements.items()}
            self.cache.added[terms] = added
        return added

    def _pixels(self, context: ObjectContext, treated: dict[int, TreatedBytes]) -> tuple[Buffer, ...]:
        if self.parsed.pixels is None:
            return (b"",)
        vr, value = self.parsed.pixels
        layout = layout_by(lambda tag: treated[tag].value if tag in treated else b"", little=True)
        before = {element.tag: element for element in self.parsed.elements}
        searched = layout_by(lambda tag: before[tag].value() if tag in before else b"", little=True)
        check_searched(layout, searched)
        clean = clean_native(value, layout, floating=False, little=True)
        return header(PIXEL_DATA, vr or "OW", len(clean), context.implicit, True), clean


def open_fast_path(data: Buffer, options: DeidentifyOptions, pseudonyms: Pseudonyms) -> FastPath | None:
    """Return a file that can take the fast path, or None where `parse` must read it."""
    # Private elements depend on each other, and a blanked object is not in the file.
    if options.safe_private or options.burned_in == "blank":
        return None
    parsed = parse_elements(data, *PREVIOUS)
    if parsed is None:
        return None
    PREVIOUS.append(replace(parsed, pixels=None))
    charset = next((element for element in parsed.elements if element.tag == CHARACTER_SET), None)
    with suppress(Exception):  # `parse` finds what is wrong
        cache = cache_for(options, pseudonyms, parsed.implicit, charset)
        known = cache.known(parsed.meta + parsed.elements)
        meta, elements = known[: len(parsed.meta)], known[len(parsed.meta) :]
        identifiers = dict[tuple[Kind, str], Identifier]()
        for each in known:
            for one in each.identifiers:
                identifiers.setdefault((one.kind, one.value), one)
        return FastPath(
            options=options,
            pseudonyms=pseudonyms,
            parsed=parsed,
            cache=cache,
            known=elements,
            identifiers=hidden(identifiers.values(), rules_for(options)),
            dataset=_dataset(parsed.syntax, meta, elements),
        )
    return None


def _dataset(syntax: UID, meta: Sequence[CachedElement], elements: Sequence[CachedElement]) -> Dataset:
    dataset = Dataset({raw.tag: raw for raw, _, _ in elements})
    declared = DataElement(SYNTAX, "UI", syntax, already_converted=True)
    dataset.file_meta = FileMetaDataset({raw.tag: raw for raw, _, _ in meta} | {declared.tag: declared})
    return dataset


def _identifier(value: bytes) -> str:
    if not ONE_IDENTIFIER.fullmatch(value):
        raise Doubt
    return value.rstrip(b"\0").decode()
