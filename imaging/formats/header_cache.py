"""Header cache of a series: skips parsing where the bytes of a slice's header equal those of a header that was parsed.

Most slices of a series have their elements at the same places. Where all tags, VRs and lengths of a header equal those
of a parsed one, and all values that are used too, only values that nobody reads can differ.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from imaging.dicom.attributes import Attributes, Value, decode_numbers
from imaging.dicom.dicom_object import DicomObject
from imaging.dicom.elements import UNDEFINED, Buffer, iter_elements
from imaging.dicom.header import UID_FORM
from imaging.dicom.walk import (
    IMPLICIT,
    MAGIC_AT,
    META_TAGS,
    PIXELS,
    TRANSFER_SYNTAX,
    decoders,
    is_out_of_place,
)

CACHED_HEADERS = 32
"""Several a series: numbers with one digit more or less move the elements behind them."""
UNMATCHED_HEADERS = 4
"""Headers of a series that are kept before one of them matches: keeping one costs as much as parsing one."""
SOP_INSTANCE_UID, SERIES_INSTANCE_UID = "SOPInstanceUID", "SeriesInstanceUID"
POSITION, FRAME_OF_REFERENCE = "ImagePositionPatient", "FrameOfReferenceUID"
DATA_SET_TAGS = range(META_TAGS.stop, min(PIXELS))

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CachedHeader(Generic[T]):
    """A parsed header: `fixed` are its bytes at `places`; the other places are of values that may differ and are read.

    `tail` are the bytes before the pixel data: most headers differ there already if they differ at all.
    """

    opened: DicomObject
    tail: tuple[slice, bytes]
    places: NDArray[np.intp]
    fixed: bytes
    uid: slice
    position: slice
    reference: slice
    meaning: T

    def attributes(self, data: Buffer) -> Attributes:
        """Return the attributes of a file that matches: of those that may differ where it lies, but for its UID."""
        attributes: dict[str, Value] = dict(self.opened.attributes)
        if place := bytes(data[self.position]).strip(b" \0"):
            attributes[POSITION] = decode_numbers(place, "DS")
        if reference := str(data[self.reference], "latin-1").strip(" \0"):
            attributes[FRAME_OF_REFERENCE] = reference
        return attributes

    def match(self, data: Buffer) -> str | None:
        """Return the SOPInstanceUID of a file of this tail whose header is otherwise the same, or None."""
        end = sum(self.opened.pixels[0])
        if len(data) < end:
            return None
        if is_out_of_place(data, end, implicit=self.opened.syntax == IMPLICIT):
            return None
        if np.frombuffer(data, np.uint8)[self.places].tobytes() != self.fixed:
            return None
        uid = str(bytes(data[self.uid]), "latin-1").strip(" \0")
        return uid if UID_FORM.fullmatch(uid) else None


class HeaderCache(Generic[T]):
    """The latest headers of series that were parsed, each with a `meaning` that the caller made of it."""

    def __init__(self, varying: frozenset[str]) -> None:
        """`varying` are the keywords whose values may differ."""
        self._varying = varying
        self._headers: deque[CachedHeader[T]] = deque(maxlen=CACHED_HEADERS)
        self._series: object = None
        self._credit = 0

    def find(self, data: Buffer) -> tuple[str, DicomObject, T] | None:
        """Return SOPInstanceUID, object and meaning of a file whose header is in the cache, or None."""
        for header in self._headers:
            place, tail = header.tail
            if data[place] != tail:
                continue
            uid = header.match(data)
            if uid is not None:
                self._credit = min(self._credit + 1, CACHED_HEADERS)
                known = header.opened
                attributes = header.attributes(data)
                opened = DicomObject(
                    data=data, syntax=known.syntax, attributes=attributes, pixels=known.pixels
                )
                return uid, opened, header.meaning
        return None

    def keep(self, opened: DicomObject, meaning: T) -> None:
        """Keep a header that the strict walk has read; not of the first slice of a series, it may be the only one."""
        series = opened.attributes.get(SERIES_INSTANCE_UID)
        if series != self._series:
            self._series, self._credit = series, UNMATCHED_HEADERS
        elif self._credit and not opened.encapsulated:
            self._credit -= 1
            self._headers.appendleft(self._cached(opened, meaning))

    def _cached(self, opened: DicomObject, meaning: T) -> CachedHeader[T]:
        spans, places_of = _fixed_spans(opened, self._varying)
        pixels, end = opened.pixels[0][0], spans[-1][0]
        edges = np.fromiter(chain.from_iterable(spans), np.intp)
        lengths = np.diff(edges, prepend=0)
        places = np.flatnonzero(np.repeat(np.arange(len(lengths)) % 2, lengths))
        attributes = {k: v for k, v in opened.attributes.items() if k not in self._varying}
        return CachedHeader(
            opened=replace(opened, data=b"", attributes=attributes),
            tail=(slice(end, pixels), bytes(opened.data[end:pixels])),
            places=places,
            fixed=np.frombuffer(opened.data, np.uint8)[places].tobytes(),
            uid=places_of[SOP_INSTANCE_UID],
            position=places_of[POSITION],
            reference=places_of[FRAME_OF_REFERENCE],
            meaning=meaning,
        )


def _fixed_spans(
    opened: DicomObject, varying: frozenset[str]
) -> tuple[list[tuple[int, int]], Mapping[str, slice]]:
    """Return the spans of bytes that may not differ, in a header that the strict walk has read.

    And the places of its UID, its position and its frame of reference, empty where it has none.
    """
    start, places = MAGIC_AT + 4, dict.fromkeys((SOP_INSTANCE_UID, POSITION, FRAME_OF_REFERENCE), slice(0, 0))
    spans = [(MAGIC_AT, start)]
    for tags, implicit in ((META_TAGS, False), (DATA_SET_TAGS, opened.syntax == IMPLICIT)):
        for tag, length, value, end in iter_elements(
            opened.data, start, len(opened.data), implicit=implicit, tags=tags
        ):
            keyword = decoders()[tag][0] if tag in decoders() else ""
            if keyword in places:
                places[keyword] = slice(value, end)
            is_read = tag == TRANSFER_SYNTAX or (keyword and keyword not in varying)
            spans.append((start, end if is_read or length == UNDEFINED else value))
            start = end
    return [*spans, (start, opened.pixels[0][0])], places
