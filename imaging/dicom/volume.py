"""Owns the way from slices in any order to volumes: which belong together, in which order, and where they lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from imaging.dicom.attributes import Attributes
from imaging.dicom.findings import Finding
from imaging.dicom.geometry import Matrix, Spacing, affine, normal
from imaging.dicom.slice_grouping import Indices, Part, Table, direction, divide, keep_apart, places, tabulate

OFF_GRID = 0.01
"""How far a slice may lie from its place on the even grid, as a share of the step between slices."""
ROUNDING_MM = 0.01
"""And at least this far: positions are often written with two decimals."""
OFF_LINE = 0.1
"""How far a slice may be shifted within its plane, as a share of a pixel."""
TILT_DEG = 0.1
"""A smaller tilt is within the rounding of direction cosines (COSINE_TOLERANCE is 0.06 degrees)."""
SAME_STEP = 0.05
"""Steps that differ by less were meant to be the same."""
STRETCH = 3
"""So many equal steps in a row are a protocol; fewer are slices that were lost."""

SPACING_FINDINGS = {
    "ImagerPixelSpacing": "detector-spacing",
    "NominalScannedPixelSpacing": "scanned-spacing",
    "PixelAspectRatio": "relative-spacing",
    None: "no-spacing",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stack:
    """Slices of one volume, ordered along the normal (the cross product of a row's and a column's direction).

    `order` are the indices of the slices as they were given, `places` their slice index k in the volume: 0, 1, 2
    and so on, but for gaps, where numbers are left out. `affine` maps (column, row, k, 1) to mm in LPS.
    `spacing_mm` is (slice, row, column); that of slices is the distance of their planes, measured along the normal.
    `label` says which of several volumes of a series it is, and is empty for the only one.
    """

    order: tuple[int, ...]
    places: tuple[int, ...]
    affine: Matrix
    spacing_mm: tuple[float, float, float]
    findings: tuple[Finding, ...]
    label: str


@dataclass(frozen=True, slots=True)
class Sorted:
    """The volumes that slices make, and which slices are in none, each with its reason, a key of FINDINGS."""

    stacks: tuple[Stack, ...]
    left: tuple[tuple[int, str], ...]


def stack(slices: Sequence[Attributes]) -> Sorted:
    """Sort slices, or frames of an enhanced object, into volumes by their geometry; InstanceNumber is not believed.

    Each slice comes out once: in one stack, or in `left`. Nothing is merged: copies of a position that something
    tells apart (time, echo, b-value, type, acquisition) make stacks of their own; of copies that nothing tells
    apart the one with the lowest InstanceNumber stays and the others are left.
    """
    table, left = tabulate(slices)
    stacks: list[Stack] = []
    for part in keep_apart(table):
        cosines = direction(table, part.members)
        kept, copies = _without_copies(table, part, cosines)
        left += [(int(n), "duplicate-position") for n in table.index[copies]]
        stacks += [_lay_out(table, one, cosines) for one in _stretches(table, kept, normal(cosines))]
    return Sorted(tuple(stacks), tuple(sorted(left)))


def _without_copies(table: Table, part: Part, cosines: Matrix) -> tuple[Part, Indices]:
    """Return a part in the order of places with one slice at each, and the other slices at these places."""
    if len(part.members) == 1:
        return part, part.members[:0]
    place = places(table, part.members, cosines)
    number = table.columns["InstanceNumber"][part.members, 0]
    uid = table.columns["SOPInstanceUID"][part.members, 0]
    order = np.lexsort((uid, number, place))
    again = np.diff(place[order], prepend=-1) == 0
    kept, copies = part.members[order[~again]], part.members[order[again]]
    note = (Finding("duplicate-position", f"slices: {len(copies)}"),) if len(copies) else ()
    return Part(kept, part.label, (*part.findings, *note)), copies


def _stretches(table: Table, part: Part, unit: Matrix) -> list[Part]:
    """Cut a part in order where the step between slices changes for good, as from 2.5 to 5 mm in a head CT."""
    if len(part.members) <= 2 * STRETCH:
        return [part]
    steps = np.diff(table.position_mm[part.members] @ unit)
    changes = np.flatnonzero(np.abs(np.diff(np.log(steps))) > SAME_STEP) + 1
    runs = zip([0, *changes], [*changes, len(steps)], strict=True)
    long = [(start, end) for start, end in runs if end - start >= STRETCH]
    starts = [
        end + 1
        for (start, end), (following, _) in pairwise(long)
        if abs(np.log(steps[following] / steps[start])) > SAME_STEP
    ]
    codes = np.searchsorted(starts, np.arange(len(part.members)), side="right")
    return divide(part, codes, "stretch", "mixed-spacing")


def _lay_out(table: Table, part: Part, cosines: Matrix) -> Stack:
    """Place ordered slices on an even grid, and note what does not fit it."""
    first = part.members[0]
    spacing, unit, position_mm = table.spacing[first], normal(cosines), table.position_mm[part.members]
    grid, step_mm = _grid(position_mm, unit, _thickness(table, first))
    off_mm = position_mm - position_mm[0] - grid[:, None] * step_mm
    distance = float(step_mm @ unit)
    findings = (
        *part.findings,
        *_spacing_findings(spacing),
        *(_missing(grid) if len(grid) > 1 else [Finding("single-slice", f"step: {distance:g} mm")]),
        *_misplaced(off_mm, unit, distance, spacing),
        *_tilt(step_mm, distance),
        *_other_step(table.columns["SpacingBetweenSlices"][first, 0], distance),
    )
    return Stack(
        order=tuple(table.index[part.members].tolist()),
        places=tuple(grid.tolist()),
        affine=affine(cosines, spacing, position_mm[0], step_mm),
        spacing_mm=(distance, spacing.row_mm, spacing.column_mm),
        findings=findings,
        label=", ".join(part.label),
    )


def _grid(position_mm: Matrix, unit: Matrix, thickness_mm: float) -> tuple[NDArray[np.int64], Matrix]:
    """Return the slice index of each ordered position, and the way (3,) from one index to the next in mm.

    The middle step is the unit; the way is taken over all slices, so that the rounding of positions averages out.
    """
    if len(position_mm) == 1:
        return np.zeros(1, np.int64), unit * thickness_mm
    steps = np.diff(position_mm @ unit)
    middle = np.sort(steps)[(len(steps) - 1) // 2]
    grid = np.concatenate([[0], np.maximum(1, np.rint(steps / middle)).astype(np.int64).cumsum()])
    return grid, (position_mm[-1] - position_mm[0]) / grid[-1]


def _thickness(table: Table, member: np.intp) -> float:
    told = [abs(table.columns[name][member, 0]) for name in ("SpacingBetweenSlices", "SliceThickness")]
    return next((float(value) for value in told if value > 0), 1.0)


def _spacing_findings(spacing: Spacing) -> list[Finding]:
    return [] if spacing.source == "PixelSpacing" else [Finding(SPACING_FINDINGS[spacing.source])]


def _missing(grid: NDArray[np.int64]) -> list[Finding]:
    missing = np.diff(grid) - 1
    if not missing.any():
        return []
    return [Finding("gap", f"slices missing: {missing.sum()}, gaps: {np.count_nonzero(missing)}")]


def _misplaced(off_mm: Matrix, unit: Matrix, distance: float, spacing: Spacing) -> list[Finding]:
    along = off_mm @ unit
    uneven = float(np.abs(along).max())
    crooked = float(np.linalg.norm(off_mm - along[:, None] * unit, axis=1).max())
    pixel = min(spacing.row_mm, spacing.column_mm)
    found = {
        "uneven-spacing": (uneven, max(OFF_GRID * distance, ROUNDING_MM)),
        "crooked": (crooked, max(OFF_LINE * pixel, ROUNDING_MM)),
    }
    return [Finding(code, f"up to {off:.3g} mm") for code, (off, limit) in found.items() if off > limit]


def _tilt(step_mm: Matrix, distance: float) -> list[Finding]:
    degrees = float(np.degrees(np.arccos(min(1.0, distance / float(np.linalg.norm(step_mm))))))
    return [Finding("tilted", f"{degrees:.2f} degrees")] if degrees > TILT_DEG else []


def _other_step(told: float, distance: float) -> list[Finding]:
    # Some scanners write a direction into the sign, and zero where they know nothing.
    if np.isnan(told) or told == 0 or abs(abs(told) / distance - 1) <= SAME_STEP:
        return []
    return [Finding("other-step", f"told: {abs(told):g} mm, found: {distance:g} mm")]
