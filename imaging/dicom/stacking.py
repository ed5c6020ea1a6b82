"""Stacking of slices, given in any order, into volumes: which belong together, their order, and their affine."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from imaging.dicom.attributes import Attributes
from imaging.dicom.findings import Finding
from imaging.dicom.geometry import Matrix, Spacing, affine, normal
from imaging.dicom.slice_grouping import (
    COPY_TRAITS,
    TRAITS,
    Indices,
    SliceGroup,
    SliceTable,
    direction,
    divide,
    group_slices,
    place_numbers,
    tabulate,
)

OFF_GRID = 0.01
"""How far a slice may be from its place on the even grid, as a share of the step between slices."""
ROUNDING_MM = 0.01
"""It may always be this far from it: positions are often written with two decimals."""
OFF_LINE = 0.1
"""How far a slice may be shifted within its plane, as a share of a pixel."""
TILT_DEG = 0.1
"""A smaller tilt is within the rounding of direction cosines (COSINE_TOLERANCE is 0.06 degrees)."""
SAME_STEP = 0.05
"""Relative: steps that differ by less are the same."""
STRETCH = 3
"""So many equal steps in a row are on purpose; fewer are slices that were lost."""

SAME_PLANE, TURNED = 0.9, 0.5
"""Cosines between normals: from the first on two stacks are of one plane, below the second of planes that cross."""
PLAN_SLICES = 20
"""At most so many slices are in each plane of a three-plane localizer; series of three whole volumes have more."""

NO_VOLUME = frozenset({"single-slice", "localizer"})
"""Findings about a stack that is no volume: one plane drawn out over all slices of a model, or a plan of the others."""

DIVIDING = frozenset(trait.finding for trait in (*TRAITS, *COPY_TRAITS))
"""Findings about what slices of a series differ in."""

SPACING_FINDINGS = {
    "ImagerPixelSpacing": "detector-spacing",
    "NominalScannedPixelSpacing": "scanned-spacing",
    "PixelAspectRatio": "relative-spacing",
    None: "no-spacing",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SliceStack:
    """Slices of one volume, ordered along the normal (the cross product of a row's and a column's direction).

    `order` are the indices of the slices in the input, `places` their slice index k in the volume: 0, 1, 2 and so on,
    but for gaps, where numbers are left out. `affine` maps (column, row, k, 1) to mm in LPS. `spacing_mm` is
    (slice, row, column); that of slices is the distance of their planes, measured along the normal. `label` names the
    volume among several of a series, and is empty for the only one.
    """

    order: tuple[int, ...]
    places: tuple[int, ...]
    affine: Matrix
    spacing_mm: tuple[float, float, float]
    findings: tuple[Finding, ...]
    label: str

    @property
    def is_volume(self) -> bool:
        """Whether it may be taken for a volume."""
        return NO_VOLUME.isdisjoint(self.codes)

    @property
    def codes(self) -> frozenset[str]:
        """The codes of its findings."""
        return frozenset(finding.code for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Stacking:
    """The volumes that slices make, and the slices that are in none, each with its reason, a key of FINDINGS."""

    stacks: tuple[SliceStack, ...]
    left_out: tuple[tuple[int, str], ...]

    @property
    def left_out_findings(self) -> tuple[str, ...]:
        """Why stacks are no volumes, and what they differ in: keys of FINDINGS."""
        codes = {finding.code for one in self.stacks if not one.is_volume for finding in one.findings}
        return tuple(sorted(codes & {*NO_VOLUME, *DIVIDING}))


def stack_slices(slices: Sequence[Attributes]) -> Stacking:
    """Return the volumes of slices, or of the frames of an enhanced object, by their geometry, not InstanceNumber.

    Each slice is in the result once: in one stack, or in `left_out`. Copies of a position that differ in time, echo,
    b-value, type or acquisition make stacks of their own; of other copies the one with the lowest InstanceNumber is
    used and the rest is left out.
    """
    table, left_out = tabulate(slices)
    stacks: list[SliceStack] = []
    for group in group_slices(table):
        cosines = direction(table, group.members)
        kept, copies = _without_copies(table, group, cosines)
        left_out += [(int(n), "duplicate-position") for n in table.index[copies]]
        stacks += [_stack(table, one, cosines) for one in _stretches(table, kept, normal(cosines))]
    if _is_three_plane(stacks):
        plan = Finding("localizer", "three planes that cross")
        stacks = [
            one if plan.code in one.codes else replace(one, findings=(*one.findings, plan)) for one in stacks
        ]
    return Stacking(tuple(stacks), tuple(sorted(left_out)))


def _is_three_plane(stacks: Sequence[SliceStack]) -> bool:
    """Return whether stacks are a three-plane localizer: few slices in each of three planes, across each other.

    Many scanners of MR write no LOCALIZER into ImageType.
    """
    if len(stacks) < 3:
        return False
    normals, counts = list[Matrix](), list[int]()
    for one in stacks:
        unit = np.cross(one.affine[:3, 0], one.affine[:3, 1])
        unit /= np.linalg.norm(unit)
        cosines = [abs(float(unit @ other)) for other in normals]
        at = next((n for n, cosine in enumerate(cosines) if cosine >= SAME_PLANE), len(normals))
        if at == len(normals):
            if any(cosine >= TURNED for cosine in cosines):
                return False
            normals.append(unit)
            counts.append(0)
        counts[at] += len(one.order)
    return len(counts) == 3 and max(counts) <= PLAN_SLICES


def _without_copies(table: SliceTable, group: SliceGroup, cosines: Matrix) -> tuple[SliceGroup, Indices]:
    """Return a group ordered by position with one slice at each, and the other slices at these positions."""
    if len(group.members) == 1:
        return group, group.members[:0]
    place = place_numbers(table, group.members, cosines)
    number = table.columns["InstanceNumber"][group.members, 0]
    uid = table.columns["SOPInstanceUID"][group.members, 0]
    order = np.lexsort((uid, number, place))
    again = np.diff(place[order], prepend=-1) == 0
    kept, copies = group.members[order[~again]], group.members[order[again]]
    note = (Finding("duplicate-position", f"slices: {len(copies)}"),) if len(copies) else ()
    return SliceGroup(kept, group.label, (*group.findings, *note)), copies


def _stretches(table: SliceTable, group: SliceGroup, unit: Matrix) -> list[SliceGroup]:
    """Return an ordered group divided where the step between slices changes, as from 2.5 to 5 mm in a head CT."""
    if len(group.members) <= 2 * STRETCH:
        return [group]
    steps = np.diff(table.position_mm[group.members] @ unit)
    changes = np.flatnonzero(np.abs(np.diff(np.log(steps))) > SAME_STEP) + 1
    runs = zip([0, *changes], [*changes, len(steps)], strict=True)
    long = [(start, end) for start, end in runs if end - start >= STRETCH]
    starts = [
        end + 1
        for (start, end), (following, _) in pairwise(long)
        if abs(np.log(steps[following] / steps[start])) > SAME_STEP
    ]
    codes = np.searchsorted(starts, np.arange(len(group.members)), side="right")
    return divide(group, codes, "stretch", "mixed-spacing")


def _stack(table: SliceTable, group: SliceGroup, cosines: Matrix) -> SliceStack:
    """Return ordered slices on an even grid, with findings about what does not fit it."""
    first = group.members[0]
    spacing, unit, position_mm = table.spacing[first], normal(cosines), table.position_mm[group.members]
    grid, step_mm = _grid(position_mm, unit, _thickness(table, first))
    off_mm = position_mm - position_mm[0] - grid[:, None] * step_mm
    distance = float(step_mm @ unit)
    findings = (
        *group.findings,
        *([] if spacing.source == "PixelSpacing" else [Finding(SPACING_FINDINGS[spacing.source])]),
        *([Finding("localizer")] if table.columns["localizer"][group.members].all() else []),
        *(_missing(grid) if len(grid) > 1 else [Finding("single-slice", f"step: {distance:g} mm")]),
        *_misplaced(off_mm, unit, distance, spacing),
        *_tilt(step_mm, distance),
        *_other_step(table.columns["SpacingBetweenSlices"][first, 0], distance),
    )
    return SliceStack(
        order=tuple(table.index[group.members].tolist()),
        places=tuple(grid.tolist()),
        affine=affine(cosines, spacing, position_mm[0], step_mm),
        spacing_mm=(distance, spacing.row_mm, spacing.column_mm),
        findings=findings,
        label=", ".join(group.label),
    )


def _grid(position_mm: Matrix, unit: Matrix, thickness_mm: float) -> tuple[NDArray[np.int64], Matrix]:
    """Return the slice index of each ordered position, and the vector (3,) from one index to the next in mm.

    The median step is one index; the vector is the mean over all slices, so that rounding of positions averages out.
    """
    if len(position_mm) == 1:
        return np.zeros(1, np.int64), unit * thickness_mm
    steps = np.diff(position_mm @ unit)
    middle = np.sort(steps)[(len(steps) - 1) // 2]
    grid = np.concatenate([[0], np.maximum(1, np.rint(steps / middle)).astype(np.int64).cumsum()])
    return grid, (position_mm[-1] - position_mm[0]) / grid[-1]


def _thickness(table: SliceTable, member: np.intp) -> float:
    stated = [abs(table.columns[name][member, 0]) for name in ("SpacingBetweenSlices", "SliceThickness")]
    return next((float(value) for value in stated if value > 0), 1.0)


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
    distances = {
        "uneven-spacing": (uneven, max(OFF_GRID * distance, ROUNDING_MM)),
        "crooked": (crooked, max(OFF_LINE * pixel, ROUNDING_MM)),
    }
    return [Finding(code, f"up to {off:.3g} mm") for code, (off, limit) in distances.items() if off > limit]


def _tilt(step_mm: Matrix, distance: float) -> list[Finding]:
    degrees = float(np.degrees(np.arccos(min(1.0, distance / float(np.linalg.norm(step_mm))))))
    return [Finding("tilted", f"{degrees:.2f} degrees")] if degrees > TILT_DEG else []


def _other_step(stated: float, distance: float) -> list[Finding]:
    # Some scanners write a direction into the sign, and zero for an unknown step.
    if np.isnan(stated) or stated == 0 or abs(abs(stated) / distance - 1) <= SAME_STEP:
        return []
    return [Finding("other-step", f"told: {abs(stated):g} mm, found: {distance:g} mm")]
