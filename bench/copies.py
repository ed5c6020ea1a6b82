"""Images among which near duplicates are searched for, and the ways in which copies of them are made."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pydicom import dcmread

from imaging.dataset.split.fingerprint import fingerprints
from imaging.image.image import Image, rescale
from imaging.image.window import IDENTITY, Window
from imaging.phantom.anatomy import paint, sample_chest
from imaging.preprocess.slice import prepare
from imaging.preprocess.spec import PreprocessSpec

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images in modality units with their patients, and how they are shown."""

    name: str
    values: Sequence[np.ndarray]
    patients: np.ndarray
    window: Window
    size: int

    def prepared(self, values: np.ndarray) -> np.ndarray:
        spec = PreprocessSpec(size_px=self.size, window=self.window)
        return prepare(Image(stored=values.astype(np.float32)), spec)

    def fingerprints(self, values: Sequence[np.ndarray]) -> np.ndarray:
        return fingerprints(np.stack([self.prepared(one) for one in values]))


Copy = Callable[[Images, np.ndarray], np.ndarray]
"""Values of an image to its copy, prepared."""


def again(*sizes: float, filters: Sequence[int]) -> Copy:
    """Return what resizes values to these shares of their size, one after the other, and prepares them."""

    def copy(images: Images, values: np.ndarray) -> np.ndarray:
        side, changed = len(values), values.astype(np.float32)
        for share, how in zip(sizes, filters, strict=True):
            changed = cv2.resize(changed, (round(side * share),) * 2, interpolation=how)
        return images.prepared(changed)

    return copy


def levelled(change: Callable[[np.ndarray], np.ndarray]) -> Copy:
    """Return what changes the prepared grey levels."""

    def copy(images: Images, values: np.ndarray) -> np.ndarray:
        return np.clip(change(images.prepared(values).astype(int)), 0, 255).astype(np.uint8)

    return copy


def jpeg(levels: np.ndarray) -> np.ndarray:
    """Return grey levels as JPEG at quality 90 gives them back."""
    written = cv2.imencode(".jpg", levels.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return cv2.imdecode(written, cv2.IMREAD_GRAYSCALE)


def jpeg_export(images: Images, values: np.ndarray) -> np.ndarray:
    """Show a whole image, write it as JPEG, and prepare that."""
    levels = np.rint(images.window.show(values.astype(np.float32)) * 255)
    return prepare(
        Image(stored=jpeg(levels)),
        PreprocessSpec.grey_levels(images.size).model_copy(update={"window": IDENTITY}),
    )


def speckled(levels: np.ndarray) -> np.ndarray:
    return levels + np.random.default_rng(0).integers(-1, 2, levels.shape)


AREA, LINEAR, CUBIC = cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC
LANCZOS, NEAREST = cv2.INTER_LANCZOS4, cv2.INTER_NEAREST
SAME: Mapping[str, Copy] = {
    "same pixels": levelled(lambda levels: levels),
    "+1 in every pixel": levelled(lambda levels: levels + 1),
    "-1 in every pixel": levelled(lambda levels: levels - 1),
    "-1, 0 or +1 in each": levelled(speckled),
    "JPEG 90 of the source": jpeg_export,
    "JPEG 90 of the prepared": levelled(jpeg),
}
RESIZED: Mapping[str, Copy] = {
    f"{int(share * 512)} of 512, {name}": again(share, filters=[how])
    for share in (0.5, 400 / 512)
    for name, how in {"area": AREA, "linear": LINEAR, "cubic": CUBIC, "Lanczos": LANCZOS}.items()
} | {"256 and back to 512": again(0.5, 1, filters=[AREA, CUBIC])}
SKIPPED: Mapping[str, Copy] = {
    f"{int(share * 512)} of 512, nearest pixel": again(share, filters=[NEAREST]) for share in (0.5, 400 / 512)
}


def data_folder() -> Path:
    return Path(os.environ.get("RADLOOP_DATA", Path(__file__).parent.parent.parent / "shared/data"))


def ct_contrast(size: int) -> Images:
    """Return the real slices in Hounsfield units."""
    files = [dcmread(path) for path in sorted((data_folder() / "ct-contrast").glob("*.dcm"))]
    return Images(
        name=f"ct-contrast at {size}",
        values=[
            rescale(one.pixel_array, float(one.RescaleSlope), float(one.RescaleIntercept)) for one in files
        ],
        patients=np.array([one.PatientID for one in files]),
        window=Window(center=40, width=400),
        size=size,
    )


def pneumonia() -> Images:
    """Return the radiographs; nobody knows their patients, so each is one of its own."""
    with np.load(data_folder() / "pneumoniamnist.npz") as file:
        values = np.concatenate([file[f"{part}_images"] for part in SPLITS])
    names = np.arange(len(values)).astype(str)
    return Images(name="pneumoniamnist", values=values, patients=names, window=IDENTITY, size=28)


def chests(patients: int, size_px: int) -> Images:
    """Paint one slice of each of these patients, whose chests are alike more than real ones are."""
    painted = [
        paint(
            sample_chest(np.random.default_rng([1, number]), lesion=bool(number % 2)),
            size_px,
            np.random.default_rng([2, number]),
        )
        for number in range(patients)
    ]
    return Images(
        name=f"painted chests, {size_px} px",
        values=[hu.astype(np.float32) for hu, _ in painted],
        patients=np.arange(patients).astype(str),
        window=Window(center=40, width=400),
        size=64,
    )
