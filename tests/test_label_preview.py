"""Preview of a label table: which files of a source it would label, by every level of identifiers."""

from pathlib import Path

import pytest

from imaging.annotations.finding_table import FindingQuery
from imaging.annotations.label_preview import (
    LabelMatcher,
    LabelPreview,
    open_finding_matcher,
    open_matcher,
)
from imaging.errors import UserFault
from imaging.pseudonyms import Pseudonyms

NAMES = Pseudonyms(b"k" * 32)


def matcher(folder: Path, table: str, column: str | None = None) -> LabelMatcher:
    path = folder / "labels.csv"
    path.write_text(table)
    return open_matcher(path, NAMES, column)


def preview(folder: Path, table: str) -> LabelPreview:
    """Return the preview of a table beside two images of each of the patients A and B."""
    one = matcher(folder, table)
    for patient in "AB":
        for n in (1, 2):
            header = {"SOPInstanceUID": f"1.{patient}.{n}", "PatientID": patient, "StudyInstanceUID": "9"}
            one.add(f"{patient}/{n}.dcm", header, patient)
    return one.result()


@pytest.mark.parametrize(
    ("table", "files", "patients"),
    [
        ("PatientID,label\nA,x\nC,y\n", 2, 1),
        ("SOPInstanceUID,label\n1.A.1,x\n1.B.2,y\n", 2, 2),
        ("StudyInstanceUID,label\n9,x\n", 4, 2),
        ("file,PatientID,label\nA/1.dcm,A,x\n", 1, 1),
        ("SOPInstanceUID,PatientID,label\n1.A.1,A,x\n1.B.1,A,y\n", 1, 1),
        ("PatientID,label\nA,NA\n", 0, 0),
    ],
)
def test_files_and_patients_with_a_label_are_counted(
    tmp_path: Path, table: str, files: int, patients: int
) -> None:
    one = preview(tmp_path, table)
    assert (one.files, one.patients, one.files_without_label) == (files, patients, 4 - files)


def test_lines_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    table = "SOPInstanceUID,PatientID,grade\n1.A.1,A,x\n1.A.1,A,y\n1.A.2,B,x\n7,A,x\n1.B.1,B,-\n1.B.2,B\n"
    one = preview(tmp_path, table)
    assert (one.column, one.identifiers) == ("grade", ["SOPInstanceUID", "PatientID"])
    assert (one.lines, one.classes, one.missing) == ({"x": 3, "y": 1}, {}, {"-": 1})
    assert (one.files_in_conflict, one.files_without_label, one.uneven_lines) == (1, 3, 1)
    assert (one.lines_without_image, one.lines_of_others) == (1, 1)


def test_a_source_without_images_has_none(tmp_path: Path) -> None:
    one = matcher(tmp_path, "PatientID,label\nA,x\n").result()
    assert (one.files, one.patients, one.lines, one.classes) == (0, 0, {"x": 1}, {})


def test_it_keeps_no_identifier(tmp_path: Path) -> None:
    one = matcher(tmp_path, "PatientID,label\nMUSTERMANN,x\n")
    one.add("MUSTERMANN.dcm", {"PatientID": "MUSTERMANN"}, "MUSTERMANN")
    assert "MUSTERMANN" not in repr(one.keys) + repr(one.result())


def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="name one with --label-column"):
        matcher(tmp_path, "PatientID,grade,site\nA,x,y\n")
    assert matcher(tmp_path, "PatientID,grade,site\nA,x,y\n", "site").column == "site"


# Findings


def finding_preview(folder: Path, query: FindingQuery, *tables: str) -> LabelPreview:
    """Return the preview of tables beside two images of each of the patients A and B."""
    paths = [folder / f"{number}.csv" for number in range(len(tables))]
    for path, text in zip(paths, tables, strict=True):
        path.write_text(text)
    one = open_finding_matcher(paths, NAMES, query)
    for patient in "AB":
        for n in (1, 2):
            header = {"SOPInstanceUID": f"1.{patient}.{n}", "PatientID": patient}
            one.add(f"{patient}/{n}.dcm", header, patient)
    return one.result()


def test_files_are_counted_by_what_is_known_of_each_finding(tmp_path: Path) -> None:
    tables = ("PatientID,mass\nA,1\nB,\n", "SOPInstanceUID,oedema\n1.A.1,0\n1.B.1,1\n9,1\n")
    one = finding_preview(tmp_path, FindingQuery(names=("mass", "oedema")), *tables)
    assert one.findings == {
        "mass": {"present": 2, "absent": 0, "unknown": 2},
        "oedema": {"present": 1, "absent": 1, "unknown": 2},
    }
    assert (one.files, one.patients, one.files_without_label) == (3, 2, 1)
    assert (one.identifiers, one.column) == (["PatientID", "SOPInstanceUID"], "mass, oedema")
    assert (one.lines, one.missing, one.lines_without_image) == ({"mass": 1, "oedema": 2}, {"": 1}, 1)


def test_the_findings_of_lists_are_previewed(tmp_path: Path) -> None:
    one = finding_preview(tmp_path, FindingQuery(separator=";"), "PatientID,label\nA,x;y\nB,x\n")
    assert (one.column, one.classes) == ("label", {"x": 4, "y": 2})


def test_tables_that_contradict_each_other_have_no_preview(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="contradict each other about 2 images"):
        finding_preview(
            tmp_path, FindingQuery(names=("mass",)), "PatientID,mass\nA,1\n", "PatientID,mass\nA,0\n"
        )
