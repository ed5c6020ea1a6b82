"""Peek at headers: their attributes from the head of a file, what is left of a damaged one, and batches of files."""

import gzip
import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import psutil
import pytest
from PIL import Image
from pydicom.uid import MPEG2MPML, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGLSLossless

from imaging.errors import DataFault
from imaging.file_io import FileBuffer
from imaging.formats.peek import BATCH_FILES, FUNCTION, HeaderPeek, peek_batch, peek_headers, peeks_of
from imaging.sandbox.pool import Item, Pool
from imaging.sandbox.worker_process import Answer
from imaging.sources.dispatch import Outcome
from imaging.sources.folder_source import FolderSource
from tests.codestreams import LOSSLESS
from tests.dicom_objects import compressed, made, ramp
from tests.synthetic import write_dicom

STORED = ramp((256, 256))
FILES = 2 * BATCH_FILES + 3


def peek(content: bytes | Path) -> HeaderPeek:
    """Return what a worker says of a file, through the JSON in which it leaves the process."""
    return peeks(content)[0]


def peeks(*contents: bytes | Path, kind: str = "dicom") -> list[HeaderPeek]:
    value, _ = peek_batch({}, {"formats": [kind] * len(contents)}, contents)
    return peeks_of(Answer(json.loads(json.dumps(value)), ()))


@pytest.mark.parametrize("as_file", [False, True])
def test_the_header_of_a_whole_file(tmp_path: Path, as_file: bool) -> None:
    content: bytes | Path = made(STORED)
    if as_file:
        (tmp_path / "x").write_bytes(made(STORED))
        content = tmp_path / "x"
    result = peek(content)
    assert result.reason == ""
    assert result.has_pixels
    assert result.syntax == ExplicitVRLittleEndian
    assert result.series_uid == "1.2.3"
    assert result.attributes["Rows"] == (256.0,)


def large(path: Path, size: int, **changes: Any) -> Path:
    """Write a sparse image of `size` frames."""
    head = made(STORED[None], NumberOfFrames=size, **changes)
    at = len(head) - 2 * 256**2
    with path.open("wb") as file:
        file.write(head[: at - 4] + struct.pack("<I", size * 2 * 256**2))
        file.truncate(at + size * 2 * 256**2)
    return path


def test_a_large_file_is_peeked_at_by_its_head_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = large(tmp_path / "large", 800)
    assert path.stat().st_size > 100 * 2**20

    def refuse(*_: Any) -> Any:
        raise AssertionError("the whole file was read")

    monkeypatch.setattr(FileBuffer, "load", refuse)
    result = peek(path)
    assert (result.reason, result.attributes["NumberOfFrames"]) == ("", (800.0,))


def test_a_large_file_in_doubt_is_not_copied(tmp_path: Path) -> None:
    path = large(tmp_path / "large", 800, ExtendedOffsetTable=bytes(8))
    before = psutil.Process().memory_info()
    assert peek(path).reason == ""
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
    assert peek(path).attributes["Rows"] == (256.0,)


@pytest.mark.parametrize("end", [-1, -1000, -(2**17) + 8])
def test_a_file_that_is_cut_still_belongs_to_its_series(tmp_path: Path, end: int) -> None:
    (tmp_path / "x").write_bytes(made(STORED)[:end])
    for result in (peek(tmp_path / "x"), peek(made(STORED)[:end])):
        assert (result.reason, result.series_uid) == ("truncated", "1.2.3")


def test_too_few_pixels_are_refused_by_the_head(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(made(STORED, NumberOfFrames=2))
    assert peek(tmp_path / "x").reason == "truncated"


def test_compressed_pixels_are_not_looked_for_in_a_head(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(compressed([bytes(100_000)], STORED, JPEGLSLossless))
    result = peek(tmp_path / "x")
    assert (result.reason, result.has_pixels, result.syntax) == ("", True, JPEGLSLossless)


def test_an_object_without_pixels_has_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(made(STORED, PixelData=None))
    for result in (peek(tmp_path / "x"), peek(made(STORED, PixelData=None))):
        assert (result.reason, result.has_pixels) == ("", False)


def test_another_file_is_no_dicom() -> None:
    assert peek(b"Dear colleague").reason == "not-dicom"


def nifti(*shape: int) -> bytes:
    return nibabel.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)).to_bytes()


