"""Table of the patient of each picture."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from imaging.errors import DataFault, UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.sources.patients import Patients, read_patients
from imaging.sources.protocol import SourceFile


def table(tmp_path: Path, text: str, encoding: str = "utf-8") -> Patients:
    (tmp_path / "labels.csv").write_bytes(text.encode(encoding))
    return read_patients(tmp_path / "labels.csv")


def refused(tmp_path: Path, text: str, encoding: str = "utf-8") -> str:
    with pytest.raises(UserFault) as caught:
        table(tmp_path, text, encoding)
    return str(caught.value)


def listed(*names: str) -> Iterator[SourceFile]:
    return (SourceFile(name=name, size_bytes=1, mtime_ns=1) for name in names)


def reason(patients: Patients, name: str) -> str:
    with pytest.raises(DataFault) as caught:
        patients.metadata(name)
    return caught.value.reason


def test_a_picture_has_the_patient_of_its_line(tmp_path: Path) -> None:
    patients = table(tmp_path, "file,PatientID,label\na/b.png,P1,cat\nc.nii.gz,P2,dog\n")
    assert patients.metadata("a/b.png") == (("patient", "P1"),)
    assert patients.metadata("c.nii.gz") == (("patient", "P2"),)


def test_dicom_needs_no_line(tmp_path: Path) -> None:
    assert table(tmp_path, "file,PatientID\n").metadata("IM1") == ()


def test_columns_are_matched_by_name_in_any_order(tmp_path: Path) -> None:
    assert table(tmp_path, "label,Patient ID,FILE\nx,P1,a.png\n").metadata("a.png") == (("patient", "P1"),)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_names_may_be_in_any_script(tmp_path: Path, encoding: str) -> None:
    assert table(tmp_path, "file,PatientID\nÄ/画.png,P1\n", encoding).metadata("Ä/画.png") == (
        ("patient", "P1"),
    )


@pytest.mark.parametrize("written", ["./a/b.png", "a\\b.png", " a/b.png "])
def test_a_name_may_be_written_as_its_system_writes_it(tmp_path: Path, written: str) -> None:
    assert table(tmp_path, f"file,PatientID\n{written},P1\n").metadata("a/b.png") == (("patient", "P1"),)


def test_a_picture_without_a_line_is_refused(tmp_path: Path) -> None:
    assert reason(table(tmp_path, "file,PatientID\na.png,P1\n"), "b.png") == "missing-identifier"


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_the_patient_is_read_whatever_separates_the_columns(tmp_path: Path, delimiter: str) -> None:
    text = "file,PatientID,label\na.png,P1,x\n".replace(",", delimiter)
    assert table(tmp_path, text).metadata("a.png") == (("patient", "P1"),)


@pytest.mark.parametrize("line", ["a.png,", "a.png", "a.png,  ", "a.png,NA", "a.png,nan"])
def test_a_line_without_a_patient_is_none(tmp_path: Path, line: str) -> None:
    assert reason(table(tmp_path, f"file,PatientID\n{line}\n"), "a.png") == "missing-identifier"


def test_a_picture_of_two_patients_is_refused(tmp_path: Path) -> None:
    patients = table(tmp_path, "file,PatientID\na.png,P1\na.png,P2\na.png,P1\n")
    assert reason(patients, "a.png") == "missing-identifier"


def test_a_line_may_be_repeated(tmp_path: Path) -> None:
    patients = table(tmp_path, "file,PatientID,label\na.png,P1,x\na.png,P1,y\n")
    assert patients.metadata("a.png") == (("patient", "P1"),)


def test_without_a_column_of_patients_the_remedy_is_reported(tmp_path: Path) -> None:
    patients = table(tmp_path, "file,label\nMUSTERMANN.png,x\n")
    with pytest.raises(UserFault, match="add a column PatientID") as caught:
        list(patients.checked(listed("MUSTERMANN.png")))
    assert "MUSTERMANN" not in str(caught.value)


def test_without_a_column_of_patients_dicom_is_fine(tmp_path: Path) -> None:
    patients = table(tmp_path, "file,SOPInstanceUID,label\nIM1,1.2,x\n")
    assert len(list(patients.checked(listed("IM1")))) == 1


def test_a_table_about_dicom_is_none_of_pictures(tmp_path: Path) -> None:
    assert table(tmp_path, "PatientID,label\nP1,x\n") == Patients()


def test_a_table_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="no label table at"):
        read_patients(tmp_path / "gone.csv")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le"])
def test_another_encoding_is_reported_without_its_text(tmp_path: Path, encoding: str) -> None:
    message = refused(tmp_path, "file,PatientID\nÄRIKA.png,MÜSTERMANN\n", encoding)
    assert "CSV UTF-8" in message
    assert "STERMANN" not in message


def test_a_broken_quote_is_reported(tmp_path: Path) -> None:
    assert "CSV UTF-8" in refused(tmp_path, 'file,PatientID\n"a.png"x,P1\n')


def test_pictures_without_a_table_name_the_table_to_write() -> None:
    listing = Patients().checked(listed("a.png", "b.nii", "README"))
    assert next(listing).name == "a.png"
    with pytest.raises(UserFault, match=r"2 of 3 files .* first line is 'file,PatientID,label'"):
        list(listing)


def test_a_few_pictures_among_dicom_stop_nothing() -> None:
    names = ("IM1", "IM2", "logo.png")
    assert [file.name for file in Patients().checked(listed(*names))] == list(names)
    assert reason(Patients(), "logo.png") == "missing-identifier"


@pytest.mark.parametrize("name", ["a.svs", "b.NDPI", "c.scn", "d.bif"])
def test_files_of_slide_scanners_are_pictures_only_where_somebody_asks_for_them(name: str) -> None:
    assert [file.name for file in Patients().checked(listed(name))] == [name]
    payloads = [
        patients.payload(next(listed(name)), lambda: b"").format
        for patients in (Patients(), Patients({"other.png": "P1"}), Patients({name: "P1"}))
    ]
    assert payloads == ["dicom", "dicom", "picture"]
    with pytest.raises(UserFault, match="1 of 1 files"):
        list(Patients(slides=True).checked(listed(name)))
    assert reason(Patients({"other.png": "P1"}, slides=True), name) == "missing-identifier"


def test_a_file_that_is_refused_by_its_name_is_not_loaded() -> None:
    def load() -> bytes:
        raise AssertionError("loaded")

    for name in ("a.png", "d/DICOMDIR"):
        with pytest.raises(DataFault):
            Patients().payload(SourceFile(name=name, size_bytes=1, mtime_ns=1), load)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", PreprocessSpec(modality="OT", window="file")),
        ("a.nii.gz", PreprocessSpec(kind="volume")),
        ("IM1", PreprocessSpec()),
    ],
)
def test_the_kind_of_the_named_files_decides_the_preparation(
    tmp_path: Path, name: str, expected: PreprocessSpec
) -> None:
    assert table(tmp_path, f"file,PatientID\n{name},P1\n").default_spec() == expected


def test_without_a_table_all_is_ct() -> None:
    assert Patients().default_spec() == PreprocessSpec()
