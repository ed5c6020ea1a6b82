"""Owns what stays of private elements: those that PS3.15 table E.3.10-1 calls safe, and the creators that name them."""

from collections.abc import Iterator

from pydicom.datadict import private_dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import VR

from imaging.deidentify.objects.context import Case, Place
from imaging.deidentify.objects.raw import Element, make_raw, raw_bytes
from imaging.deidentify.objects.rules import CONCRETE, DATES, Rule, kept_by
from imaging.deidentify.objects.values import WIDTHS, treated
from imaging.deidentify.profile.safe_private import is_safe
from imaging.dicom.elements import UNDEFINED


def kept_private(case: Case, place: Place, dataset: Dataset) -> Iterator[Element]:
    """Yield the safe private elements of a data set, cleaned by value, and their creators."""
    creators = {
        int(tag): place.decode(raw_bytes(element, place.terms, little=case.little)) or ""
        for tag, element in dataset.items()
        if tag.is_private_creator and element.VR in ("LO", "UN", None)
    }
    used: set[int] = set()
    for tag, element in dataset.items():
        creator_tag = int(tag) & 0xFFFF0000 | (int(tag) >> 8 & 0xFF)
        creator = creators.get(creator_tag, "")
        if not tag.is_private or not creator or not is_safe(creator, int(tag)):
            continue
        kept = _element(case, place, element, creator)
        if kept is not None:
            used.add(creator_tag)
            yield kept
    for at in used:
        yield make_raw(at, "LO", creators[at].encode(), implicit=case.implicit, little=case.little)


def _element(case: Case, place: Place, element: Element, creator: str) -> Element | None:
    """Return an element whose VR is known and whose value is free of identifiers; sequences have no table."""
    tag, vr = int(element.tag), _vr(element, creator)
    if (
        vr is None
        or vr not in set(VR)
        or (isinstance(element, RawDataElement) and _is_foreign(case, element, vr))
    ):
        return None
    rule = Rule("shift" if vr in DATES else "uid" if vr == "UI" else kept_by(vr), (vr,))
    raw = raw_bytes(element, place.terms, little=case.little)
    value = None if rule.how == "items" else treated(case, place, tag, vr, rule, raw)
    return None if value is None else make_raw(tag, vr, value, implicit=case.implicit, little=case.little)


def _is_foreign(case: Case, element: RawDataElement, vr: str) -> bool:
    return element.length == UNDEFINED or (element.is_little_endian != case.little and vr in WIDTHS)


def _vr(element: Element, creator: str) -> str | None:
    """Return the VR that the file says, or the one that is known of the creator."""
    told = element.VR
    if told in (None, "UN"):
        try:
            told = private_dictionary_VR(element.tag, creator)
        except KeyError:
            return None
    told = CONCRETE.get(str(told), (str(told),))[0]
    return None if told == "UN" else told