def picture(kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.zeros((30, 20), np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


PAGES = [Image.fromarray(np.full((30, 20), n, np.uint8)) for n in range(2)]
OTHERS = {
    "volume": ("nifti", nifti(5, 4, 3), (4, 5, 3, 1)),
    "times": ("nifti", nifti(5, 4, 3, 7), (4, 5, 21, 7)),
    "packed": ("nifti", gzip.compress(nifti(5, 4, 3)), (4, 5, 3, 1)),
    "flat": ("nifti", nifti(5, 4), (4, 5, 1, 0)),
    "PNG": ("picture", picture("PNG"), (30, 20, 1, 0)),
    "JPEG behind 200 KB of comments": (
        "picture",
        picture("JPEG", comment=b"x" * 65000, exif=b"Exif\0\0" + bytes(60000), icc_profile=bytes(90000)),
        (30, 20, 1, 0),
    ),
    "TIFF of three pages": (
        "picture",
        picture("TIFF", save_all=True, append_images=PAGES),
        (None, None, 3, 0),
    ),
    "NPZ": ("medmnist", b"whatever", (None, None, None, 0)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_have_the_images_and_volumes_of_their_headers(name: str) -> None:
    kind, content, (rows, columns, images, volumes) = OTHERS[name]
    (one,) = peeks(content, kind=kind)
    expected = {"Rows": rows, "Columns": columns, "NumberOfFrames": images}
    assert one.attributes == {key: (float(value),) for key, value in expected.items() if value is not None}
    assert (one.reason, one.has_pixels, one.volumes) == ("", True, volumes)


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        ("nifti", b"whatever", "truncated"),
        ("nifti", bytes(540), "unreadable"),
        ("nifti", b"\x1f\x8bno", "undecodable"),
        ("picture", b"whatever", "undecodable"),
        ("picture", b"II*\0" + bytes(4), "no-pixels"),
    ],
)
def test_a_damaged_header_of_another_format_has_its_reason(kind: str, content: bytes, reason: str) -> None:
    assert peeks(content, kind=kind) == [HeaderPeek(format=kind, reason=reason)]


def test_one_bad_file_of_a_batch_has_the_only_reason() -> None:
    whole = made(STORED)
    assert [result.reason for result in peeks(whole, whole[:-9], whole)] == ["", "truncated", ""]


def test_a_uid_that_is_none_groups_nothing() -> None:
    assert HeaderPeek(format="dicom", attributes={"SeriesInstanceUID": "1.2/../3"}).series_uid == ""


def test_only_listed_attributes_leave_the_worker() -> None:
    result = peek(made(STORED, PatientName="DOE^JANE", PatientBirthDate="19700101"))
    assert "DOE" not in str(result)
    assert "1970" not in str(result)


@pytest.mark.slow
def test_a_bomb_is_peeked_at_within_little_memory(tmp_path: Path) -> None:
    head = made(np.zeros((4, 4), np.int16), DeflatedExplicitVRLittleEndian)
    length = struct.unpack_from("<I", head, 140)[0]
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    (tmp_path / "x").write_bytes(head[: 144 + length] + deflater.compress(bytes(2**28)) + deflater.flush())
    before = psutil.Process().memory_info().rss
    assert peek(tmp_path / "x").reason == "inflate-bomb"
    assert psutil.Process().memory_info().rss - before < 2**27


@pytest.fixture
def folder(tmp_path: Path) -> FolderSource:
    for number in range(FILES):
        write_dicom(tmp_path / f"{number:03}", SOPInstanceUID=f"1.2.{number}")
    return FolderSource(tmp_path)


def here(items: Iterable[Item]) -> Iterator[Outcome]:
    """Do the work of the sandbox in this process; a file called 005 ends the worker that looks at it."""
    for item in items:
        if any(isinstance(blob, Path) and blob.name == "005" for blob in item.blobs):
            yield DataFault("decoder-crashed", "the worker ended with signal 11")
        else:
            yield Answer(*peek_batch({}, item.value, item.blobs)[:1])


@pytest.mark.slow
def test_each_file_comes_once_with_its_own_header(folder: FolderSource) -> None:
    with Pool(FUNCTION, {}, workers=1) as pool:
        result = [
            (file.name, one.attributes["SOPInstanceUID"])
            for file, one in peek_headers(folder, folder.scan(), pool.map)
        ]
    assert result == [(f"{number:03}", f"1.2.{number}") for number in range(FILES)]


@pytest.mark.slow
def test_a_file_that_ends_a_worker_costs_itself_alone(folder: FolderSource) -> None:
    result = {file.name: one.reason for file, one in peek_headers(folder, folder.scan(), here)}
    assert len(result) == FILES
    assert {name: reason for name, reason in result.items() if reason} == {"005": "decoder-crashed"}


@pytest.mark.slow
def test_a_file_that_cannot_be_fetched_has_its_reason(folder: FolderSource) -> None:
    (folder.root / "DICOMDIR").write_bytes(b"x")
    result = {file.name: one.reason for file, one in peek_headers(folder, folder.scan(), here)}
    assert (len(result), result["DICOMDIR"]) == (FILES + 1, "dicomdir")


@pytest.mark.slow
def test_an_empty_source_has_no_headers(tmp_path: Path) -> None:
    assert list(peek_headers(FolderSource(tmp_path), [], here)) == []


@pytest.mark.parametrize("count", [None, 2])
def test_frames_that_the_header_does_not_count_are_seen_behind_the_head(
    tmp_path: Path, count: int | None
) -> None:
    frames = ramp((3, 256, 256))
    codestreams = [LOSSLESS[JPEGLSLossless](one, 16) for one in frames]
    contents = (
        made(frames, NumberOfFrames=count),
        compressed(codestreams, frames, JPEGLSLossless, NumberOfFrames=count),
    )
    for content in contents:
        (tmp_path / "x").write_bytes(content)
        assert [peek(content).reason, peek(tmp_path / "x").reason] == ["surplus-data", "surplus-data"]


def test_padding_behind_the_pixels_is_a_finding(tmp_path: Path) -> None:
    content = made(STORED, PixelData=STORED.tobytes() + bytes(128))
    (tmp_path / "x").write_bytes(content)
    assert [peek(content).findings, peek(tmp_path / "x").findings] == [("padded-pixels",)] * 2


def test_a_video_is_refused_with_its_header_alone(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(compressed([b"\0\0\1\xb3" * 4], STORED, MPEG2MPML, NumberOfFrames=300))
    assert peek(tmp_path / "x").reason == "undecodable"
