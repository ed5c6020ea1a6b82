"""What is done with an attribute that the table lists, and with one that it does not."""

import pytest
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import tag_for_keyword

from imaging.deidentify.objects.rules import DATES, TEXT, rules_for
from imaging.deidentify.options import DeidentifyOptions
from tests.scrubbed_objects import LOOSE, STRICT

DEFAULT = DeidentifyOptions()


def treatment(keyword: str, options: DeidentifyOptions = DEFAULT) -> str:
    return rules_for(options)(tag_for_keyword(keyword) or 0).treatment


@pytest.mark.parametrize(
    ("keyword", "done"),
    [
        ("PatientName", "patient"),
        ("StudyInstanceUID", "uid"),
        ("StudyDate", "shift"),
        ("AccessionNumber", "empty"),
        ("StudyDescription", "remove"),
        ("ProtocolName", "dummy"),
        ("ContentSequence", "masked items"),
        ("ReferencedImageSequence", "items"),
        ("PixelSpacing", "clean"),
        ("Rows", "keep"),
        ("ICCProfile", "search"),
        ("PatientBirthDateInAlternativeCalendar", "remove"),
        ("SecondaryReviewerName", "remove"),
        ("EncryptedAttributesSequence", "remove"),
    ],
)
def test_by_default(keyword: str, done: str) -> None:
    assert treatment(keyword) == done


@pytest.mark.parametrize(
    ("keyword", "done"),
    [
        ("StudyDescription", "clean"),
        ("PatientAge", "age"),
        ("StudyInstanceUID", "keep"),
        ("ContentSequence", "items"),
        ("DeviceSerialNumber", "clean"),
    ],
)
def test_by_option(keyword: str, done: str) -> None:
    assert treatment(keyword, LOOSE) == done


@pytest.mark.parametrize(
    "tag", [0x60003000, 0x60FE3000, 0x50000010, 0x00290010, 0x00080000, 0x00189FFF, 0x00020010]
)
def test_removed_whatever_the_options(tag: int) -> None:
    assert [rules_for(one)(tag).treatment for one in (DEFAULT, STRICT, LOOSE)] == ["remove"] * 3


def test_no_date_of_the_dictionary_is_kept_as_it_is() -> None:
    dates = [tag for tag, entry in DicomDictionary.items() if entry[0] in DATES]
    for options in (DEFAULT, STRICT, LOOSE):
        assert {rules_for(options)(tag).treatment for tag in dates} <= {"shift", "remove", "empty", "dummy"}


def test_no_text_of_the_dictionary_is_kept_unread() -> None:
    texts = [tag for tag, entry in DicomDictionary.items() if entry[0] in TEXT | {"PN", "UR", "UN"}]
    for options in (DEFAULT, STRICT, LOOSE):
        assert "keep" not in {rules_for(options)(tag).treatment for tag in texts}


def test_no_name_of_a_person_stays() -> None:
    names = [tag for tag, entry in DicomDictionary.items() if entry[0] == "PN"]
    assert {rules_for(DEFAULT)(tag).treatment for tag in names} <= {"remove", "empty", "dummy", "patient"}
