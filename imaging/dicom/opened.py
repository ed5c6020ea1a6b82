"""Owns a DICOM object that is open for reading: its attributes and the bytes of each of its frames."""

from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import UID

from imaging.dicom.attributes import Attributes, of_dataset, whole
from imaging.dicom.elements import Buffer, fragments
from imaging.dicom.parse import parse, reading
from imaging.dicom.walk import Walked, walk

END = b"\xfe\xff\xdd\xe0\0\0\0\0"
"""The end of a sequence, which pydicom takes off encapsulated pixel data."""

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An object: `dataset` is there only where attributes alone do not say all about the pixels.

    `pixels` are the (start, length) in `data` of the native value, or of each fragment, the offset table first.
    """

    data: Buffer
    syntax: str
    attributes: Attributes
    dataset: Dataset | None
    pixels: tuple[tuple[int, int], ...]
    encapsulated: bool

    @property
    def frames(self) -> int:
        """The number of frames that the header claims."""
        return max(whole(self.attributes, "NumberOfFrames", 1), 1)

    def frame_attributes(self, index: int) -> Attributes:
        """Return the attributes of one frame: the functional groups of an enhanced object flattened.

        PS3.3 C.7.6.16.
        """
        if self.dataset is None:
            return self.attributes
        found = dict(self.attributes)
        for item in self.groups(index):
            for macro in item:
                if macro.VR == "SQ" and len(macro.value):
                    found |= of_dataset(macro.value[0])
        return found

    def groups(self, index: int) -> list[Dataset]:
        """Return the shared functional groups and those of one frame, the stronger last."""
        if self.dataset is None:
            return []
        shared, own = self.dataset.get(SHARED) or [], self.dataset.get(PER_FRAME) or []
        return [*shared[:1], *own[index : index + 1]]

    def fragment(self, index: int) -> Buffer:
        """Return the codestream of one frame (PS3.5 A.4)."""
        spans = self.pixels[1:]
        if len(spans) == self.frames:
            start, length = spans[index]
            return memoryview(self.data)[start : start + length]
        if self.frames == 1:
            return b"".join(bytes(self.data[start : start + length]) for start, length in spans)
        # Several fragments a frame: the offset tables tell which, or the ends of the codestreams do.
        first, (start, length) = self.pixels[0][0] - 8, self.pixels[-1]
        value = bytes(memoryview(self.data)[first : start + length])
        with reading("undecodable"):
            offsets = self._extended_offsets()
            return get_frame(value, index, number_of_frames=self.frames, extended_offsets=offsets)

    def _extended_offsets(self) -> tuple[bytes, bytes] | None:
        if self.dataset is None or "ExtendedOffsetTable" not in self.dataset:
            return None
        return self.dataset.ExtendedOffsetTable, self.dataset.ExtendedOffsetTableLengths


def open_object(data: Buffer) -> Opened:
    """Open the bytes of a file; raise DataFault where they are no whole DICOM object.

    The strict walk reads what is simple; pydicom reads the header of what is not, and all of what is doubtful.
    """
    walked = walk(data)
    if walked is None:
        return _by_pydicom(bytes(data))
    if not walked.attributes.get("SOPClassUID") or not walked.simple:
        return _header_by_pydicom(data, walked)
    return Opened(
        data=data,
        syntax=walked.syntax,
        attributes=walked.attributes,
        dataset=None,
        pixels=walked.pixels,
        encapsulated=walked.encapsulated,
    )


def _header_by_pydicom(data: Buffer, walked: Walked) -> Opened:
    dataset = parse(bytes(data[: walked.header_end]))
    return Opened(
        data=data,
        syntax=walked.syntax,
        attributes=of_dataset(dataset),
        dataset=dataset,
        pixels=walked.pixels,
        encapsulated=walked.encapsulated,
    )


def _by_pydicom(data: bytes) -> Opened:
    dataset = parse(data)
    value = bytes(dataset.get("PixelData") or b"")
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    encapsulated = syntax.is_transfer_syntax and syntax.is_encapsulated
    return Opened(
        data=value,
        syntax=str(syntax),
        attributes=of_dataset(dataset),
        dataset=dataset,
        pixels=fragments(value + END, 0) if encapsulated else ((0, len(value)),) if value else (),
        encapsulated=encapsulated,
    )
