"""Preparation of a volume: from an image of slices to a model's input of grey levels (slices, rows, columns)."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from imaging.errors import DataFault
from imaging.image.image import Image
from imaging.preprocess.resample import crop_or_pad, resample
from imaging.preprocess.slice import choose_voi, shown_levels, squared_levels, to_levels
from imaging.preprocess.spec import PreprocessSpec


def prepare_volume(image: Image, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Return the grey levels `spec.shape` of a volume (slices, rows, columns); `spec.order` applies to each plane.

    With `spacing_mm` the volume is resampled to it, and its middle is cropped or padded with black to the size;
    without, the whole volume is scaled to the size. Planes are resampled first, then the axis of slices, so that no
    second volume of the full size is made. Raises DataFault "no-volume", "no-geometry" or "too-large".
    """
    if len(image.stored) < 2:
        raise DataFault(
            "no-volume", "one slice alone would be drawn out over all slices of the model's input"
        )
    if spec.window == "auto":
        # One window for all planes: each by its own percentiles would not be comparable with the next.
        image = replace(image, vois=(choose_voi(image, spec),) * spec.window_number)
    if spec.spacing_mm is None:
        planes = np.stack([squared_levels(plane, spec) for plane in _planes(image)])
        return to_levels(resample(planes, (1.0, 1.0, 1.0), (len(planes) / spec.slices, 1.0, 1.0)))
    spacing, new_spacing = _spacing(image), spec.spacing_mm
    planes = np.concatenate([_plane_at(plane, spec, spacing, new_spacing) for plane in _planes(image)])
    volume = resample(planes, (spacing[0], 1.0, 1.0), (new_spacing[0], 1.0, 1.0))
    return to_levels(crop_or_pad(volume, (spec.slices, spec.size_px, spec.size_px), 0))


def _planes(image: Image) -> Iterator[Image]:
    spacing = image.spacing_mm[1:] if image.spacing_mm else None
    for stored in image.stored:
        yield replace(image, stored=stored, spacing_mm=spacing)


def _plane_at(
    plane: Image, spec: PreprocessSpec, spacing: tuple[float, ...], new_spacing: tuple[float, ...]
) -> NDArray[np.float32]:
    before, after = (1.0, spacing[1], spacing[2]), (1.0, new_spacing[1], new_spacing[2])
    if spec.order == "window-resize":
        levels = resample(shown_levels(plane, spec)[None], before, after)
    else:
        # Padding has no weight in the mean, and darkens the result by its share.
        mask = plane.padded
        measured = np.ones(plane.stored.shape, np.float32) if mask is None else (~mask).astype(np.float32)
        share = resample(measured[None], before, after)
        mean = resample((plane.values * measured)[None], before, after) / np.maximum(share, np.float32(1e-6))
        averaged = replace(plane, stored=mean[0], slope=1.0, intercept=0.0, padding=None)
        levels = shown_levels(averaged, spec) * share
    return np.asarray(crop_or_pad(levels, (1, spec.size_px, spec.size_px), 0))


def _spacing(image: Image) -> tuple[float, ...]:
    if image.spacing_mm is None or len(image.spacing_mm) != 3:
        raise DataFault("no-geometry", "the volume does not tell its spacing, and spacing_mm asks for one")
    return image.spacing_mm
