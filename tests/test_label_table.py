"""Label table: the columns that are read, and the labels that are kept."""

from collections.abc import Iterator
from pathlib import Path
from weakref import ref

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.annotations import label_table as labels
from imaging.annotations.label_table import (
    NO_PARENT,
    PARENT_DIGITS,
    LabelTable,
    build_label_table,
    label_columns,
    read_labels,
)
from imaging.errors import UserFault
from imaging.pseudonyms import Level, Pseudonyms

NAMES = Pseudonyms(b"k" * 32)


def table(folder: Path, text: str, column: str | None = None) -> LabelTable:
    path = folder / "labels.csv"
    path.write_text(text)
    return read_labels(path, NAMES, column)


@pytest.mark.parametrize(
    ("column", "level"),
    [
        ("SOPInstanceUID", "instance"),
        ("SeriesInstanceUID", "series"),
        ("study_instance_uid", "study"),
        ("Patient ID", "patient"),
        ("File", "file"),
    ],
)
def test_the_columns_name_decides_what_is_labelled(tmp_path: Path, column: str, level: Level) -> None:
    read = table(tmp_path, f"{column},label\na,yes\n")
    assert (read.level, dict(zip(read.keys.to_pylist(), read.values.to_pylist(), strict=True))) == (
        level,
        {NAMES.key(level, "a"): "yes"},
    )


@pytest.mark.parametrize("header", ["file,PatientID,label", "PatientID,file,label"])
def test_beside_a_file_the_patient_is_its_owner_and_selects_no_other(tmp_path: Path, header: str) -> None:
    value = {"file": "scans/a.png", "PatientID": "P1", "label": "yes"}
    read = table(tmp_path, f"{header}\n" + ",".join(value[name] for name in header.split(",")) + "\n")
    assert (read.level, dict(zip(read.keys.to_pylist(), read.values.to_pylist(), strict=True))) == (
        "file",
        {NAMES.key("file", "scans/a.png"): "yes"},
    )


@pytest.mark.parametrize("written", ["scans/a.png", "./scans/a.png", "scans\\a.png", " scans/a.png "])
def test_a_file_may_be_written_as_its_system_writes_it(tmp_path: Path, written: str) -> None:
    read = table(tmp_path, f"file,PatientID,label\n{written},P1,yes\n")
    assert read.keys.to_pylist() == [NAMES.key("file", "scans/a.png")]


def test_only_the_name_of_a_file_is_rewritten() -> None:
    read = build_label_table("patient", [(2, ".\\P1", "yes")], NAMES)
    assert read.keys.to_pylist() == [NAMES.key("patient", ".\\P1")]


def test_two_files_of_one_patient_have_labels_of_their_own(tmp_path: Path) -> None:
    read = table(tmp_path, "file,PatientID,label\na.png,P1,yes\nb.png,P1,no\n")
    assert sorted(read.values.to_pylist()) == ["no", "yes"]


def test_a_sole_other_column_is_the_label_whatever_its_name(tmp_path: Path) -> None:
    assert table(tmp_path, "finding,PatientID\nyes,a\n").values.to_pylist() == ["yes"]


def test_among_several_columns_the_one_called_label_is_read(tmp_path: Path) -> None:
    assert table(tmp_path, "PatientID,ward,Label\na,one,yes\n").values.to_pylist() == ["yes"]


def test_a_named_label_column_wins(tmp_path: Path) -> None:
    read = table(tmp_path, "PatientID,label,grade\na,yes,high\n", column="grade")
    assert read.values.to_pylist() == ["high"]


def test_an_unknown_label_column_is_refused_with_the_columns_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match=r"\['PatientID', 'label'\] and no 'grade': give --label-column"):
        table(tmp_path, "PatientID,label\na,yes\n", column="grade")


def test_several_unnamed_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="none is 'label'"):
        table(tmp_path, "PatientID,ward,grade\na,one,high\n")


def test_a_table_without_names_is_refused_without_quoting_the_patient(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="2 columns and none is named as an identifier") as caught:
        table(tmp_path, "MUSTERMANN,yes\n")
    assert "MUSTERMANN" not in str(caught.value)


