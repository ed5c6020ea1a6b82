"""Lookup tables of a data set: the items of a sequence of LUTs, and palettes, each checked before it is used."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.sequence import Sequence

from imaging.dicom.attributes import parts_of, quietly, signed_16
from imaging.errors import DataFault
from imaging.image.window import Lut

COLOURS = ("Red", "Green", "Blue")


def items_of(groups: list[Dataset], keyword: str) -> list[Dataset]:
    """Return the items of a sequence, from the last of the groups that has it; what is no sequence is an empty item."""
    for group in reversed(groups):
        if keyword not in group:
            continue
        items = _value(group, keyword)
        if not isinstance(items, Sequence):
            return [] if _is_empty(group, keyword) else [Dataset()]
        if items:
            return [*items]
    return []


def _value(source: Dataset, keyword: str) -> Any:
    return quietly(lambda: source[keyword].value)


def _is_empty(source: Dataset, keyword: str) -> bool:
    return bool(quietly(lambda: source[keyword].is_empty))


def lut_of(item: Dataset, *, signed: bool) -> Lut:
    """Return the table of an item (PS3.3 C.11.1.1, C.11.2.1.1); raise DataFault "undecodable" where there is none.

    `signed` is whether the values that are looked up may be negative: the VR of the descriptor is often wrong.
    """
    return _table(item, "LUTDescriptor", "LUTData", signed=signed)


def palette_of(dataset: Dataset, stored: NDArray[Any], *, signed: bool) -> tuple[NDArray[Any], int]:
    """Return the colours (rows, columns, 3) of stored values, and the bits of white (PS3.3 C.7.6.3.1.5, C.7.6.3.1.6).

    Raises DataFault "undecodable" where the tables are missing or damaged.
    """
    if "RedPaletteColorLookupTableData" not in dataset:
        return _by_segments(dataset, stored)
    luts = [
        _table(
            dataset,
            # All three are the same by the standard; of some files only the first is there.
            f"{colour if f'{colour}PaletteColorLookupTableDescriptor' in dataset else 'Red'}"
            "PaletteColorLookupTableDescriptor",
            f"{colour}PaletteColorLookupTableData",
            signed=signed,
        )
        for colour in COLOURS
    ]
    if len({(lut.first, len(lut.entries)) for lut in luts}) > 1:
        raise DataFault("undecodable", "the palette's three tables differ in length or first value")
    colours = np.stack([lut.entries for lut in luts], -1)
    # A palette fills all of its bits. Where 8-bit entries have 16 bits each, the high ones are empty (the note of
    # C.7.6.3.1.5), or hold the same value again.
    return replace(luts[0], entries=colours).look_up(stored), 8 if max(lut.bits for lut in luts) <= 8 else 16


def _by_segments(dataset: Dataset, stored: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Return colours by segmented tables, PS3.3 C.7.9.2."""
    names = [f"Segmented{colour}PaletteColorLookupTableData" for colour in COLOURS]
    missing = [name for name in names if not isinstance(_value(dataset, name), bytes)]
    if missing:
        raise DataFault("undecodable", f"PALETTE COLOR without tables: {missing[0]} is missing or empty")
    _, _, bits = _descriptor(dataset, "RedPaletteColorLookupTableDescriptor")
    colours = quietly(lambda: apply_color_lut(stored, dataset))
    if colours is None:
        raise DataFault("undecodable", f"the segmented palette of {bits} bits cannot be expanded")
    return colours[..., :3], 8 * colours.dtype.itemsize


def _table(source: Dataset, descriptor: str, data: str, *, signed: bool) -> Lut:
    count, first_mapped, bits = _descriptor(source, descriptor)
    # In any VR the count is unsigned, and 0 means 65536.
    count = count % 65536 or 65536
    # An explicit big-endian file.
    order = "<>"[source.original_encoding[1] is False]
    entries = _entries(_value(source, data), count, order)
    if entries is None:
        raise DataFault("undecodable", f"{data} is missing or holds no whole numbers")
    if len(entries) < count:
        raise DataFault("undecodable", f"{data} has {len(entries)} entries, {count} are needed")
    stated = bits if 1 <= bits <= 8 * entries.itemsize else 1 if entries.itemsize == 2 else 8
    entries = np.asarray(entries[:count], np.uint16)
    return Lut(
        first=int(signed_16((first_mapped,), signed=signed)[0]),
        # Where entries need more bits than are stated, the largest of them is white.
        bits=max(stated, int(entries.max()).bit_length()),
        entries=entries,
    )


def _descriptor(source: Dataset, keyword: str) -> tuple[int, int, int]:
    """Return the number of entries, the first value mapped and the bits of an entry, as they are written."""
    value = _value(source, keyword)
    try:
        count, first_mapped, bits = (
            int(part) for part in (() if isinstance(value, bytes) else parts_of(value))
        )
    except (TypeError, ValueError, OverflowError):
        raise DataFault("undecodable", f"{keyword} is missing or not three whole numbers") from None
    return count, first_mapped, bits


def _entries(data: Any, count: int, order: str) -> NDArray[Any] | None:
    """Return entries of two bytes, or of one byte where there are not enough bytes for two; None for no numbers."""
    if not isinstance(data, bytes):
        try:
            numbers = np.atleast_1d(np.asarray(data, np.int64))
        except (TypeError, ValueError, OverflowError):
            return None
        data, order = (numbers & 0xFFFF).astype("<u2").tobytes(), "<"
    if not data:
        return None
    if len(data) >= 2 * count:
        return np.frombuffer(data[: 2 * count], f"{order}u2")
    pairs = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")
    return np.frombuffer(pairs.astype("<u2").tobytes(), "u1")
