"""A glance tells what a header says, from the head of a file, and what is left of a damaged one."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGLSLossless

from imaging.formats import peek as module
from imaging.formats.peek import Glance, as_glances, glance
from imaging.sandbox.worker_process import Answer
from tests.dicom_objects import compressed, made, ramp

STORED = ramp((256, 256))


def look(content: bytes | Path) -> Glance:
    """Return what a worker says of a payload, by the way that it takes out of the process."""
    return looks(content)[0]


def looks(*contents: bytes | Path, kind: str = "dicom") -> list[Glance]:
    value, _ = glance({}, {"formats": [kind] * len(contents)}, contents)
    return as_glances(Answer(json.loads(json.dumps(value)), ()))


@pytest.mark.parametrize("as_file", [False, True])
def test_a_whole_file_tells_its_header(tmp_path: Path, as_file: bool) -> None:
    content: bytes | Path = made(STORED)
    if as_file:
        (tmp_path / "x").write_bytes(made(STORED))
        content = tmp_path / "x"
    found = look(content)
    assert found.reason == ""
    assert found.has_pixels
    assert found.syntax == ExplicitVRLittleEndian
    assert found.series_uid == "1.2.3"
    assert found.attributes["Rows"] == (256.0,)


def large(path: Path, size: int, **changes: Any) -> Path:
    """Write a sparse image of `size` frames."""
    head = made(STORED[None], NumberOfFrames=size, **changes)
    at = len(head) - 2 * 256**2
    with path.open("wb") as file:
        file.write(head[: at - 4] + struct.pack("<I", size * 2 * 256**2))
        file.truncate(at + size * 2 * 256**2)
    return path


def test_a_large_file_is_glanced_at_by_its_head_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = large(tmp_path / "large", 800)
    assert path.stat().st_size > 100 * 2**20

    def refuse(*_: Any) -> Any:
        raise AssertionError("the whole file was read")

    monkeypatch.setattr(module.FileBuffer, "load", refuse)
    found = look(path)
    assert (found.reason, found.attributes["NumberOfFrames"]) == ("", (800.0,))


def test_a_large_file_in_doubt_is_not_copied(tmp_path: Path) -> None:
    path = large(tmp_path / "large", 800, ExtendedOffsetTable=bytes(8))
    before = psutil.Process().memory_info()
    assert look(path).reason == ""
    after = psutil.Process().memory_info()
    assert after.rss - before.rss - (after.shared - before.shared) < 2**25


def test_a_header_longer_than_the_head_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(
        made(
            STORED,
            EncapsulatedDocument=None,
            RequestAttributesSequence=None,
            PixelData=STORED.tobytes(),
            IconImageSequence=None,
            ImageComments="x" * 40_000,
        )
    )
    assert look(path).attributes["Rows"] == (256.0,)


@pytest.mark.parametrize("end", [-1, -1000, -(2**17) + 8])
def test_a_file_that_is_cut_still_belongs_to_its_series(tmp_path: Path, end: int) -> None:
    (tmp_path / "x").write_bytes(made(STORED)[:end])
    for found in (look(tmp_path / "x"), look(made(STORED)[:end])):
        assert (found.reason, found.series_uid) == ("truncated", "1.2.3")


def test_too_few_pixels_are_told_by_the_head(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(made(STORED, NumberOfFrames=2))
    assert look(tmp_path / "x").reason == "truncated"


def test_compressed_pixels_are_not_looked_for_in_a_head(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(compressed([bytes(100_000)], STORED, JPEGLSLossless))
    found = look(tmp_path / "x")
    assert (found.reason, found.has_pixels, found.syntax) == ("", True, JPEGLSLossless)


def test_an_object_without_pixels_says_so(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(made(STORED, PixelData=None))
    for found in (look(tmp_path / "x"), look(made(STORED, PixelData=None))):
        assert (found.reason, found.has_pixels) == ("", False)


def test_another_file_is_no_dicom() -> None:
    assert look(b"Dear colleague").reason == "not-dicom"


def test_another_format_is_not_looked_into() -> None:
    assert looks(b"whatever", kind="nifti") == [Glance(format="nifti", has_pixels=True)]


def test_one_bad_parcel_of_several_is_one_bad_glance() -> None:
    whole = made(STORED)
    assert [found.reason for found in looks(whole, whole[:-9], whole)] == ["", "truncated", ""]


def test_a_uid_that_is_none_groups_nothing() -> None:
    assert Glance(format="dicom", attributes={"SeriesInstanceUID": "1.2/../3"}).series_uid == ""


def test_only_listed_attributes_leave_the_worker() -> None:
    found = look(made(STORED, PatientName="DOE^JANE", PatientBirthDate="19700101"))
    assert "DOE" not in str(found)
    assert "1970" not in str(found)


@pytest.mark.slow
def test_a_bomb_is_glanced_at_within_little_memory(tmp_path: Path) -> None:
    head = made(np.zeros((4, 4), np.int16), DeflatedExplicitVRLittleEndian)
    length = struct.unpack_from("<I", head, 140)[0]
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    (tmp_path / "x").write_bytes(head[: 144 + length] + deflater.compress(bytes(2**28)) + deflater.flush())
    before = psutil.Process().memory_info().rss
    assert look(tmp_path / "x").reason == "inflate-bomb"
    assert psutil.Process().memory_info().rss - before < 2**27
