"""What identifies somebody is collected from every place of an object, and from nowhere else."""

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from imaging.deidentify.identity.identifier_kinds import STRINGS, kind_of
from imaging.deidentify.identity.identifiers import Identifier, Kind, collect_identifiers, spellings
from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.profile.profile import load_profile
from imaging.dicom.parse import parse
from imaging.errors import DataFault
from tests.dicom_objects import NATIVE, dataset, file_bytes

DESCRIBED: dict[str, tuple[Any, Kind]] = {
    "PatientName": ("DOE^JOHN", "name"),
    "PatientID": ("P-48151623", "id"),
    "PatientBirthDate": ("19640812", "date"),
    "AccessionNumber": ("ACC-90210", "id"),
    "InstitutionName": ("WALDKLINIK", "place"),
    "InstitutionAddress": ("Seestr. 5\\7", "place"),
    "StationName": ("CT-SOUTH", "device"),
    "DeviceSerialNumber": ("SN-4711", "device"),
    "AcquisitionDateTime": ("20240131101530+0100", "date"),
    "StudyInstanceUID": ("1.2.99.1", "uid"),
    "StudyDescription": ("SCHAEDEL NATIV", "text"),
    "PatientTelephoneNumbers": ("030-123456", "id"),
}


def collected(made: Dataset, syntax: str = NATIVE[0]) -> dict[str, Kind]:
    return {one.value: one.kind for one in collect_identifiers(parse(file_bytes(made, syntax)))}


def image(**changes: Any) -> Dataset:
    return dataset(np.zeros((2, 2), np.uint16), **changes)


def element(tag: int, vr: str, value: bytes) -> RawDataElement:
    """Return an element as it comes out of a file in explicit little endian."""
    return RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)


def nested(inner: Dataset, depth: int) -> Dataset:
    for _ in range(depth):
        outer = Dataset()
        outer.ReferencedStudySequence = Sequence([inner])
        inner = outer
    return inner


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("depth", [0, 1, 3, 8])
def test_every_kind_is_collected_at_every_depth_in_every_syntax(syntax: str, depth: int) -> None:
    inner = Dataset()
    for keyword, (value, _) in DESCRIBED.items():
        setattr(inner, keyword, value)
    made = image()
    made.update(nested(inner, depth))
    kinds = collected(made, syntax)
    assert {value: kinds.get(value) for value, _ in DESCRIBED.values()} == dict(DESCRIBED.values())


def rows() -> list[str]:
    """Return each attribute of the profile whose values are words, names, dates or UIDs."""
    named = [
        keyword_for_tag(int(row.tag, 16))
        for row in load_profile().rows
        if row.tag.isalnum() and "x" not in row.tag and row.tag != "private"
    ]
    text_vrs = STRINGS | {"PN", "UI", "DA", "DT"}
    return [
        word for word in named if word and dictionary_VR(word) in text_vrs and not word.startswith("Selector")
    ]


def test_every_row_of_the_profile_with_text_is_collected() -> None:
    missed = []
    for keyword in rows():
        value = {"DA": "19640812", "DT": "19640812", "UI": "1.2.99.8"}.get(dictionary_VR(keyword), "SENTINEL")
        inner = Dataset()
        setattr(inner, keyword, value)
        holder = Dataset()
        holder.file_meta = Dataset()
        (holder.file_meta if inner[keyword].tag.group == 2 else holder).update(inner)
        if value not in {one.value for one in collect_identifiers(holder)}:
            missed.append(keyword)
    assert len(rows()) > 400
    assert missed == []


