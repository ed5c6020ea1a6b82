"""De-identification of one parsed DICOM object, element by element."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from imaging.deidentify.identity.identifiers import Identifier, collect_identifiers
from imaging.deidentify.identity.text_cleaner import TextCleaner
from imaging.deidentify.objects.charsets import is_known
from imaging.deidentify.objects.content_items import (
    ACQUISITION_CONTEXT,
    NAME,
    is_content,
    kept_items,
    masked,
    restore_values,
)
from imaging.deidentify.objects.context import (
    CHARACTER_SET,
    ObjectContext,
    Scope,
    canonical,
    shift_days,
)
from imaging.deidentify.objects.method_statement import statement
from imaging.deidentify.objects.pixel_data import clean_pixel_data
from imaging.deidentify.objects.private_elements import kept_private
from imaging.deidentify.objects.raw_elements import Element, make_raw, raw_bytes, value_bytes
from imaging.deidentify.objects.rules import (
    CONCRETE,
    PATIENT_ID,
    PIXELS,
    TEXT,
    Rule,
    RuleOf,
    Treatment,
    rules_for,
)
from imaging.deidentify.objects.value_treatment import treated
from imaging.deidentify.options import DeidentifyOptions
from imaging.dicom.attributes import decode_text
from imaging.dicom.parse import reading
from imaging.errors import DataFault
from imaging.pseudonyms import Pseudonyms, is_standard_uid

IDENTIFIERS = {
    "SOPInstanceUID": 0x00080018,
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
    "PatientID": PATIENT_ID,
}

SOP_CLASS = 0x00080016
STORAGE = "1.2.840.10008.5.1.4.1.1."
STRUCTURED = f"{STORAGE}88."
"""Structured reports and what is built like them (PS3.4 B.5)."""
ENCAPSULATED = (f"{STORAGE}104.", f"{STORAGE}9.4.")
"""Encapsulated PDF, CDA, STL, OBJ and MTL, and recorded voices: their content cannot be cleaned here."""


def scrub(dataset: Dataset, options: DeidentifyOptions, pseudonyms: Pseudonyms) -> Dataset:
    """Return the data set de-identified by the Basic Profile and the options (PS3.15 annex E).

    The data set is one that `parse` returned; it must not be used afterwards. Elements that cannot be read or that the
    data dictionary does not know are left out. Raises DataFault: "missing-identifier", "document", "unsupported" or
    "unreadable".
    """
    with reading("unreadable"):
        context, scope = begin(dataset, options, pseudonyms)
        elements = {element.tag: element for element in _elements(context, scope, dataset)}
        clean_pixel_data(context, dataset, elements)
        for name, tag in IDENTIFIERS.items():
            # Without a legal value nothing was written in its place.
            if not raw_bytes(elements.get(BaseTag(tag))):
                raise DataFault("missing-identifier", f"{name} is no legal value")
        elements |= statement(options, context.implicit, context.little)
        return _finished(context, scope, dataset, elements)


def begin(
    dataset: Dataset, options: DeidentifyOptions, pseudonyms: Pseudonyms, cleaner: TextCleaner | None = None
) -> tuple[ObjectContext, Scope]:
    """Return context and scope of an object; `cleaner` is one that knows all its identifiers, made where none is given.

    Raises DataFault "document", "unsupported" or "missing-identifier".
    """
    check_sop_class(dataset, options)
    rule_of, syntax = rules_for(options), dataset.file_meta.TransferSyntaxUID
    scope = Scope(patient="").reading(dataset)
    texts = {name: scope.text(dataset, tag) for name, tag in IDENTIFIERS.items()}
    for name, text in texts.items():
        if not text:
            raise DataFault("missing-identifier", f"{name} is missing or empty")
    context = ObjectContext(
        options=options,
        pseudonyms=pseudonyms,
        rule_of=rule_of,
        cleaner=cleaner or TextCleaner(hidden(collect_identifiers(dataset), rule_of)),
        days=shift_days(pseudonyms, canonical(texts["PatientID"], options)),
        implicit=syntax == ImplicitVRLittleEndian,
        little=syntax != ExplicitVRBigEndian,
    )
    return context, replace(scope, patient=context.patient_id(texts["PatientID"]))


def check_sop_class(dataset: Dataset, options: DeidentifyOptions) -> None:
    """Raise DataFault "document" for a document that must not pass, "unsupported" for a class outside the standard."""
    element = dataset.get_item(SOP_CLASS)
    value = element.value if element is not None else None
    uid = decode_text(value) if isinstance(value, bytes) else str(value or "")
    if not uid:
        raise DataFault("missing-identifier", "SOPClassUID is missing or empty")
    if not is_standard_uid(uid):
        raise DataFault("unsupported", "the SOP class is private: nobody else knows what it holds")
    if uid.startswith(ENCAPSULATED):
        raise DataFault("document", "an encapsulated document or a recorded voice never passes")
    if uid.startswith(STRUCTURED) and options.documents == "quarantine":
        raise DataFault("document", "a structured report passes only where documents are to be cleaned")


def hidden(identifiers: Iterable[Identifier], rule_of: RuleOf) -> list[Identifier]:
    """Return the identifiers to be removed from texts: those that an option keeps are no secret."""
    kept: tuple[Treatment, ...] = ("keep", "clean", "age")
    return [one for one in identifiers if one.kind != "text" and rule_of(one.tag).treatment not in kept]


def _elements(context: ObjectContext, scope: Scope, dataset: Dataset) -> Iterator[Element]:
    """Yield the treated elements of a data set or an item."""
    for element in list(dataset.values()):
        kept = treated_element(context, scope, dataset, element)
        if kept is not None:
            yield kept
    if context.options.safe_private:
        yield from kept_private(context, scope, dataset)


def treated_element(
    context: ObjectContext, scope: Scope, dataset: Dataset, element: Element
) -> Element | None:
    """Return a treated element, None where it is removed; the character set is added at the end."""
    # pydicom's tags are slow to compare.
    tag = int(element.tag)
    rule = context.rule_of(tag)
    if rule.treatment == "remove" or tag == CHARACTER_SET or (scope.depth and tag in PIXELS):
        return None
    declared, first = element.VR, rule.vrs[0]
    vr = legal_vr(declared, rule)
    if first == "SQ":
        return _sequence(context, scope, dataset, element, rule) if vr else None
    if tag in PIXELS:
        return element if vr else None
    raw = value_bytes(element, vr, scope.terms, little=context.little) if vr else None
    value = treated(context, scope, tag, vr or first, rule, raw)
    if value is None:
        return None
    is_unchanged = value is raw and (declared == vr or context.implicit) and not len(value) % 2
    if is_unchanged and type(element) is RawDataElement:
        return element
    return make_raw(element.tag, vr or first, value, implicit=context.implicit, little=context.little)


def legal_vr(declared: str | None, rule: Rule) -> str | None:
    """Return the VR to write for an element, None where the one in the file is not legal."""
    if declared in rule.vrs:
        return declared
    if declared in (None, "UN") or declared in CONCRETE:
        return rule.vrs[0]
    return rule.vrs[0] if declared in TEXT and rule.vrs[0] in TEXT else None


def _sequence(
    context: ObjectContext, scope: Scope, dataset: Dataset, element: Element, rule: Rule
) -> Element | None:
    """Return a sequence with its treated items; one of unknown VR is removed where it cannot be parsed."""
    items: list[Dataset] = []
    if rule.treatment in ("items", "masked items"):
        try:
            before = list(dataset[element.tag].value or ())
        except Exception:
            if element.VR != "UN":
                raise
            return None
        tag = int(element.tag)
        around = masked(scope) if tag == NAME else scope
        kept = kept_items(context, scope, tag, before)
        items = [_item(context, around, item, masks=rule.treatment == "masked items") for item in kept]
        if before and not items and tag != ACQUISITION_CONTEXT:
            return None
    return DataElement(element.tag, "SQ", Sequence(items))


def _item(context: ObjectContext, scope: Scope, item: Dataset, *, masks: bool) -> Dataset:
    inner, named = scope.inside(item, context, masks=masks), is_content(item)
    inner = masked(inner) if named else inner
    elements = {element.tag: element for element in _elements(context, inner, item)}
    if named:
        restore_values(context, inner, item, elements)
    treated_item = Dataset(elements)
    treated_item.set_original_encoding(context.implicit, context.little, "iso8859")
    return treated_item


def _finished(
    context: ObjectContext, scope: Scope, dataset: Dataset, elements: dict[BaseTag, Element]
) -> Dataset:
    """Return the new data set: in UTF-8 where ASCII is not enough, with nothing of the old file meta group."""
    terms = written_terms(context, scope)
    elements |= character_set(terms, context.implicit, little=context.little)
    encodings = convert_encodings(list(terms)) if is_known(terms) else "iso8859"
    scrubbed = Dataset(elements, parent_encoding=encodings)
    scrubbed.set_original_encoding(context.implicit, context.little, encodings)
    scrubbed.file_meta = FileMetaDataset()
    scrubbed.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    return scrubbed


def written_terms(context: ObjectContext, scope: Scope) -> tuple[str, ...]:
    """Return the character set of the output: UTF-8 where ASCII is not enough."""
    return ("ISO_IR 192",) if context.notes.needs_utf8 else scope.terms


def character_set(terms: tuple[str, ...], implicit: bool, *, little: bool) -> dict[BaseTag, Element]:
    """Return the element that declares a character set, none where there is none to declare."""
    if not any(terms) or not is_known(terms):
        return {}
    element = make_raw(CHARACTER_SET, "CS", "\\".join(terms).encode(), implicit=implicit, little=little)
    return {element.tag: element}
