"""Finding tables: columns, lists and several tables become what is known of each image; nothing unknown is absent."""

from pathlib import Path

import pyarrow as pa
import pytest

from imaging.annotations.finding_join import join_findings
from imaging.annotations.finding_table import (
    MOST_FINDINGS,
    FindingQuery,
    FindingTables,
    check_finding_columns,
    decoded,
    read_findings,
)
from imaging.errors import UserFault
from imaging.pseudonyms import Pseudonyms

NAMES = Pseudonyms(b"k" * 32)
COLUMNS = FindingQuery(names=("mass", "oedema"))
LISTS = FindingQuery(separator=";")


def read(folder: Path, *tables: str, query: FindingQuery = COLUMNS) -> FindingTables:
    paths = [folder / f"{letter}.csv" for letter, _ in zip("abc", tables, strict=False)]
    for path, text in zip(paths, tables, strict=True):
        path.write_text(text)
    return read_findings(paths, NAMES, query)


def codes(table: FindingTables) -> list[str]:
    return table.tables[0].values.to_pylist()


def images(**columns: str) -> pa.Table:
    """Return one example of these identifiers."""
    keys = {"object": "instance", "study": "study", "patient": "patient"}
    return pa.table({f"{name}_key": [NAMES.key(keys[name], one)] for name, one in columns.items()})  # type: ignore[index]


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        *((cell, "1") for cell in ("1", "1.0", "01", "yes", "TRUE", " present ", "Positive")),
        *((cell, "0") for cell in ("0", "0.0", "no", "False", "absent", "negative")),
        # -1 is how CheXpert writes what is uncertain (Irvin et al. 2019, table 1).
        *((cell, "?") for cell in ("-1", "-1.0", "U", "uncertain", "", "NA", "nan", ".")),
    ],
)
def test_a_value_is_present_absent_or_unknown(tmp_path: Path, cell: str, code: str) -> None:
    assert codes(read(tmp_path, f"PatientID,mass,oedema\nA,{cell},1\n")) == [f"{code}1"]


def test_missing_values_are_chosen_by_the_person(tmp_path: Path) -> None:
    query = FindingQuery(names=("mass", "oedema"), missing=("9",))
    assert codes(read(tmp_path, "PatientID,mass,oedema\nA,9,0\n", query=query)) == ["?0"]


@pytest.mark.parametrize("cell", ["2", "0.7", "maybe", "-2", "1;0"])
def test_a_value_that_means_nothing_is_refused_with_line_and_remedy(tmp_path: Path, cell: str) -> None:
    table = f"PatientID,mass,oedema\nA,1,1\nB,0,{cell}\n"
    fault = (
        rf"line 3 of a.csv has '{cell}' for the finding 'oedema', which is neither 1 .* --missing '{cell}'"
    )
    with pytest.raises(UserFault, match=fault):
        read(tmp_path, table)


def test_a_line_of_unknown_values_labels_nothing(tmp_path: Path) -> None:
    table = read(tmp_path, "PatientID,mass,oedema\nA,,-1\nB,1,0\n")
    assert (codes(table), table.missing) == (["10"], {"": 1})


def test_a_cell_behind_the_end_of_a_line_is_unknown(tmp_path: Path) -> None:
    table = read(tmp_path, "PatientID,mass,oedema\nA,1\n")
    assert (codes(table), table.uneven) == (["1?"], (1, 2))


def test_two_lines_of_one_image_that_differ_are_a_conflict(tmp_path: Path) -> None:
    table = read(tmp_path, "PatientID,mass,oedema\nA,1,0\nA,1,1\nB,0,0\n")
    joined = join_findings(table, images(patient="A"))
    assert joined.findings.tolist() == [[-1, -1]]
    assert joined.faults.to_pylist() == ["two-labels"]
    assert (joined.report.lines_in_conflict, table.opposed) == ((2,), {2: 3})


# Lists


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ("a;b", "110"),
        ("b", "010"),
        (" c ; a ", "101"),
        ("No Finding", "000"),
        ("a;NA", "1??"),
        ("a;;", "100"),
    ],
)
def test_a_list_names_what_is_present(tmp_path: Path, cell: str, code: str) -> None:
    table = read(tmp_path, f"PatientID,label\nZ,a;b;c\nA,{cell}\n", query=LISTS)
    assert (table.names, codes(table)[-1]) == (("a", "b", "c"), code)


