"""What de-identification takes out of an object, at every depth and in every form of a file."""

from io import BytesIO
from itertools import count

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from imaging.deidentify.objects.scrub import scrub
from imaging.deidentify.options import DeidentifyOptions
from imaging.dicom.parse import parse
from imaging.errors import DataFault
from tests.dicom_objects import NATIVE, element, file_bytes, insert
from tests.planted_identifiers import APART_DAYS, leaks, planted, whole
from tests.scrubbed_objects import KEY, clean, fault, raw_of, scrubbed, slice_of

pytestmark = pytest.mark.filterwarnings(
    "ignore:Invalid value for VR", "ignore:The value length", "ignore:Unknown encoding"
)
META = {"Sen99999tinel", "Sen99998tinel", "Sen99997tinel"}


@pytest.mark.slow
@pytest.mark.parametrize("syntax", NATIVE, ids=lambda uid: UID(uid).name)
@pytest.mark.parametrize("depth", [0, 1, 3, 8])
@pytest.mark.parametrize("dates", ["shift", "remove"])
def test_no_row_of_the_table_leaks(depth: int, syntax: str, dates: str) -> None:
    extra, secrets = planted(depth, count())
    data = whole(extra, syntax)
    assert KEY.shift_days("Sen99998tinel") % APART_DAYS
    assert len(leaks(data, secrets | META)) > 600  # the search finds what is there
    assert leaks(clean(data, dates=dates), secrets | META) == set()


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_an_object_without_an_identifier_does_not_pass(keyword: str) -> None:
    made = parse(file_bytes(slice_of()))
    setattr(made, keyword, "")
    with pytest.raises(DataFault, match="missing-identifier"):
        scrub(made, DeidentifyOptions(), KEY)


@pytest.mark.parametrize("text", ["Doe 1964", "20241399"])
def test_a_date_that_is_none_goes(text: str) -> None:
    after = clean(file_bytes(slice_of(StudyDate="20240228")).replace(b"20240228", text.encode()))
    assert pydicom.dcmread(BytesIO(after)).StudyDate == ""


def test_a_uid_without_a_row_is_replaced() -> None:
    after = scrubbed(slice_of(TargetFrameOfReferenceUID="1.2.3.99"))
    assert after.TargetFrameOfReferenceUID == KEY.uid("1.2.3.99")


def test_a_persons_code_becomes_a_dummy() -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "88123", "99HOSPITAL", "Dr Miller"
    made = slice_of(PersonIdentificationCodeSequence=Sequence([code]))
    after = scrubbed(made).PersonIdentificationCodeSequence[0]
    assert (after.CodeValue, after.CodingSchemeDesignator) == ("Anonymized", "99RADLOOP")


def test_text_that_the_table_does_not_list_loses_the_patient() -> None:
    assert scrubbed(slice_of(ConvolutionKernel="B20f 4711-42")).ConvolutionKernel == "B20f"


def test_a_number_that_is_the_patients_goes() -> None:
    made = slice_of(PatientID="87654321", AcquisitionNumber="87654321")
    assert scrubbed(made).AcquisitionNumber is None


def test_a_word_in_the_place_of_a_number_goes() -> None:
    data = file_bytes(slice_of(SliceThickness="1234567")).replace(b"1234567 ", b"Johanna ")
    assert scrub(parse(data), DeidentifyOptions(), KEY).SliceThickness is None


def test_a_name_in_an_escaped_character_set_is_removed() -> None:
    made = slice_of(
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=山田^太郎",
        ConvolutionKernel="頭部 山田",
    )
    assert scrubbed(made).ConvolutionKernel == "頭部"


@pytest.mark.parametrize("charset", ["ISO_IR 192", "ISO_IR 6", "ISO_IR 999"])
def test_text_that_cannot_be_decoded_never_comes_out(charset: str) -> None:
    data = file_bytes(slice_of(SpecificCharacterSet=charset, ConvolutionKernel="Mueller "))
    after = clean(data.replace(b"Mueller ", b"M\xfc\xff\xfe ler"))
    assert pydicom.dcmread(BytesIO(after)).ConvolutionKernel == "Anonymized"


def test_text_of_two_bytes_a_letter_never_comes_out() -> None:
    data = file_bytes(slice_of(ConvolutionKernel="12345678")).replace(b"12345678", "Jane".encode("utf-16-le"))
    assert "Jane".encode("utf-16-le") not in clean(data)


def test_an_element_that_the_dictionary_does_not_know_goes() -> None:
    data = insert(file_bytes(slice_of()), element(0x00189FFF, b"LO", b"whoever "), 0x0020000D)
    assert b"whoever" not in clean(data)


def test_a_value_of_another_vr_than_the_dictionarys_goes() -> None:
    data = insert(file_bytes(slice_of()), element(0x00180050, b"LO", b"whoever "), 0x0020000D)
    assert parse(clean(data)).get("SliceThickness") is None


def test_an_element_of_unknown_vr_is_read_by_the_dictionary() -> None:
    data = insert(file_bytes(slice_of()), element(0x00180050, b"UN", b"1.25"), 0x0020000D)
    assert raw_of(clean(data), "SliceThickness") == b"1.25"


def test_private_elements_go() -> None:
    made = slice_of()
    made.private_block(0x0019, "GEMS_ACQU_01", create=True).add_new(0x23, "DS", "12.5")
    assert not [one for one in parse(clean(file_bytes(made))) if one.tag.is_private]


def test_overlays_and_curves_go() -> None:
    made = slice_of()
    for tag, vr, value in [(0x60003000, "OW", bytes(8)), (0x60000010, "US", 8), (0x50003000, "OW", bytes(8))]:
        made.add_new(tag, vr, value)
    assert {one.tag.group for one in parse(clean(file_bytes(made)))} & {0x6000, 0x5000} == set()


def test_pixels_in_a_sequence_go() -> None:
    inner = slice_of()
    assert (
        b"PALETTE"[:0] == b""
        and "PixelData"
        not in scrubbed(slice_of(ReferencedSeriesSequence=Sequence([inner]))).ReferencedSeriesSequence[0]
    )


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.104.1"])
def test_documents_do_not_pass(sop_class: str) -> None:
    assert fault(file_bytes(slice_of(SOPClassUID=sop_class))).reason == "document"


def test_an_encapsulated_document_never_passes() -> None:
    data = file_bytes(slice_of(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1"))
    assert fault(data, documents="clean").reason == "document"


def test_an_object_of_a_private_class_does_not_pass() -> None:
    assert fault(file_bytes(slice_of(SOPClassUID="1.3.12.2.1107.5.9.1"))).reason == "unsupported"


def test_an_identifier_of_another_vr_does_not_pass() -> None:
    data = file_bytes(slice_of()).replace(b"\x20\0\x0e\0UI", b"\x20\0\x0e\0LO")
    assert fault(data).reason == "missing-identifier"


def test_letters_in_the_place_of_binary_numbers_go() -> None:
    made = slice_of(PatientName="Johannsen^Johanna", SimpleFrameList=[0x41424344] * 3)
    data = file_bytes(made)
    assert b"DCBADCBADCBA" in clean(data)
    assert b"Johannsen" not in clean(data.replace(b"DCBADCBADCBA", b"Johannsen   "))
