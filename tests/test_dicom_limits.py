"""Limits of a DICOM object: checked before memory is used; a large object is read frame by frame."""

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from imaging.dicom.dicom_object import open_object
from imaging.dicom.limits import LIMITS, Limits
from imaging.dicom.pixels import _cached_layout, layout_of, stored_frame
from imaging.file_io import FileBuffer
from tests.codestreams import DEEP, GREY, LOSSLESS, rle
from tests.dicom_objects import compressed, fault, made, ramp, stored_frames


def peak_mib(act: Callable[[], object]) -> float:
    tracemalloc.start()
    act()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


@pytest.mark.parametrize(
    ("limits", "changes"),
    [
        (Limits(rows_columns=39), {}),
        (Limits(frame_bytes=2399), {}),
        (Limits(frames=3), {"NumberOfFrames": 4}),
    ],
    ids=["rows", "frame", "frames"],
)
def test_each_limit_of_a_layout_refuses(
    limits: Limits, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imaging.dicom.pixels.LIMITS", limits)
    # A test before this one may have had the same layout, within the limits.
    monkeypatch.setattr("imaging.dicom.pixels._cached_layout", _cached_layout.__wrapped__)
    assert fault(made(DEEP, **changes)).reason == "too-large"


def test_a_small_file_that_asks_for_terabytes_is_refused_before_memory_is_used() -> None:
    data = compressed([rle(GREY)], GREY, RLELossless, Rows=65535, Columns=65535, NumberOfFrames=1000)
    assert len(data) < 2500
    assert peak_mib(lambda: fault(data)) < 4
    assert fault(data).reason == "too-large"


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1])
def test_a_codestream_larger_than_its_header_is_refused_before_memory_is_used(syntax: str) -> None:
    frame = bytearray(LOSSLESS[syntax](DEEP, 16))
    if syntax == JPEG2000Lossless:
        struct.pack_into(">2I", frame, 8, 20000, 20000)
    else:
        at = min(at for at in (frame.find(b"\xff\xf7"), frame.find(b"\xff\xc3")) if at > 0)
        struct.pack_into(">HH", frame, at + 5, 20000, 20000)
    data = compressed([bytes(frame)], DEEP, syntax)
    before = psutil.Process().memory_info().rss
    assert "20000 x 20000" in fault(data).detail
    assert psutil.Process().memory_info().rss - before < 2**26


def test_runs_that_never_end_are_stopped_where_the_frame_is_full() -> None:
    bomb = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x05" * 2**20
    data = compressed([bomb], GREY, RLELossless)
    assert peak_mib(lambda: fault(data)) < 64


def deflated(plain: bytes) -> bytes:
    head = made(GREY, DeflatedExplicitVRLittleEndian)
    length = struct.unpack_from("<I", head, 140)[0]
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return head[: 144 + length] + deflater.compress(plain) + deflater.flush()


def test_a_bomb_is_recognised_by_its_ratio() -> None:
    data = deflated(bytes(2**26))
    assert peak_mib(lambda: fault(data)) < 64
    assert fault(data).reason == "inflate-bomb"


def test_a_bomb_is_recognised_by_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging.dicom.parse.LIMITS", Limits(inflated_bytes=1000))
    assert fault(made(GREY, DeflatedExplicitVRLittleEndian)).reason == "inflate-bomb"


def test_the_bytes_that_pydicom_parses_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging.dicom.parse.LIMITS", Limits(parsed_bytes=1000))
    assert fault(made(GREY, ExplicitVRBigEndian)).reason == "too-large"
    list(stored_frames(made(GREY)))


def test_a_large_object_is_read_frame_by_frame(tmp_path: Path) -> None:
    head = made(ramp((1, 512, 512), np.uint16), NumberOfFrames=600)
    at, size = len(head) - 2 * 512**2, 600 * 2 * 512**2
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.write(head[: at - 4] + struct.pack("<I", size))
        file.truncate(at + size)
        file.seek(at + 599 * 2 * 512**2)
        file.write(ramp((512, 512), np.uint16).tobytes())
    process = psutil.Process()
    before = process.memory_info()
    one = open_object(FileBuffer().load(path, LIMITS.file_bytes))
    layout = layout_of(one.attributes)
    np.testing.assert_array_equal(stored_frame(one, layout, 0), 0)
    np.testing.assert_array_equal(stored_frame(one, layout, 599), ramp((512, 512), np.uint16))
    private = process.memory_info().rss - before.rss - (process.memory_info().shared - before.shared)
    assert private < 32 * 2**20


def test_a_large_object_of_fragments_is_read_frame_by_frame() -> None:
    frame = LOSSLESS[JPEGLSLossless](DEEP, 16)
    padded = [frame + b"\xff\xfe" for _ in range(40)]
    pieces = [part for one in padded for part in (one[:100] + bytes(0), one[100:] + bytes(2**20))]
    stacked = np.stack([DEEP] * 40)
    offsets = np.cumsum([0, *(len(part) + len(part) % 2 + 8 for part in pieces)])[0:-1:2]
    changes = {
        "ExtendedOffsetTable": offsets.astype("<u8").tobytes(),
        "ExtendedOffsetTableLengths": bytes(320),
    }
    data = compressed([], stacked, JPEGLSLossless, encapsulate(pieces, has_bot=False), **changes)
    one = open_object(data)
    layout = layout_of(one.attributes)
    assert peak_mib(lambda: stored_frame(one, layout, 20)) < 8
