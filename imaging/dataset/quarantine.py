"""Owns the reasons for which a source file does not become an example."""

IGNORED: dict[str, str] = {
    "not-dicom": "not a DICOM Part 10 file",
    "dicomdir": "a DICOMDIR, which is an index and not an image",
}
"""Files that were never meant to be images: counted, not held against the archive."""

REASONS: dict[str, str] = {
    "truncated": "the file ends before its pixel data does",
    "unreadable": "the file cannot be parsed as DICOM",
    "undecodable": "the pixel data cannot be decoded",
    "no-pixels": "the object has no pixel data",
    "wrong-modality": "the modality is not the one that the preprocessing expects",
    "unsupported": "a kind of image that is not taken in yet (colour, multi-frame)",
    "no-window": "the window is to come from the file and the file has none",
    "missing-identifier": "an identifier that the dataset needs is missing or not valid",
    "duplicate-instance": "the same SOPInstanceUID with the same pixels was already taken in",
    "duplicate-pixels": "the same pixels were already taken in under another SOPInstanceUID",
    "conflicting-instance": "the same SOPInstanceUID was already taken in with other pixels",
}
"""Files that should have been images and are not usable; each is listed in the report."""