def test_a_missing_table_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match=r"no label table at .*nowhere\.csv: give --labels"):
        read_labels(tmp_path / "nowhere.csv", NAMES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "labels.csv is empty: its first line must name the columns"),
        ("\n \n", "labels.csv is empty"),
        ("\nPatientID,label\na,yes\n", "the first line of labels.csv is blank"),
        (" \t\nPatientID,label\n", "the first line of labels.csv is blank"),
        ("sep=;\n", "labels.csv"),
        ("label\nyes\n", "has 1 column and it is not named as an identifier"),
    ],
)
def test_a_table_whose_first_line_names_no_columns_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UserFault, match=message) as caught:
        table(tmp_path, text)
    assert "0 columns" not in str(caught.value)


def test_lines_with_more_or_fewer_fields_than_the_header_are_counted(tmp_path: Path) -> None:
    read = table(tmp_path, "PatientID,label,note\na,yes,x\n\nb,no\nc\nd,yes,x,y\ne,no,\n")
    assert (read.uneven, read.values.to_pylist()) == ((3, 4), ["yes", "no", "yes", "no"])
    assert table(tmp_path, "PatientID,StudyInstanceUID,label\na,1,yes\nb\n").uneven == (1, 3)
    assert table(tmp_path, "PatientID,label\na,yes\nb,no\n").uneven == (0, 0)


def test_the_line_that_contradicts_the_first_of_an_image_is_known(tmp_path: Path) -> None:
    read = table(tmp_path, "PatientID,label\na,yes\nb,no\nc,no\na,yes\na,no\nc,yes\nc,no\n")
    assert read.opposed == {2: 6, 4: 7}


@pytest.mark.parametrize("content", [b"\xff\xfeP\x00a", b"PatientID,label\nM\xfcller,yes\n"])
def test_a_table_that_is_not_utf8_is_refused_without_quoting_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(UserFault, match="save it as 'CSV UTF-8'") as caught:
        read_labels(tmp_path / "labels.csv", NAMES)
    assert caught.value.__cause__ is None


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert table(tmp_path, "\ufeffPatientID,label\na,yes\n").level == "patient"


def test_finding_the_columns_reads_the_first_line_alone(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"PatientID,label\n" + b"a,yes\n" * 5000 + b"\xff")
    assert label_columns(tmp_path / "labels.csv") == "label"


def test_the_table_has_no_identifier(tmp_path: Path) -> None:
    assert "MUSTERMANN" not in repr(table(tmp_path, "PatientID,label\nMUSTERMANN,yes\nMUSTERMANN,no\n"))


def test_the_same_label_twice_is_no_conflict() -> None:
    read = build_label_table("patient", [(2, "a", "yes"), (3, "a", " yes ")], NAMES)
    assert (len(read.keys), len(read.conflicts)) == (1, 0)


def test_of_lines_far_apart_the_first_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "BATCH_LINES", 3)
    rows = [(2, "c", "yes"), (3, "a", "no"), (4, "c", "yes"), (5, "b", "no"), (6, "c", "no"), (7, "a", "no")]
    read = build_label_table("patient", rows, NAMES)
    assert read.keys.to_pylist() == NAMES.keys("patient", "cab")
    assert (read.values.to_pylist(), read.lines.to_pylist()) == (["yes", "no", "no"], [2, 3, 5])
    assert read.conflicts.to_pylist() == NAMES.keys("patient", "c")


