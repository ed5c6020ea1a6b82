"""Join of a label table with images: each gets its own label, and the report has the lines without effect."""

from pathlib import Path

import pyarrow as pa

from imaging.annotations.label_join import KEY_OF_LEVEL, JoinedLabels, join_labels, joined_columns
from imaging.annotations.label_table import build_label_table, read_labels
from imaging.pseudonyms import Pseudonyms
from tests.synthetic import example, examples

NAMES = Pseudonyms(b"k" * 32)


def keys(**levels: str) -> pa.Table:
    """Return examples with pseudonyms made from identifiers, a letter each."""
    count = len(next(iter(levels.values())))
    named = {KEY_OF_LEVEL[level]: [NAMES.key(level, one) for one in names] for level, names in levels.items()}  # type: ignore[index,arg-type]
    rows = ({name: column[at] for name, column in named.items()} for at in range(count))
    return examples(*(example(at, **row) for at, row in enumerate(rows)))


def joined(folder: Path, text: str, **levels: str) -> JoinedLabels:
    """Return the labels of images by a table."""
    path = folder / "labels.csv"
    path.write_text(text)
    read = read_labels(path, NAMES)
    return join_labels(read, keys(**levels).select(joined_columns(read)))


def test_two_different_labels_are_none() -> None:
    read = build_label_table("patient", [(2, "a", "yes"), (3, "a", "no"), (4, "b", "no")], NAMES)
    assert read.conflicts.to_pylist() == [NAMES.key("patient", "a")]
    assert join_labels(read, keys(patient="ab")).labels.to_pylist() == [None, "no"]


def test_labels_are_joined_in_the_images_order() -> None:
    read = build_label_table("study", [(2, "t", "no"), (3, "s", "yes")], NAMES)
    assert join_labels(read, keys(study="sts")).labels.to_pylist() == ["yes", "no", "yes"]


def test_a_label_that_names_no_image_is_reported_by_its_line(tmp_path: Path) -> None:
    report = joined(tmp_path, 'PatientID,label\n\na,yes\n"x",no\n', patient="aab").report
    assert report.lines_without_image == (4,)


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


def test_a_table_with_the_patient_first_labels_the_images_that_it_names(tmp_path: Path) -> None:
    text = "PatientID,SOPInstanceUID,label\na,i,yes\nb,k,no\n"
    assert joined(tmp_path, text, patient="aab", instance="ijk").labels.to_pylist() == ["yes", None, "no"]


def test_a_line_of_another_patient_gives_no_label_and_is_reported(tmp_path: Path) -> None:
    text = "SOPInstanceUID,PatientID,label\ni,a,yes\nj,b,yes\nx,a,yes\n"
    result = joined(tmp_path, text, patient="aa", instance="ij")
    assert (result.labels.to_pylist(), result.faults.to_pylist()) == (["yes", None], [None, "no-label"])
    assert (result.lines_of_others, result.report.lines_without_image) == ((3,), (4,))


def test_any_of_the_coarser_identifiers_may_contradict(tmp_path: Path) -> None:
    text = "SOPInstanceUID,SeriesInstanceUID,StudyInstanceUID,PatientID,label\n"
    text += "i,s,t,a,yes\nj,X,t,a,yes\nk,s,X,a,yes\nl,s,t,X,yes\n"
    result = joined(tmp_path, text, instance="ijkl", series="ssss", study="tttt", patient="aaaa")
    assert result.labels.to_pylist() == ["yes", None, None, None]
    assert result.lines_of_others == (3, 4, 5)


def test_of_a_study_of_two_patients_the_images_of_the_named_one_are_labelled(tmp_path: Path) -> None:
    result = joined(tmp_path, "StudyInstanceUID,PatientID,label\nt,a,yes\n", study="tt", patient="ab")
    assert (result.labels.to_pylist(), result.lines_of_others) == (["yes", None], ())


def test_a_missing_coarser_identifier_contradicts_nothing(tmp_path: Path) -> None:
    text = "SOPInstanceUID,StudyInstanceUID,PatientID,label\ni,,a,yes\nj,t,NA,no\nk,,,yes\n"
    result = joined(tmp_path, text, instance="ijk", study="ttt", patient="aaa")
    assert (result.labels.to_pylist(), result.lines_of_others) == (["yes", "no", "yes"], ())


def test_of_two_lines_of_an_image_the_right_one_labels_it(tmp_path: Path) -> None:
    text = "SOPInstanceUID,PatientID,label\ni,b,no\ni,a,yes\n"
    result = joined(tmp_path, text, instance="i", patient="a")
    assert (result.labels.to_pylist(), result.lines_of_others, result.report.lines_in_conflict) == (
        ["yes"],
        (2,),
        (),
    )


def test_lines_that_name_an_image_with_and_without_its_patient_may_disagree(tmp_path: Path) -> None:
    text = "SOPInstanceUID,PatientID,label\ni,,no\ni,a,yes\nj,,no\nj,a,no\n"
    result = joined(tmp_path, text, instance="ij", patient="aa")
    assert (result.labels.to_pylist(), result.faults.to_pylist()) == ([None, "no"], ["two-labels", None])
    assert len(result.report.lines_in_conflict) == 1


def test_two_labels_of_one_image_and_patient_are_in_conflict(tmp_path: Path) -> None:
    text = "SOPInstanceUID,PatientID,label\ni,a,no\ni,a,yes\n"
    result = joined(tmp_path, text, instance="i", patient="a")
    assert (result.faults.to_pylist(), result.report.lines_in_conflict) == (["two-labels"], (2,))
