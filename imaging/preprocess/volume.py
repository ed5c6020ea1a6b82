"""Owns the way from a volume in modality units to a model's input of slices, rows and columns."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from imaging.errors import DataFault
from imaging.image.image import Image
from imaging.preprocess.resample import crop_or_pad, resample
from imaging.preprocess.slice import shown_levels, squared_levels, to_levels
from imaging.preprocess.spec import PreprocessSpec


def prepare_volume(image: Image, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Map a volume (slices, rows, columns) to grey levels `spec.shape`; `spec.order` is that within each plane.

    With `spacing_mm` it is resampled to it, and its middle is cropped or padded with black to the size; without, the
    whole of it is scaled to the size. Each plane comes first, then the way through the planes: so no second
    volume of the full size is ever made.
    """
    if spec.spacing_mm is None:
        planes = np.stack([squared_levels(plane, spec) for plane in _planes(image)])
        return to_levels(resample(planes, (1.0, 1.0, 1.0), (len(planes) / spec.slices, 1.0, 1.0)))
    spacing, wanted = _spacing(image), spec.spacing_mm
    planes = np.concatenate([_plane_at(plane, spec, spacing, wanted) for plane in _planes(image)])
    volume = resample(planes, (spacing[0], 1.0, 1.0), (wanted[0], 1.0, 1.0))
    return to_levels(crop_or_pad(volume, (spec.slices, spec.size_px, spec.size_px), 0))


def _planes(image: Image) -> Iterator[Image]:
    spacing = image.spacing_mm[1:] if image.spacing_mm else None
    for stored in image.stored:
        yield replace(image, stored=stored, spacing_mm=spacing)


def _plane_at(
    plane: Image, spec: PreprocessSpec, spacing: tuple[float, ...], wanted: tuple[float, ...]
) -> NDArray[np.float32]:
    before, after = (1.0, spacing[1], spacing[2]), (1.0, wanted[1], wanted[2])
    if spec.order == "window-resize":
        drawn = resample(shown_levels(plane, spec)[None], before, after)
    else:
        # What was not measured has no weight in the mean, and darkens by its share.
        mask = plane.padded
        measured = np.ones(plane.stored.shape, np.float32) if mask is None else (~mask).astype(np.float32)
        share = resample(measured[None], before, after)
        mean = resample((plane.values * measured)[None], before, after) / np.maximum(share, np.float32(1e-6))
        meant = replace(plane, stored=mean[0], slope=1.0, intercept=0.0, padding=None)
        drawn = shown_levels(meant, spec) * share
    return np.asarray(crop_or_pad(drawn, (1, spec.size_px, spec.size_px), 0))


def _spacing(image: Image) -> tuple[float, ...]:
    if image.spacing_mm is None or len(image.spacing_mm) != 3:
        raise DataFault("no-geometry", "the volume does not tell its spacing, and spacing_mm asks for one")
    return image.spacing_mm
