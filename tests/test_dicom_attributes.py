"""Attributes of a header: the same plain values from the strict walk and from pydicom."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from imaging.dicom.attributes import NUMBERS, TEXTS, decode_numbers, first, of_dataset, text, wanted, whole
from imaging.dicom.dicom_object import _by_pydicom, open_object
from tests.dicom_objects import dataset, element, file_bytes, insert, made, ramp

SMALL = ramp((4, 4))
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]


def read_attributes(data: bytes) -> dict[str, Any]:
    """Return the attributes, which both ways must agree on."""
    attributes = dict(open_object(data).attributes)
    assert attributes == dict(_by_pydicom(data).attributes)
    return attributes


def raw(tag: int, vr: bytes, value: bytes) -> dict[str, Any]:
    """Return the attributes of a file with one element as it stands, in its place."""
    data = made(SMALL, PatientID=None)
    places = (0x0020000D, 0x00280002)
    data = insert(data, element(tag, vr, value), next(place for place in places if place > tag))
    return read_attributes(data)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_numbers_and_texts_are_the_same_in_each_syntax(syntax: str) -> None:
    data = made(
        SMALL, syntax, RescaleSlope="0.5", WindowCenter=[40, -600], EffectiveEchoTime=1.5, Manufacturer="A"
    )
    attributes = read_attributes(data)
    expected = {
        "RescaleSlope": (0.5,),
        "WindowCenter": (40.0, -600.0),
        "EffectiveEchoTime": (1.5,),
        "Manufacturer": "A",
        "Rows": (4.0,),
    }
    assert {name: attributes[name] for name in expected} == expected


def test_only_the_listed_attributes_are_kept() -> None:
    data = made(SMALL, PatientName="DOE^JANE", PatientBirthDate="19700101", StudyDescription="knee")
    assert set(read_attributes(data)) <= {*TEXTS, *NUMBERS}


def test_every_listed_attribute_is_in_the_dictionary() -> None:
    assert len(wanted()) == len(TEXTS) + len(NUMBERS)
    assert 0 not in wanted()


@pytest.mark.parametrize("value", [b"", b"  ", b"\0\0"])
def test_an_empty_number_is_absent(value: bytes) -> None:
    assert "SliceThickness" not in raw(0x00180050, b"DS", value)


@pytest.mark.parametrize("value", [b"wide", b"1_0 ", b"nan ", b"1\\inf ", b"1\\\\2 "])
def test_a_number_that_is_none_is_empty(value: bytes) -> None:
    assert raw(0x00180050, b"DS", value)["SliceThickness"] == ()


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(("signed", "expected"), [(1, -2000.0), (0, 63536.0)])
@pytest.mark.parametrize("vr", ["US", "SS"])
def test_padding_has_the_sign_of_the_pixels(syntax: str, signed: int, expected: float, vr: str) -> None:
    one = dataset(SMALL, PixelRepresentation=signed)
    one.add_new("PixelPaddingValue", vr, 63536 if vr == "US" else -2000)
    assert read_attributes(file_bytes(one, syntax))["PixelPaddingValue"] == (expected,)


def test_a_backslash_in_an_identifier_keeps_two_patients_apart() -> None:
    assert raw(0x00100020, b"LO", b"P\\Q ")["PatientID"] == "P\\Q"


def test_a_text_beyond_ascii_is_decoded_by_its_character_set() -> None:
    data = made(SMALL, SpecificCharacterSet="ISO_IR 100", PatientID="Ä1")
    assert read_attributes(data)["PatientID"] == "Ä1"


def test_a_value_of_another_vr_is_read_by_pydicom() -> None:
    assert raw(0x00180050, b"FL", b"\0\0\x80?")["SliceThickness"] == (1.0,)


@pytest.mark.parametrize("tag", [0x00180050, 0x00100040, 0x00081090])
def test_a_very_long_value_is_not_looked_at(tag: int) -> None:
    value = b"1\\" * 2**17
    one = Dataset()
    one[tag] = RawDataElement(Tag(tag), None, len(value), value, 0, True, True)  # type: ignore[arg-type]
    assert of_dataset(one) == {}
    assert decode_numbers(value, "DS") == ()


@pytest.mark.parametrize("tag", [0x00080070, 0x00180050])
def test_a_very_long_value_of_a_file_is_not_looked_at(tag: int) -> None:
    value = b"1" * 2**17
    data = insert(made(SMALL, ImplicitVRLittleEndian, PatientID=None), b"", 0x00280002)
    data = insert(data, struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value, 0x0020000D)
    assert not {"Manufacturer", "SliceThickness"} & set(read_attributes(data))


def test_messages_of_pydicom_while_it_converts_are_dropped(recwarn: pytest.WarningsRecorder) -> None:
    data = made(SMALL, ExplicitVRBigEndian).replace(b"1.2.3.4\0", b"DOE^JANE")
    recwarn.clear()
    assert open_object(data).attributes["SOPInstanceUID"] == "DOE^JANE"
    assert not list(recwarn)


def test_helpers_fall_back_where_there_is_nothing() -> None:
    assert first({}, "Rows") is None
    assert whole({"Rows": ()}, "Rows", 7) == 7
    assert text({"Rows": (1.0,)}, "Rows") == ""


@settings(max_examples=150)
@given(st.sampled_from([b"DS", b"IS", b"FD", b"FL", b"LO"]), st.binary(max_size=24))
def test_any_value_reads_the_same_both_ways(vr: bytes, value: bytes) -> None:
    tags = {b"DS": 0x00180050, b"IS": 0x00200013, b"FD": 0x00189087, b"FL": 0x00189082, b"LO": 0x00100020}
    raw(tags[vr], vr, value + b" " * (len(value) % 2))
