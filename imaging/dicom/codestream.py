"""Size and end of a compressed frame (JPEG, JPEG-LS, JPEG 2000, RLE), read before a decoder reserves memory for it."""

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from imaging.dicom.elements import Buffer

JPEG_START, J2K_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
JP2_START = b"\x00\x00\x00\x0cjP  "
FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
"""Markers that begin a frame: of JPEG (ITU-T T.81, table B.1; C4, C8 and CC are none), of JPEG-LS (T.87, C.1.1)."""
JPEG_LS, LOSSLESS = 0xF7, frozenset({0xC3, 0xC7})
TILE_BITS = 14 * 8
"""Length of the markers of a tile-part of JPEG 2000, SOT and SOD (T.800, A.4.2 and A.4.3)."""
STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
SEARCHED_BYTES = 2**16
END = b"\xff\xd9"
"""EOI of JPEG and JPEG-LS, EOC of JPEG 2000; it never occurs inside of coded data."""
DATA_MARKERS = frozenset({0xDA, 0x90})
"""Markers that end the header: SOS of JPEG and JPEG-LS, SOT of JPEG 2000."""
ANOTHER = re.compile(rb"\xff\xd8\xff|\xff\x4f\xff\x51|\0\0\0\x0cjP  ")
"""Beginning of a codestream of JPEG, JPEG-LS or JPEG 2000, or of a JP2 file."""
END_SEARCHED_BYTES = 16
"""Padding behind the end is one byte, with some writers a few more."""
RLE_HEADER_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Size of a codestream: rows, columns, samples per pixel, bits per sample; `signed` is given by JPEG 2000 only.

    `least_bits` is the length of the shortest possible codestream of that size: a decoder fills a shorter one up.
    """

    rows: int
    columns: int
    samples: int
    bits: int
    signed: bool | None = None
    least_bits: int = field(default=0, compare=False)


def codestream_size(data: Buffer) -> Size | None:
    """Return the size that a JPEG, JPEG-LS or JPEG 2000 codestream claims; None where it claims none.

    >>> codestream_size(b"not an image")
    """
    try:
        if bytes(data[:2]) == JPEG_START:
            return _jpeg(data)
        return _jpeg2000(data)
    except (struct.error, IndexError):
        return None


def bare(data: Buffer) -> Buffer:
    """Return a JPEG 2000 codestream without the JP2 file around it, which does not belong there (PS3.5 A.4.4).

    Its information is in the DICOM header too, and a box of length zero keeps a decoder busy for ever.
    """
    at = _j2k_at(data)
    return data[at:] if at > 0 else data


def _j2k_at(data: Buffer) -> int:
    """Return where a codestream begins: at 0, behind the boxes of a JP2 file, or -1 where there is none."""
    if bytes(data[: len(JP2_START)]) != JP2_START:
        return 0
    return bytes(data[:SEARCHED_BYTES]).find(J2K_START)


def is_start(data: Buffer) -> bool:
    r"""Return whether a fragment begins a codestream of JPEG, JPEG-LS, JPEG 2000 or RLE.

    The second and later fragments of a frame never do: markers do not occur in coded data (T.81 B.1.1.5, T.800 A.1),
    and a frame of RLE is one fragment (PS3.5 A.4.2).

    >>> is_start(b"\xff\xd8\xff\xf7"), is_start(b"\xff\xd9"), is_start(struct.pack("<16I", 2, 64, 99, *[0] * 13))
    (True, False, True)
    """
    head = bytes(data[:RLE_HEADER_BYTES])
    if head.startswith((JPEG_START + b"\xff", J2K_START, JP2_START)):
        return True
    if len(head) < RLE_HEADER_BYTES:
        return False
    segments, first = struct.unpack_from("<2I", head)
    return bool(1 <= segments <= 15 and first == RLE_HEADER_BYTES)


def has_another(data: Buffer) -> bool:
    r"""Return whether a second codestream follows the end of the first, of which decoders show nothing.

    >>> has_another(b"\xff\xd8.\xff\xd9...\xff\xd8\xff.\xff\xd9"), has_another(b"\xff\xd8.\xff\xd9\0")
    (True, False)
    """
    # The end comes once, but for a thumbnail in a segment. numpy takes a tenth of the time of bytes.count for that.
    each = np.frombuffer(data, np.uint8)
    ends = np.count_nonzero((each[:-1] == END[0]) & (each[1:] == END[1]))
    if ends < 2:
        return False
    whole, at = bytes(data), 0
    with suppress(IndexError, StopIteration, struct.error):  # without a header, the first end counts
        at = next(at for marker, at in _segments(whole) if marker in DATA_MARKERS)
    end = whole.find(END, at)
    return end >= 0 and ANOTHER.search(whole, end) is not None


def has_end(data: Buffer) -> bool:
    """Return whether a codestream has its end marker: decoders fill up what is missing with grey."""
    if END in bytes(data[-END_SEARCHED_BYTES:]):
        return True
    return END in bytes(data).rstrip(b"\0")[-END_SEARCHED_BYTES:]


def rle_is_whole(data: Buffer, segments: int, frame_bytes: int) -> bool:
    """Return whether an RLE frame (PS3.5 G.5) has so many segments, in order, and is not longer than it can be.

    >>> rle_is_whole(struct.pack("<16I", 1, 64, *[0] * 14) + b"..", 1, 2)
    True
    """
    # The worst encoder writes two bytes for one, and pads each segment.
    most = RLE_HEADER_BYTES + 2 * (frame_bytes + segments)
    if not RLE_HEADER_BYTES <= len(data) <= most or not 1 <= segments <= 15:
        return False
    count, *offsets = struct.unpack_from("<16I", data)
    ends = [*offsets[1:segments], len(data)]
    in_order = all(start < end for start, end in zip(offsets, ends, strict=False))
    return bool(count == segments and offsets[0] == RLE_HEADER_BYTES and in_order)


def rle_segments(frame: Buffer) -> list[Buffer]:
    """Return the segments of an RLE frame that `rle_is_whole` has checked (PS3.5 G.5)."""
    count, *offsets = struct.unpack_from("<16I", frame)
    return [frame[start:end] for start, end in pairwise([*offsets[:count], len(frame)])]


def _segments(data: Buffer) -> Iterator[tuple[int, int]]:
    """Yield the marker of each segment of a header and where its length is (T.81, B.1.1; T.800, A.1)."""
    at = 2
    # Any number of fill bytes may stand before a marker (T.81, B.1.1.2).
    while data[at] == 0xFF:
        while data[at] == 0xFF:
            at += 1
        marker, at = data[at], at + 1
        if marker not in STANDALONE:
            yield marker, at
            at += struct.unpack_from(">H", data, at)[0]


def _jpeg(data: Buffer) -> Size | None:
    for marker, at in _segments(data):
        if marker in FRAME_MARKERS:
            bits, rows, columns, samples = struct.unpack_from(">BHHB", data, at + 2)
            least = _least_bits(marker, rows, columns, samples)
            return Size(rows=rows, columns=columns, samples=samples, bits=bits, least_bits=least)
    return None


def _least_bits(marker: int, rows: int, columns: int, samples: int) -> int:
    """Return one bit per line of JPEG-LS, per sample of lossless JPEG, per block of 8 x 8 pixels of other JPEG."""
    if marker == JPEG_LS:
        return rows
    if marker in LOSSLESS:
        return rows * columns * samples
    return -(-rows // 8) * -(-columns // 8)


def _jpeg2000(data: Buffer) -> Size | None:
    """Return the size in the SIZ segment (ITU-T T.800, A.5.1), the first of a codestream, bare or in a JP2 file."""
    at = _j2k_at(data)
    if at < 0 or bytes(data[at : at + len(J2K_START)]) != J2K_START:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", data, at + 8)
    samples, depth = struct.unpack_from(">HB", data, at + 40)
    tiles = j2k_tiles(data, at)
    if tiles is None:
        return None
    return Size(
        rows=bottom - top,
        columns=right - left,
        samples=samples,
        bits=(depth & 0x7F) + 1,
        signed=depth >= 0x80,
        least_bits=TILE_BITS * tiles,
    )


def j2k_tiles(data: Buffer, at: int = 0) -> int | None:
    """Return the number of tiles of the JPEG 2000 codestream at a place (T.800, B.3); None where tiles have no size."""
    right, bottom = struct.unpack_from(">2I", data, at + 8)
    wide, high, left, top = struct.unpack_from(">4I", data, at + 24)
    if not wide or not high:
        return None
    return int(-(-(right - left) // wide) * -(-(bottom - top) // high))
