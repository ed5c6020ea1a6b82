"""Label file: its encoding, what separates its columns, and its lines."""

from pathlib import Path

import pytest

from imaging.errors import UserFault
from imaging.sources.label_file import open_label_file

TEXT = "PatientID,label\nMÜLLER,yes\n"


def read(folder: Path, content: bytes) -> tuple[str, list[str], list[tuple[int, list[str]]]]:
    (folder / "labels.csv").write_bytes(content)
    with open_label_file(folder / "labels.csv") as file:
        reader = file.reader()
        return file.delimiter, file.columns, [(reader.line_num, row) for row in reader]


# Excel: "CSV UTF-8" has a byte order mark; "Unicode text" is UTF-16 with one; Python's utf-16-be writes none.
@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
    ],
)
def test_each_encoding_is_read(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content) == (",", ["PatientID", "label"], [(2, ["MÜLLER", "yes"])])


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(UserFault, match="save it as 'CSV UTF-8'") as caught:
        read(tmp_path, TEXT.encode(encoding))
    assert "LLER" not in str(caught.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_first_line_shows_what_separates_the_columns(tmp_path: Path, delimiter: str) -> None:
    lines = [("study", "SOPInstanceUID", "label"), ("a, b; c", "1.2", "0,5")]
    text = "\n".join(delimiter.join(f'"{cell}"' for cell in line) for line in lines)
    assert read(tmp_path, text.encode()) == (delimiter, list(lines[0]), [(2, list(lines[1]))])


def test_excel_writes_unicode_text_with_tabs(tmp_path: Path) -> None:
    delimiter, columns, lines = read(tmp_path, "file\tPatientID\tlabel\r\na.png\tP\tx\r\n".encode("utf-16"))
    assert (delimiter, columns, lines) == ("\t", ["file", "PatientID", "label"], [(2, ["a.png", "P", "x"])])


def test_a_comma_in_the_name_of_a_column_separates_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, b"PatientID;grade, high is bad\na;3\n")[:2] == (
        ";",
        ["PatientID", "grade, high is bad"],
    )


# Excel's own line, which it reads and hides; it writes none itself.
@pytest.mark.parametrize("first", [b"sep=;", b"SEP=;", b'"sep=;"', b"\xef\xbb\xbfsep=;"])
def test_the_line_for_excel_names_what_separates_the_columns(tmp_path: Path, first: bytes) -> None:
    text = first + b"\r\nPatientID;grade, high is bad\r\na;3\r\n"
    assert read(tmp_path, text) == (";", ["PatientID", "grade, high is bad"], [(3, ["a", "3"])])


@pytest.mark.parametrize("delimiter", ["|", "\t", ","])
def test_the_line_for_excel_may_name_any_sign(tmp_path: Path, delimiter: str) -> None:
    text = f"sep={delimiter}\nPatientID{delimiter}label\na{delimiter}x\n"
    assert read(tmp_path, text.encode()) == (delimiter, ["PatientID", "label"], [(3, ["a", "x"])])


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    lines = read(tmp_path, b'PatientID,label\n\na,"x\ny"\nb,z\n')[2]
    assert lines == [(2, []), (4, ["a", "x\ny"]), (5, ["b", "z"])]


def test_identifiers_come_from_the_finest_to_the_coarsest(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("PatientID,label,StudyInstanceUID,SOPInstanceUID\n")
    with open_label_file(tmp_path / "labels.csv") as file:
        assert list(file.identifiers.items()) == [("instance", 3), ("study", 2), ("patient", 0)]
