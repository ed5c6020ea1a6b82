"""Made-up structured reports: nested content items of every kind, one for each row of table E.3.4-1."""

from collections.abc import Iterable
from datetime import date, timedelta

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import Comprehensive3DSRStorage, CTImageStorage

from imaging.deidentify.profile.structured_content import ContentRow
from tests.referencing_objects import item, reference
from tests.scrubbed_objects import slice_of

Code = tuple[str, str, str]
FINDINGS: Code = ("121070", "DCM", "Findings")
FIRST_DAY, APART_DAYS = date(1700, 1, 1), 7
"""So that no shifted date is another one, with a shift that is no multiple of it."""


def code(value: Code) -> Dataset:
    return item(CodeValue=value[0], CodingSchemeDesignator=value[1], CodeMeaning=value[2])


def codes(*values: Code) -> Sequence:
    return Sequence(map(code, values))


def content(value_type: str, name: Code | None, relation: str = "CONTAINS", **values: object) -> Dataset:
    """Return a content item (PS3.3 C.17.3)."""
    named = {} if name is None else {"ConceptNameCodeSequence": codes(name)}
    return item(RelationshipType=relation, ValueType=value_type, **named, **values)


def container(items: Iterable[Dataset], name: Code = FINDINGS) -> Dataset:
    content_sequence = Sequence(list(items))
    return content("CONTAINER", name, ContinuityOfContent="SEPARATE", ContentSequence=content_sequence)


def measured(number: str, units: Code = ("mm", "UCUM", "mm"), **more: object) -> Sequence:
    return Sequence([item(NumericValue=number, MeasurementUnitsCodeSequence=codes(units), **more)])


def value_of(value_type: str, number: int) -> tuple[dict[str, object], str]:
    """Return the attributes of a value of its own, and the part of it that must be gone."""
    name, uid = f"Sen{number:05d}tinel", f"1.2.826.0.1.99.{number}"
    day = f"{FIRST_DAY + timedelta(days=APART_DAYS * number):%Y%m%d}"
    clock = f"101500.{number:06d}"
    refers: tuple[dict[str, object], str] = ({"ReferencedSOPSequence": Sequence([reference(uid)])}, uid)
    inside = content("TEXT", ("74711-3", "LN", "Unique Device Identifier"), TextValue=name)
    return {
        "TEXT": ({"TextValue": name}, name),
        "PNAME": ({"PersonName": f"{name}^Given"}, name),
        "DATE": ({"Date": day}, day),
        "TIME": ({"Time": clock}, clock),
        "DATETIME": ({"DateTime": f"{day}101500+0100"}, day),
        "UIDREF": ({"UID": uid}, uid),
        "NUM": ({"MeasuredValueSequence": measured(f"87{number:05d}")}, f"87{number:05d}"),
        "CODE": (
            {"ConceptCodeSequence": codes((f"S{number:05d}tinel", "99LOCAL", name))},
            f"{number:05d}tinel",
        ),
        "CONTAINER": ({"ContinuityOfContent": "SEPARATE", "ContentSequence": Sequence([inside])}, name),
    }.get(value_type, refers)


def of_row(row: ContentRow, number: int) -> tuple[Dataset, str]:
    """Return an item with a row's concept and value type, and what of it must be gone."""
    values, secret = value_of(row.value_type, number)
    return content(row.value_type, (row.code, row.scheme, row.meaning), **values), secret


def nested(items: list[Dataset], depth: int) -> list[Dataset]:
    """Return items inside so many levels of content, the first of which is the document's."""
    for _ in range(depth - 1):
        items = [container(items)]
    return items


def report(items: list[Dataset], **changes: object) -> Dataset:
    """Return a document with these items."""
    return slice_of(
        **{
            "SOPClassUID": Comprehensive3DSRStorage,
            "Modality": "SR",
            "PixelData": None,
            "ValueType": "CONTAINER",
            "ContinuityOfContent": "SEPARATE",
            "ConceptNameCodeSequence": codes(("126000", "DCM", "Imaging Measurement Report")),
            "ContentSequence": Sequence(items),
        }
        | changes
    )


def image(uid: str, relation: str = "CONTAINS", name: Code | None = None) -> Dataset:
    refers = Sequence([reference(uid, CTImageStorage)])
    return content("IMAGE", name, relation, ReferencedSOPSequence=refers)


def by_position(*position: int, relation: str = "INFERRED FROM") -> Dataset:
    """Return an item that refers to another by its place in the document."""
    return item(RelationshipType=relation, ReferencedContentItemIdentifier=list(position))
