"""Cleaning of pixel data: high bits, bytes after the frames and comments, which no image shows, are removed."""

import struct
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.tag import BaseTag
from pydicom.uid import RLELossless

from imaging.deidentify.objects.codestream_text import without_rest, without_text
from imaging.deidentify.objects.context import ObjectContext
from imaging.deidentify.objects.raw_elements import Element, raw_bytes
from imaging.deidentify.objects.rules import PIXELS
from imaging.dicom.attributes import Value, decode_numbers, decode_text, wanted
from imaging.dicom.codecs import check_codestream, decode_fast
from imaging.dicom.codestream import codestream_size
from imaging.dicom.dicom_object import END, NATIVE
from imaging.dicom.elements import UNDEFINED, Buffer, Doubt, fragments
from imaging.dicom.encapsulated import frame_spans
from imaging.dicom.pixels import NATIVE_BITS, NUMBERS, Layout, layout_of
from imaging.errors import DataFault

EXTENDED_OFFSETS = BaseTag(0x7FE00001)
PLACES = (EXTENDED_OFFSETS, BaseTag(0x7FE00002), BaseTag(0x7FE00003))
"""Offsets and lengths of the fragments as they were, and of all of them (PS3.3 C.7.6.3)."""
OVERLAY_BIT_POSITION, OVERLAY_DATA = 0x0102, 0x3000
PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
LAYOUT = {
    keyword: (tag, vr)
    for tag, (keyword, vr) in wanted().items()
    if keyword in (*NUMBERS, *PADDING, "PhotometricInterpretation")
}
"""Tag and VR of the attributes that `layout_of` reads."""


def clean_pixel_data(context: ObjectContext, dataset: Dataset, elements: dict[BaseTag, Element]) -> None:
    """Replace the pixel data among the output's elements by clean ones; nothing is copied that has not to be changed.

    Raises DataFault: "undecodable", "unsupported", or "burned-in-doubt" where bits that no viewer shows may hold
    something.
    """

    def value_of(tag: int) -> bytes:
        return raw_bytes(elements.get(BaseTag(tag)), little=context.little)

    read = dict(dataset.items())

    def before(tag: int) -> bytes:
        return raw_bytes(read.get(BaseTag(tag)), little=context.little)

    for tag in [tag for tag in elements if tag in PIXELS]:
        element, layout = elements[tag], layout_by(value_of, little=context.little)
        check_searched(layout, layout_by(before, little=context.little))
        encapsulated = _is_encapsulated(element)
        if encapsulated == (dataset.file_meta.TransferSyntaxUID in NATIVE):
            raise DataFault("undecodable", "the transfer syntax does not say how the pixel data are written")
        if encapsulated:
            try:
                elements[tag] = _encapsulated(context, dataset, element, layout)
            except (Doubt, struct.error):
                raise DataFault("undecodable", "the fragments of pixel data are none") from None
        else:
            vr = str(element.VR) if element.VR in ("OB", "OW", "OF", "OD") else "OW"
            value = clean_native(
                raw_bytes(element), layout, floating=tag != 0x7FE00010, little=context.little
            )
            elements[tag] = context.element(tag, vr, bytes(value))
        for place in PLACES:
            elements.pop(place, None)


def layout_by(value_of: Callable[[int], bytes], *, little: bool) -> Layout:
    """Return the layout of the pixels from the values that the output will have; `value_of` returns those of a tag."""
    return _layout("<" if little else ">", *(value_of(tag) for tag, _ in LAYOUT.values()))


def check_searched(written: Layout, searched: Layout) -> None:
    """Raise DataFault "burned-in-doubt" where the output's header gives other frames than those that were searched."""
    if written != searched and replace(written, padding=None) != replace(searched, padding=None):
        raise DataFault(
            "burned-in-doubt", "an attribute that says how the pixels lie is not legal and was removed"
        )


@lru_cache(64)
def _layout(order: str, *raws: bytes) -> Layout:
    attributes = dict[str, Value]()
    for raw, (keyword, (_, vr)) in zip(raws, LAYOUT.items(), strict=True):
        if raw and keyword not in PADDING:
            attributes[keyword] = decode_text(raw) if vr == "CS" else decode_numbers(raw, vr, order)
    # Padding is of the kind of the pixels (PS3.3 C.7.5.1.1.2).
    vr = "SS" if attributes.get("PixelRepresentation") == (1.0,) else "US"
    padding = {
        keyword: numbers
        for raw, keyword in zip(raws, LAYOUT, strict=True)
        if keyword in PADDING and (numbers := decode_numbers(raw, vr, order))
    }
    return layout_of(attributes | padding)


def _is_encapsulated(element: Element) -> bool:
    if isinstance(element, RawDataElement):
        return element.length == UNDEFINED
    return bool(element.is_undefined_length)


