"""Label table: the columns that are read, the labels that are kept, and the report of the other lines."""

from collections.abc import Iterator
from pathlib import Path
from weakref import ref

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.annotations import label_table as labels
from imaging.annotations.label_table import (
    KEY_OF_LEVEL,
    LabelTable,
    build_label_table,
    join_labels,
    label_columns,
    order_classes,
    read_labels,
)
from imaging.errors import UserFault
from imaging.pseudonyms import Level, Pseudonyms
from tests.synthetic import example, examples

NAMES = Pseudonyms(b"k" * 32)


def table(folder: Path, text: str, column: str | None = None) -> LabelTable:
    path = folder / "labels.csv"
    path.write_text(text)
    return read_labels(path, NAMES, column)


def keys(**levels: str) -> pa.Table:
    """Return examples with pseudonyms made from identifiers, a letter each."""
    count = len(next(iter(levels.values())))
    named = {KEY_OF_LEVEL[level]: [NAMES.key(level, one) for one in names] for level, names in levels.items()}  # type: ignore[index,arg-type]
    rows = ({name: column[at] for name, column in named.items()} for at in range(count))
    return examples(*(example(at, **row) for at, row in enumerate(rows)))


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


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="0 columns"):
        table(tmp_path, "")


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
    assert label_columns(tmp_path / "labels.csv")[2] == "label"


def test_the_table_has_no_identifier(tmp_path: Path) -> None:
    assert "MUSTERMANN" not in repr(table(tmp_path, "PatientID,label\nMUSTERMANN,yes\nMUSTERMANN,no\n"))


def test_two_different_labels_are_none() -> None:
    read = build_label_table("patient", [(2, "a", "yes"), (3, "a", "no"), (4, "b", "no")], NAMES)
    assert read.conflicts.to_pylist() == [NAMES.key("patient", "a")]
    assert join_labels(read, keys(patient="ab")).labels.to_pylist() == [None, "no"]


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


def test_labels_are_joined_in_the_images_order() -> None:
    read = build_label_table("study", [(2, "t", "no"), (3, "s", "yes")], NAMES)
    assert join_labels(read, keys(study="sts")).labels.to_pylist() == ["yes", "no", "yes"]


def test_a_label_that_names_no_image_is_reported_by_its_line(tmp_path: Path) -> None:
    read = table(tmp_path, 'PatientID,label\n\na,yes\n"x",no\n')
    assert join_labels(read, keys(patient="aab")).report.lines_without_image == (4,)


def test_an_image_without_label_is_reported() -> None:
    read = build_label_table("patient", [(2, "a", "yes")], NAMES)
    joined = join_labels(read, keys(instance="ijk", patient="aab"))
    assert joined.labels.to_pylist() == ["yes", "yes", None]
    assert joined.faults.to_pylist() == [None, None, "no-label"]


def test_an_image_with_two_labels_is_distinguished_from_one_without() -> None:
    read = build_label_table("instance", [(2, "i", "yes"), (5, "i", "no")], NAMES)
    joined = join_labels(read, keys(instance="ij"))
    assert joined.labels.to_pylist() == [None, None]
    assert joined.faults.to_pylist() == ["two-labels", "no-label"]
    assert joined.report.lines_in_conflict == (2,)


def test_without_a_table_the_source_labels() -> None:
    joined = join_labels(None, examples(example(0, source_label="a"), example(1)))
    assert (joined.labels.to_pylist(), joined.faults.to_pylist()) == (["a", None], [None, "no-label"])


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["pneumonia", "normal"], ("normal", "pneumonia")),
        (["absent", "present"], ("absent", "present")),
        (["1", "0"], ("0", "1")),
        (["10", "9", "2"], ("2", "9", "10")),
        (["b", "a"], ("a", "b")),
        (["only"], ("only",)),
        ([], ()),
    ],
)
def test_the_class_that_is_looked_for_comes_second(labels: list[str], classes: tuple[str, ...]) -> None:
    assert order_classes(labels) == classes


def test_a_person_may_choose_the_positive_class() -> None:
    assert order_classes(["normal", "lesion"], positive="normal") == ("lesion", "normal")


def test_a_class_that_is_not_there_cannot_be_looked_for() -> None:
    with pytest.raises(UserFault, match=r"'tumour' is not among the labels \['lesion', 'normal'\]"):
        order_classes(["normal", "lesion"], positive="tumour")
