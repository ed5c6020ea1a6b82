"""Findings about images and about the volumes that slices make: a code and its meaning in one table."""

from dataclasses import dataclass

FINDINGS: dict[str, str] = {
    # Why a slice is in no volume.
    "no-geometry": "the position or the orientation of the slice is missing or damaged",
    "bad-orientation": "the direction cosines are not of length 1 or not at a right angle",
    "duplicate-position": "the same position comes again and nothing tells the copies apart: the first is kept",
    # Why slices of a series are in several volumes.
    "several-series": "the slices are of several series",
    "mixed-orientation": "the slices are turned differently, as localizers are",
    "mixed-size": "the slices differ in rows or columns",
    "mixed-spacing": "the pixel spacing differs, or the distance of the slices does from one stretch to the next",
    "several-stacks": "the series says that it has several stacks (StackID)",
    "several-times": "the same positions come at several times",
    "several-echoes": "the same positions come with several echo times",
    "several-b-values": "the same positions come with several diffusion weightings",
    "several-types": "the same positions come as several types of image (ImageType), as magnitude and phase",
    "several-acquisitions": "the same positions come from several acquisitions",
    "side-by-side": "several fields of view lie beside each other in the same planes",
    "copies-untold": "the same positions come several times and only the instance numbers tell them apart",
    # What is to be known of a volume.
    "gap": "slices are missing between others",
    "slices-dropped": "slices that could not be used were left out of the series (the policy drop-slice)",
    "uneven-spacing": "slices lie off the even grid along the normal that the affine describes",
    "crooked": "slices lie off a straight line within their planes",
    "tilted": "the way from slice to slice is not along the normal: the affine is sheared",
    "other-step": "SpacingBetweenSlices differs from the distance of the positions, which is taken",
    "single-slice": "a slice stands alone, as a localizer or one place at one time, and is in no volume",
    "localizer": "the images were made to plan others (ImageType LOCALIZER, or few slices in each of three planes that "
    "cross), and are in no volume",
    "detector-spacing": "the spacing is that at the detector, not in the patient (ImagerPixelSpacing)",
    "scanned-spacing": "the spacing is that of a scanned film, not of the patient (NominalScannedPixelSpacing)",
    "relative-spacing": "only the ratio of the spacings is known (PixelAspectRatio)",
    "no-spacing": "no spacing is known: pixels count as 1 mm",
    # What is to be known of an image.
    "unusable-window": "a window or VOI LUT of the file cannot be used; the others keep their numbers",
    "no-number": "values that are no numbers (NaN) are padding, which is black",
    "dark-picture": "a picture of 16 bits whose largest value is below 4096: nearly black in its own window, which is "
    "0 to 65535; for 12 bits give `--modality OT --window 2048/4096`",
    # What is to be known of pixel data.
    "padded-pixels": "a few bytes or zeros follow the last frame, and are left out",
    "surplus-groups": "there are more items of functional groups than frames: the first are used",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding about a volume, for a person or a policy; `code` is a key of FINDINGS, `detail` holds numbers."""

    code: str
    detail: str = ""
