"""Owns a glance at a file: what its header says, without its pixels. It runs in the sandbox."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from imaging.buffer import FileBuffer
from imaging.dicom.attributes import Attributes, Value, text
from imaging.dicom.header import UID_FORM
from imaging.dicom.limits import LIMITS
from imaging.dicom.opened import open_object
from imaging.dicom.pixels import check_present, layout_of
from imaging.dicom.walk import walk
from imaging.errors import DataFault
from imaging.formats.dicom import HEAD_BYTES as REMAINS_BYTES
from imaging.formats.dicom import has_pixels, identifiers_of
from imaging.sandbox.worker_process import Answer

FUNCTION = "imaging.formats.peek:glance"
HEAD_BYTES = 2**15
"""Nine headers in ten end before: they are read without the rest of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What a header says: attributes of the allow-list, or the reason why nothing can be said."""

    format: str
    attributes: Attributes = field(default_factory=dict)
    syntax: str = ""
    has_pixels: bool = False
    reason: str = ""

    @property
    def series_uid(self) -> str:
        """The series' UID, empty where there is none that is valid."""
        uid = text(self.attributes, "SeriesInstanceUID")
        return uid if UID_FORM.fullmatch(uid) else ""


def glance(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[bytes]]:
    """Look at some payloads, each with its format; a `Function` of the sandbox."""
    seen = [_glance(kind, content) for kind, content in zip(value["formats"], blobs, strict=True)]
    return [{name: getattr(one, name) for name in Glance.__slots__} for one in seen], ()


def as_glances(answer: Answer) -> list[Glance]:
    """Return what the sandbox said of some payloads."""
    return [Glance(**{**told, "attributes": _attributes(told["attributes"])}) for told in answer.value]


def _attributes(told: Mapping[str, str | list[float]]) -> dict[str, Value]:
    return {name: value if isinstance(value, str) else tuple(value) for name, value in told.items()}


def _glance(kind: str, content: bytes | Path) -> Glance:
    if kind != "dicom":
        return Glance(format=kind, has_pixels=True)
    try:
        return _look(content)
    except DataFault as fault:
        # A slice that is cut short still belongs to its series, and its loss is the series'.
        return Glance(format="dicom", attributes=_remains(content), reason=fault.reason)


@cache
def _buffer() -> FileBuffer:
    return FileBuffer()


def _look(content: bytes | Path) -> Glance:
    if isinstance(content, Path):
        head, size = _buffer().head(content, HEAD_BYTES)
        walked = walk(head, size)
        if walked is not None and walked.simple and walked.attributes.get("SOPClassUID"):
            found = Glance(
                format="dicom",
                attributes=walked.attributes,
                syntax=walked.syntax,
                has_pixels=bool(walked.pixels),
            )
            _check_length(found, walked.pixels, walked.encapsulated)
            return found
    opened = open_object(_buffer().load(content, LIMITS.file_bytes) if isinstance(content, Path) else content)
    if has_pixels(opened):
        check_present(opened, layout_of(opened.attributes))
    attributes = opened.frame_attributes(0)
    return Glance(format="dicom", attributes=attributes, syntax=opened.syntax, has_pixels=has_pixels(opened))


def _check_length(found: Glance, pixels: tuple[tuple[int, int], ...], encapsulated: bool) -> None:
    """Refuse native pixels that are too few for the frames; fragments are counted by who decodes them."""
    if not pixels or encapsulated:
        return
    layout = layout_of(found.attributes)
    needed = (layout.frame_bits * layout.frames + 7) // 8
    if pixels[0][1] < needed:
        raise DataFault("truncated", f"PixelData has {pixels[0][1]} bytes, {needed} are needed")


def _remains(content: bytes | Path) -> dict[str, Value]:
    """Return the identifiers of an object that is damaged behind them."""
    head = _buffer().head(content, REMAINS_BYTES)[0] if isinstance(content, Path) else content
    return identifiers_of(head)
