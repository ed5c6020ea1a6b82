"""Frames of encapsulated pixel data (PS3.5 A.4), each of one or several fragments."""

import struct

from imaging.dicom.codestream import END, is_start
from imaging.dicom.elements import Buffer
from imaging.errors import DataFault

Spans = tuple[tuple[int, int], ...]
"""Start and length of fragments in a buffer."""

ITEM_HEADER_BYTES = 8
END_SEARCHED_BYTES = 10
"""Padding behind the end is one byte, with some writers a few more."""


def frame_spans(data: Buffer, pixels: Spans, frames: int, extended: bytes = b"") -> tuple[Spans, ...]:
    """Return the fragments of each frame; `pixels` are all fragments, the Basic Offset Table first.

    Which belong together follows from their number, the Extended Offset Table (PS3.3 C.7.6.3.1.8), the Basic
    Offset Table, or the ends of the codestreams. Each fragment that is not empty belongs to a frame. Raises DataFault
    "undecodable" where it follows from none, "surplus-data" where there are more frames than the header says.
    """
    pieces = tuple(piece for piece in pixels[1:] if piece[1])
    if len(pieces) == frames:
        return tuple((piece,) for piece in pieces)
    view = memoryview(data)
    begun = sum(is_start(view[start : start + length]) for start, length in pieces)
    spans: tuple[Spans, ...] | None = (pieces,)
    if frames > 1 and begun <= frames:
        start, length = pixels[0]
        starts = _offsets(extended, "Q") or _offsets(bytes(data[start : start + length]), "I")
        spans = _by_offsets(pieces, starts) if starts else _by_ends(data, pieces)
    there = max(begun, len(spans or ()))
    if there > frames:
        raise DataFault(
            "surplus-data",
            f"the fragments are those of {there} frames, NumberOfFrames is {frames} or missing",
        )
    if spans is None or len(spans) < frames:
        raise DataFault("undecodable", f"{len(pieces)} fragments do not make {frames} frames")
    return spans


def _offsets(table: bytes, code: str) -> tuple[int, ...]:
    size = struct.calcsize(f"<{code}")
    return struct.unpack(f"<{len(table) // size}{code}", table[: len(table) // size * size])


def _by_offsets(pieces: Spans, offsets: tuple[int, ...]) -> tuple[Spans, ...] | None:
    """Return the fragments of each frame, which begin at offsets from the first fragment's item."""
    first = pieces[0][0] - ITEM_HEADER_BYTES
    number = {start - ITEM_HEADER_BYTES - first: n for n, (start, _) in enumerate(pieces)}
    cuts = [number.get(offset) for offset in offsets]
    known = [cut for cut in cuts if cut is not None]
    if len(known) < len(cuts) or known != sorted(set(known)) or known[0] != 0:
        return None
    return tuple(pieces[one:after] for one, after in zip(known, [*known[1:], len(pieces)], strict=True))


def _by_ends(data: Buffer, pieces: Spans) -> tuple[Spans, ...]:
    frames: list[Spans] = []
    begun = 0
    for n, (start, length) in enumerate(pieces):
        end = start + length
        if END in bytes(data[max(start, end - END_SEARCHED_BYTES) : end]):
            frames.append(pieces[begun : n + 1])
            begun = n + 1
    # What follows the last end belongs to no frame that the header counts.
    return (*frames, pieces[begun:]) if begun < len(pieces) else tuple(frames)
