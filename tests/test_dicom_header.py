"""Header of an image: identifiers that must be present, and a short list of harmless attributes."""

from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from imaging.dicom.attributes import first, of_dataset, text
from imaging.dicom.header import Header, read_header
from imaging.dicom.transforms import PHOTOMETRIC
from imaging.errors import DataFault

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:The value length")

IDENTIFIERS = {
    "PatientID": "P-4711",
    "StudyInstanceUID": "1.2.3",
    "SeriesInstanceUID": "1.2.3.4",
    "SOPInstanceUID": "1.2.3.4.5",
}
ATTRIBUTES = {
    "PatientName": "DOE^JANE",
    "PatientBirthDate": "19640812",
    "StudyDate": "20240102",
    "AccessionNumber": "ACC-90210",
    "InstitutionName": "GENERAL HOSPITAL",
    "StudyDescription": "CHEST OF MRS DOE",
    "ImageComments": "SEE DOE",
    "OperatorsName": "SMITH^A",
}
IMAGE = {
    "SOPClassUID": CTImageStorage,
    "Modality": "CT",
    "Manufacturer": "ACME",
    "ManufacturerModelName": "Scanner 5",
    "BodyPartExamined": "CHEST",
    "Rows": 4,
    "Columns": 6,
    "PixelSpacing": [0.5, 0.7],
    "SliceThickness": 2.5,
    "KVP": 120,
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "PixelData": bytes(48),
}


