"""What de-identification leaves as it is, and what it says of itself."""

import struct
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from imaging.deidentify.objects.file_writer import IMPLEMENTATION_CLASS, write_object
from imaging.deidentify.objects.scrub import scrub
from imaging.deidentify.options import DeidentifyOptions, method_codes
from imaging.dicom.parse import parse
from tests.dicom_objects import NATIVE, file_bytes
from tests.scrubbed_objects import KEY, LOOSE, STRICT, clean, raw_of, scrubbed, slice_of

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:The value length")
RESEARCH = {
    **{
        "Rows": 8,
        "Columns": 8,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
    },
    **{"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "PixelSpacing": ["0.70", "7.0e-1"]},
    **{"ImagerPixelSpacing": ["0.143", "0.143"], "SliceThickness": "1.250", "SpacingBetweenSlices": "1.25"},
    **{
        "ImagePositionPatient": ["-120.50", "+3", "19640229.5"],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    },
    **{"SliceLocation": "-795.030", "GantryDetectorTilt": "0.0", "RescaleSlope": "1.0", "RescaleType": "HU"},
    **{"RescaleIntercept": "-1024", "WindowCenter": ["40", "-600"], "WindowWidth": ["400", "1500"]},
    **{"VOILUTFunction": "LINEAR", "KVP": "120", "XRayTubeCurrent": "342", "ExposureTime": "500"},
    **{"Exposure": "190", "ConvolutionKernel": "B20f", "FilterType": "BODY FILTER", "Modality": "CT"},
    **{"ReconstructionDiameter": "384.0", "DataCollectionDiameter": "500.0", "BodyPartExamined": "CHEST"},
    **{"PatientPosition": "HFS", "ViewPosition": "AP", "ImageLaterality": "L", "EchoTime": "4.6"},
    **{"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "RepetitionTime": "500", "FlipAngle": "90"},
    **{"MagneticFieldStrength": "1.5", "Manufacturer": "SIEMENS", "InstanceNumber": "24"},
}
"""The attributes that research needs, written as nobody would write them again."""


def test_there_are_42_research_attributes() -> None:
    assert len(RESEARCH) == 42


@pytest.mark.parametrize("options", [DeidentifyOptions(), STRICT, LOOSE], ids=["default", "strict", "loose"])
@pytest.mark.parametrize("syntax", NATIVE, ids=lambda uid: UID(uid).name)
def test_research_attributes_stay_bit_by_bit(syntax: str, options: DeidentifyOptions) -> None:
    before = file_bytes(slice_of(**RESEARCH), syntax)
    after = write_object(scrub(parse(before), options, KEY))
    assert [name for name in RESEARCH if raw_of(before, name) != raw_of(after, name)] == []


@pytest.mark.parametrize("options", [DeidentifyOptions(), STRICT, LOOSE], ids=["default", "strict", "loose"])
def test_pixels_stay_bit_by_bit(options: DeidentifyOptions) -> None:
    made = slice_of()
    after = write_object(scrub(parse(file_bytes(made)), options, KEY))
    assert raw_of(after, "PixelData") == made.PixelData


def test_research_attributes_of_functional_groups_stay() -> None:
    made = slice_of()
    measures = Dataset()
    measures.PixelSpacing = ["0.70", "7.0e-1"]
    group = Dataset()
    group.PixelMeasuresSequence = Sequence([measures])
    made.SharedFunctionalGroupsSequence = Sequence([group])
    after = scrubbed(made).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert after.get_item("PixelSpacing").value == b"0.70\\7.0e-1 "


def test_patient_id_and_name_become_the_pseudonym() -> None:
    after = scrubbed(slice_of())
    assert after.PatientID == after.PatientName == KEY.patient_id("4711-42")


def test_patients_may_be_joined() -> None:
    ids = {scrubbed(slice_of(PatientID=text), patient_variants="join").PatientID for text in ("00123", "123")}
    assert len(ids) == 1


def test_dates_of_a_patient_move_together() -> None:
    after = scrubbed(slice_of(StudyDate="20240228", ContentDate="20240301", StudyTime="101500"))
    days = KEY.shift_days("4711-42")
    moved = [
        np.datetime64(f"{text[:4]}-{text[4:6]}-{text[6:]}") for text in (after.StudyDate, after.ContentDate)
    ]
    assert moved[0] == np.datetime64("2024-02-28") + days
    assert moved[1] - moved[0] == 2


def test_times_stay_where_dates_move() -> None:
    assert scrubbed(slice_of(StudyTime="101500.25")).StudyTime == "101500.25"


def test_dates_may_go() -> None:
    assert scrubbed(slice_of(StudyDate="20240228"), dates="remove").StudyDate == ""


def test_ages_are_capped() -> None:
    assert scrubbed(slice_of(PatientAge="095Y"), patient_characteristics=True).PatientAge == "090Y"


def test_uids_of_the_standard_stay() -> None:
    assert scrubbed(slice_of(ContextUID="1.2.840.10008.6.1.18")).ContextUID == "1.2.840.10008.6.1.18"


def test_uids_may_stay() -> None:
    assert scrubbed(slice_of(), uids=True).SOPInstanceUID == "1.2.3.4"


def test_a_code_keeps_its_value_and_loses_a_name() -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-D3000", "SRT", "Chest of Johanna Doe"
    after = scrubbed(slice_of(AnatomicRegionSequence=Sequence([code]))).AnatomicRegionSequence[0]
    assert (after.CodeValue, after.CodeMeaning) == ("T-D3000", "Chest of")


def test_a_word_of_the_standard_stays_though_a_patient_is_called_so() -> None:
    assert list(
        scrubbed(slice_of(PatientName="Axial^Primary", ImageType=["ORIGINAL", "PRIMARY"])).ImageType
    ) == [
        "ORIGINAL",
        "PRIMARY",
    ]


def test_text_of_another_alphabet_is_written_as_utf_8() -> None:
    after = scrubbed(slice_of(SpecificCharacterSet="ISO_IR 100", ConvolutionKernel="Weichteil für Doe"))
    assert (after.SpecificCharacterSet, after.ConvolutionKernel) == ("ISO_IR 192", "Weichteil für")


def test_ascii_keeps_its_character_set() -> None:
    assert scrubbed(slice_of(SpecificCharacterSet="ISO_IR 100")).SpecificCharacterSet == "ISO_IR 100"


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda uid: UID(uid).name)
def test_safe_private_elements_may_stay_with_their_creator(syntax: str) -> None:
    made = slice_of()
    made.private_block(0x0019, "GEMS_ACQU_01", create=True).add_new(0x23, "DS", "12.5")
    made.private_block(0x0019, "SOMEBODY", create=True).add_new(0x23, "LO", "whoever")
    after = scrubbed(made, syntax, safe_private=True)
    kept = {one.tag: str(one.value) for one in after if one.tag.is_private}
    assert kept == {0x00190010: "GEMS_ACQU_01", 0x00191023: "12.5"}


def test_the_statement_names_what_was_done() -> None:
    after = scrubbed(slice_of(), descriptors=True)
    codes = [(item.CodeValue, item.CodeMeaning) for item in after.DeidentificationMethodCodeSequence]
    assert tuple(codes) == method_codes(DeidentifyOptions(descriptors=True))
    assert (after.PatientIdentityRemoved, after.LongitudinalTemporalInformationModified) == (
        "YES",
        "MODIFIED",
    )


def test_the_file_is_ours() -> None:
    data = clean(file_bytes(slice_of()))
    meta = pydicom.dcmread(BytesIO(data)).file_meta
    assert data[:128] == bytes(128)
    assert (meta.ImplementationClassUID, meta.ImplementationVersionName) == (
        IMPLEMENTATION_CLASS,
        "RADLOOP_1",
    )
    assert meta.MediaStorageSOPInstanceUID == KEY.uid("1.2.3.4")


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda uid: UID(uid).name)
def test_the_same_object_gives_the_same_bytes(syntax: str) -> None:
    data = file_bytes(slice_of(**RESEARCH), syntax)
    assert clean(data) == clean(data)


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda uid: UID(uid).name)
def test_the_transfer_syntax_stays(syntax: str) -> None:
    assert scrubbed(slice_of(), syntax).file_meta.TransferSyntaxUID == syntax


