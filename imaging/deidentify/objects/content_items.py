"""Owns what becomes of a content item (PS3.3 10.2 and C.17.3), by its concept, as PS3.15 E.3.4 has it.

Its words are masked, and those of codes that not everybody uses; what the table or DICOM says is harmless is put back.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple, cast

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from imaging.deidentify.objects.context import CODE_SCHEME, CODE_VALUES, Case, Place
from imaging.deidentify.objects.dummies import dummy
from imaging.deidentify.objects.raw import Element, make_raw, raw_bytes
from imaging.deidentify.objects.rules import Rule
from imaging.deidentify.objects.values import treated
from imaging.deidentify.profile.profile import Action
from imaging.deidentify.profile.structured import WITHOUT_WORDS, Concept, concept, load_content
from imaging.dicom.attributes import decode_numbers

VALUE_TYPE, NAME, RELATIONSHIP, CONTENT = 0x0040A040, 0x0040A043, 0x0040A010, 0x0040A730
REFERENCE, CODE_VALUE = 0x0040DB73, 0x00080100
Path = tuple[int, ...]
ACQUISITION_CONTEXT = 0x00400555
TEXT_VALUE, UID_VALUE = 0x0040A160, 0x0040A124
TIMES = {0x0040A120: "DT", 0x0040A121: "DA", 0x0040A122: "TM"}
MEASURED, NUMBER, UNITS = 0x0040A300, 0x0040A30A, 0x004008EA
OTHER_NUMBERS = (0x0040A161, 0x0040A162, 0x0040A163)
"""The same number in other forms."""
OLDEST, IN_A_YEAR = 90, {"mo": 12, "wk": 52, "d": 365, "h": 8760}
"""As for the attribute that holds an age; and how many of a unit (UCUM) are in a year, one of any other."""


class Content(NamedTuple):
    """What is known of a content item: its value type, the action of the table, and whether its concept is defined."""

    value_type: str
    action: Action | None
    known: bool

    @property
    def is_harmless(self) -> bool:
        """Tell whether a value may stay that names nobody by itself."""
        return self.action in ("C", "K") or (self.action is None and self.known)


def is_content(item: Dataset) -> bool:
    """Tell whether an item is a name with a value."""
    # Asked of every item of every sequence, and slow of a data set.
    tags = item.keys()
    return NAME in tags or VALUE_TYPE in tags


def masked(place: Place) -> Place:
    """Return the place that a content item is, or that the name of a document is in."""
    return place if place.masked else replace(place, masked="text")


def wanted(case: Case, place: Place, tag: int, items: list[Dataset]) -> list[Dataset]:
    """Return the items of a sequence that stay; references by position follow the items that they mean."""
    lost = _refer_anew(case, place, items) if tag == CONTENT and not place.depth else frozenset()
    return [item for item in items if id(item) not in lost and _stays(case, place, item)]


def settle(case: Case, place: Place, item: Dataset, found: dict[BaseTag, Element]) -> None:
    """Put back what of a content item's own values may stay, and take out what must not."""
    content = _content(case, place, item)
    if case.options.structured and content.value_type == "TEXT" and content.is_harmless:
        _put_back(case, replace(place, masked=""), item, TEXT_VALUE, case.rule_of(TEXT_VALUE), found)
    if content.value_type == "UIDREF" and content.action == "K":
        _put_back(case, place, item, UID_VALUE, Rule("keep", ("UI",)), found)
    for tag, vr in TIMES.items():
        if tag in found and not content.is_harmless:
            found[BaseTag(tag)] = _made(case, tag, vr, dummy(tag, vr) or b"")
    if content.value_type in ("NUM", "NUMERIC") and content.action == "K":
        _cap(case, place, found)


def _content(case: Case, place: Place, item: Dataset) -> Content:
    told, table = place.text(item, VALUE_TYPE), load_content()
    value_type = "NUM" if told == "NUMERIC" else told
    names = _names(place, item)
    actions = {table.action(name, value_type, case.options) for name in names}
    # Of several names the strictest counts.
    action = next((one for one in ("X", "D", "C", "K") if one in actions), None)
    known = len(names) == 1 and all(map(table.knows, names))
    return Content(told, cast(Action | None, action), known)


