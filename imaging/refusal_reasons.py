"""Reason codes of refused files: why a file gives no example, or no de-identified object, and what each code means."""

from collections.abc import Mapping

WRONG_MODALITY = "wrong-modality"
CONFLICTING_INSTANCE = "conflicting-instance"
"""Of a dataset: the SOPInstanceUID is there with other pixels."""
CONFLICTING_OBJECT = "conflict"
"""Of a de-identified folder: the SOPInstanceUID is there with other content."""

IGNORED: Mapping[str, str] = {
    "not-dicom": "not a DICOM Part 10 file",
    "dicomdir": "a DICOMDIR, which is an index and not an image",
    "slide-label": "the image of a slide's label, or of the glass with its label (LABEL, OVERVIEW)",
    "slide-thumbnail": "a picture of a slide beside its levels (THUMBNAIL, LOCALIZER)",
    "slide-background": "tiles of a slide that are background are left out; the detail says how many",
}
"""Files that were never meant to be images: counted, not held against the archive."""

REASONS: Mapping[str, str] = {
    # What the file is.
    WRONG_MODALITY: "the modality is not the one that the preprocessing expects",
    "no-pixels": "the object has no pixel data",
    "unsupported": "a kind of image that is not taken in (a video, a volume among slices, more than three samples, "
    "three samples of one bit, a Siemens mosaic without its private elements)",
    "slide-resolution": "the slide does not say its resolution, or has no level for the one that is asked for",
    "no-window": "the window is to come from the file, and the file has none or one that cannot be used",
    "missing-identifier": "an identifier that the dataset needs is missing or not valid",
    # How it is damaged.
    "truncated": "the file ends before its data does",
    "unreadable": "the file cannot be parsed",
    "undecodable": "the pixel data cannot be decoded",
    "surplus-data": "there are more pixel data than the header says: frames, fragments or bytes are left over",
    # Which limit it breaks: see imaging.dicom.limits.
    "too-large": "the file, a frame or a volume is larger than the limit",
    "too-deep": "sequences lie in one another deeper than the limit",
    "too-many-elements": "the data set has more elements than the limit",
    "inflate-bomb": "the deflated data set becomes far larger than such data do",
    # What it did to the process that read it: see imaging.sandbox.
    "decoder-crashed": "the process that read the file ended",
    "decoder-hung": "reading the file took longer than the limit",
    "out-of-memory": "reading the file needed more memory than the limit",
    # What happened on its way out of an archive: see imaging.sources.archive.
    "archive-escape": "the name of the member leads out of the archive",
    "archive-link": "the member is a link or a device, not a file",
    "archive-bomb": "the member becomes far larger than it says or than such data do",
    "archive-encrypted": "the member is encrypted",
    "nested-archive": "the member is an archive itself",
    # Why slices make no volume: see imaging.dicom.findings.
    "bad-slice": "slices are bad, missing or of another patient, more than the policy (drop-study, drop-slice) allows",
    "bad-study": "another slice of the study is bad, and the policy is drop-study",
    "no-geometry": "the slices do not tell where they lie",
    "no-volume": "the slices make no volume: localizers, or one place at several times",
    # Why a mask is not one of its image: see imaging.annotations.masks.
    "mask-grid": "the mask lies on another grid than its image: another size, spacing, orientation or position",
    "mask-frame-of-reference": "the mask is in another frame of reference than its image",
    "mask-empty": "the segmentation has no segments or no frames, or the structure set has no contours",
    "mask-segments": "segments of a mask have the same number or no description, or two files draw one class",
    "mask-values": "the mask has values that are given to no class",
    "mask-absent-slice": "a contour lies in a slice that the volume does not have",
    "two-masks": "two lines of the mask table give the image the same class",
    "no-mask-file": "the file that the mask table names is not there",
    "no-mask": "the mask table does not name the image",
    # What was there before.
    "duplicate-instance": "the same SOPInstanceUID with the same pixels was already taken in",
    "duplicate-pixels": "the same pixels were already taken in under another SOPInstanceUID",
    CONFLICTING_INSTANCE: "the same SOPInstanceUID was already taken in with other pixels",
}
"""Files that should have been images and are not usable; each is listed in the report."""

NO_LOSS = frozenset(
    {
        WRONG_MODALITY,
        "no-pixels",
        "no-volume",
        "duplicate-instance",
        "duplicate-pixels",
        CONFLICTING_INSTANCE,
        "bad-study",
    }
)
"""Reasons that cost a study none of its slices, so that the policy drop-study leaves it alone."""

DEIDENTIFICATION_REASONS: Mapping[str, str] = {
    "burned-in-text": "there is text in the pixels, or the object says so",
    "burned-in-doubt": "the pixels could not be searched for text",
    "face": "the images may show a face: a volume of the head, or features that the object calls recognizable",
    "document": "a structured report, a PDF or another document, whose text cannot be vouched for",
    CONFLICTING_OBJECT: "the same SOPInstanceUID stands with other content",
}
"""Objects that are not passed on de-identified, beside those that cannot be read (`REASONS`)."""

MEANINGS: Mapping[str, str] = {**IGNORED, **REASONS, **DEIDENTIFICATION_REASONS}
"""What each reason in the ledger of a de-identified folder means."""
