"""Removal of text from compressed frames: segments that no decoder needs become blank comments."""

import struct
from collections.abc import Iterator

import imagecodecs

from imaging.dicom.codecs import check_plane
from imaging.dicom.codestream import (
    FRAME_MARKERS,
    J2K_START,
    JPEG_LS,
    JPEG_START,
    LOSSLESS,
    RLE_HEADER_BYTES,
    bare,
    j2k_tiles,
    rle_segments,
)
from imaging.dicom.elements import Buffer
from imaging.dicom.jpeg_segments import CODED, END, SCAN, segments
from imaging.errors import DataFault

COMMENT, CODES, QUANTIZERS = 0xFE, 0xC4, 0xDB
"""COM, DHT and DQT (T.81, table B.1)."""
ALL = 2**16
NEEDED = {
    # Frames, tables, scans and restart intervals (T.81, table B.1).
    **dict.fromkeys((*FRAME_MARKERS, CODES, 0xCC, SCAN, QUANTIZERS, 0xDD, 0xDE, 0xDF), ((b"",), ALL)),
    0xE0: ((b"JFIF\0",), 14),
    0xE8: ((b"mrfx",), 5),
    0xEE: ((b"Adobe",), 12),
    0xF8: ((b"\1", b"\2", b"\3", b"\4"), ALL),  # parameters of JPEG-LS (T.87, C.2.4.1)
}
"""Segments that a decoder of JPEG or JPEG-LS needs: how they begin, and how many of their bytes it needs."""
J2K_COMMENT, J2K_LENGTHS, J2K_TILE, J2K_DATA, J2K_END = 0xFF64, 0xFF55, 0xFF90, 0xFF93, 0xFFD9
J2K_NEEDED = frozenset(
    {
        0xFF50,
        0xFF51,
        0xFF52,
        0xFF53,
        J2K_LENGTHS,
        0xFF59,
        0xFF5C,
        0xFF5D,
        0xFF5E,
        0xFF5F,
        0xFF60,
        0xFF61,
        J2K_TILE,
    }
)
"""CAP, SIZ, COD, COC, TLM, CPF, QCD, QCC, RGN, POC, PPM, PPT and SOT (T.800, table A.2; T.814, annex A)."""


def without_text(frame: Buffer) -> bytes:
    """Return a frame of JPEG, JPEG-LS or JPEG 2000 with blanks for text, cut where its codestream ends.

    Raises DataFault "undecodable" where it is none of them, or cannot be followed to its end, and "surplus-data" where
    it has more tiles of JPEG 2000 than its size.
    """
    clean = bytearray(bare(frame))
    walk = _jpeg if clean[:2] == JPEG_START else _jpeg2000 if clean[:4] == J2K_START else None
    if walk is None:
        raise DataFault("undecodable", "a compressed frame is no codestream of JPEG, JPEG-LS or JPEG 2000")
    try:
        for start, blanks in [*walk(clean)]:
            clean[start : start + len(blanks)] = blanks
            end = start
    except (struct.error, IndexError, ValueError):
        raise DataFault("undecodable", "a compressed frame ends before its codestream does") from None
    return bytes(clean[:end])


def without_rest(frame: Buffer, plane_bytes: int) -> bytes:
    """Return an RLE frame that `rle_is_whole` has checked with nothing in its header but offsets (PS3.5 G.5).

    Raises DataFault "surplus-data" where a segment decodes to more than a plane of `plane_bytes`: nobody sees the rest.
    """
    planes = rle_segments(frame)
    for segment in planes:
        try:
            check_plane(segment, plane_bytes)
        except imagecodecs.PackbitsError:
            raise DataFault("undecodable", "a segment of an RLE frame ends inside a run") from None
    used = 4 * (1 + len(planes))
    return b"".join((frame[:used], bytes(RLE_HEADER_BYTES - used), frame[RLE_HEADER_BYTES:]))


def _jpeg(data: bytearray) -> Iterator[tuple[int, bytes]]:
    """Yield the places of text and what replaces it, then the end with nothing."""
    each = list(segments(data))
    yield from _unused_tables(data, each)
    for marker, start, end in each:
        if marker == END:
            yield start, b""
        elif marker != CODED:
            begins, size = NEEDED.get(marker, ((), 0))
            kept = min(size, end - start) if bytes(data[start : start + 8]).startswith(begins) else 0
            if not kept:
                yield start - 3, bytes([COMMENT])
            yield start + kept, bytes(end - start - kept)


