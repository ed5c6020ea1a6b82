"""Specification of a model's input: what is taken in, how it is shown, and at which size."""

from collections.abc import Mapping
from difflib import get_close_matches
from math import inf, isfinite
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from imaging.image.instance import SLIDES
from imaging.image.window import IDENTITY, Window
from imaging.release_compatibility import Since, config_digest

Order = Literal["window-resize", "resize-window"]
LEVELS = 255
"""The brightest grey level of a prepared image."""

MODALITIES = (
    *(
        "CT",
        "MR",
        "PT",
        "NM",
        "US",
        "CR",
        "DX",
        "MG",
        "XA",
        "RF",
        "OT",
        "XC",
        "ES",
        "DMS",
        "OP",
        "OPT",
        "OPM",
    ),
    *("OPTENF", "SM", "GM", "CFM", "OCT", "IVUS", "IVOCT", "PX", "IO", "RG", "BMD", "BDUS", "PA", "BI", "DG"),
    *("LS", "TG", "HC", "RTIMAGE", "RTDOSE", "SEG"),
    # Retired ones, which old archives have.
    *(
        "AS",
        "CD",
        "CF",
        "CP",
        "CS",
        "DD",
        "DF",
        "DM",
        "DS",
        "EC",
        "FA",
        "FS",
        "LP",
        "MA",
        "MS",
        "OPR",
        "ST",
        "VF",
    ),
)
"""Modalities (0008,0060) of objects with pixels, of the defined terms of PS3.3 C.7.3.1.1.1."""

COLLOQUIAL: Mapping[str, tuple[str, ...]] = {
    "CAT": ("CT",),
    "CTA": ("CT",),
    "FLUORO": ("RF",),
    "MAMMO": ("MG",),
    "MRI": ("MR",),
    "MRA": ("MR",),
    "PET": ("PT",),
    "PETCT": ("PT", "CT"),
    "SONO": ("US",),
    "SPECT": ("NM",),
    "ULTRASOUND": ("US",),
    "XRAY": ("DX", "CR"),
}
"""What people and older objects call modalities, without blanks and signs; a longer name may begin so."""

UNITS: Mapping[str, tuple[str, str]] = {
    "slice": ("files", "images"),
    # A NIfTI file, or an object that names no series, is listed by itself.
    "volume": ("series or single files", "volumes"),
}
"""What a source lists and what is taken in of it, by the kind of an example."""

DEFAULT_WINDOWS: Mapping[str, dict[str, float]] = {"CT": {"center": 40, "width": 400}}
"""Windows of modalities whose units are the same on every scanner; others are shown as their files say ("auto")."""


def nearest_modalities(given: str) -> tuple[str, ...]:
    """Return the modalities that a wrong name may mean, the most likely first; none where nothing is near.

    >>> [nearest_modalities(name) for name in ("MRI", "x-ray", "RTDSE", "film")]
    [('MR',), ('DX', 'CR'), ('RTDOSE',), ()]
    """
    plain = "".join(filter(str.isalnum, given.upper()))
    called = next(
        (COLLOQUIAL[name] for name in sorted(COLLOQUIAL, reverse=True) if plain.startswith(name)), ()
    )
    return called or tuple(get_close_matches(plain, MODALITIES, n=3, cutoff=0.7))


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default")


