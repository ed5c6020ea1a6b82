"""Peek at headers: what the header of each file of a source says, read in the sandbox without decoding pixels."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imaging.dicom.attributes import Attributes, text
from imaging.dicom.dicom_object import is_mosaic, open_object
from imaging.dicom.frames import frames_of
from imaging.dicom.header import UID_FORM
from imaging.dicom.limits import LIMITS
from imaging.dicom.pixel_length import check_present, has_exact_length
from imaging.dicom.pixels import layout_of
from imaging.dicom.walk import HEAD_BYTES, Walked, walk
from imaging.errors import DataFault
from imaging.file_io import Content, process_buffer
from imaging.formats.dicom import UID_HEAD_BYTES, parent_uids
from imaging.sandbox.pool import Item
from imaging.sandbox.worker_process import Answer
from imaging.sources.dispatch import Run, dispatch
from imaging.sources.protocol import Payload, Source, SourceFile, format_of

FUNCTION = "imaging.formats.peek:peek_batch"
BATCH_FILES = 32
"""Files that are sent to a worker at once: one message per file costs as much as parsing its header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderPeek:
    """What a header says: attributes of the allow-list, or the reason why it cannot be read."""

    format: str
    attributes: Attributes = field(default_factory=dict)
    syntax: str = ""
    has_pixels: bool = False
    volumes: int = 0
    """Volumes that the file is by itself: 1 for a mosaic whose slices have a place, those of a NIfTI file."""
    reason: str = ""
    findings: tuple[str, ...] = ()

    @property
    def series_uid(self) -> str:
        """The UID of the series, empty where there is no valid one."""
        uid = text(self.attributes, "SeriesInstanceUID")
        return uid if UID_FORM.fullmatch(uid) else ""


def peek_headers(
    source: Source, files: Iterable[SourceFile], run: Run
) -> Iterator[tuple[SourceFile, HeaderPeek]]:
    """Yield what the header of each file says; files that cannot be fetched, or end a worker, come last.

    `run` calls `peek_batch`.
    """
    for batch, outcome in dispatch(source, files, run, _item, BATCH_FILES):
        if isinstance(outcome, DataFault):
            yield batch[0], HeaderPeek(format=format_of(batch[0].name), reason=outcome.reason)
        else:
            yield from zip(batch, peeks_of(outcome), strict=True)


def _item(payloads: Sequence[Payload]) -> Item:
    formats = [payload.format for payload in payloads]
    return Item({"formats": formats}, tuple(payload.contents[0] for payload in payloads))


def peek_batch(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[Content]
) -> tuple[Any, Sequence[bytes]]:
    """Return what the headers of some files say, each with its format; a `Function` of the sandbox.

    With "slides" in the setup, pictures have the sizes of the levels of a slide.
    """
    peeks = [_peek(kind, content, setup) for kind, content in zip(value["formats"], blobs, strict=True)]
    return [{name: getattr(one, name) for name in HeaderPeek.__slots__} for one in peeks], ()


def peeks_of(answer: Answer) -> list[HeaderPeek]:
    """Return the result of `peek_batch` that came out of the sandbox as JSON."""
    peeks = []
    for fields in answer.value:
        values = fields["attributes"].items()
        attributes = {name: value if isinstance(value, str) else tuple(value) for name, value in values}
        findings = tuple(fields["findings"])
        peeks.append(HeaderPeek(**{**fields, "attributes": attributes, "findings": findings}))
    return peeks


def _peek(kind: str, content: Content, setup: Mapping[str, Any]) -> HeaderPeek:
    if kind != "dicom":
        return _peek_at_other(kind, content, is_slide=kind == "picture" and bool(setup.get("slides")))
    try:
        return _peek_at_object(content)
    except DataFault as fault:
        # A slice that is cut short still belongs to its series, and its loss is the series'.
        head, _ = process_buffer().head(content, UID_HEAD_BYTES)
        return HeaderPeek(format="dicom", attributes=parent_uids(head), reason=fault.reason)


def _peek_at_other(kind: str, content: Content, *, is_slide: bool) -> HeaderPeek:
    # Loaded here: most sources are DICOM alone, and need no nibabel.
    from imaging.formats.extent import extent_of, slide_extent

    try:
        attributes, volumes = slide_extent(content) if is_slide else extent_of(kind, content)
    except DataFault as fault:
        return HeaderPeek(format=kind, reason=fault.reason)
    return HeaderPeek(format=kind, attributes=attributes, has_pixels=True, volumes=volumes)


def _peek_at_object(content: Content) -> HeaderPeek:
    walked = None
    if isinstance(content, Path):
        # Nine headers in ten end within the head: they are read without the rest of the file.
        walked = walk(*process_buffer().head(content, HEAD_BYTES))
        if walked is not None and _is_enough(walked):
            layout = layout_of(walked.attributes) if walked.pixels else None
            if layout is None or (not walked.encapsulated and has_exact_length(walked, layout)):
                return HeaderPeek(
                    format="dicom",
                    attributes=walked.attributes,
                    syntax=walked.syntax,
                    has_pixels=bool(walked.pixels),
                )
    # Where the head was read, the rest is needed for the headers of the fragments or for what follows the frames.
    buffer = process_buffer()
    opened = open_object(buffer.mapped(content) if walked else buffer.load(content, LIMITS.file_bytes))
    attributes, volumes, findings = opened.frame_attributes(0), 0, tuple[str, ...]()
    if opened.pixels:
        frames = frames_of(opened)
        findings = check_present(opened, frames.layout)
        if frames.mosaic is not None:
            first_slice = frames.mosaic.slice_attributes(attributes)
            attributes = {**first_slice, "NumberOfFrames": (float(frames.count),)}
            volumes = int(frames.mosaic.geometry is not None)
    return HeaderPeek(
        format="dicom",
        attributes=attributes,
        syntax=opened.syntax,
        has_pixels=bool(opened.pixels),
        volumes=volumes,
        findings=findings,
    )


def _is_enough(walked: Walked) -> bool:
    """Return whether the strict walk read all of a header that matters."""
    return walked.simple and bool(walked.attributes.get("SOPClassUID")) and not is_mosaic(walked.attributes)
