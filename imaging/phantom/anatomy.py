"""Anatomy of the phantom: chest slices of ellipses in Hounsfield units, drawn from a seed."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

FIELD_MM = 380.0
AIR_HU = -1000.0
NOISE_HU = 25.0
VESSELS = (6, 11)
VESSEL_RADIUS_MM = (1.2, 3.0)
VESSEL_HU = (-300.0, 0.0)
LESION_RADIUS_MM = (9.0, 15.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ellipse:
    """One organ: its centre, from the middle of the field (x to the left hand, y to the back), semi-axes, value."""

    x_mm: float
    y_mm: float
    a_mm: float
    b_mm: float
    hu: float
    angle: float = 0.0

    def inside(self, share: float, turn: float) -> tuple[float, float]:
        """Return the point at `share` of the way from the centre to the edge in direction `turn`."""
        return self.x_mm + share * self.a_mm * math.cos(turn), self.y_mm + share * self.b_mm * math.sin(turn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chest:
    """One patient's chest, the same in every study but for its vessels; `lesion` is None in a healthy one."""

    organs: tuple[Ellipse, ...]
    lungs: tuple[Ellipse, Ellipse]
    lesion: Ellipse | None


def sample_chest(rng: np.random.Generator, *, lesion: bool) -> Chest:
    """Draw one patient."""
    scale = rng.uniform(0.9, 1.05)
    air = rng.normal(-850, 25)
    right, left = (
        Ellipse(
            x_mm=side * 72 * scale,
            y_mm=rng.uniform(-8, 8),
            a_mm=rng.uniform(46, 56) * scale,
            b_mm=rng.uniform(72, 86) * scale,
            hu=air,
        )
        for side in (-1, 1)
    )
    organs = (
        Ellipse(x_mm=0, y_mm=0, a_mm=160 * scale, b_mm=rng.uniform(100, 118) * scale, hu=-90),
        Ellipse(x_mm=0, y_mm=0, a_mm=148 * scale, b_mm=96 * scale, hu=40),
        right,
        left,
        Ellipse(x_mm=22, y_mm=-22, a_mm=rng.uniform(36, 48), b_mm=rng.uniform(30, 40), hu=45, angle=0.5),
        Ellipse(x_mm=0, y_mm=68 * scale, a_mm=17, b_mm=19, hu=400),
    )
    return Chest(organs=organs, lungs=(right, left), lesion=_lesion(rng, (right, left)) if lesion else None)


def paint(
    chest: Chest, size_px: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return (size, size) Hounsfield units of a slice with fresh vessels and noise, and the mask of the lesion."""
    hu = np.full((size_px, size_px), AIR_HU)
    for ellipse in (*chest.organs, *_vessels(rng, chest.lungs)):
        _blend(hu, ellipse)
    mask = np.zeros(hu.shape, dtype=np.bool_)
    if chest.lesion:
        mask = _blend(hu, _cut(rng, chest.lesion)) >= 0.5
    return hu + rng.normal(0, NOISE_HU, hu.shape), mask


def _lesion(rng: np.random.Generator, lungs: tuple[Ellipse, Ellipse]) -> Ellipse:
    x_mm, y_mm = _place(rng, lungs, 0.7)
    radius = rng.uniform(*LESION_RADIUS_MM)
    return Ellipse(x_mm=x_mm, y_mm=y_mm, a_mm=radius, b_mm=radius, hu=rng.uniform(20, 60))


def _cut(rng: np.random.Generator, lesion: Ellipse) -> Ellipse:
    """Return the lesion as it is in one slice: moved a little, never thinner than the smallest lesion."""
    radii = np.maximum(lesion.a_mm * rng.uniform(0.8, 1.0, 2), LESION_RADIUS_MM[0])
    x_mm, y_mm = lesion.x_mm + rng.normal(0, 1.5), lesion.y_mm + rng.normal(0, 1.5)
    return replace(lesion, x_mm=x_mm, y_mm=y_mm, a_mm=float(radii[0]), b_mm=float(radii[1]))


def _vessels(rng: np.random.Generator, lungs: tuple[Ellipse, Ellipse]) -> list[Ellipse]:
    """Return the vessels of a slice: as bright as a lesion, but thin."""
    vessels = []
    for _ in range(rng.integers(*VESSELS)):
        x_mm, y_mm = _place(rng, lungs, 0.85)
        thin = rng.uniform(*VESSEL_RADIUS_MM)
        vessels.append(
            Ellipse(
                x_mm=x_mm,
                y_mm=y_mm,
                a_mm=thin * rng.uniform(1.0, 3.0),
                b_mm=thin,
                hu=rng.uniform(*VESSEL_HU),
                angle=rng.uniform(0, math.pi),
            )
        )
    return vessels


def _place(rng: np.random.Generator, lungs: tuple[Ellipse, Ellipse], reach: float) -> tuple[float, float]:
    # The square root spreads the points evenly over the area.
    return lungs[rng.integers(2)].inside(reach * math.sqrt(rng.uniform()), rng.uniform(0, 2 * math.pi))


def _blend(hu: NDArray[np.float64], ellipse: Ellipse) -> NDArray[np.float64]:
    """Paint one ellipse into `hu` and return how much of each pixel it covers, with soft edges."""
    pixel_mm = FIELD_MM / len(hu)
    thin = min(ellipse.a_mm, ellipse.b_mm)
    cosine, sine = math.cos(ellipse.angle), math.sin(ellipse.angle)
    # Only where it reaches: most are small.
    reach = 1 + pixel_mm / thin
    across = _near(ellipse.x_mm, reach * math.hypot(ellipse.a_mm * cosine, ellipse.b_mm * sine), len(hu))
    down = _near(ellipse.y_mm, reach * math.hypot(ellipse.a_mm * sine, ellipse.b_mm * cosine), len(hu))
    at = (np.arange(len(hu)) + 0.5) * pixel_mm - FIELD_MM / 2
    x, y = at[None, across] - ellipse.x_mm, at[down, None] - ellipse.y_mm
    radius = np.hypot((x * cosine + y * sine) / ellipse.a_mm, (y * cosine - x * sine) / ellipse.b_mm)
    share = np.zeros(hu.shape)
    share[down, across] = np.clip((1 - radius) * thin / pixel_mm + 0.5, 0, 1)
    hu[down, across] += share[down, across] * (ellipse.hu - hu[down, across])
    return share


def _near(middle_mm: float, reach_mm: float, size_px: int) -> slice:
    """Return the pixels of an axis that are within reach of a point of it."""
    first, last = ((middle_mm + side * reach_mm + FIELD_MM / 2) * size_px / FIELD_MM for side in (-1, 1))
    return slice(max(math.floor(first), 0), max(math.ceil(last), 0))