@pytest.mark.parametrize(("batch_lines", "compact_lines"), [(1, 0), (3, 2), (2**12, 2**17)])
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["yes", "no", " yes", ""]))))
def test_lines_count_in_their_order(
    batch_lines: int, compact_lines: int, rows: list[tuple[str, str]]
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(labels, "BATCH_LINES", batch_lines)
        patched.setattr(labels, "COMPACT_LINES", compact_lines)
        read = build_label_table("patient", [(at, *pair) for at, pair in enumerate(rows)], NAMES)
    lines = [(NAMES.key("patient", name), value.strip(), at) for at, (name, value) in enumerate(rows)]
    labelled = [line for line in lines if line[1]]
    first = {key: (value, at) for key, value, at in reversed(labelled)}
    kept = sorted((at, key, value) for key, (value, at) in first.items())
    columns = (read.lines, read.keys, read.values)
    assert list(zip(*(column.to_pylist() for column in columns), strict=True)) == kept
    assert read.conflicts.to_pylist() == sorted({key for key, value, _ in labelled if value != first[key][0]})


def test_few_lines_are_kept_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Identifier(str):
        """A text that can be watched."""

    watched: list[ref[Identifier]] = []

    def rows() -> Iterator[tuple[int, str, str]]:
        for line in range(100):
            name = Identifier(line)
            watched.append(ref(name))
            yield line, name, "yes"
            assert sum(one() is not None for one in watched) <= 10

    monkeypatch.setattr(labels, "BATCH_LINES", 4)
    assert len(build_label_table("patient", rows(), NAMES).keys) == 100


def test_lines_that_change_nothing_are_dropped_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, concat = [0], pa.concat_batches

    def watched(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
        counts.append(sum(map(len, batches)))
        return concat(batches)

    monkeypatch.setattr(pa, "concat_batches", watched)
    monkeypatch.setattr(labels, "BATCH_LINES", 4)
    monkeypatch.setattr(labels, "COMPACT_LINES", 8)
    read = build_label_table("patient", [(at, "abc"[at % 3], "yn"[at % 2]) for at in range(999)], NAMES)
    assert (len(read.keys), len(read.conflicts), max(counts) <= 18) == (3, 3, True)


@pytest.mark.parametrize("line", ["a,", "a,  ", "a"])
def test_an_empty_label_is_no_label(tmp_path: Path, line: str) -> None:
    assert not len(table(tmp_path, f"PatientID,label\n{line}\n").keys)


@pytest.mark.parametrize(
    ("header", "level", "parents"),
    [
        ("PatientID,SOPInstanceUID", "instance", ("patient",)),
        ("PatientID,StudyInstanceUID,SeriesInstanceUID", "series", ("study", "patient")),
        ("study_instance_uid,Patient ID", "study", ("patient",)),
        (
            "PatientID,SeriesInstanceUID,SOPInstanceUID,StudyInstanceUID",
            "instance",
            ("series", "study", "patient"),
        ),
        ("PatientID,SOPInstanceUID,file", "file", ()),
    ],
)
def test_the_finest_identifier_decides_and_the_coarser_ones_are_kept(
    tmp_path: Path, header: str, level: Level, parents: tuple[Level, ...]
) -> None:
    read = table(tmp_path, f"{header},label\n" + ",".join("abcd"[: header.count(",") + 1]) + ",yes\n")
    assert (read.level, read.parents) == (level, parents)


@pytest.mark.parametrize(
    ("header", "level"),
    [
        ("PatientID,SOPInstanceUID", "patient"),
        ("SOPInstanceUID,SeriesInstanceUID", "series"),
        ("SOPInstanceUID,x", "instance"),
    ],
)
def test_a_volume_is_not_named_by_its_slices(tmp_path: Path, header: str, level: Level) -> None:
    (tmp_path / "labels.csv").write_text(f"{header},label\na,b,yes\n")
    assert read_labels(tmp_path / "labels.csv", NAMES, volumes=True).level == level


def test_a_short_line_has_no_coarser_identifier(tmp_path: Path) -> None:
    read = table(tmp_path, "SOPInstanceUID,label,PatientID\na,yes\nb,no,P\n")
    assert [key[32:] for key in read.keys.to_pylist()] == [
        NO_PARENT,
        NAMES.key("patient", "P")[:PARENT_DIGITS],
    ]


# What R's write.csv (NA), pandas' to_csv and astype(str) (empty, nan), SAS (.), SQL (NULL) and Excel (#N/A) write.
@pytest.mark.parametrize("missing", ["NA", "na", "nan", "NaN", " NULL ", ".", "-", "N/A", "#N/A", "<NA>", ""])
def test_a_word_for_a_missing_value_is_no_label(tmp_path: Path, missing: str) -> None:
    read = table(tmp_path, f"PatientID,label\na,{missing}\nb,yes\n")
    assert (read.values.to_pylist(), read.lines.to_pylist()) == (["yes"], [3])


def test_missing_labels_are_counted_by_their_word(tmp_path: Path) -> None:
    assert table(tmp_path, "PatientID,label\na,NA\nb,NA\nc,-\nd,\ne,yes\n").missing == {
        "NA": 2,
        "-": 1,
        "": 1,
    }


def test_none_is_a_word_for_nothing_seen(tmp_path: Path) -> None:
    assert table(tmp_path, "PatientID,label\na,None\n").values.to_pylist() == ["None"]


def test_a_person_may_choose_what_stands_for_no_label() -> None:
    rows = [(2, "a", "-"), (3, "b", "unknown"), (4, "c", "")]
    read = build_label_table("patient", rows, NAMES, missing=["Unknown"])
    assert read.values.to_pylist() == ["-"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1", "1.0"),
        ("Lesion", "lesion"),
        ("No Finding", "No  Finding"),
        ("01", "1"),
        ("ｌｅｓｉｏｎ", "lesion"),
    ],
)
def test_one_class_in_two_spellings_is_refused_with_both(tmp_path: Path, first: str, second: str) -> None:
    text = f"PatientID,label\na,{first}\nb,{second}\nc,{second}\nd,other\n"
    with pytest.raises(UserFault, match="spells one class in more than one way") as caught:
        table(tmp_path, text)
    assert f"{first!r} (1 line)" in str(caught.value)
    assert f"{second!r} (2 lines)" in str(caught.value)


def test_two_spellings_on_one_image_are_refused_too(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="more than one way"):
        table(tmp_path, "PatientID,label\na,Lesion\na,lesion\n")


def test_blanks_around_a_label_do_not_count(tmp_path: Path) -> None:
    assert table(tmp_path, "PatientID,label\na,yes \nb, yes\n").values.to_pylist() == ["yes", "yes"]


@pytest.mark.parametrize("labels", [("1", "10"), ("0", "1"), ("T1", "T2"), ("-1", "1"), ("0.5", "5")])
def test_different_classes_are_no_spellings(tmp_path: Path, labels: tuple[str, str]) -> None:
    read = table(tmp_path, f"PatientID,label\na,{labels[0]}\nb,{labels[1]}\n")
    assert read.values.to_pylist() == list(labels)


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("SOPInstanceUID,label,label", None),
        ("SOPInstanceUID,label,Label", None),
        ("SOPInstanceUID,grade,grade,label", "grade"),
        ("PatientID,patient_id,label", None),
        ("SOPInstanceUID,finding,finding", None),
    ],
)
def test_two_columns_of_one_name_are_refused(tmp_path: Path, header: str, column: str | None) -> None:
    with pytest.raises(UserFault, match="2 columns of one name"):
        table(tmp_path, f"{header}\na,b,c,d\n", column)


def test_columns_that_are_not_read_may_repeat_a_name(tmp_path: Path) -> None:
    # Excel writes a comma for each empty column at the end.
    assert table(tmp_path, "PatientID,label,note,note,,\na,yes,x,y,,\n").values.to_pylist() == ["yes"]


@pytest.mark.parametrize(
    "lines",
    [
        '0001,"normal\n0002,lesion\n',
        '0001,"les"ion\n',
        # Two stray quotes that make one label of the lines between them.
        '0001,"lesion\n0002,normal\n0003,x"\n0004,normal\n',
    ],
)
def test_a_stray_quote_carries_no_identifier_into_a_label(tmp_path: Path, lines: str) -> None:
    with pytest.raises(UserFault, match="quote") as caught:
        table(tmp_path, f"PatientID,label\n{lines}")
    assert "000" not in str(caught.value)


@pytest.mark.parametrize("column", ["PatientID", "StudyInstanceUID"])
def test_a_column_of_identifiers_gives_no_labels(tmp_path: Path, column: str) -> None:
    with pytest.raises(UserFault, match=f"'{column}' of .* is a column of identifiers, not of labels"):
        table(tmp_path, "StudyInstanceUID,PatientID,label\n1.2,P,x\n", column)
