"""Folders of masks without a table: by the series that they name, or by the names of the images."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.sequence import Sequence as Items

from imaging.annotations.masks import known_files
from imaging.annotations.masks.known_files import KnownFiles
from imaging.annotations.masks.mask_folder import peek_series, read_mask_folder
from imaging.errors import DataFault, UserFault
from imaging.pseudonyms import Pseudonyms
from imaging.sandbox.pool import Item
from imaging.sandbox.worker_process import Answer
from tests.mask_objects import contour, group, item, rtstruct, seg

KEY = Pseudonyms(b"k" * 32)


def run(items: Iterable[Item]) -> Iterator[Answer | DataFault]:
    for one in items:
        try:
            yield Answer(peek_series({}, {}, one.blobs)[0], ())
        except DataFault as fault:
            yield fault


def lines(path: Path, images: Iterable[str] = ()) -> dict[str, list[str]]:
    """Return the files of the masks by the pseudonym of what they are of."""
    table = read_mask_folder(path, KEY, images, run)
    return {key: [one.file for one in table.at(n)] for n, key in enumerate(table.keys.to_pylist())}


def series_key(uid: str) -> str:
    return KEY.key("series", uid)


def segmentation(uid: str) -> bytes:
    # PS3.3 C.12.4.2: the series of the images.
    series = Items([item(SeriesInstanceUID=uid)])
    return seg(np.ones((1, 5, 7), np.uint8), [group(0, 1)], ReferencedSeriesSequence=series)


def structure_set(uid: str) -> bytes:
    # PS3.3 C.8.8.5: study and series stand below the frame of reference.
    study = item(RTReferencedSeriesSequence=Items([item(SeriesInstanceUID=uid)]))
    place = item(FrameOfReferenceUID="1.2.9", RTReferencedStudySequence=Items([study]))
    region = (1, "blood pool", [contour(0, [(0, 0), (2, 0), (2, 2)])])
    return rtstruct(region, ReferencedFrameOfReferenceSequence=Items([place]))


def test_dicom_masks_are_of_the_series_that_they_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(segmentation("1.2.5.1"))
    (tmp_path / "b.dcm").write_bytes(structure_set("1.2.5.2"))
    assert lines(tmp_path) == {series_key("1.2.5.1"): ["a"], series_key("1.2.5.2"): ["b.dcm"]}


def test_one_file_is_a_folder_of_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(segmentation("1.2.5.1"))
    (tmp_path / "b").write_bytes(segmentation("1.2.5.2"))
    assert lines(tmp_path / "b") == {series_key("1.2.5.2"): ["b"]}


@pytest.mark.parametrize("content", [b"no dicom at all", segmentation("1.2.5.1")[:300]])
def test_a_file_that_cannot_be_read_is_a_line_of_no_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert lines(tmp_path) == {series_key("a"): ["a"]}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("p1/x.dcm", "p1/x.png"),
        ("case_01_0000.nii.gz", "case_01.nii.gz"),
        ("case_01.nii", "case_01.nii.gz"),
        ("scan.1.jpg", "scan.1.png"),
    ],
)
def test_other_masks_have_the_name_of_their_image(tmp_path: Path, image: str, mask: str) -> None:
    (tmp_path / mask).parent.mkdir(exist_ok=True)
    (tmp_path / mask).write_bytes(b"-")
    assert lines(tmp_path, [image, "other.dcm"]) == {KEY.key("file", image): [mask]}


def test_a_folder_of_both_kinds_needs_a_table(tmp_path: Path) -> None:
    for name in ("a.png", "b"):
        (tmp_path / name).write_bytes(b"-")
    with pytest.raises(UserFault, match="1 DICOM masks and 1 others"):
        lines(tmp_path)


def test_no_identifier_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(segmentation("1.2.5.1"))
    table: Any = read_mask_folder(tmp_path, KEY, [], run)
    assert "1.2.5.1" not in str(table)


def test_dicom_masks_that_are_known_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, kept = tmp_path / "m", tmp_path / "known.json"
    folder.mkdir()
    (folder / "a").write_bytes(segmentation("1.2.5.1"))
    (folder / "b").write_bytes(b"no mask")
    monkeypatch.setattr(known_files, "LEAST_AGE_S", -1)
    read = list[str]()

    def counted(items: Iterable[Item]) -> Iterator[Answer | DataFault]:
        given = list(items)
        read.extend(blob.name for one in given for blob in one.blobs if isinstance(blob, Path))
        return run(given)

    tables = []
    for _ in range(2):
        known = KnownFiles(kept, KEY)
        tables.append(read_mask_folder(folder, KEY, (), counted, known))
        known.save()
    assert read == ["a", "b", "b"]
    assert tables[0].keys.equals(tables[1].keys)
