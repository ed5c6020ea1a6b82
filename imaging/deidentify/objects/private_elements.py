"""Private elements that stay: those that PS3.15 table E.3.10-1 calls safe, and the elements of their creators."""

from collections.abc import Iterator

from pydicom.datadict import private_dictionary_VR
from pydicom.dataset import Dataset
from pydicom.valuerep import VR

from imaging.deidentify.objects.context import ObjectContext, Scope
from imaging.deidentify.objects.raw_elements import Element, raw_bytes, value_bytes
from imaging.deidentify.objects.rules import CONCRETE, DATES, Rule, keeping
from imaging.deidentify.objects.value_treatment import treated
from imaging.deidentify.profile.safe_private import is_safe


def kept_private(context: ObjectContext, scope: Scope, dataset: Dataset) -> Iterator[Element]:
    """Yield the safe private elements of a data set, cleaned by value, and their creators."""
    creators = {
        int(tag): scope.decode(raw_bytes(element, scope.terms, little=context.little)) or ""
        for tag, element in dataset.items()
        if tag.is_private_creator and element.VR in ("LO", "UN", None)
    }
    used: set[int] = set()
    for tag, element in dataset.items():
        creator_tag = int(tag) & 0xFFFF0000 | (int(tag) >> 8 & 0xFF)
        creator = creators.get(creator_tag, "")
        if not tag.is_private or not creator or not is_safe(creator, int(tag)):
            continue
        kept = _element(context, scope, element, creator)
        if kept is not None:
            used.add(creator_tag)
            yield kept
    for number in used:
        yield context.element(number, "LO", creators[number].encode())


def _element(context: ObjectContext, scope: Scope, element: Element, creator: str) -> Element | None:
    """Return an element cleaned by its value; None where its VR is unknown, it is a sequence, or nothing is left."""
    tag, vr = int(element.tag), _vr(element, creator)
    raw = value_bytes(element, vr, scope.terms, little=context.little) if vr in set(VR) - {"SQ"} else None
    if vr is None or raw is None:
        return None
    rule = Rule("shift" if vr in DATES else "uid" if vr == "UI" else keeping(vr), (vr,))
    value = treated(context, scope, tag, vr, rule, raw)
    return None if value is None else context.element(tag, vr, value)


def _vr(element: Element, creator: str) -> str | None:
    """Return the VR in the file, or the one in the dictionary of the creator; None where it is unknown."""
    vr = element.VR
    if vr in (None, "UN"):
        try:
            vr = private_dictionary_VR(element.tag, creator)
        except KeyError:
            return None
    vr = CONCRETE.get(str(vr), (str(vr),))[0]
    return None if vr == "UN" else vr