def test_an_empty_list_is_unknown(tmp_path: Path) -> None:
    assert codes(read(tmp_path, "PatientID,label\nA,a\nB,\nC,NA\n", query=LISTS)) == ["1"]


def test_a_list_without_names_that_are_asked_for_has_none_of_them(tmp_path: Path) -> None:
    query = FindingQuery(names=("b",), separator="|", column="what")
    assert codes(read(tmp_path, "PatientID,what\nA,a|b\nB,a\n", query=query)) == ["1", "0"]


def test_a_list_of_a_finding_and_of_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match=r"line 2 of a.csv lists 'No Finding' beside 'a', which contradict"):
        read(tmp_path, "PatientID,label\nA,a;No Finding\n", query=LISTS)


def test_a_finding_in_two_spellings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match=r"spells one class in more than one way: 'Mass' .* and 'mass'"):
        read(tmp_path, "PatientID,label\nA,mass;x\nB,Mass\n", query=LISTS)


def test_a_separator_that_cuts_texts_is_refused(tmp_path: Path) -> None:
    many = "".join(f"P{n},t{n}\n" for n in range(MOST_FINDINGS + 1))
    with pytest.raises(UserFault, match=r"257 different findings and at most 256 .* --label-separator"):
        read(tmp_path, f"PatientID,label\n{many}", query=LISTS)


# Columns


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ("PatientID,mass", "no table has a column for 'oedema' of --findings"),
        ("PatientID,other", r"has the columns .* and none of the findings \['mass', 'oedema'\]"),
        (
            "PatientID,label,mass,oedema",
            "a column 'label' and columns of findings, and either can be learned",
        ),
        ("PatientID,mass,mass,oedema", "2 columns called 'mass': keep or rename one"),
        ("mass,oedema", "named as an identifier"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, header: str, fault: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\n")
    with pytest.raises(UserFault, match=fault):
        check_finding_columns([path], COLUMNS)


def test_an_identifier_is_no_finding(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("PatientID,StudyInstanceUID,mass\n")
    with pytest.raises(
        UserFault, match=r"'StudyInstanceUID' of a.csv is a column of identifiers, and no finding"
    ):
        check_finding_columns([path], FindingQuery(names=("mass", "StudyInstanceUID")))


# Several tables


def test_several_tables_of_other_levels_add_what_they_know(tmp_path: Path) -> None:
    table = read(tmp_path, "PatientID,mass\nA,1\n", "SOPInstanceUID,oedema\n1.1,0\n")
    joined = join_findings(table, images(patient="A", object="1.1"))
    assert joined.findings.tolist() == [[1, 0]]
    assert join_findings(table, images(patient="A", object="1.2")).findings.tolist() == [[1, -1]]


def test_two_tables_that_contradict_each_other_are_refused_with_both_lines(tmp_path: Path) -> None:
    table = read(tmp_path, "PatientID,mass,oedema\nB,1,1\nA,1,\n", "StudyInstanceUID,mass\n7,0\n")
    fault = "about 1 image: of finding 'mass', line 3 of a.csv present and line 2 of b.csv absent; correct"
    with pytest.raises(UserFault, match=fault):
        join_findings(table, images(patient="A", study="7"))


def test_lines_are_counted_through_all_tables(tmp_path: Path) -> None:
    table = read(tmp_path, "PatientID,mass\nA,1\n", "PatientID,oedema\nA,1\nC,1\n")
    joined = join_findings(table, images(patient="A"))
    assert joined.report.lines_without_image == (5,)
    assert (table.place(2), table.place(5)) == ("2 of a.csv", "3 of b.csv")


def test_what_the_tables_know_is_counted(tmp_path: Path) -> None:
    table = read(tmp_path, "PatientID,mass,oedema\nA,1,0\nB,1,-1\nC,,0\n")
    assert table.lines == {"mass": (2, 0, 1), "oedema": (0, 2, 1)}


def test_no_code_is_unknown() -> None:
    assert decoded(pa.chunked_array([pa.array([], pa.string())]), 2).shape == (0, 2)