def test_the_action_for_the_basic_profile_decides() -> None:
    kept = [tag_for_keyword(word) for word in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions")]
    for tag in kept:
        expected = None if load_profile().action(tag or 0, DeidentifyOptions()) in (None, "K") else "text"
        assert kind_of(tag or 0, "LO") == expected


@pytest.mark.parametrize("syntax", NATIVE)
def test_private_elements_are_text_and_their_sequences_are_opened(syntax: str) -> None:
    made, inner = image(), Dataset()
    inner.PatientName = "MUSTERMANN^ERIKA"
    made.private_block(0x0009, "ACME", create=True).add_new(0x01, "LO", "word of Erika")
    made.add(DataElement(0x00091002, "SQ", Sequence([inner])))
    kinds = collected(made, syntax)
    assert kinds["word of Erika"] == "text"
    assert kinds["MUSTERMANN^ERIKA"] == "name"
    assert "ACME" not in kinds


@pytest.mark.parametrize("implicit", [True, False])
def test_a_private_sequence_of_unknown_vr_is_opened(implicit: bool) -> None:
    vr = b"" if implicit else b"PN"
    length = struct.pack("<I", 8) if implicit else struct.pack("<H", 8)
    inner = struct.pack("<HH", 0x0010, 0x0010) + vr + length + b"DOE^JOHN"
    made = parse(file_bytes(image(), NATIVE[0]))
    made[0x00091001] = element(0x00091001, "UN", struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner)
    assert Identifier("name", "DOE^JOHN", 0x00100010) in collect_identifiers(made)


@pytest.mark.parametrize("rest", [b"", b"\0", b"\xff" * 9, b"\x10\0\0\0DOE"])
def test_private_bytes_that_only_begin_like_a_sequence_do_no_harm(rest: bytes) -> None:
    made = parse(file_bytes(image(PatientName="DOE^JOHN"), NATIVE[0]))
    made[0x00091001] = element(0x00091001, "UN", b"\xfe\xff\x00\xe0" + rest)
    assert "DOE^JOHN" in {one.value for one in collect_identifiers(made)}


def test_an_unknown_element_is_text() -> None:
    made = image()
    made.add(DataElement(0x00100013, "UN", b"ELM STREET 7"))
    assert collected(made)["ELM STREET 7"] == "text"


def test_a_known_element_written_as_unknown_has_its_own_kind() -> None:
    made = image()
    made[0x00100010] = DataElement(0x00100010, "UN", b"DOE^JOHN")
    assert collected(made)["DOE^JOHN"] == "name"


def test_file_meta_is_searched() -> None:
    made = parse(file_bytes(image(SOPInstanceUID="1.2.99.5"), NATIVE[0]))
    made.file_meta.SourceApplicationEntityTitle = "WARD-PACS"
    identifiers = {one.value: one for one in collect_identifiers(made)}
    assert identifiers["1.2.99.5"].tag == 0x00020003
    assert identifiers["WARD-PACS"].kind == "device"


@pytest.mark.parametrize(
    ("charset", "raw", "name"),
    [
        ("ISO_IR 100", "Müller^Jürgen".encode("latin-1"), "Müller^Jürgen"),
        ("ISO_IR 192", "Müller^Jürgen".encode(), "Müller^Jürgen"),
        ("ISO_IR 144", "Люкceмбypг".encode("iso8859-5"), "Люкceмбypг"),
        ("GB18030", "王^小东".encode("gb18030"), "王^小东"),
        (
            "\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            "\\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7",
            "Hong^Gildong=洪^吉洞",
        ),
        ("", "Müller^Jürgen".encode("latin-1"), "Müller^Jürgen"),
        ("ISO_IR 192", "Müller^Jürgen".encode("latin-1"), "Müller^Jürgen"),
    ],
)
def test_a_name_is_decoded_by_its_character_set(charset: str, raw: bytes, name: str) -> None:
    made = parse(file_bytes(image(SpecificCharacterSet=charset.split("\\")), NATIVE[0]))
    made[0x00100010] = element(0x00100010, "PN", raw)
    assert name in {one.value for one in collect_identifiers(made) if one.kind == "name"}


def test_an_item_may_declare_a_character_set_of_its_own() -> None:
    made, inner = image(SpecificCharacterSet="ISO_IR 100"), Dataset()
    inner.SpecificCharacterSet, inner.PatientName = "ISO_IR 192", "Müller^Jürgen"
    made.ReferencedPatientSequence = Sequence([inner])
    assert collected(made)["Müller^Jürgen"] == "name"


def test_who_stands_behind_a_code_is_named() -> None:
    made, code = image(), Dataset()
    code.CodeValue, code.CodeMeaning = "4711", "Dr. House"
    holder = Dataset()
    holder.PersonIdentificationCodeSequence = Sequence([code])
    made.OperatorIdentificationSequence = Sequence([holder])
    assert collected(made)["Dr. House"] == "name"


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        *(("PatientID", "12"), ("PatientID", "0000"), ("PatientName", "Anonymous"), ("PatientName", "Li^")),
        *(("PatientName", "UNKNOWN^"), ("StudyDate", ""), ("StudyTime", "101530"), ("PatientSex", "OTHER")),
        *(("AcquisitionDateTime", "202401"), ("AcquisitionDateTime", "2024+0100")),
        *(
            ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"),
            ("SOPClassUID", "1.3.12.2.1107.5.9.1"),
            ("KVP", "120.25"),
        ),
        *(("StudyComments", "x" * 65537), ("Manufacturer", "ACME Imaging"), ("BodyPartExamined", "CHEST")),
    ],
)
def test_what_points_to_nobody_is_left_out(keyword: str, value: str) -> None:
    assert value not in collected(image(**{keyword: value}))


def test_each_value_is_listed_once_with_its_first_place() -> None:
    made = image(ReferringPhysicianName="HOUSE^G", PhysiciansOfRecord="HOUSE^G\\WILSON^J")
    names = [one for one in collect_identifiers(parse(file_bytes(made, NATIVE[0]))) if one.kind == "name"]
    assert names == [Identifier("name", "HOUSE^G", 0x00080090), Identifier("name", "WILSON^J", 0x00081048)]


def test_pixels_are_not_touched() -> None:
    made = parse(file_bytes(image(), NATIVE[0]))
    collect_identifiers(made)
    assert type(made.get_item("PixelData")).__name__ == "RawDataElement"


def test_what_was_collected_is_written_back_as_it_was() -> None:
    made = image(PatientName="Müller^J", SpecificCharacterSet="ISO_IR 100")
    made.update(nested(image(PatientName="Größe^J"), 3))
    first = parse(file_bytes(made, NATIVE[0]))
    plain, looked_at = BytesIO(), BytesIO()
    pydicom.dcmwrite(plain, parse(file_bytes(made, NATIVE[0])))
    collect_identifiers(first)
    pydicom.dcmwrite(looked_at, first)
    assert looked_at.getvalue() == plain.getvalue()


def test_a_sequence_that_cannot_be_read_is_a_fault_that_quotes_nothing() -> None:
    made = parse(file_bytes(image(), NATIVE[0]))
    made[0x00081110] = element(0x00081110, "SQ", b"DOE")
    with pytest.raises(DataFault, match="unreadable") as caught:
        collect_identifiers(made)
    assert "DOE" not in str(caught.value)


@pytest.mark.parametrize("kind", ["name", "id", "uid", "date", "place", "device", "text"])
def test_a_value_is_one_of_its_spellings(kind: Kind) -> None:
    assert "20240131" in spellings(Identifier(kind, "20240131", 0))