class PreprocessSpec(BaseModel):
    """How an image becomes a model's input; its digest names the prepared pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="by hand")

    modality: str = Field(
        "CT", title="Modality", description="Modality (0008,0060) that is taken in; others are quarantined."
    )
    kind: Literal["slice", "volume"] = Field(
        "slice",
        title="Kind",
        description="What one example is: an image or frame, or a whole stack of slices.",
    )
    window: Window | Annotated[Literal["file", "auto"], Field(title="of the file")] = Field(
        Window(center=40, width=400),
        title="Window",
        description="A fixed window in modality units, center/width as in 40/400; 'file' for each file's own; 'auto' "
        "for the file's own or, where it has none, one from the 0.5th to the 99.5th percentile of its values. "
        "Default: 40/400 for CT, 'auto' for others.",
        # A form that is filled in with the window of CT would give it to other modalities too.
        json_schema_extra=_without_default,
    )
    window_number: int = Field(
        1,
        ge=1,
        le=16,
        title="Number of the window",
        description="Which of the windows and tables of a file, where it offers several.",
    )
    order: Order = Field(
        "window-resize",
        title="Order",
        description="Which comes first; the two differ by up to 86 of 255 levels.",
    )
    size_px: int = Field(
        64, ge=16, le=1024, title="Size (pixels)", description="Side of the square model input, in pixels."
    )
    slices: int = Field(32, ge=2, le=512, title="Slices", description="Slices of a volume.")
    spacing_mm: tuple[float, float, float] | None = Field(
        None,
        title="Spacing (mm)",
        description="Distance of slices, rows and columns of a volume, which is then cropped or padded to size; "
        "default: the whole volume is scaled to size.",
    )
    slide_mpp: Annotated[float | None, Since("0.2.0")] = Field(
        None,
        ge=0.1,
        le=20,
        title="Resolution of slides (µm)",
        description="Whole slides are cut into tiles of this resolution, in micrometres a pixel; default: each frame "
        "of a slide is an image.",
    )
    slide_tissue: Annotated[float, Since("0.2.0")] = Field(
        0.1,
        ge=0,
        le=1,
        title="Share of tissue",
        description="Tiles of a slide in which a smaller share of the pixels is coloured are background, and are left "
        "out; 0 keeps all.",
    )

    @model_validator(mode="before")
    @classmethod
    def _window_of_modality(cls, given: Any) -> Any:
        """Read a window of the form CENTER/WIDTH; without one, take that of the modality, which is SM of slides."""
        if not isinstance(given, Mapping):
            return given
        if given.get("slide_mpp") is not None and given.get("modality") is None:
            given = {**given, "modality": SLIDES}
        stated = given.get("modality")
        if isinstance(stated, str) and stated.strip().upper() in MODALITIES:
            given = {**given, "modality": stated.strip().upper()}
        window = given.get("window")
        if window is None:
            window = DEFAULT_WINDOWS.get(given.get("modality", "CT"), "auto")
        elif isinstance(window, str) and window not in ("file", "auto"):
            center, _, width = window.partition("/")
            try:
                window = {"center": float(center), "width": float(width)}
            except ValueError:
                raise ValueError(
                    f"window is {window!r}: give CENTER/WIDTH as in 40/400, 'file' or 'auto'"
                ) from None
            if not (isfinite(window["center"]) and 1 < window["width"] < inf):
                raise ValueError(
                    f"the window {center}/{width} has a width of {width}: it must be above 1, and both must be finite"
                )
        return {**given, "window": window}

    @model_validator(mode="after")
    def _spacing_is_positive(self) -> Self:
        if self.spacing_mm is not None and not all(0.05 <= mm <= 50 for mm in self.spacing_mm):
            raise ValueError(f"spacing_mm is {self.spacing_mm}, each must be between 0.05 and 50 mm")
        return self

    @model_validator(mode="after")
    def _slides_have_no_depth(self) -> Self:
        if self.slide_mpp is not None and self.kind != "slice":
            raise ValueError(
                f"slide_mpp is {self.slide_mpp}, tiles of slides are of kind slice, not {self.kind}"
            )
        return self

    @model_validator(mode="after")
    def _tissue_is_of_slides(self) -> Self:
        if self.slide_mpp is None and self.slide_tissue != type(self).model_fields["slide_tissue"].default:
            raise ValueError(
                f"slide_tissue is {self.slide_tissue:g} and there is no slide_mpp, without which slides are not cut "
                "into tiles: give slide_mpp in micrometres a pixel, or leave slide_tissue out"
            )
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
    def window_text(self) -> str:
        """The window as a person writes it.

        >>> PreprocessSpec().window_text, PreprocessSpec(modality="MR").window_text
        ('40/400', 'auto')
        """
        return (
            f"{self.window.center:g}/{self.window.width:g}"
            if isinstance(self.window, Window)
            else self.window
        )

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
        """The window inside the portable model; a window of the file or its values is applied before the model."""
        return self.window if isinstance(self.window, Window) else IDENTITY

    @property
    def input_units(self) -> str:
        """What a consumer hands to the portable model."""
        if self.portable_window == IDENTITY:
            return "grey levels 0..255"
        return "Hounsfield units" if self.modality == "CT" else "modality units"
