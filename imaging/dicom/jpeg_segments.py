"""Segments of a JPEG or JPEG-LS codestream, and what a change at the end of its scans shows."""

import re
import struct
from collections.abc import Callable, Iterator

from imaging.dicom.codestream import JPEG_START, STANDALONE
from imaging.dicom.elements import Buffer

CODED, END, SCAN = 0x00, 0xD9, 0xDA
"""Markers of JPEG; the first is none, and stands for the coded data of a scan."""
NEXT_MARKER = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
"""Marker after the coded data of a scan, where a byte of ones is followed by one below 0x80 (T.81 B.1.1.5, T.87 C)."""
TAIL, FILLERS = 8, (0x55, 0x33, 0x0F)
"""Bytes that are overwritten at the end of a scan, and with what: a codeword may be the same under one of them."""


def segments(data: Buffer) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of the content of each segment, of the coded data of each scan, and of the end.

    Raises ValueError, IndexError or struct.error where the codestream cannot be followed to its end.
    """
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError
        while data[at] == 0xFF:
            at += 1
        marker, at = data[at], at + 1
        if marker == END:
            yield marker, at, at
            return
        if marker in STANDALONE:
            continue
        (length,) = struct.unpack_from(">H", data, at)
        start, at = at + 2, at + length
        if length < 2 or at > len(data):
            raise IndexError
        yield marker, start, at
        if marker == SCAN:
            match = NEXT_MARKER.search(data, at)
            if match is None:
                raise IndexError
            yield CODED, at, match.start()
            at = match.start()


def altered_scans(frame: Buffer) -> Iterator[list[bytes]]:
    """Yield, for each scan of a JPEG or JPEG-LS frame, the frame with other bytes at the end of the scan.

    Each of them decodes to the same pixels only where coded data are left over behind the last pixel. Scans of zeros
    before the last byte, which is filled up with ones, say nothing and are left out. Raises as `segments` does.
    """
    data = bytes(frame)
    if not data.startswith(JPEG_START):
        return
    for marker, start, end in segments(data):
        # Fill bytes may stand before a marker (T.81, B.1.1.2), and some writers pad with zeros.
        scan = data[start:end].rstrip(b"\0\xff") if marker == CODED else b""
        if scan[:-1].strip(b"\0"):
            # A byte of ones before them would make a marker of them.
            kept = scan[:-TAIL].rstrip(b"\xff")
            head, rest, changed = data[:start] + kept, data[start + len(scan) :], len(scan) - len(kept)
            yield [head + bytes([filler]) * changed + rest for filler in FILLERS]


def goes_on(frame: Buffer, is_same: Callable[[bytes], bool]) -> bool:
    """Return whether a scan of a frame goes on behind its last pixel; `is_same` is asked about altered frames.

    It costs a decoding or more for each scan. False where the codestream cannot be followed to its end.
    """
    try:
        scans = list(altered_scans(frame))
    except (struct.error, IndexError, ValueError):
        return False
    return any(all(map(is_same, altered)) for altered in scans)
