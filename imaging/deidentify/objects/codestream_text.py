"""Removal of text from compressed frames: comments and application data, which no decoder needs, are blanked."""

import re
import struct
from collections.abc import Iterator

import imagecodecs

from imaging.dicom.codestream import J2K_START, JPEG_START, RLE_HEADER_BYTES, STANDALONE, bare
from imaging.dicom.elements import Buffer
from imaging.errors import DataFault

END, SCAN, COMMENT = 0xD9, 0xDA, 0xFE
APPLICATION = range(0xE0, 0xF0)
NEXT_MARKER = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
"""Marker after the coded data of a scan, where a byte of ones is followed by one below 0x80 (T.81 B.1.1.5, T.87 C)."""
NEEDED = {0xE0: (b"JFIF\0", 14), 0xE8: (b"mrfx", 2**16), 0xEE: (b"Adobe", 12)}
"""Application data that define the colours, and how many of their bytes do."""
LONGEST_RUN = 128
"""Bytes that one code of RLE can give (PS3.5 G.3.1)."""
J2K_COMMENT, J2K_TILE, J2K_DATA, J2K_END = 0xFF64, 0xFF90, 0xFF93, 0xFFD9


def without_text(frame: Buffer) -> bytes:
    """Return a frame of JPEG, JPEG-LS or JPEG 2000 with blanks for comments, cut where its codestream ends.

    Raises DataFault "undecodable" where it is none of them, or cannot be followed to its end.
    """
    clean = bytearray(bare(frame))
    walk = _jpeg if clean[:2] == JPEG_START else _jpeg2000 if clean[:4] == J2K_START else None
    if walk is None:
        raise DataFault("undecodable", "a compressed frame is no codestream of JPEG, JPEG-LS or JPEG 2000")
    try:
        for start, length in list(walk(clean)):
            clean[start : start + length] = bytes(length)
            end = start
    except (struct.error, IndexError, ValueError):
        raise DataFault("undecodable", "a compressed frame ends before its codestream does") from None
    return bytes(clean[:end])


def without_rest(frame: Buffer, plane_bytes: int) -> bytes:
    """Return an RLE frame that `rle_is_whole` has checked with nothing in its header but offsets (PS3.5 G.5).

    Raises DataFault "surplus-data" where a segment decodes to more than a plane of `plane_bytes`: nobody sees the rest.
    """
    count, *offsets = struct.unpack_from("<16I", frame)
    for start, end in zip(offsets[:count], [*offsets[1:count], len(frame)], strict=True):
        try:
            rest = imagecodecs.packbits_decode(bytes(frame[start:end]))[plane_bytes:]
        except imagecodecs.ImcdError:
            raise DataFault("undecodable", "a segment of an RLE frame ends inside a run") from None
        # Padding of the segment, or a last run that is too long.
        if len(rest) > LONGEST_RUN or rest.strip(rest[:1]):
            raise DataFault(
                "surplus-data", f"{len(rest)} bytes follow the plane in a segment of an RLE frame"
            )
    used = 4 * (1 + count)
    return b"".join((frame[:used], bytes(RLE_HEADER_BYTES - used), frame[RLE_HEADER_BYTES:]))


def _jpeg(data: bytearray) -> Iterator[tuple[int, int]]:
    """Yield start and length of each text, then the end with length 0 (ITU-T T.81, B.1)."""
    at = 2
    while True:
        while data[at] == 0xFF:
            at += 1
        marker, at = data[at], at + 1
        if marker == END:
            yield at, 0
            return
        if marker in STANDALONE:
            continue
        (length,) = struct.unpack_from(">H", data, at)
        start, at = at + 2, at + length
        if marker == COMMENT or marker in APPLICATION:
            kept = _needed(marker, data[start:at])
            yield start + kept, length - 2 - kept
        if marker == SCAN:
            match = NEXT_MARKER.search(data, at)
            if match is None:
                raise IndexError
            at = match.start()


def _needed(marker: int, content: bytearray) -> int:
    """Return how many bytes of application data a decoder may need."""
    begins, size = NEEDED.get(marker, (b"\0", 0))
    return min(size, len(content)) if content.startswith(begins) else 0


def _jpeg2000(data: bytearray) -> Iterator[tuple[int, int]]:
    """Yield start and length of each text, then the end with length 0 (ITU-T T.800, annex A)."""
    at, tile_end = 2, 0
    while True:
        marker, length = struct.unpack_from(">HH", data, at) if at + 4 <= len(data) else (J2K_END, 0)
        if marker == J2K_END:
            yield at + 2, 0
            return
        if marker == J2K_DATA:
            at = tile_end if tile_end >= 0 else data.index(J2K_END.to_bytes(2), at)
            continue
        if marker == J2K_TILE:
            (size,) = struct.unpack_from(">I", data, at + 6)
            # A last tile-part may leave its length open (A.4.2); the end is looked for behind its markers.
            tile_end = at + size if size else -1
        if marker == J2K_COMMENT:
            yield at + 6, length - 4
        at += 2 + length
