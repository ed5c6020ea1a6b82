"""DICOM object that is open for reading: its attributes and the bytes of each of its frames."""

from dataclasses import dataclass
from functools import cached_property

from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from imaging.dicom.attributes import Attributes, of_dataset, text, whole
from imaging.dicom.elements import Buffer, fragments
from imaging.dicom.encapsulated import Spans, frame_spans
from imaging.dicom.parse import parse, reading
from imaging.dicom.walk import walk
from imaging.errors import DataFault

END = b"\xfe\xff\xdd\xe0\0\0\0\0"
"""The end of a sequence, which pydicom removes from encapsulated pixel data."""

NATIVE = frozenset(
    {
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
    }
)
"""The transfer syntaxes whose pixel data are not encapsulated (PS3.5 A.1 to A.3, A.5)."""

KEYWORDS = {"PixelData": 0, "FloatPixelData": 32, "DoubleFloatPixelData": 64}
"""Keywords of pixel data, with the bits of a floating-point value; 0 for integers."""
SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"


@dataclass(frozen=True, kw_only=True)
class DicomObject:
    """DICOM object that is open: `dataset` is None where the attributes are enough to read the pixels.

    `pixels` are the (start, length) in `data` of the native value, or of each fragment, the offset table first;
    empty where there are no pixels. `floating_bits` are 32 or 64 in Float and Double Float Pixel Data, else 0.
    """

    data: Buffer
    syntax: str
    attributes: Attributes
    dataset: Dataset | None = None
    pixels: Spans = ()
    encapsulated: bool = False
    floating_bits: int = 0

    @property
    def pixel_vr(self) -> str:
        """The VR of Pixel Data, empty where it is not known."""
        known = self.dataset is not None and self.dataset.get_item("PixelData")
        return (known and known.VR) or ""

    def frame_attributes(self, index: int) -> Attributes:
        """Return the attributes of one frame: the functional groups of an enhanced object flattened.

        PS3.3 C.7.6.16. Private groups are ignored: scanners put whole data sets into them.
        """
        if self.dataset is None:
            return self.attributes
        attributes = dict(self.attributes)
        with reading("unreadable", "a functional group"):
            for item in self.macros(index):
                attributes |= of_dataset(item)
        return attributes

    def check_groups(self, frames: int) -> tuple[str, ...]:
        """Return the finding of items of functional groups that are no frame's (PS3.3 C.7.6.16).

        Raises DataFault "truncated" where frames have none and others do: their rescaling is not known.
        """
        with reading("unreadable"):
            count = len((self.dataset and self.dataset.get(PER_FRAME)) or [])
        if 0 < count < frames:
            raise DataFault("truncated", f"{count} items of functional groups are for {frames} frames")
        return ("surplus-groups",) if count > frames else ()

    def macros(self, index: int) -> list[Dataset]:
        """Return the functional groups of one frame, each by its first item: the shared ones, then its own."""
        if self.dataset is None:
            return []
        shared, own = self.dataset.get(SHARED) or [], self.dataset.get(PER_FRAME) or []
        groups = [*shared[:1], *own[index : index + 1]]
        public = [element for group in groups for element in group if not element.tag.is_private]
        return [element.value[0] for element in public if element.VR == "SQ" and len(element.value)]

    def fragment(self, index: int) -> Buffer:
        """Return the codestream of one frame (PS3.5 A.4)."""
        data, spans = memoryview(self.data), self.frame_spans[index]
        parts = [data[start : start + length] for start, length in spans]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @cached_property
    def frame_spans(self) -> tuple[Spans, ...]:
        """The fragments of each frame; raises DataFault as `imaging.dicom.encapsulated.frame_spans` does."""
        frames = max(whole(self.attributes, "NumberOfFrames", 1), 1)
        extended = self.dataset.get("ExtendedOffsetTable") if self.dataset is not None else None
        return frame_spans(self.data, self.pixels, frames, extended if isinstance(extended, bytes) else b"")


def open_object(data: Buffer) -> DicomObject:
    """Return the object in the bytes of a file; raise DataFault where they are no whole DICOM object.

    The strict walk reads simple files; of others pydicom reads the header, and the whole file where in doubt.
    """
    walked = walk(data)
    if walked is None:
        return _by_pydicom(data)
    attributes: Attributes = walked.attributes
    dataset = None
    if not attributes.get("SOPClassUID") or not walked.simple or is_mosaic(attributes):
        dataset = parse(memoryview(data)[: walked.header_end])
        attributes = _attributes(dataset)
    return DicomObject(
        data=data,
        syntax=walked.syntax,
        attributes=attributes,
        dataset=dataset,
        pixels=walked.pixels,
        encapsulated=walked.encapsulated,
        floating_bits=walked.floating_bits,
    )


def is_mosaic(attributes: Attributes) -> bool:
    """Return whether an image may be a mosaic of Siemens, whose private elements are needed to read it.

    Enhanced objects of newer software keep the word although their slices are frames (dcm2niix, issue 553).
    """
    kinds = text(attributes, "ImageType")
    if "MOSAIC" not in kinds or "MOSAIC" not in kinds.split("\\"):
        return False
    manufacturer = text(attributes, "Manufacturer").lower()
    return whole(attributes, "NumberOfFrames", 1) <= 1 and (not manufacturer or "siemens" in manufacturer)


def _attributes(dataset: Dataset) -> Attributes:
    # pydicom warns as it converts, and its warnings quote values.
    with reading("unreadable"):
        return of_dataset(dataset)


def _by_pydicom(data: Buffer) -> DicomObject:
    dataset = parse(data)
    keyword = next((name for name in KEYWORDS if name in dataset), "")
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    with reading("undecodable", "the element of the pixel data"):
        value, pixels, encapsulated = _value(dataset, keyword) if keyword else (b"", (), False)
    if keyword and encapsulated == (syntax in NATIVE):
        raise DataFault("undecodable", "the transfer syntax does not say how the pixel data are written")
    return DicomObject(
        data=value,
        syntax=syntax,
        attributes=_attributes(dataset),
        dataset=dataset,
        pixels=pixels,
        encapsulated=encapsulated,
        floating_bits=KEYWORDS.get(keyword, 0),
    )


def _value(dataset: Dataset, keyword: str) -> tuple[bytes, Spans, bool]:
    """Return the bytes of the pixels, the spans of the value or of all fragments, and whether these are fragments."""
    element = dataset[keyword]
    value = element.value if isinstance(element.value, bytes) else b""
    if element.is_undefined_length:
        return value, fragments(value + END, 0), True
    return value, ((0, len(value)),), False
