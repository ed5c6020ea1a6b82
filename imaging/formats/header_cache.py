"""Owns what the header of a slice tells without being read: that it says the same as another one of its series.

Slices of a series have their elements at the same places, most of the time. Where all bytes that say what stands where
are those of a header that was read, and all values that matter too, the rest can only be what nobody looks at.
"""

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from imaging.dicom.elements import (
    EXPLICIT_HEADER,
    IMPLICIT_HEADER,
    LONG,
    LONG_LENGTH,
    UNDEFINED,
    Buffer,
    skip_sequence,
)
from imaging.dicom.header import UID_FORM
from imaging.dicom.opened import Opened
from imaging.dicom.walk import IMPLICIT, MAGIC_AT, TRANSFER_SYNTAX, decoders

KEPT = 32
"""Headers that are remembered: numbers of one digit more or less move what stands behind them."""
TRIED = 4
"""Headers of a series that are remembered before one of them was met again: it costs as much as reading one."""
SOP_INSTANCE_UID, SERIES_INSTANCE_UID = "SOPInstanceUID", "SeriesInstanceUID"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Twin(Generic[T]):
    """A header that was read: `fixed` are its bytes at `places`, `uid` is where its SOPInstanceUID stands."""

    opened: Opened
    mark: tuple[slice, bytes]
    places: NDArray[np.intp]
    fixed: bytes
    uid: slice
    meaning: T

    def find(self, data: Buffer) -> str | None:
        """Return the SOPInstanceUID of a file whose header says the same otherwise, or None."""
        place, mark = self.mark
        if data[place] != mark or len(data) < sum(self.opened.pixels[0]):
            return None
        if np.frombuffer(data, np.uint8)[self.places].tobytes() != self.fixed:
            return None
        uid = str(bytes(data[self.uid]), "latin-1").strip(" \0")
        return uid if UID_FORM.fullmatch(uid) else None


class Twins(Generic[T]):
    """Remembers the latest headers of series, with what they mean."""

    def __init__(self, varying: frozenset[str]) -> None:
        """`varying` are the keywords whose values do not matter."""
        self._varying = varying
        self._known: deque[Twin[T]] = deque(maxlen=KEPT)
        self._series: object = None
        self._credit = 0

    def find(self, data: Buffer) -> tuple[str, Opened, T] | None:
        """Return SOPInstanceUID, object and meaning of a file whose header is known."""
        for twin in self._known:
            uid = twin.find(data)
            if uid is not None:
                self._credit = min(self._credit + 1, KEPT)
                old = twin.opened
                opened = Opened(
                    data=data,
                    syntax=old.syntax,
                    attributes=old.attributes,
                    dataset=None,
                    pixels=old.pixels,
                    encapsulated=False,
                    floating_bits=0,
                )
                return uid, opened, twin.meaning
        return None

    def keep(self, opened: Opened, meaning: T) -> None:
        """Remember a header that the strict walk alone has read; of a series' first slice it would not pay."""
        series = opened.attributes.get(SERIES_INSTANCE_UID)
        if series != self._series:
            self._series, self._credit = series, TRIED
        elif self._credit and not opened.encapsulated:
            self._credit -= 1
            self._known.appendleft(self._twin(opened, meaning))

    def _twin(self, opened: Opened, meaning: T) -> Twin[T]:
        spans, uid = _fixed(opened, self._varying)
        pixels, end = opened.pixels[0][0], spans[-1][0]
        matters = np.zeros(pixels, np.bool_)
        for span in spans:
            matters[slice(*span)] = True
        places = np.flatnonzero(matters)
        plain = Opened(
            data=b"",
            syntax=opened.syntax,
            attributes={k: v for k, v in opened.attributes.items() if k not in self._varying},
            dataset=None,
            pixels=opened.pixels,
            encapsulated=False,
            floating_bits=0,
        )
        return Twin(
            opened=plain,
            mark=(slice(end, pixels), bytes(opened.data[end:pixels])),
            places=places,
            fixed=np.frombuffer(opened.data, np.uint8)[places].tobytes(),
            uid=uid,
            meaning=meaning,
        )


def _fixed(opened: Opened, varying: frozenset[str]) -> tuple[list[tuple[int, int]], slice]:
    """Return the spans of bytes that may not differ, of a header that the walk has followed, and that of its UID."""
    data, end = opened.data, opened.pixels[0][0]
    at, spans, uid = MAGIC_AT + 4, [(MAGIC_AT, MAGIC_AT + 4)], slice(0, 0)
    while at < end:
        start = at
        group, element, vr, length = EXPLICIT_HEADER(data, at)
        implicit = group != 2 and opened.syntax == IMPLICIT
        if implicit:
            group, element, length = IMPLICIT_HEADER(data, at)
            value = at + 8
        elif vr in LONG:
            value, length = at + 12, LONG_LENGTH(data, at + 8)[0]
        else:
            value = at + 8
        tag = group << 16 | element
        keyword = decoders()[tag][0] if tag in decoders() else ""
        if value == end:
            spans.append((start, value))
            break
        at = skip_sequence(data, value, len(data), implicit) if length == UNDEFINED else value + length
        if keyword == SOP_INSTANCE_UID:
            uid = slice(value, at)
        matters = length == UNDEFINED or tag == TRANSFER_SYNTAX or (keyword and keyword not in varying)
        spans.append((start, at if matters else value))
    return spans, uid
