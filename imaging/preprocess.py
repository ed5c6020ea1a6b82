"""Owns the way from an image in modality units to a model's input, and its exact inverse on grey levels.

The order is fixed: window, inversion of MONOCHROME1, area-exact resize into a square, rounding to 256 levels.
Window before resize and resize before window differ by up to 86 levels, so the order is part of the model.
"""

import hashlib
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

LEVELS = 255
"""The brightest grey level of a prepared image."""


class Window(BaseModel):
    """A linear VOI window in modality units, PS3.3 C.11.2.1.2.1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    center: float = Field(description="Window Center (0028,1050), in modality units (Hounsfield for CT).")
    width: float = Field(gt=1, description="Window Width (0028,1051), in modality units; more than 1.")

    @property
    def bounds(self) -> tuple[float, float]:
        """The values that map to black and to white.

        >>> Window(center=128, width=256).bounds
        (0.0, 255.0)
        """
        half = (self.width - 1) / 2
        return self.center - 0.5 - half, self.center - 0.5 + half


IDENTITY = Window(center=128, width=256)
"""The window that maps 0..255 to 0..255: for images that are grey levels already."""


class PreprocessSpec(BaseModel):
    """How an image becomes a model's input; its digest names the prepared pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modality: str = Field("CT", description="Modality (0008,0060) that is taken in; others are quarantined.")
    window: Window | Literal["file"] = Field(
        Window(center=40, width=400),
        description="A fixed window in modality units, or 'file' to use each file's own.",
    )
    size_px: int = Field(64, ge=16, le=1024, description="Side of the square model input, in pixels.")

    @classmethod
    def grey_levels(cls, size_px: int) -> Self:
        """Return the spec of images that are 0..255 already (MedMNIST)."""
        return cls(modality="OT", window=IDENTITY, size_px=size_px)

    @property
    def digest(self) -> str:
        """The name of this spec: 16 hex digits of its content."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @property
    def portable_window(self) -> Window:
        """The window inside the portable model; a file's own window is applied before the model."""
        return IDENTITY if self.window == "file" else self.window

    @property
    def input_units(self) -> str:
        """What a consumer hands to the portable model."""
        if self.window in ("file", IDENTITY):
            return "grey levels 0..255"
        return "Hounsfield units" if self.modality == "CT" else "modality units"


def area_weights(length: int, side: int, size: int) -> NDArray[np.float32]:
    """Return (size, length) weights that average `length` pixels, centred in a square of `side`, into `size`.

    Row i holds the share of pixel j in output i; what lies outside the image counts as black.

    >>> area_weights(4, 4, 2)
    array([[0.5, 0.5, 0. , 0. ],
           [0. , 0. , 0.5, 0.5]], dtype=float32)
    """
    step = side / size
    start = np.arange(size)[:, None] * step
    pixel = np.arange(length)[None, :] + (side - length) // 2
    overlap = np.minimum(start + step, pixel + 1) - np.maximum(start, pixel)
    weights: NDArray[np.float32] = (np.clip(overlap, 0, None) / step).astype(np.float32)
    return weights


def prepare(
    values: NDArray[np.float32], window: Window, size_px: int, *, inverted: bool = False
) -> NDArray[np.uint8]:
    """Map (height, width) modality units to (size_px, size_px) grey levels.

    `inverted` is MONOCHROME1: the lowest value is shown white, after the window (PS3.3 C.7.6.3.1.2).
    """
    lower, upper = window.bounds
    shown = np.clip((values - np.float32(lower)) / np.float32(upper - lower), 0, 1, dtype=np.float32)
    if inverted:
        shown = 1 - shown
    height, width = values.shape
    side = max(height, width)
    small = area_weights(height, side, size_px) @ shown @ area_weights(width, side, size_px).T
    levels: NDArray[np.uint8] = np.rint(small * LEVELS).astype(np.uint8)
    return levels


def to_modality_units(levels: NDArray[np.uint8], window: Window) -> NDArray[np.float32]:
    """Return values that `prepare` maps back to exactly these levels, for rows that meet a portable model."""
    lower, upper = window.bounds
    return (lower + levels.astype(np.float32) * ((upper - lower) / LEVELS)).astype(np.float32)
