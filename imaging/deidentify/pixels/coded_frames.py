"""Compressed frames as they are coded: with what a decoder cuts off, and whether anything follows their end.

A decoder of JPEG shows as much as the frame header counts. The last blocks hold up to 15 rows and columns more (T.81,
A.2.4), and the scan may go on. So a frame is decoded with all of its blocks and a few rows more, which show where the
scan ends: one decoding gives both what is searched and whether something is left over.
"""

import struct
from dataclasses import dataclass, replace
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.uid import JPEGLSTransferSyntaxes

from imaging.dicom.codecs import FAST, check_codestream
from imaging.dicom.codestream import FRAME_MARKERS, JPEG_START, LOSSLESS, bare
from imaging.dicom.dicom_object import DicomObject
from imaging.dicom.elements import Buffer
from imaging.dicom.j2k_tiles import shortened_tiles
from imaging.dicom.jpeg_segments import SCAN, altered_scans, segments
from imaging.dicom.pixels import CONVERTED, Layout, decoded, decoded_fast, keep_stored_bits, stored_bits
from imaging.errors import DataFault

REACH, FILLED = 8, 4
"""Groups of blocks that seven bits of padding may be at most, and rows of pixels behind them. A decoder that has no
data any more makes them the middle of the range of values; coded data never do, but where they are as flat and grey."""
DATA_UNIT = 8
"""Rows and columns of a block; those of lossless JPEG are samples (T.81, 3.1.36)."""
J2K_CODECS = frozenset({"jpeg2k", "htj2k"})
LARGEST = 65500
"""The most rows and columns that the decoder takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A JPEG frame of one scan: its size and where that stands, and how it is coded.

    A group of blocks, or of samples, of all components covers `high` rows and `wide` columns.
    """

    size_at: int
    bits: int
    rows: int
    columns: int
    high: int
    wide: int
    is_lossless: bool

    @property
    def whole(self) -> tuple[int, int]:
        """Rows and columns of all groups."""
        return -(-self.rows // self.high) * self.high, -(-self.columns // self.wide) * self.wide

    @property
    def reached(self) -> tuple[int, int]:
        """Rows and columns behind the end in which a decoder runs out of data; it does so for a line of samples."""
        groups = -(-self.columns // self.wide)
        reached = groups if self.is_lossless else min(REACH, groups)
        return -(-REACH // groups) * self.high, reached * self.wide


def coded_frame(opened: DicomObject, layout: Layout, index: int) -> tuple[NDArray[Any], bool]:
    """Return the stored values of a compressed frame, and whether coded data are left over behind its last pixel.

    They have all rows and columns of the blocks of JPEG, where one scan has them. Raises as `stored_frame` does.
    """
    codestream = bare(opened.fragment(index))
    try:
        if FAST.get(opened.syntax) in J2K_CODECS:
            return decoded(opened, layout, codestream), any(
                _is_left_over(*pair) for pair in shortened_tiles(codestream)
            )
        scan = _only_scan(codestream) if FAST.get(opened.syntax) == "jpeg8" else None
        if scan is not None and (scan.rows, scan.columns) == (layout.rows, layout.columns):
            if scan.whole != (layout.rows, layout.columns) and max(scan.whole) <= LARGEST:
                codestream = _sized(codestream, scan, *scan.whole)
                layout = replace(layout, rows=scan.whole[0], columns=scan.whole[1])
            if (stored := _ended(opened, layout, codestream, scan)) is not None:
                # Without a conversion of colours the decoder need not agree with the header on what they are.
                is_known = layout.samples == 1 or layout.photometric in CONVERTED
                return stored if is_known else decoded(opened, layout, codestream), False
        fast = decoded_fast(opened, layout, codestream)
        # The fast decoder of JPEG-LS refuses a scan that goes on by itself.
        if fast is not None and opened.syntax in JPEGLSTransferSyntaxes:
            return fast, False
        stored = decoded(opened, layout, codestream) if fast is None else fast
        scans = list(altered_scans(codestream))
    except (struct.error, IndexError, ValueError):
        raise DataFault("undecodable", "a compressed frame cannot be followed to its end") from None
    return stored, any(all(_decodes_to(opened, layout, one, stored) for one in altered) for altered in scans)


def _is_left_over(tile: bytes, shortened: bytes) -> bool:
    """Return whether a tile of JPEG 2000 shows the same without its last bytes.

    OpenJPEG reads the packets of HTJ2K too, and refuses a tile whose last packet is too short before it decodes any.
    """
    try:
        without = imagecodecs.jpeg2k_decode(shortened)
        return np.array_equal(imagecodecs.jpeg2k_decode(tile), without)
    except Exception:  # each codec has exceptions of its own
        return False


def _only_scan(data: Buffer) -> Scan | None:
    """Return the scan of a JPEG frame; None where there are several, or what is said of it is not legal."""
    if bytes(data[:2]) != JPEG_START:
        return None
    frames, scans = list[tuple[int, int]](), list[int]()
    for marker, start, _ in segments(data):
        if marker in FRAME_MARKERS:
            frames.append((marker, start))
        elif marker == SCAN:
            scans.append(start)
    if len(frames) != 1 or len(scans) != 1:
        return None
    ((marker, at),), (scan_at,) = frames, scans
    bits, rows, columns, samples = struct.unpack_from(">BHHB", data, at)
    factors = [divmod(factor, 16) for factor in bytes(data[at + 7 : at + 6 + 3 * samples : 3])]
    is_lossless, unit = marker in LOSSLESS, 1 if marker in LOSSLESS else DATA_UNIT
    wide, high = (max(numbers) if samples > 1 else 1 for numbers in zip(*factors, strict=True))
    if not rows or not columns or not high or not wide or data[scan_at] != samples:
        return None
    return Scan(
        size_at=at + 1,
        bits=bits,
        rows=rows,
        columns=columns,
        high=high * unit,
        wide=wide * unit,
        is_lossless=is_lossless,
    )


def _sized(data: Buffer, scan: Scan, rows: int, columns: int) -> bytes:
    """Return a codestream whose frame header counts other rows and columns (T.81, B.2.2)."""
    return b"".join((data[: scan.size_at], struct.pack(">HH", rows, columns), data[scan.size_at + 4 :]))


def _ended(opened: DicomObject, layout: Layout, codestream: Buffer, scan: Scan) -> NDArray[Any] | None:
    """Return the stored values of a frame whose scan is seen to end at its last group; None where that is not seen."""
    size = check_codestream(
        codestream, opened.syntax, (layout.rows, layout.columns), layout.samples, layout.bits_allocated
    )
    rows, columns = scan.reached
    all_rows = layout.rows + rows + -(-FILLED // scan.high) * scan.high
    if all_rows > LARGEST:
        return None
    try:
        samples = imagecodecs.jpeg8_decode(_sized(codestream, scan, all_rows, layout.columns))
    except Exception:  # each codec has exceptions of its own, and pydicom's plugins may still succeed
        return None
    if samples.shape[:2] != (all_rows, layout.columns) or samples[0, 0].size != layout.samples:
        return None
    filled = samples[layout.rows :] == 1 << scan.bits - 1
    if filled[:rows, :columns].all():
        return None
    filled[:rows, :columns] = True
    if not filled.all():
        return None
    return keep_stored_bits(samples[: layout.rows], layout, *stored_bits(opened, layout, size))


def _decodes_to(opened: DicomObject, layout: Layout, codestream: bytes, stored: NDArray[Any]) -> bool:
    try:
        return np.array_equal(decoded(opened, layout, codestream), stored)
    except DataFault:
        return False
