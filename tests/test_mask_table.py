"""Mask tables: which file is the mask of which image, which classes were drawn, and the lines without effect."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from imaging.annotations.masks.mask import MaskClasses
from imaging.annotations.masks.mask_table import (
    SLICE_KEYS,
    JoinedMasks,
    MaskTable,
    join_masks,
    read_mask_table,
)
from imaging.errors import UserFault
from imaging.pseudonyms import NO_KEY, Pseudonyms

NAMES = Pseudonyms(b"k")
CLASSES = MaskClasses(names=("blood pool", "myocardium"))


def table(
    folder: Path, *lines: str, there: tuple[str, ...] = ("a.png", "b.png", "c.dcm", "d.dcm")
) -> MaskTable:
    """Return the table of lines beside some mask files."""
    for name in there:
        (folder / name).write_bytes(b"")
    path = folder / "masks.csv"
    path.write_text("\n".join(lines) + "\n")
    return read_mask_table(path, NAMES, CLASSES)


def examples(column: str, level: Any, *identifiers: str) -> pa.Table:
    return pa.table({column: NAMES.keys(level, identifiers)})


def joined(masks: MaskTable, *uids: str) -> JoinedMasks:
    return join_masks(masks, examples("object_key", "instance", *uids))


def files(result: JoinedMasks) -> list[list[str]]:
    return [[line.file for line in lines] for lines in result.masks]


def test_masks_are_joined_by_sop_instance_uid(tmp_path: Path) -> None:
    masks = table(tmp_path, "SOPInstanceUID,mask", "1.2,a.png", "1.3,b.png")
    result = joined(masks, "1.3", "1.9", "1.2")
    assert files(result) == [["b.png"], [], ["a.png"]]
    assert result.report.lines_without_image == ()


@pytest.mark.parametrize(
    ("head", "column", "level"),
    [("SeriesInstanceUID", "series_key", "series"), ("file", "source_key", "file")],
)
def test_masks_are_joined_by_series_and_by_file(tmp_path: Path, head: str, column: str, level: str) -> None:
    masks = table(tmp_path, f"PatientID,{head},mask", "P,x/1.nii,c.dcm")
    result = join_masks(masks, examples(column, level, "x/1.nii", "x/2.nii", "x/1.nii"))
    assert files(result) == [["c.dcm"], [], ["c.dcm"]]


def test_the_finest_identifier_decides(tmp_path: Path) -> None:
    masks = table(tmp_path, "SeriesInstanceUID,SOPInstanceUID,mask", "1,1.2,a.png")
    assert masks.level == "instance"


def test_a_column_names_the_classes_that_were_drawn(tmp_path: Path) -> None:
    masks = table(tmp_path, "SOPInstanceUID,mask,myocardium_drawn", "1.2,a.png,no", "1.3,b.png,yes")
    result = joined(masks, "1.2", "1.3")
    assert [lines[0].drawn for lines in result.masks] == [(1,), (1, 2)]
    assert [lines[0].format for lines in result.masks] == ["picture", "picture"]


def test_without_such_a_column_all_of_the_file_counts(tmp_path: Path) -> None:
    assert joined(table(tmp_path, "SOPInstanceUID,mask", "1.2,a.png"), "1.2").masks[0][0].drawn is None


def test_the_real_table_names_images_with_a_drawn_myocardium(cardiac_mr: Path) -> None:
    masks = read_mask_table(cardiac_mr / "masks.csv", NAMES, CLASSES)
    lines = [line for number in range(len(masks.keys)) for line in masks.at(number)]
    assert len(lines) == 74
    assert {line.drawn for line in lines} == {(1,), (1, 2)}
    assert all((masks.folder / line.file).is_file() for line in lines)


def test_lines_without_effect_are_reported_and_their_images_have_no_mask(tmp_path: Path) -> None:
    masks = table(
        tmp_path, "SOPInstanceUID,mask", "1.2,a.png", "1.9,b.png", "1.3,a.png", "1.3,b.png", "1.4,gone.png",
        "1.5,c.dcm", "1.5,d.dcm", "1.6,a.png", "1.6,c.dcm", "1.7, ",
    )  # fmt: skip
    result = joined(masks, "1.2", "1.3", "1.4", "1.5", "1.6", "1.7")
    # Two DICOM objects may have a class each, which shows when they are read.
    assert files(result) == [["a.png"], [], [], ["c.dcm", "d.dcm"], [], []]
    assert result.report.lines_without_image == (3,)
    assert result.report.lines_in_conflict == (4, 5, 9, 10)
    assert result.report.lines_without_file == (6,)


def test_two_files_with_a_class_each_are_no_conflict(tmp_path: Path) -> None:
    masks = table(
        tmp_path, "SOPInstanceUID,mask,bloodpool_drawn,myocardium drawn", "1.2,a.png,yes,no", "1.2,b.png,0,1",
        "1.3,a.png,yes,no", "1.3,b.png,yes,yes",
    )  # fmt: skip
    result = joined(masks, "1.2", "1.3")
    assert files(result) == [["a.png", "b.png"], []]
    assert result.report.lines_in_conflict == (4, 5)


def volumes(*slices: tuple[str, ...]) -> pa.Table:
    """Return volumes by the UIDs of their slices, "" for one that was filled."""
    keys = ["".join(NAMES.key("instance", uid) if uid else NO_KEY for uid in uids) for uids in slices]
    return pa.table(
        {"object_key": NAMES.keys("series", [str(n) for n in range(len(keys))]), SLICE_KEYS: keys}
    )


def slices_of(result: JoinedMasks) -> list[list[tuple[int | None, str]]]:
    return [[(line.slice, line.file) for line in lines] for lines in result.masks]


def test_a_volume_has_the_masks_of_its_slices(tmp_path: Path) -> None:
    masks = table(
        tmp_path, "SOPInstanceUID,mask", "1.4,a.png", "1.2,b.png", "2.1,c.dcm", "2.1,d.dcm", "9,a.png"
    )
    result = join_masks(masks, volumes(("1.1", "1.2", "", "1.4"), ("2.0", "2.1"), ("3.0", "3.1")))
    assert slices_of(result) == [[(1, "b.png"), (3, "a.png")], [(1, "c.dcm"), (1, "d.dcm")], []]
    assert result.faults == ("", "", "no-mask")
    assert result.report.lines_without_image == (6,)


def test_lines_that_disagree_about_a_slice_are_a_conflict_of_its_volume(tmp_path: Path) -> None:
    masks = table(tmp_path, "SOPInstanceUID,mask", "1.1,a.png", "1.2,a.png", "1.2,b.png", "2.1,a.png")
    result = join_masks(masks, volumes(("1.1", "1.2"), ("2.0", "2.1")))
    assert result.faults == ("two-masks", "")
    assert slices_of(result) == [[], [(1, "a.png")]]
    assert result.report.lines_in_conflict == (3, 4)


def test_a_slice_whose_file_is_gone_leaves_the_others_of_its_volume(tmp_path: Path) -> None:
    masks = table(tmp_path, "SOPInstanceUID,mask", "1.1,a.png", "1.2,gone.png", "2.0,gone.png")
    result = join_masks(masks, volumes(("1.1", "1.2"), ("2.0", "2.1")))
    assert result.faults == ("", "no-mask-file")
    assert slices_of(result) == [[(0, "a.png")], []]
    assert result.report.lines_without_file == (3, 4)


def test_the_object_that_is_a_volume_by_itself_names_all_of_it(tmp_path: Path) -> None:
    masks = table(tmp_path, "SOPInstanceUID,mask", "1.1,c.dcm")
    assert slices_of(join_masks(masks, volumes(("1.1", "1.1", "", "1.1")))) == [[(None, "c.dcm")]]


def test_an_object_of_some_slices_names_them_and_a_picture_cannot(tmp_path: Path) -> None:
    masks = table(tmp_path, "SOPInstanceUID,mask", "1.1,c.dcm", "2.1,a.png")
    result = slices_of(join_masks(masks, volumes(("1.0", "1.1", "1.1"), ("2.0", "2.1", "2.1"))))
    assert result[0] == [(1, "c.dcm"), (2, "c.dcm")]
    # Refused when it is read: a picture is no mask of several slices.
    assert set(result[1]) == {(None, "a.png")}


def test_no_original_identifier_is_kept(tmp_path: Path) -> None:
    assert "1.2.840" not in str(table(tmp_path, "SOPInstanceUID,mask", "1.2.840,a.png"))


def test_a_table_without_lines_joins_nothing(tmp_path: Path) -> None:
    assert files(joined(table(tmp_path, "SOPInstanceUID,mask"), "1.2")) == [[]]


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (["SOPInstanceUID,file2", "1.2,a"], "one column 'mask'"),
        (["PatientID,mask", "1.2,a"], "one of file, SOPInstanceUID"),
        (["SOPInstanceUID,mask,atrium_drawn", "1.2,a,no"], "about no class"),
        (["SOPInstanceUID,mask,myocardium_drawn", "1.2,a.png,perhaps"], "line 2 .* neither yes nor no"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path: Path, lines: list[str], match: str) -> None:
    with pytest.raises(UserFault, match=match):
        table(tmp_path, *lines)


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="--masks"):
        read_mask_table(tmp_path / "none.csv", NAMES, CLASSES)