def _unused_tables(data: bytearray, each: list[tuple[int, int, int]]) -> Iterator[tuple[int, bytes]]:
    """Yield the places of tables that no scan uses, and tables of the same size without information (T.81, B.2.4).

    Raises ValueError where a segment of tables holds anything else.
    """
    unused = dict[tuple[int, int], int]()
    current = dict[tuple[int, int], tuple[int, int]]()
    quantizers, is_lossless = dict[int, int](), False
    for marker, start, end in each:
        if marker in (QUANTIZERS, CODES):
            for key, place in _tables(data, marker, start, end):
                current[key] = place
                unused[place] = marker
        elif marker in FRAME_MARKERS and marker != JPEG_LS:
            is_lossless = marker in LOSSLESS
            parts = range(start + 6, start + 6 + 3 * data[start + 5], 3)
            quantizers = {data[at]: data[at + 2] for at in parts}
        elif marker == SCAN:
            for at in range(start + 1, start + 1 + 2 * data[start], 2):
                direct, alternating = divmod(data[at + 1], 16)
                used = {(CODES, direct)}
                if not is_lossless:
                    used |= {(CODES, 16 + alternating), (QUANTIZERS, quantizers.get(data[at], 0))}
                for key in used:
                    unused.pop(current.get(key, (0, 0)), None)
    for (start, end), marker in unused.items():
        yield start, _blank_table(marker, end - start)


def _tables(
    data: bytearray, marker: int, start: int, end: int
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield kind and number of each table in a segment, and where its content lies (T.81, B.2.4.1 and B.2.4.2)."""
    while start < end:
        first, start = data[start], start + 1
        if marker == QUANTIZERS:
            number, length = first & 15, 64 * (1 + (first >> 4 > 0))
        else:
            number, length = first, 16 + sum(data[start : start + 16])
        if start + length > end:
            raise ValueError
        yield (marker, number), (start, start + length)
        start += length


def _blank_table(marker: int, length: int) -> bytes:
    """Return a legal table: quantizers of one, or as many codes as there were, all of the longest kinds and of zero."""
    if marker == QUANTIZERS:
        return b"\1" * length
    codes = length - 16
    counts = [min(max(codes - 255 * number, 0), 255) for number in range(16)][::-1]
    return bytes(counts) + bytes(codes)


def _jpeg2000(data: bytearray) -> Iterator[tuple[int, bytes]]:
    """Yield the places of text and what replaces it, then the end with nothing (ITU-T T.800, annex A)."""
    at, tile_end, tiles = 2, 0, j2k_tiles(data) or 0
    lengths, parts = list[tuple[int, int]](), list[tuple[int, int]]()
    while True:
        marker, length = struct.unpack_from(">HH", data, at) if at + 4 <= len(data) else (J2K_END, 0)
        if marker == J2K_END:
            if [one for start, end in lengths for one in _tile_lengths(data[start:end])] != parts:
                for start, end in lengths:
                    yield start - 4, J2K_COMMENT.to_bytes(2)
                    yield start, bytes(end - start)
            yield at + 2, b""
            return
        if marker == J2K_DATA:
            at = tile_end if tile_end >= 0 else data.index(J2K_END.to_bytes(2), at)
            continue
        if marker == J2K_TILE:
            tile, size = struct.unpack_from(">HI", data, at + 4)
            if tile >= tiles:
                raise DataFault(
                    "surplus-data", f"a compressed frame has tile {tile + 1}, of {tiles} in its size"
                )
            # A last tile-part may leave its length open (A.4.2); the end is looked for behind its markers.
            tile_end = at + size if size else -1
            parts.append((tile, size))
        if marker == J2K_LENGTHS:
            lengths.append((at + 4, at + 2 + length))
        if marker == J2K_COMMENT:
            yield at + 6, bytes(max(length - 4, 0))
        elif marker not in J2K_NEEDED:
            yield at, J2K_COMMENT.to_bytes(2)
            yield at + 4, bytes(max(length - 2, 0))
        at += 2 + length


def _tile_lengths(content: bytearray) -> list[tuple[int, int]]:
    """Return tile and length of each tile-part that a TLM segment lists (T.800, A.7.1); without numbers, one a tile.

    It informs, but must be there in HTJ2K Lossless RPCL (PS3.5 10.18): one that is true can hold nothing else.
    """
    form = f">{('', 'B', 'H', 'H')[content[1] >> 4 & 3]}{'I' if content[1] >> 6 & 1 else 'H'}"
    whole = len(content) - (len(content) - 2) % struct.calcsize(form)
    listed = struct.iter_unpack(form, content[2:whole])
    return [(one[0] if len(one) == 2 else number, one[-1]) for number, one in enumerate(listed)]
