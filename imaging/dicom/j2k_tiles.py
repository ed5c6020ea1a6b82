"""Tiles of a JPEG 2000 codestream, and what is left over at the end of their data."""

import struct
from collections.abc import Iterator

from imaging.dicom.codestream import J2K_START
from imaging.dicom.elements import Buffer

COMMENT, LENGTHS, PACKED, TILE_PART, DATA, END = 0xFF64, 0xFF55, 0xFF60, 0xFF90, 0xFF93, 0xFFD9
"""COM, TLM, PPM, SOT, SOD and EOC (T.800, table A.2)."""
EMPTY = b"\0\x80"
"""Bytes of packets without any data (T.800, B.10.3): many codestreams end with them."""
REST = 4
"""Least number of bytes that are looked for behind the last packet."""


def shortened_tiles(data: Buffer) -> Iterator[tuple[bytes, bytes]]:
    """Yield, for each tile, a codestream of that tile alone, and the same without the last bytes of its data.

    A strict decoder refuses the second unless those bytes belong to no packet. Raises ValueError, IndexError or
    struct.error where the codestream cannot be followed to its end, or its tiles not be taken apart.
    """
    if bytes(data[: len(J2K_START)]) != J2K_START:
        return
    codestream = bytes(data)
    head, at = bytearray(codestream[:2]), 2
    while (marker := struct.unpack_from(">H", codestream, at)[0]) != TILE_PART:
        if marker == PACKED:
            raise ValueError  # the headers of the packets of all tiles in turn
        end = at + 2 + struct.unpack_from(">H", codestream, at + 2)[0]
        # The lengths of all tile-parts are those of one no more.
        head += struct.pack(">H", COMMENT if marker == LENGTHS else marker) + codestream[at + 2 : end]
        at = end
    tiles = dict[int, list[bytes]]()
    while struct.unpack_from(">H", codestream, at)[0] == TILE_PART:
        tile, length = struct.unpack_from(">HI", codestream, at + 4)
        end = at + length if length else codestream.index(END.to_bytes(2), _data_at(codestream, at))
        tiles.setdefault(tile, []).append(codestream[at:end])
        at = end
    for parts in tiles.values():
        *before, last = parts
        kept, least = last.rstrip(EMPTY), _data_at(last, 0)
        if len(kept) - REST >= least:
            yield _of_one(head, [*before, last]), _of_one(head, [*before, kept[:-REST]])


def _data_at(part: bytes, at: int) -> int:
    """Return where the data of a tile-part begin."""
    while (marker := struct.unpack_from(">H", part, at)[0]) != DATA:
        if marker < 0xFF00:
            raise ValueError
        at += 2 + struct.unpack_from(">H", part, at + 2)[0]
    return at + 2


def _of_one(head: bytearray, parts: list[bytes]) -> bytes:
    """Return a codestream of tile-parts with their lengths (T.800, A.4.2)."""
    sized = [part[:6] + struct.pack(">I", len(part)) + part[10:] for part in parts]
    return b"".join((head, *sized, END.to_bytes(2)))
