"""Owns the way from one parsed DICOM object to the same object without what identifies a patient."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from imaging.deidentify.identity.identifiers import Identifier, collect
from imaging.deidentify.identity.text import TextCleaner
from imaging.deidentify.objects.charsets import is_known
from imaging.deidentify.objects.content_items import (
    ACQUISITION_CONTEXT,
    NAME,
    is_content,
    masked,
    settle,
    wanted,
)
from imaging.deidentify.objects.context import CHARACTER_SET, Case, Cleaner, Place, canonical
from imaging.deidentify.objects.documents import check_class
from imaging.deidentify.objects.pixel_data import clean_pixel_data
from imaging.deidentify.objects.private import kept_private
from imaging.deidentify.objects.raw import Element, make_raw, raw_bytes
from imaging.deidentify.objects.rules import CONCRETE, PATIENT_ID, PIXELS, TEXT, Rule, RuleOf, rules_for
from imaging.deidentify.objects.statement import state
from imaging.deidentify.objects.values import WIDTHS, treated
from imaging.deidentify.options import DeidentifyOptions
from imaging.dicom.elements import UNDEFINED
from imaging.dicom.parse import reading
from imaging.errors import DataFault
from imaging.pseudonyms import Pseudonyms

IDENTIFIERS = {
    "SOPInstanceUID": 0x00080018,
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
    "PatientID": PATIENT_ID,
}


def scrub(dataset: Dataset, options: DeidentifyOptions, pseudonyms: Pseudonyms) -> Dataset:
    """Return the data set de-identified by the Basic Profile and the options (PS3.15 annex E).

    The data set is one that `parse` returned; it must not be used any more. What cannot be read is left out, and what
    the data dictionary does not know. Raises DataFault: "missing-identifier", "document", "unsupported", "unreadable".
    """
    with reading("unreadable"):
        check_class(dataset, options)
        case, place = begin(dataset, options, pseudonyms)
        found = {element.tag: element for element in _elements(case, place, dataset)}
        clean_pixel_data(case, dataset, found)
        _check_identifiers(found)
        state(case, found)
        return _finish(case, place, dataset, found)


def begin(
    dataset: Dataset, options: DeidentifyOptions, pseudonyms: Pseudonyms, cleaner: Cleaner | None = None
) -> tuple[Case, Place]:
    """Look at the whole object before anything of it changes; `cleaner` is one that knows all its identifiers.

    Without a cleaner one is made. Raises DataFault "missing-identifier".
    """
    rule_of, syntax = rules_for(options), dataset.file_meta.TransferSyntaxUID
    place = Place(patient="").reading(dataset)
    told = {name: place.text(dataset, tag) for name, tag in IDENTIFIERS.items()}
    for name, text in told.items():
        if not text:
            raise DataFault("missing-identifier", f"{name} is missing or empty")
    case = Case(
        options=options,
        pseudonyms=pseudonyms,
        rule_of=rule_of,
        cleaner=cleaner or TextCleaner(hidden(collect(dataset), rule_of)),
        days=pseudonyms.shift_days(canonical(told["PatientID"], options)),
        implicit=syntax == ImplicitVRLittleEndian,
        little=syntax != ExplicitVRBigEndian,
    )
    return case, replace(place, patient=case.patient_id(told["PatientID"]))


def _check_identifiers(found: dict[BaseTag, Element]) -> None:
    """Raise DataFault where an identifier was no legal value, so that nothing stands in its place."""
    for name, tag in IDENTIFIERS.items():
        if not raw_bytes(found.get(BaseTag(tag))):
            raise DataFault("missing-identifier", f"{name} is no legal value")


def hidden(identifiers: Iterable[Identifier], rule_of: RuleOf) -> list[Identifier]:
    """Return those that no text may speak of: what an option keeps is no secret."""
    return [one for one in identifiers if one.kind != "text" and not _stays(rule_of(one.tag))]


def _stays(rule: Rule) -> bool:
    return rule.how in ("keep", "clean", "age")


def _elements(case: Case, place: Place, dataset: Dataset) -> Iterator[Element]:
    """Yield what stays of the elements of a data set or an item."""
    for element in list(dataset.values()):
        kept = treated_element(case, place, dataset, element)
        if kept is not None:
            yield kept
    if case.options.safe_private:
        yield from kept_private(case, place, dataset)


def treated_element(case: Case, place: Place, dataset: Dataset, element: Element) -> Element | None:
    """Return what stays of an element."""
    # Tags of pydicom are slow to compare.
    tag = int(element.tag)
    rule = case.rule_of(tag)
    if goes(tag, rule) or (place.depth and tag in PIXELS):
        return None
    return _element(case, place, dataset, tag, element, rule)


def goes(tag: int, rule: Rule) -> bool:
    """Tell whether nothing of an element may stay; the character set is set at the end."""
    return rule.how == "remove" or tag == CHARACTER_SET


def _element(
    case: Case, place: Place, dataset: Dataset, tag: int, element: Element, rule: Rule
) -> Element | None:
    told, first = element.VR, rule.vrs[0]
    vr = legal_vr(told, rule)
    if first == "SQ":
        return _sequence(case, place, dataset, element, rule) if vr else None
    if tag in PIXELS:
        return element if vr else None
    raw = raw_bytes(element, place.terms, little=case.little) if _is_readable(case, element, vr) else None
    value = treated(case, place, tag, vr or first, rule, raw)
    if value is None:
        return None
    if (
        value is raw
        and (told == vr or case.implicit)
        and not len(raw) % 2
        and type(element) is RawDataElement
    ):
        return element
    return make_raw(element.tag, vr or first, value, implicit=case.implicit, little=case.little)


def legal_vr(told: str | None, rule: Rule) -> str | None:
    """Return the VR that an element gets, None where what the file says must not be."""
    if told in rule.vrs:
        return told
    if told in (None, "UN") or told in CONCRETE:
        return rule.vrs[0]
    return rule.vrs[0] if told in TEXT and rule.vrs[0] in TEXT else None


def _is_readable(case: Case, element: Element, vr: str | None) -> bool:
    """Tell whether the bytes are one value of that VR, in the byte order of what is written."""
    if vr is None or type(element) is not RawDataElement:
        return vr is not None
    return element.length != UNDEFINED and (element.is_little_endian == case.little or vr not in WIDTHS)


def _sequence(case: Case, place: Place, dataset: Dataset, element: Element, rule: Rule) -> Element | None:
    """Return a sequence with what stays of its items; one of unknown VR goes where it cannot be parsed."""
    items: list[Dataset] = []
    if rule.how in ("items", "masked items"):
        try:
            before = list(dataset[element.tag].value or ())
        except Exception:
            if element.VR != "UN":
                raise
            return None
        tag = int(element.tag)
        around = masked(place) if tag == NAME else place
        kept = wanted(case, place, tag, before)
        items = [_item(case, around, item, masks=rule.how == "masked items") for item in kept]
        if before and not items and tag != ACQUISITION_CONTEXT:
            return None
    return DataElement(element.tag, "SQ", Sequence(items))


def _item(case: Case, place: Place, item: Dataset, *, masks: bool) -> Dataset:
    inner, named = place.inside(item, case, masks=masks), is_content(item)
    inner = masked(inner) if named else inner
    found = {element.tag: element for element in _elements(case, inner, item)}
    if named:
        settle(case, inner, item, found)
    made = Dataset(found)
    made.set_original_encoding(case.implicit, case.little, "iso8859")
    return made


def _finish(case: Case, place: Place, dataset: Dataset, found: dict[BaseTag, Element]) -> Dataset:
    """Return the new data set: in UTF-8 where ASCII is not enough, with nothing of the old file meta group."""
    terms = written_terms(case, place)
    declared = character_set(case, terms)
    if declared is not None:
        found[declared.tag] = declared
    encodings = convert_encodings(list(terms)) if is_known(terms) else "iso8859"
    made = Dataset(found, parent_encoding=encodings)
    made.set_original_encoding(case.implicit, case.little, encodings)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    return made


def written_terms(case: Case, place: Place) -> tuple[str, ...]:
    """Return the character set of the output: UTF-8 where ASCII is not enough."""
    return ("ISO_IR 192",) if case.traces.beyond_ascii else place.terms


def character_set(case: Case, terms: tuple[str, ...]) -> RawDataElement | None:
    """Return the element that declares a character set, None where there is none to declare."""
    if not any(terms) or not is_known(terms):
        return None
    value = "\\".join(terms).encode()
    return make_raw(CHARACTER_SET, "CS", value, implicit=case.implicit, little=case.little)