SECRET = b"Visser^Pieter 1948"
"""A name that the header does not have, so that no search for it helps."""
COLOURS = b"XYZ " + bytes(4) + struct.pack(">3i", 0x6FA2, 0x38F5, 0x390)


def icc_profile(kind: bytes = b"text") -> bytes:
    """Return an ICC profile of a text and of a colour (ICC.1, 7 and 10), with the secret wherever a maker may write."""
    head, text = bytearray(128), kind + bytes(4) + SECRET
    head[4:8], head[24:36], head[48:56], head[84:100] = SECRET[:4], SECRET[:12], SECRET[:8], SECRET[:16]
    head[8:24], head[36:40] = b"\4\x30\0\0mntrRGB XYZ ", b"acsp"
    at = 128 + 4 + 2 * 12
    tags = struct.pack(">I4sII4sII", 2, b"desc", at, len(text), b"rXYZ", at + len(text), len(COLOURS))
    profile = bytearray(head + tags + text + COLOURS + SECRET)
    struct.pack_into(">I", profile, 0, len(profile))
    return bytes(profile)


@pytest.mark.parametrize("kind", [b"text", b"desc", b"mluc", b"dict", b"ui08"])
def test_texts_of_an_icc_profile_go_and_its_colours_stay(kind: bytes) -> None:
    before = icc_profile(kind)
    after = scrubbed(slice_of(ICCProfile=before)).ICCProfile
    assert len(after) == len(before)
    assert not any(SECRET[at : at + 4] in after for at in range(len(SECRET) - 3))
    at = before.index(COLOURS)
    assert after[at : at + len(COLOURS)] == COLOURS and after[8:24] == before[8:24]


@pytest.mark.parametrize("value", [SECRET, bytes(200), icc_profile()[:150], icc_profile()[:-2]])
def test_bytes_that_are_no_icc_profile_go(value: bytes) -> None:
    assert not scrubbed(slice_of(ICCProfile=value + bytes(len(value) % 2))).ICCProfile


BULK = {
    "SpectroscopyData": "OF",
    "PointCoordinatesData": "OF",
    "DoublePointCoordinatesData": "OD",
    "LongPrimitivePointIndexList": "OL",
    "RedPaletteColorLookupTableData": "OW",
}


@pytest.mark.parametrize("keyword", BULK)
def test_bulk_data_with_an_identifier_go_and_others_stay(keyword: str) -> None:
    numbers = np.random.default_rng(0).normal(size=4096).tobytes()
    for value, left in (
        (numbers, numbers),
        (numbers[:800] + b"\0\0Doe^Johanna 4711-42\0\0\0" + numbers, b""),
    ):
        one = slice_of()
        one.add_new(keyword, BULK[keyword], value)
        assert (scrubbed(one)[keyword].value or b"") == left
