"""Specification of a model's input: what is taken in, how it is shown, and at which size."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from imaging.image.window import IDENTITY, Window
from imaging.release_compatibility import config_digest

Order = Literal["window-resize", "resize-window"]
LEVELS = 255
"""The brightest grey level of a prepared image."""


class PreprocessSpec(BaseModel):
    """How an image becomes a model's input; its digest names the prepared pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modality: str = Field("CT", description="Modality (0008,0060) that is taken in; others are quarantined.")
    kind: Literal["slice", "volume"] = Field(
        "slice", description="What one example is: an image or frame, or a whole stack of slices."
    )
    window: Window | Literal["file"] = Field(
        Window(center=40, width=400),
        description="A fixed window in modality units, or 'file' to use each file's own.",
    )
    window_number: int = Field(
        1, ge=1, le=16, description="Which of the windows and tables of a file, where it offers several."
    )
    order: Order = Field(
        "window-resize", description="Which comes first; the two differ by up to 86 of 255 levels."
    )
    size_px: int = Field(64, ge=16, le=1024, description="Side of the square model input, in pixels.")
    slices: int = Field(32, ge=2, le=512, description="Slices of a volume.")
    spacing_mm: tuple[float, float, float] | None = Field(
        None,
        description="Distance of slices, rows and columns of a volume, which is then cropped or padded to size; "
        "default: the whole volume is scaled to size.",
    )

    @model_validator(mode="after")
    def _spacing_is_positive(self) -> Self:
        if self.spacing_mm is not None and not all(0.05 <= mm <= 50 for mm in self.spacing_mm):
            raise ValueError(f"spacing_mm is {self.spacing_mm}, each must be between 0.05 and 50 mm")
        return self

    @classmethod
    def grey_levels(cls, size_px: int) -> Self:
        """Return the spec of images that are 0..255 already (MedMNIST)."""
        return cls(modality="OT", window=IDENTITY, size_px=size_px)

    @property
    def digest(self) -> str:
        """The name of this spec: 16 hex digits of its content."""
        return config_digest(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one prepared example.

        >>> PreprocessSpec(kind="volume", slices=8).shape
        (8, 64, 64)
        """
        plane = (self.size_px, self.size_px)
        return plane if self.kind == "slice" else (self.slices, *plane)

    @property
    def channels(self) -> int:
        """How many planes one example has: the slices of a volume are the channels of its network."""
        return 1 if self.kind == "slice" else self.slices

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
