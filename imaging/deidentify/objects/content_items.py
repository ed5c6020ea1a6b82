"""Content items (PS3.3 10.2 and C.17.3), treated by their concept as in PS3.15 E.3.4.

Their free text and the codes of non-standard schemes are masked; values that the table or DICOM calls harmless are then
restored.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple, cast

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from imaging.deidentify.objects.context import CODE_SCHEME, CODE_VALUES, ObjectContext, Scope
from imaging.deidentify.objects.raw_elements import Element, raw_bytes
from imaging.deidentify.objects.rules import Rule
from imaging.deidentify.objects.value_treatment import dummy, treated
from imaging.deidentify.profile.profile import Action
from imaging.deidentify.profile.structured_content import WITHOUT_TEXT, Concept, concept, load_content
from imaging.dicom.attributes import decode_numbers

VALUE_TYPE, NAME, RELATIONSHIP, CONTENT = 0x0040A040, 0x0040A043, 0x0040A010, 0x0040A730
REFERENCE, CODE_VALUE = 0x0040DB73, 0x00080100
Path = tuple[int, ...]
ACQUISITION_CONTEXT = 0x00400555
TEXT_VALUE, UID_VALUE = 0x0040A160, 0x0040A124
TIMES = {0x0040A120: "DT", 0x0040A121: "DA", 0x0040A122: "TM"}
MEASURED, NUMBER, UNITS = 0x0040A300, 0x0040A30A, 0x004008EA
OTHER_NUMBERS = (0x0040A161, 0x0040A162, 0x0040A163)
"""Attributes with the same number in other forms."""
OLDEST, IN_A_YEAR = 90, {"mo": 12, "wk": 52, "d": 365, "h": 8760}
"""Oldest age, as for the attribute of an age; and units (UCUM) in a year, where any other unit counts as a year."""


class ContentItem(NamedTuple):
    """Value type of a content item, the action of the table, and whether its concept is defined."""

    value_type: str
    action: Action | None
    known: bool

    @property
    def is_harmless(self) -> bool:
        """Tell whether a value may stay that identifies nobody by itself."""
        return self.action in ("C", "K") or (self.action is None and self.known)


def is_content(item: Dataset) -> bool:
    """Tell whether an item is a name with a value."""
    # Called for every item of every sequence; `in` is slow for a data set.
    tags = item.keys()
    return NAME in tags or VALUE_TYPE in tags


def masked(scope: Scope) -> Scope:
    """Return the scope of a content item, or of the name of a document."""
    return scope if scope.masked else replace(scope, masked="text")


def kept_items(context: ObjectContext, scope: Scope, tag: int, items: list[Dataset]) -> list[Dataset]:
    """Return the items of a sequence that stay; references by position are adapted to them."""
    lost = _adapt_references(context, scope, items) if tag == CONTENT and not scope.depth else frozenset()
    return [item for item in items if id(item) not in lost and _stays(context, scope, item)]


def restore_values(
    context: ObjectContext, scope: Scope, item: Dataset, elements: dict[BaseTag, Element]
) -> None:
    """Restore those of a content item's own values that may stay, and replace those that must not."""
    content = _content(context, scope, item)
    if context.options.structured and content.value_type == "TEXT" and content.is_harmless:
        _restore(context, replace(scope, masked=""), item, TEXT_VALUE, context.rule_of(TEXT_VALUE), elements)
    if content.value_type == "UIDREF" and content.action == "K":
        _restore(context, scope, item, UID_VALUE, Rule("keep", ("UI",)), elements)
    for tag, vr in TIMES.items():
        if tag in elements and not content.is_harmless:
            elements[BaseTag(tag)] = context.element(tag, vr, dummy(tag, vr) or b"")
    if content.value_type in ("NUM", "NUMERIC") and content.action == "K":
        _cap(context, scope, elements)


def _content(context: ObjectContext, scope: Scope, item: Dataset) -> ContentItem:
    declared, table = scope.text(item, VALUE_TYPE), load_content()
    value_type = "NUM" if declared == "NUMERIC" else declared
    names = _names(scope, item)
    actions = {table.action(name, value_type, context.options) for name in names}
    # Of several names the strictest counts.
    action = next((one for one in ("X", "D", "C", "K") if one in actions), None)
    known = len(names) == 1 and all(map(table.knows, names))
    return ContentItem(declared, cast(Action | None, action), known)


def _names(scope: Scope, item: Dataset) -> list[Concept]:
    """Return the concepts that an item is named by; none where they cannot be read."""
    names: list[Concept] = []
    with suppress(Exception):  # a broken name is an unknown concept
        for code in item[NAME].value if NAME in item else ():
            scheme = scope.text(code, CODE_SCHEME)
            names += [concept(scope.text(code, tag), scheme) for tag in CODE_VALUES if tag in code]
    return names


def _stays(context: ObjectContext, scope: Scope, item: Dataset) -> bool:
    if not is_content(item):
        return True
    content = _content(context, scope, item)
    if content.action == "X":
        # Coordinates need the image that they refer to; its identifiers are replaced as everywhere.
        return scope.text(item, RELATIONSHIP) == "SELECTED FROM" and content.value_type in WITHOUT_TEXT
    # A dummy code or measurement would be taken for a real one.
    return content.action != "D" or content.value_type not in ("CODE", "NUM", "NUMERIC", "")


def _restore(
    context: ObjectContext,
    scope: Scope,
    item: Dataset,
    tag: int,
    rule: Rule,
    elements: dict[BaseTag, Element],
) -> None:
    element = item.get_item(tag)
    if tag not in elements or element is None:
        return
    raw, vr = raw_bytes(element, scope.terms, little=context.little), rule.vrs[0]
    value = treated(context, scope, tag, vr, rule, raw)
    if value is not None:
        elements[BaseTag(tag)] = context.element(tag, vr, value)


def _cap(context: ObjectContext, scope: Scope, elements: dict[BaseTag, Element]) -> None:
    """Cap an age over 89 years at 90; a number of unknown units is taken for years."""
    measured = elements.get(BaseTag(MEASURED))
    for holder in [elements] if measured is None else cast(list[Dataset], measured.value):
        for other in OTHER_NUMBERS:
            holder.pop(BaseTag(other), None)
        number, units = holder.get(BaseTag(NUMBER)), holder.get(BaseTag(UNITS))
        codes = cast(list[Dataset], units.value) if units is not None else ()
        most = OLDEST * max((IN_A_YEAR.get(scope.text(code, CODE_VALUE), 1) for code in codes), default=1)
        if max(decode_numbers(raw_bytes(number), "DS"), default=0) >= most:
            holder[BaseTag(NUMBER)] = context.element(NUMBER, "DS", str(most).encode())


def _adapt_references(context: ObjectContext, scope: Scope, items: list[Dataset]) -> frozenset[int]:
    """Adapt references by position (PS3.3 C.17.3.2.5) to removed items; return ids of items that refer to those.

    A document's items are numbered from its root, so that all of them are needed at once.
    """
    referring = [item for item in _all(items) if REFERENCE in item]
    gone = {id(item) for item in _all(items) if not _stays(context, scope, item)} if referring else set()
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
    """Yield the old and the new position of each item that stays."""
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
