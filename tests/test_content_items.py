"""What becomes of content items: nothing that identifies comes out, measurements and references do."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from tests.dicom_objects import file_bytes
from tests.referencing_objects import item
from tests.scrubbed_objects import KEY, clean, scrubbed, slice_of
from tests.structured_reports import (
    Code,
    by_position,
    code,
    codes,
    container,
    content,
    image,
    measured,
    report,
)

COMMENT: Code = ("121106", "DCM", "Comment")
TRACKING: Code = ("112039", "DCM", "Tracking Identifier")
AGE: Code = ("121033", "DCM", "Subject Age")
LENGTH: Code = ("410668003", "SCT", "Length")
PRIVATE: Code = ("L1", "99LOCAL", "Dr. Miller's own measure")


def after(items: list[Dataset], **options: Any) -> list[Dataset]:
    """Return what comes out of the content of a document."""
    chosen = {"documents": "clean", "structured": True} | options
    return list(scrubbed(report(items), **chosen).get("ContentSequence") or ())


def the_only(items: list[Dataset]) -> Dataset:
    (one,) = items
    return one


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_measurements_codes_and_geometry_stay(syntax: str) -> None:
    point = content(
        "SCOORD", None, "INFERRED FROM", GraphicType="POINT", GraphicData=[1.5, 2.5],
        ContentSequence=Sequence([image("1.2.3.40", "SELECTED FROM")]),
    )  # fmt: skip
    volume = content(
        "SCOORD3D", None, GraphicType="POINT", GraphicData=[1, 2, 3], ReferencedFrameOfReferenceUID="1.2.9"
    )
    length = content("NUM", LENGTH, MeasuredValueSequence=measured("12.5"), ContentSequence=Sequence([point]))
    finding = content(
        "CODE", ("121071", "DCM", "Finding"), ConceptCodeSequence=codes(("4147007", "SCT", "Mass"))
    )
    site = content(
        "CODE", ("363698007", "SCT", "Finding Site"), ConceptCodeSequence=codes(("39607008", "SCT", "Lung"))
    )
    options = {"documents": "clean", "structured": True}
    document = scrubbed(report([container([length, finding, site, volume])]), syntax, **options)
    length, finding, site, volume = document.ContentSequence[0].ContentSequence
    value = length.MeasuredValueSequence[0]
    assert (value.NumericValue, value.MeasurementUnitsCodeSequence[0].CodeValue) == (12.5, "mm")
    assert (length.ContentSequence[0].GraphicData, volume.GraphicData) == ([1.5, 2.5], [1, 2, 3])
    assert volume.ReferencedFrameOfReferenceUID == KEY.uid("1.2.9")
    source = length.ContentSequence[0].ContentSequence[0].ReferencedSOPSequence[0]
    assert source.ReferencedSOPInstanceUID == KEY.uid("1.2.3.40")
    assert [one.ConceptCodeSequence[0].CodeMeaning for one in (finding, site)] == ["Mass", "Lung"]


def test_a_text_of_a_concept_that_dicom_defines_stays_without_names() -> None:
    assert the_only(after([content("TEXT", TRACKING, TextValue="Doe 1 left")])).TextValue == "1 left"


@pytest.mark.parametrize("name", [PRIVATE, None, ("999999", "DCM", "Nothing"), ("112039", "99LOCAL", "Mine")])
def test_texts_and_dates_of_an_unknown_concept_are_replaced(name: Code | None) -> None:
    text, day = after([content("TEXT", name, TextValue="Mr X"), content("DATE", name, Date="20240229")])
    assert (text.TextValue, day.Date) == ("Anonymized", "19000101")


def test_a_private_code_is_replaced_and_a_standard_one_stays() -> None:
    def coded(*value: str) -> Dataset:
        return content(
            "CODE", ("121071", "DCM", "Finding"), ConceptCodeSequence=codes((value[0], value[1], value[2]))
        )

    private, standard = after([coded("R1", "99LOCAL", "Miller's sign"), coded("4147007", "SCT", "Mass")])
    replaced = private.ConceptCodeSequence[0]
    assert (replaced.CodeValue, replaced.CodingSchemeDesignator, replaced.CodeMeaning) == (
        "Anonymized",
        "99RADLOOP",
        "Anonymized",
    )
    assert standard.ConceptCodeSequence[0].CodeMeaning == "Mass"


def test_a_private_title_is_replaced() -> None:
    made = report([container([])], ConceptNameCodeSequence=codes(PRIVATE))
    title = scrubbed(made, documents="clean", structured=True).ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodeMeaning) == ("Anonymized", "Anonymized")


def test_a_person_is_nobody_whatever_the_concept() -> None:
    persons = after([content("PNAME", name, PersonName="Miller^Jane") for name in (PRIVATE, TRACKING, None)])
    assert {str(one.PersonName) for one in persons} == {"Anonymous"}


def test_of_two_names_the_strictest_counts() -> None:
    both = content("NUM", AGE, MeasuredValueSequence=measured("7", ("a", "UCUM", "a")))
    assert len(after([both], patient_characteristics=True)) == 1
    both.ConceptNameCodeSequence.append(code(("C54627", "NCIt", "Experience")))
    assert after([both], patient_characteristics=True) == []


def test_a_text_with_two_names_is_unknown() -> None:
    both = content("TEXT", TRACKING, TextValue="Mr X")
    both.ConceptNameCodeSequence.append(code(PRIVATE))
    assert the_only(after([both])).TextValue == "Anonymized"


def test_without_the_option_no_text_stays() -> None:
    text = the_only(after([content("TEXT", TRACKING, TextValue="lesion 1")], structured=False))
    assert text.TextValue == "Anonymized"


@pytest.mark.parametrize("value_type", ["NUM", "CODE"])
def test_a_patients_number_goes_as_a_measurement_or_a_code_too(value_type: str) -> None:
    name = ("121030", "DCM", "Subject ID")
    values = {
        "MeasuredValueSequence": measured("4711"),
        "ConceptCodeSequence": codes(("4711", "SCT", "4711")),
    }
    assert after([content(value_type, name, **values)]) == []


def test_only_what_coordinates_lie_on_stays_for_their_sake() -> None:
    comment = content("TEXT", COMMENT, "SELECTED FROM", TextValue="Mr X")
    assert after([comment], descriptors=False) == []


def test_a_retired_snomed_code_is_recognized() -> None:
    assert after([content("TEXT", ("F-02455", "SRT", "Social History"), TextValue="married to Mr X")]) == []


@pytest.mark.parametrize(
    ("number", "units", "expected"),
    [
        ("64", "a", 64),
        ("89", "a", 89),
        ("93", "a", 90),
        ("1190", "mo", 1080),
        ("700", "mo", 700),
        ("95", "old", 90),
    ],
)
def test_an_age_is_kept_on_request_and_capped(number: str, units: str, expected: int) -> None:
    value = measured(number, (units, "UCUM", units), FloatingPointValue=95.5)
    old = content("NUM", AGE, MeasuredValueSequence=value)
    assert after([old]) == []
    kept = the_only(after([old], patient_characteristics=True)).MeasuredValueSequence[0]
    assert kept.NumericValue == expected
    assert "FloatingPointValue" not in kept


def test_an_age_in_an_acquisition_context_is_capped_too() -> None:
    years = {"NumericValue": "93", "MeasurementUnitsCodeSequence": codes(("a", "UCUM", "a"))}
    made = slice_of(AcquisitionContextSequence=Sequence([content("NUMERIC", AGE, **years)]))
    age = scrubbed(made, structured=True, patient_characteristics=True).AcquisitionContextSequence[0]
    assert age.NumericValue == 90
    assert not scrubbed(made, structured=True).AcquisitionContextSequence


@pytest.mark.parametrize(("uids", "expected"), [(False, KEY.uid("1.2.3.77")), (True, "1.2.3.77")])
def test_a_uid_of_the_table_is_mapped_or_kept_as_all_others(uids: bool, expected: str) -> None:
    tracking = content("UIDREF", ("112040", "DCM", "Tracking Unique Identifier"), UID="1.2.3.77")
    assert expected == the_only(after([tracking], uids=uids)).UID


def test_a_uid_of_an_unknown_concept_is_never_kept() -> None:
    assert KEY.uid("1.2.3.77") == the_only(after([content("UIDREF", PRIVATE, UID="1.2.3.77")], uids=True)).UID


def test_dates_of_the_table_keep_their_intervals() -> None:
    start, end = (
        content("DATETIME", (number, "DCM", "Irradiation"), DateTime=f"202402{day}101530")
        for number, day in (("113809", 27), ("113810", 29))
    )
    first, last = (datetime.strptime(str(one.DateTime), "%Y%m%d%H%M%S") for one in after([start, end]))
    assert (last - first, first.hour, first < datetime(2024, 2, 27)) == (timedelta(2), 10, True)


def test_an_image_that_coordinates_lie_on_stays_though_the_table_removes_it() -> None:
    wave = ("121112", "DCM", "Source of Measurement")
    on = content(
        "WAVEFORM", wave, "SELECTED FROM", ReferencedSOPSequence=image("1.2.5").ReferencedSOPSequence
    )
    time = content(
        "TCOORD",
        None,
        TemporalRangeType="POINT",
        ReferencedTimeOffsets=["1.5"],
        ContentSequence=Sequence([on]),
    )
    kept = the_only(after([time])).ContentSequence[0].ReferencedSOPSequence[0]
    assert kept.ReferencedSOPInstanceUID == KEY.uid("1.2.5")
    on.RelationshipType = "CONTAINS"
    assert "ContentSequence" not in the_only(after([time]))


def test_references_by_position_follow_what_they_mean() -> None:
    comment = content("TEXT", COMMENT, TextValue="gone")
    lengths = [content("NUM", LENGTH, MeasuredValueSequence=measured(number)) for number in ("1", "2")]
    inside = container([comment, lengths[0], lengths[1], by_position(1, 2, 2)])
    first, second, _ = (items := after([comment, inside, by_position(1, 2, 3), by_position(1)]))
    assert len(first.ContentSequence) == 3
    assert first.ContentSequence[2].ReferencedContentItemIdentifier == [1, 1, 1]
    assert second.ReferencedContentItemIdentifier == [1, 1, 2]
    assert items[2].ReferencedContentItemIdentifier == 1


def test_a_reference_to_what_is_gone_goes_and_the_others_close_up() -> None:
    comment = content("TEXT", COMMENT, TextValue="gone")
    length = content("NUM", LENGTH, MeasuredValueSequence=measured("1"))
    last = container([by_position(1, 1), by_position(1, 3, 3), length])
    _, nested, refers = after([comment, length, last, by_position(1, 3, 3)])
    assert [one.get("ValueType") for one in nested.ContentSequence] == [None, "NUM"]
    assert nested.ContentSequence[0].ReferencedContentItemIdentifier == [1, 2, 2]
    assert refers.ReferencedContentItemIdentifier == [1, 2, 2]


def test_where_nothing_stays_there_is_no_empty_sequence() -> None:
    made = report([container([content("TEXT", COMMENT, TextValue="gone")])])
    (emptied,) = scrubbed(made, documents="clean", structured=True).ContentSequence
    assert "ContentSequence" not in emptied


def test_texts_in_other_attributes_of_an_item_are_replaced() -> None:
    texts = {"UnformattedTextValue": "Mr X", "TextValue": "Mr X"}
    made = content("NUM", TRACKING, MeasuredValueSequence=measured("1"), **texts)
    assert "Mr X" not in str(the_only(after([made])))


def test_cells_of_a_table_keep_their_numbers_and_no_text() -> None:
    cells = Sequence([item(SelectorDSValue="1.5"), item(SelectorLTValue="Mr X")])
    table = content("TABLE", LENGTH, TabulatedValuesSequence=Sequence([item(CellValuesSequence=cells)]))
    number, text = the_only(after([table])).TabulatedValuesSequence[0].CellValuesSequence
    assert (number.SelectorDSValue, text.SelectorLTValue) == (1.5, "Anonymized")


@pytest.mark.parametrize("vr", [b"UN", b"OB"])
@pytest.mark.parametrize("broken", [b"\xfe\xff\x00\xe0\xff\xff\xff\x0fxx", b"Mr X had a name "])
def test_an_item_whose_name_cannot_be_read_keeps_no_text(broken: bytes, vr: bytes) -> None:
    data = file_bytes(
        slice_of(AcquisitionContextSequence=Sequence([content("TEXT", None, TextValue="Mr X")]))
    )
    at = data.index(b"\x40\x00\x60\xa1")
    name = b"\x40\x00\x43\xa0" + vr + b"\0\0" + len(broken).to_bytes(4, "little") + broken
    made = bytearray(data[:at] + name + data[at:])
    for mark in (b"\x40\x00\x55\x05SQ\0\0", b"\xfe\xff\x00\xe0"):
        start = made.index(mark) + len(mark)
        length = int.from_bytes(made[start : start + 4], "little") + len(name)
        made[start : start + 4] = length.to_bytes(4, "little")
    out = clean(bytes(made), structured=True)
    assert (b"Mr X" in out, b"Anonymized" in out) == (False, True)