def header(**changes: Any) -> Header:
    """Read a header with changes; None leaves an attribute out."""
    dataset = Dataset()
    for keyword, value in (IDENTIFIERS | ATTRIBUTES | IMAGE | changes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    return read_header(of_dataset(dataset), "CT", has_pixels="PixelData" in dataset)


def fault(**changes: Any) -> DataFault:
    with pytest.raises(DataFault) as caught:
        header(**changes)
    return caught.value


def test_the_identifiers_are_read() -> None:
    result = header()
    read = (result.patient_id, result.study_uid, result.series_uid, result.sop_instance_uid)
    assert read == tuple(IDENTIFIERS.values())


def test_the_institution_is_read_beside_the_attributes() -> None:
    assert header().institution == "GENERAL HOSPITAL"
    assert header(InstitutionName=None).institution == ""


@pytest.mark.parametrize("name", ["JANE^DOE", "Jane Doe", "CHEST\\DOE^JANE", "SEVENTEEN LETTERS"])
def test_a_body_part_that_is_no_code_is_left_out(name: str) -> None:
    assert "body_part" not in header(BodyPartExamined=name).attributes


def test_the_listed_attributes_are_read() -> None:
    assert header().attributes == {
        "modality": "CT",
        "manufacturer": "ACME",
        "model": "Scanner 5",
        "body_part": "CHEST",
        "photometric": "MONOCHROME2",
        "rows": 4.0,
        "columns": 6.0,
        "spacing_mm": 0.5,
        "slice_thickness_mm": 2.5,
        "kvp": 120.0,
    }


def test_an_attribute_that_is_missing_is_left_out() -> None:
    assert "kvp" not in header(KVP=None).attributes


def test_a_number_that_is_none_is_left_out() -> None:
    assert "slice_thickness_mm" not in header(SliceThickness="").attributes


def test_padding_is_no_part_of_an_identifier() -> None:
    assert header(PatientID=" P-4711 ").patient_id == "P-4711"


def test_patients_whose_ids_begin_alike_stay_two() -> None:
    assert header(PatientID="A\\1").patient_id != header(PatientID="A\\2").patient_id


@pytest.mark.parametrize("keyword", IDENTIFIERS)
def test_an_identifier_must_be_there(keyword: str) -> None:
    assert fault(**{keyword: None}).reason == "missing-identifier"


@pytest.mark.parametrize("keyword", IDENTIFIERS)
def test_an_identifier_must_not_be_empty(keyword: str) -> None:
    assert fault(**{keyword: " "}).detail.startswith(keyword)


@pytest.mark.parametrize(
    "uid", ["1.2.x", "1.2 3", "1" * 65, "1.2\\1.3"], ids=["letter", "space", "long", "two"]
)
def test_a_uid_must_look_like_one(uid: str) -> None:
    assert fault(SOPInstanceUID=uid).reason == "missing-identifier"


def test_a_uid_of_64_characters_is_taken() -> None:
    assert header(SOPInstanceUID="1" * 64).sop_instance_uid == "1" * 64


def test_another_modality_is_refused_with_both_names() -> None:
    assert fault(Modality="MR").args == ("wrong-modality", "Modality is 'MR', 'CT' is expected")


def test_no_modality_is_a_wrong_one() -> None:
    assert fault(Modality=None).reason == "wrong-modality"


def test_an_object_without_pixels_is_refused() -> None:
    assert fault(PixelData=None).reason == "no-pixels"


@pytest.mark.parametrize("photometric", ["HSV", "CMYK", None, "MONOCHROME3"])
def test_a_photometric_interpretation_that_is_not_in_the_table_is_unsupported(
    photometric: str | None,
) -> None:
    result = fault(PhotometricInterpretation=photometric)
    assert (result.reason, result.detail) == (
        "unsupported",
        f"PhotometricInterpretation is {photometric or ''!r}",
    )


@pytest.mark.parametrize("photometric", PHOTOMETRIC)
def test_every_photometric_interpretation_of_the_table_is_taken(photometric: str) -> None:
    assert header(PhotometricInterpretation=photometric).attributes["photometric"] == photometric


@pytest.mark.parametrize("frames", [None, "", 1, 2])
def test_any_number_of_frames_may_be_stated_or_none(frames: Any) -> None:
    assert header(NumberOfFrames=frames).attributes["rows"] == 4


def test_identifiers_come_before_the_modality() -> None:
    assert fault(PatientID="", Modality="MR").reason == "missing-identifier"


def test_the_modality_comes_before_the_pixels() -> None:
    assert fault(Modality="MR", PixelData=None).reason == "wrong-modality"


def test_the_pixels_come_before_their_kind() -> None:
    assert fault(PixelData=None, PhotometricInterpretation="CMYK").reason == "no-pixels"


@pytest.mark.parametrize(
    "changes",
    [
        {"PatientID": ""},
        {"SOPInstanceUID": "Doe, Jane"},
        {"Modality": "Doe, Jane"},
        {"PhotometricInterpretation": "Doe, Jane"},
        {"PixelData": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_fault_quotes_no_value_that_could_name_a_patient(changes: dict[str, Any]) -> None:
    message = repr(fault(**changes).args)
    assert not [value for value in (*IDENTIFIERS.values(), *ATTRIBUTES.values(), "Jane") if value in message]


@pytest.mark.parametrize("value", ["nan", "inf", "1e999", "wide"])
def test_what_is_no_finite_number_is_none(value: str) -> None:
    dataset = Dataset()
    dataset.add_new("KVP", "LO", value)
    assert first(of_dataset(dataset), "KVP") is None


def test_a_number_of_several_is_the_first() -> None:
    assert header(PixelSpacing=[0.5, 0.7]).attributes["spacing_mm"] == 0.5


def test_a_text_of_several_is_the_first() -> None:
    assert header(Manufacturer=["ACME", "MRS DOE"]).attributes["manufacturer"] == "ACME"


def test_a_list_of_no_values_is_empty_text() -> None:
    dataset = Dataset()
    dataset.ImageType = []
    assert text(of_dataset(dataset), "ImageType") == ""


def test_a_label_is_refused_whatever_its_modality_and_an_overview_of_a_slide_alone() -> None:
    # As de-identification, see imaging.deidentify.pixels.pixel_check.
    assert fault(ImageType=["ORIGINAL", "PRIMARY", "LABEL", "NONE"]).reason == "slide-label"
    assert header(ImageType=["ORIGINAL", "PRIMARY", "OVERVIEW", "NONE"]).patient_id == "P-4711"
