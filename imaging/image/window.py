"""VOI transforms (PS3.3 C.11.2): linear and sigmoid windows and tables, from modality units to 0..1."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class Window(BaseModel):
    """A linear VOI window in modality units, PS3.3 C.11.2.1.2.1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    center: float = Field(
        allow_inf_nan=False, description="Window Center (0028,1050), in modality units (Hounsfield for CT)."
    )
    width: float = Field(
        gt=1, allow_inf_nan=False, description="Window Width (0028,1051), in modality units; more than 1."
    )

    @property
    def bounds(self) -> tuple[float, float]:
        """The values that become black and white.

        >>> Window(center=128, width=256).bounds
        (0.0, 255.0)
        """
        half = (self.width - 1) / 2
        return self.center - 0.5 - half, self.center - 0.5 + half

    def show(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return values as 0..1."""
        lower, upper = self.bounds
        shown: NDArray[np.float32] = (values - np.float32(lower)) / np.float32(upper - lower)
        return shown.clip(0, 1)


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """A sigmoid VOI window in modality units, PS3.3 C.11.2.1.3.1."""

    center: float
    width: float

    def show(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return values as 0..1.

        >>> Sigmoid(40.0, 400.0).show(np.array([40.0], np.float32))
        array([0.5], dtype=float32)
        """
        with np.errstate(over="ignore"):
            shown = 1 / (1 + np.exp(-4 * (values - np.float32(self.center)) / np.float32(self.width)))
        return np.asarray(shown, np.float32)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A VOI window without a slope: values above `level` are white, all others black (PS3.3 C.11.2.1.2.1, note 5)."""

    level: float

    def show(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return values as 0..1.

        >>> Threshold(127.5).show(np.array([127, 128], np.float32))
        array([0., 1.], dtype=float32)
        """
        return np.asarray(values > np.float32(self.level), np.float32)


@dataclass(frozen=True, eq=False, slots=True)
class Lut:
    """A modality LUT or VOI LUT (PS3.3 C.11.1, C.11.2): the value `first` maps to the first of `entries`.

    White is the largest number of `bits` bits.
    """

    first: int
    bits: int
    entries: NDArray[Any]

    def look_up(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the entries of values; values outside of the table take the first or the last entry."""
        rounded = np.rint(values) if values.dtype.kind == "f" else values
        index = np.clip(rounded.astype(np.int64) - self.first, 0, len(self.entries) - 1)
        entries: NDArray[Any] = self.entries[index]
        return entries

    def show(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return values as 0..1."""
        return (self.look_up(values) / np.float32(2**self.bits - 1)).astype(np.float32)


Voi = Window | Sigmoid | Threshold | Lut
"""Each has `show`, from modality units to 0..1."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A window or table of a file that cannot be used, and why; it has its place, so that the others keep theirs."""

    why: str


IDENTITY = Window(center=128, width=256)
"""The window of images that are grey levels of 0..255 already."""
