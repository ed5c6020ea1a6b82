"""Preview of masks: what they would be joined with, their kinds and classes, and what does not fit."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from cli.main import app
from imaging.annotations.masks.mask import MaskClasses
from imaging.annotations.masks.mask_preview import MaskMatcher, MaskPreview
from imaging.annotations.masks.mask_table import read_mask_table
from imaging.annotations.masks.peek_mask import peek_masks
from imaging.errors import DataFault
from imaging.pseudonyms import Pseudonyms
from imaging.sandbox.pool import Item
from imaging.sandbox.worker_process import Answer
from tests.mask_objects import contour, group, rtstruct, seg
from tests.synthetic import write_dicom

KEY = Pseudonyms(b"k" * 32)
CLASSES = MaskClasses(names=("blood pool", "myocardium"))
SQUARE = [(0, 0), (3, 0), (3, 3)]


def run(items: Iterable[Item]) -> Iterator[Answer | DataFault]:
    for one in items:
        yield Answer(peek_masks({"classes": CLASSES.to_json()}, one.value, one.blobs)[0], ())


def picture(*values: int, rows: int = 5, columns: int = 7) -> bytes:
    mask, buffer = np.zeros((rows, columns), np.uint8), io.BytesIO()
    mask.flat[: len(values)] = values
    PIL.Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def nifti(*values: int) -> bytes:
    # Columns, rows and slices, as nibabel has them.
    mask = np.zeros((7, 5, 2), np.uint8)
    mask.flat[: len(values)] = values
    return bytes(nibabel.Nifti1Image(mask, np.eye(4)).to_bytes())


def preview(
    folder: Path, head: str = "SOPInstanceUID,mask", patients: Mapping[int, str] = {}, **masks: bytes
) -> MaskPreview:
    """Return the preview of images 1.1 to 1.9 of 5 x 7 pixels, two of each patient; `masks` are by file and image."""
    lines = [head]
    for name, content in masks.items():
        file, _, image = name.partition("__")
        (folder / file.replace("_", ".")).write_bytes(content)
        lines.append(f"1.{image},{file.replace('_', '.')}")
    (folder / "masks.csv").write_text("\n".join(lines))
    matcher = MaskMatcher(read_mask_table(folder / "masks.csv", KEY, CLASSES), CLASSES, KEY)
    for number in range(1, 10):
        header: dict[str, Any] = {"SOPInstanceUID": f"1.{number}", "Rows": (5.0,), "Columns": (7.0,)}
        matcher.add(f"{number}.dcm", header, patients.get(number // 2, f"P{number // 2}"))
    return matcher.result(run)


def test_kinds_and_classes_of_masks_are_counted(tmp_path: Path) -> None:
    one = preview(
        tmp_path,
        a_png__1=picture(1, 2),
        b_png__2=picture(0),
        c_dcm__3=seg(np.ones((1, 5, 7), np.uint8), [group(0, 1)]),
        d_dcm__4=rtstruct((1, "Myocardium", [contour(0, SQUARE)])),
        e_nii__5=nifti(2),
    )
    assert one.kinds == {"PNG": 2, "SEG BINARY": 1, "RTSTRUCT": 1, "NIfTI": 1}
    # The segmentation describes both classes: one without a pixel is absent, and not unknown.
    assert one.classes == {"blood pool": 2, "myocardium": 4}
    assert (one.files, one.patients, one.files_without_mask, one.of_other_size) == (5, 3, 4, 0)


def test_lines_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    one = preview(
        tmp_path, a_png__1=picture(1), b_png__1=picture(1), c_png__2=picture(1), d_png__77=picture(1)
    )
    assert (one.files, one.files_in_conflict) == (1, 1)
    assert (one.lines_in_conflict, one.lines_without_image, one.lines_without_file) == (2, 1, 0)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a_png__1", picture(1, rows=7, columns=5)),
        ("a_dcm__1", seg(np.ones((1, 5, 8), np.uint8), [group(0, 1)])),
        ("a_nii__1", bytes(nibabel.Nifti1Image(np.ones((7, 6, 2), np.uint8), np.eye(4)).to_bytes())),
    ],
)
def test_masks_of_another_size_are_counted(tmp_path: Path, name: str, content: bytes) -> None:
    one = preview(tmp_path, **{name: content}, b_png__2=picture(1))
    assert one.of_other_size == 1


def test_masks_that_would_be_refused_are_counted_by_reason(tmp_path: Path) -> None:
    one = preview(
        tmp_path,
        a_png__1=picture(1, 9),
        b_png__2=picture(1)[:60],
        c_dcm__3=b"no object",
        d_dcm__4=rtstruct((1, "Myocardium", [])),
        e_nii__5=nifti(3),
    )
    assert one.refused == {"mask-values": 2, "truncated": 1, "not-dicom": 1, "mask-empty": 1}
    assert one.classes == {"blood pool": 0, "myocardium": 0}


def test_other_names_are_shown_where_several_patients_have_them(tmp_path: Path) -> None:
    whole = [contour(0, SQUARE)]
    one = preview(
        tmp_path,
        a_dcm__1=rtstruct((1, "Heart", whole), (2, "JONES PTV", whole)),
        b_dcm__2=rtstruct((1, "Heart", whole), (2, "blood  POOL", whole)),
    )
    assert (dict(one.others), one.others_of_one_patient) == ({"Heart": 2}, 1)


def test_a_name_is_not_shown_for_a_patient_who_is_written_in_two_ways(tmp_path: Path) -> None:
    whole = rtstruct((1, "JONES", [contour(0, SQUARE)]))
    # The PatientIDs of images 1.2 and 1.4 are "7" and "07".
    one = preview(tmp_path, patients={1: "7", 2: "07"}, a_dcm__2=whole, b_dcm__4=whole)
    assert (dict(one.others), one.others_of_one_patient) == ({}, 1)


def test_a_worker_that_ends_costs_one_mask(tmp_path: Path) -> None:
    def failing(items: Iterable[Item]) -> Iterator[Answer | DataFault]:
        for one in items:
            bad = any(str(blob).endswith("b.png") for blob in one.blobs)
            yield DataFault("decoder-crashed") if bad else next(run([one]))

    preview(tmp_path, a_png__1=picture(1), b_png__2=picture(1), c_png__3=picture(1))
    matcher = MaskMatcher(read_mask_table(tmp_path / "masks.csv", KEY, CLASSES), CLASSES, KEY)
    for number in (1, 2, 3):
        matcher.add("", {"SOPInstanceUID": f"1.{number}"}, "P")
    one = matcher.result(failing)
    assert (one.refused, one.kinds) == ({"decoder-crashed": 1}, {"PNG": 2})


@pytest.mark.slow
def test_inspect_shows_what_masks_would_be_joined_with(tmp_path: Path) -> None:
    for number in range(2):
        write_dicom(tmp_path / "images" / f"{number}", np.zeros((5, 7)), SOPInstanceUID=f"1.{number}")
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "masks.csv").write_text("SOPInstanceUID,mask\n1.0,a.png\n1.7,a.png\n")
    options = ["--masks", str(tmp_path / "masks.csv"), "--mask-classes", "liver"]
    command = ["inspect", str(tmp_path / "images"), *options]
    counts = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)["masks"]
    assert (counts["files"], counts["lines_without_image"], counts["classes"]) == (1, 1, {"liver": 1})
    shown = CliRunner().invoke(app, command).output
    assert "Masks, joined by instance: 1 file of 1 patient has one" in shown
    (tmp_path / "masks.csv").unlink()
    assert "no mask table at" in CliRunner().invoke(app, command).output