def _names(place: Place, item: Dataset) -> list[Concept]:
    """Return the concepts that an item is named by; none where they cannot be read."""
    names: list[Concept] = []
    with suppress(Exception):  # what is broken is unknown
        for code in item[NAME].value if NAME in item else ():
            scheme = place.text(code, CODE_SCHEME)
            names += [concept(place.text(code, tag), scheme) for tag in CODE_VALUES if tag in code]
    return names


def _stays(case: Case, place: Place, item: Dataset) -> bool:
    if not is_content(item):
        return True
    content = _content(case, place, item)
    if content.action == "X":
        # Coordinates are none without what they lie on; its identifiers are replaced as everywhere.
        return place.text(item, RELATIONSHIP) == "SELECTED FROM" and content.value_type in WITHOUT_WORDS
    # There is no dummy of a code or a measurement that would not be taken for one.
    return content.action != "D" or content.value_type not in ("CODE", "NUM", "NUMERIC", "")


def _put_back(
    case: Case, place: Place, item: Dataset, tag: int, rule: Rule, found: dict[BaseTag, Element]
) -> None:
    element = item.get_item(tag)
    if tag not in found or element is None:
        return
    raw, vr = raw_bytes(element, place.terms, little=case.little), rule.vrs[0]
    value = treated(case, place, tag, vr, rule, raw)
    if value is not None:
        found[BaseTag(tag)] = _made(case, tag, vr, value)


def _cap(case: Case, place: Place, found: dict[BaseTag, Element]) -> None:
    """Make an age over 89 years one of 90; a number of unknown units is taken for years."""
    measured = found.get(BaseTag(MEASURED))
    for holder in [found] if measured is None else cast(list[Dataset], measured.value):
        for other in OTHER_NUMBERS:
            holder.pop(BaseTag(other), None)
        number, units = holder.get(BaseTag(NUMBER)), holder.get(BaseTag(UNITS))
        codes = cast(list[Dataset], units.value) if units is not None else ()
        most = OLDEST * max((IN_A_YEAR.get(place.text(code, CODE_VALUE), 1) for code in codes), default=1)
        if max(decode_numbers(raw_bytes(number), "DS"), default=0) >= most:
            holder[BaseTag(NUMBER)] = _made(case, NUMBER, "DS", str(most).encode())


def _refer_anew(case: Case, place: Place, items: list[Dataset]) -> frozenset[int]:
    """Correct each reference by position (PS3.3 C.17.3.2.5) for what goes; return those whose item goes, by id.

    A document's items are numbered from its root, so that all of them must be at hand.
    """
    referring = [item for item in _all(items) if REFERENCE in item]
    gone = {id(item) for item in _all(items) if not _stays(case, place, item)} if referring else set()
    lost = set[int]()
    while True:
        moved = dict(_moved(items, (1,), (1,), gone | lost)) | {(1,): (1,)}
        more = {id(item) for item in referring if _target(item) not in moved} - lost
        lost |= more
        if not more:
            break
    for item in referring:
        item[REFERENCE].value = list(moved.get(_target(item), ()))
    for item in _all(items) if lost else ():
        if CONTENT in item:
            item[CONTENT].value = [child for child in _children(item) if id(child) not in lost]
    return frozenset(lost)


def _moved(items: list[Dataset], before: Path, after: Path, gone: set[int]) -> Iterator[tuple[Path, Path]]:
    """Yield where each item that stays was and where it will be."""
    kept = [(number, item) for number, item in enumerate(items, 1) if id(item) not in gone]
    for now, (number, item) in enumerate(kept, 1):
        yield (*before, number), (*after, now)
        yield from _moved(_children(item), (*before, number), (*after, now), gone)


def _target(item: Dataset) -> Path:
    value = item[REFERENCE].value
    return (value,) if isinstance(value, int) else tuple(value or ())


def _all(items: Iterable[Dataset]) -> Iterator[Dataset]:
    for item in items:
        yield item
        yield from _all(_children(item))


def _children(item: Dataset) -> list[Dataset]:
    return list(item[CONTENT].value or ()) if CONTENT in item else []


def _made(case: Case, tag: int, vr: str, value: bytes) -> Element:
    return make_raw(tag, vr, value, implicit=case.implicit, little=case.little)