def clean_native(value: Buffer, layout: Layout, *, floating: bool, little: bool) -> Buffer:
    """Return native pixel data without bytes after the last frame and without bits outside BitsStored (PS3.5 8.1.1).

    Padding that BitsStored cannot hold stays padding: all of it becomes one value, as nothing else may lie in it.
    """
    size = (layout.frame_bits * layout.frames + 7) // 8
    # In big-endian words the padding of an odd length is the last byte but one.
    size += size % 2
    value = value if len(value) <= size else value[:size]
    if floating or layout.bits_stored == layout.bits_allocated or layout.bits_allocated not in NATIVE_BITS:
        return value
    width = layout.bits_allocated // 8
    values = np.frombuffer(value, f"{'<' if little else '>'}u{width}", len(value) // width)
    clean = _within_bits(values, layout)
    if clean is None:
        return value
    if layout.padding is not None:
        meant = values.view(f"{values.dtype.byteorder}{'i' if layout.signed else 'u'}{width}")
        is_padding = (meant >= layout.padding[0]) & (meant <= layout.padding[1])
        clean = clean.view(meant.dtype).copy()
        clean[is_padding] = max(layout.padding[0], int(np.iinfo(meant.dtype).min))
    return clean.tobytes() + value[clean.nbytes :]


def _within_bits(values: NDArray[Any], layout: Layout) -> NDArray[Any] | None:
    """Return unsigned words with the bits outside the value cleared; None where nothing has to be changed.

    In signed values the bits above may repeat the sign; where they hold anything else, they are set to the sign.
    """
    lowest = layout.high_bit + 1 - layout.bits_stored
    meant = values.dtype.type(((1 << layout.bits_stored) - 1) << lowest)
    if not np.bitwise_or.reduce(values, axis=None, initial=0) & ~meant:
        return None
    if not layout.signed or lowest:
        return np.asarray(values & meant, values.dtype)
    spare = layout.bits_allocated - layout.bits_stored
    signed = values.astype(values.dtype.newbyteorder("=")).view(f"i{values.dtype.itemsize}")
    extended = (signed << spare >> spare).astype(f"{values.dtype.byteorder}i{values.dtype.itemsize}")
    same = extended.view(values.dtype)
    return None if np.array_equal(same, values) else same


def _encapsulated(context: ObjectContext, dataset: Dataset, element: Element, layout: Layout) -> Element:
    """Return compressed pixel data as one fragment for each frame, without the text in its codestream."""
    value = (bytes(element.value) if element.value else b"") + END
    offsets = raw_bytes(dataset.get_item(EXTENDED_OFFSETS)) if EXTENDED_OFFSETS in dataset else b""
    view, syntax = memoryview(value), str(dataset.file_meta.TransferSyntaxUID)
    if _declares_hidden_overlay(dataset, context.little):
        raise DataFault("burned-in-doubt", "an overlay lies in the high bits of compressed pixel data")
    frames, plane_bytes = list[bytes](), layout.rows * layout.columns
    for spans in frame_spans(value, fragments(value, 0), layout.frames, offsets):
        frame = b"".join(view[start : start + length] for start, length in spans)
        clean_frame = frame if syntax == RLELossless else without_text(frame)
        _check_bits(clean_frame, syntax, layout)
        frames.append(without_rest(frame, plane_bytes) if syntax == RLELossless else clean_frame)
    clean = encapsulate(frames)
    return RawDataElement(BaseTag(element.tag), "OB", UNDEFINED, clean, 0, context.implicit, context.little)


def _declares_hidden_overlay(dataset: Dataset, little: bool) -> bool:
    """Tell whether the header declares an overlay in the high bits of the pixels (PS3.3 C.9.2, retired)."""
    positions = [
        tag for tag, _ in dataset.items() if tag.group >> 8 == 0x60 and tag.element == OVERLAY_BIT_POSITION
    ]
    return any(
        any(raw_bytes(dataset.get_item(tag), little=little))
        and BaseTag(tag.group << 16 | OVERLAY_DATA) not in dataset
        for tag in positions
    )


def _check_bits(frame: bytes, syntax: str, layout: Layout) -> None:
    """Raise DataFault where bits outside BitsStored hold something, which no viewer shows."""
    shape = (layout.rows, layout.columns)
    claimed = None if syntax == RLELossless else codestream_size(frame)
    if (claimed.bits if claimed else layout.bits_allocated) <= layout.bits_stored:
        return
    size = check_codestream(frame, syntax, shape, layout.samples, layout.bits_allocated)
    bits = size.bits if size is not None else layout.bits_allocated
    values = decode_fast(frame, syntax, shape, layout.samples, layout.bits_allocated)
    if values is not None:
        values = np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")
        if size is not None and size.signed and not layout.signed:
            values &= values.dtype.type(2**bits - 1)  # the sign was extended by the decoder
    if values is None or _within_bits(values, layout) is not None:
        raise DataFault("burned-in-doubt", "bits of compressed pixels hold something outside BitsStored")
