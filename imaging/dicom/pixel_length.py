"""Length of pixel data beside what the header counts: as long, padded, cut short, or with something left over."""

from imaging.dicom.codecs import FAST, find_decoder
from imaging.dicom.dicom_object import DicomObject
from imaging.dicom.pixels import SUBSAMPLED, Layout
from imaging.dicom.walk import Walked
from imaging.errors import DataFault


def check_present(opened: DicomObject, layout: Layout) -> tuple[str, ...]:
    """Return the findings about the length of the pixel data and the number of functional groups, as codes.

    Raises DataFault "truncated" where bytes, fragments or groups are fewer than the frames need, "surplus-data" where
    bytes or fragments are more, and "undecodable" where nothing decodes them.
    """
    groups = opened.check_groups(layout.frames) if opened.dataset is not None else ()
    if not opened.encapsulated:
        return groups if has_exact_length(opened, layout) else (*groups, *_padding(opened, layout))
    if opened.syntax not in FAST:
        find_decoder(opened.syntax)  # of a video, the number of fragments is not that of the frames
    # The first item is the Basic Offset Table (PS3.5 A.4), never an image.
    present = sum(1 for _, length in opened.pixels[1:] if length)
    if present < layout.frames:
        raise DataFault("truncated", f"PixelData has {present} fragments, {layout.frames} are needed")
    opened.frame_spans  # noqa: B018 (it raises)
    return groups


def has_exact_length(opened: DicomObject | Walked, layout: Layout) -> bool:
    """Return whether native pixel data are as long as the frames, and padding to an even length (PS3.5 8.1.1).

    Raises DataFault "truncated" where they are shorter.
    """
    present, needed = opened.pixels[0][1] if opened.pixels else 0, layout.native_bytes
    if present < needed:
        raise DataFault("truncated", f"PixelData has {present} bytes, {needed} are needed")
    return present <= needed + needed % 2


def _padding(opened: DicomObject, layout: Layout) -> tuple[str, ...]:
    """Return the finding of padding behind the last frame; raise DataFault "surplus-data" for anything else there.

    Old software padded (PS3.5 8.1.1, note): with zeros, less than a frame of them, or with less than a row of
    anything. Where frames do not end at even bytes, or rows of bits at bytes, a writer may have padded each of them,
    and the frames are not to be found.
    """
    (start, present), needed = opened.pixels[0], layout.native_bytes
    surplus = present - needed
    row_bytes, part = divmod(layout.columns * layout.bits_allocated, 8)
    padded_rows = part > 0 and present >= layout.frames * layout.rows * (row_bytes + 1)
    aligned = not padded_rows and (layout.frames == 1 or layout.frame_bits % 16 == 0)
    if aligned and surplus * 8 * layout.rows < layout.frame_bits:
        return ("padded-pixels",)
    if aligned and surplus * 8 < layout.frame_bits:
        rest = bytes(memoryview(opened.data)[start + needed : start + present])
        if rest.count(0) == len(rest):
            return ("padded-pixels",)
    detail = f"PixelData has {present} bytes, {needed} are needed"
    raise DataFault("surplus-data", "; ".join([detail, *_readings(layout, present)]))


def _readings(layout: Layout, present: int) -> list[str]:
    """Return what pixel data that are too long may be."""
    frames, frame_bytes = present * 8 // layout.frame_bits, layout.frame_bits / 8
    readings = []
    if frames > layout.frames and present - frames * frame_bytes < 2:
        readings.append(f"enough for {frames} frames, NumberOfFrames is {layout.frames} or missing")
    if layout.bits_allocated == 8 and present == 2 * layout.native_bytes:
        readings.append("as many as of 16 bits a sample, BitsAllocated is 8")
    if layout.photometric in SUBSAMPLED and present // 3 == layout.native_bytes // 2:
        readings.append(f"3 a pixel, as of RGB or YBR_FULL, {layout.photometric} has 2")
    return readings
