"""Owns which slices cannot be of one volume, and what tells them apart.

Two tables: what differs in TRAITS keeps slices apart always; what differs in TELLING only where the same positions
come more than once, because a single volume may well have a trigger time for each slice.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imaging.dicom.attributes import Attributes
from imaging.dicom.findings import Finding
from imaging.dicom.geometry import (
    COSINE_TOLERANCE,
    Matrix,
    Spacing,
    is_orthonormal,
    normal,
    orientation,
    pixel_spacing,
    position,
)

Indices = NDArray[np.intp]

SAME_PLACE_MM = 1e-3
"""Slices closer along the normal are at one place: below the finest step of a scanner, above rounding."""
SAME_SPACING = 1e-3
"""Relative: over 512 pixels it adds up to half a pixel."""
BESIDE_MM = 1.0
"""Fields of view in one plane that are farther apart were meant to be; nearer, it is rounding or motion."""


@dataclass(frozen=True, slots=True)
class Trait:
    """What may differ among slices: columns of a table, and how far equal values may be from each other.

    The values of an `ordered` trait may be others at each position, as trigger times are: their order counts.
    """

    noun: str
    finding: str
    columns: tuple[str, ...]
    tolerance: float = 0.0
    ordered: bool = False


TRAITS = (
    Trait("series", "several-series", ("SeriesInstanceUID",)),
    Trait("orientation", "mixed-orientation", ("orientation",), COSINE_TOLERANCE),
    Trait("size", "mixed-size", ("Rows", "Columns")),
    Trait("spacing", "mixed-spacing", ("log spacing",), SAME_SPACING),
    Trait("stack", "several-stacks", ("StackID",)),
    Trait("time", "several-times", ("TemporalPositionIdentifier", "TemporalPositionIndex")),
    Trait("echo", "several-echoes", ("EchoNumbers",)),
    Trait("b-value", "several-b-values", ("DiffusionBValue",)),
)
BESIDE = Trait("field of view", "side-by-side", (), BESIDE_MM)
"""The only one whose values are computed: where the first pixel lies within the plane."""
TELLING = (
    BESIDE,
    Trait("type", "several-types", ("ImageType",)),
    Trait("echo", "several-echoes", ("EchoTime", "EffectiveEchoTime")),
    Trait("acquisition", "several-acquisitions", ("AcquisitionNumber",), ordered=True),
    Trait("time", "several-times", ("TriggerTime",), ordered=True),
    Trait("copy", "copies-untold", ("InstanceNumber",), ordered=True),
)
"""The first that tells all copies apart, or some of them, is taken; then the next for what is left."""

TEXTS = ("SeriesInstanceUID", "SOPInstanceUID", "StackID", "ImageType")
NUMBERS = (
    *("Rows", "Columns", "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoNumbers", "EchoTime"),
    *("EffectiveEchoTime", "DiffusionBValue", "AcquisitionNumber", "TriggerTime", "InstanceNumber"),
    *("SpacingBetweenSlices", "SliceThickness"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The headers of n slices with a geometry, as columns (n, values); `index` says where each was given.

    A number that is absent is NaN; a text is its rank among the texts of all slices.
    """

    index: Indices
    position_mm: Matrix
    spacing: tuple[Spacing, ...]
    columns: Mapping[str, Matrix]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Slices that may be one volume: rows of a table, how they were told from others, and what was found."""

    members: Indices
    label: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def tabulate(slices: Sequence[Attributes]) -> tuple[Table, list[tuple[int, str]]]:
    """Return the slices that have a geometry as a table, and the others with a key of FINDINGS each."""
    faults = [geometry_fault(one) for one in slices]
    good = [n for n, fault in enumerate(faults) if not fault]
    kept = [slices[n] for n in good]
    spacing = tuple(pixel_spacing(one) for one in kept)
    columns = {keyword: _numbers(kept, keyword) for keyword in NUMBERS}
    columns |= {keyword: _ranks(kept, keyword) for keyword in TEXTS}
    columns["orientation"] = np.array([orientation(one) for one in kept], np.float64).reshape(-1, 6)
    pairs = np.array([(one.row_mm, one.column_mm) for one in spacing], np.float64).reshape(-1, 2)
    columns["log spacing"] = np.log(pairs)
    position_mm = np.array([position(one) for one in kept], np.float64).reshape(-1, 3)
    table = Table(index=np.array(good, np.intp), position_mm=position_mm, spacing=spacing, columns=columns)
    return table, [(n, fault) for n, fault in enumerate(faults) if fault]


def geometry_fault(attributes: Attributes) -> str:
    """Return why a slice can be in no volume, a key of FINDINGS, or nothing."""
    cosines = orientation(attributes)
    if cosines is None or position(attributes) is None:
        return "no-geometry"
    return "" if is_orthonormal(cosines) else "bad-orientation"


def keep_apart(table: Table) -> list[Part]:
    """Divide slices into parts none of which mixes what belongs to different volumes."""
    parts = [Part(np.arange(len(table.index)))] if len(table.index) else []
    for trait in TRAITS:
        parts = [smaller for part in parts for smaller in _divide_by(table, part, trait)]
    return [told for part in parts for told in _tell_apart(table, part, TELLING)]


def divide(part: Part, codes: Indices | None, noun: str, finding: str) -> list[Part]:
    """Return the slices of each code as a part of its own, in the order of the codes."""
    if codes is None:
        return [part]
    counts = np.bincount(codes)
    total = len(counts)
    if total == 1:
        return [part]
    groups = np.split(part.members[np.argsort(codes, kind="stable")], counts.cumsum()[:-1])
    found = (*part.findings, Finding(finding, f"{noun}: {total}"))
    return [Part(group, (*part.label, f"{noun} {n} of {total}"), found) for n, group in enumerate(groups, 1)]


def direction(table: Table, members: Indices) -> Matrix:
    """Return the cosines (6,) that members share: the median, which does not depend on their order."""
    cosines = table.columns["orientation"][members]
    middle: Matrix = cosines[0] if len(members) == 1 else np.median(cosines, axis=0)
    return middle


def places(table: Table, members: Indices, cosines: Matrix) -> Indices:
    """Number the positions of members along their normal, from 0 on."""
    return near(table.position_mm[members] @ normal(cosines), SAME_PLACE_MM)


def near(values: Matrix, tolerance: float) -> Indices:
    """Number values (n,) from the smallest on, so that those of one number differ by at most the tolerance.

    >>> near(np.array([5.0, 1.0, 5.0005]), 1e-3)
    array([1, 0, 1])
    """
    order = np.argsort(values)
    ranked = values[order].tolist()
    starts = [0]
    while (after := bisect_right(ranked, ranked[starts[-1]] + tolerance, starts[-1])) < len(ranked):
        starts.append(after)
    codes = np.empty(len(ranked), np.intp)
    codes[order] = np.repeat(np.arange(len(starts)), np.diff([*starts, len(ranked)]))
    return codes


def _tell_apart(table: Table, part: Part, traits: Sequence[Trait]) -> Iterable[Part]:
    """Divide a part in which positions repeat by the first traits that explain it; what none explains stays."""
    if not traits or len(part.members) == 1:
        return [part]
    cosines = direction(table, part.members)
    place = places(table, part.members, cosines)
    if _most(place) == 1:
        return [part]
    trait = traits[0]
    if trait is BESIDE:
        values = table.position_mm[part.members] @ cosines.reshape(2, 3).T
    else:
        values = _values(table, part.members, trait)
    codes = _told(_codes(values, trait.tolerance), place, ordered=trait.ordered)
    smaller = divide(part, codes, trait.noun, trait.finding)
    return [told for one in smaller for told in _tell_apart(table, one, traits[1:])]


def _divide_by(table: Table, part: Part, trait: Trait) -> list[Part]:
    if len(part.members) == 1:
        return [part]
    codes = _codes(_values(table, part.members, trait), trait.tolerance)
    return divide(part, codes, trait.noun, trait.finding)


def _told(codes: Indices | None, place: Indices, *, ordered: bool) -> Indices | None:
    """Return numbers that tell copies of a position apart, or None.

    Few values that leave fewer copies are taken as they are. Where each position has values of its own, their
    order tells, but only if all positions have equally many: with one missing, nobody knows which.
    """
    copies = _most(place)
    if codes is None:
        return None
    total = int(codes.max()) + 1
    if total <= copies and _most(place * total + codes) < copies:
        return codes
    if not ordered or len(codes) != copies * (place.max() + 1):
        return None
    order = np.lexsort((codes, place))
    if not np.diff(codes[order].reshape(-1, copies), axis=1).all():
        return None
    ranks = np.empty_like(codes)
    ranks[order] = np.arange(len(codes)) % copies
    return ranks


def _values(table: Table, members: Indices, trait: Trait) -> Matrix:
    return np.hstack([table.columns[name][members] for name in trait.columns])


def _codes(values: Matrix, tolerance: float) -> Indices | None:
    """Number the different rows of values (n, m) from 0 on; None where there is only one."""
    same = (values == values[0]) | (np.isnan(values) & np.isnan(values[0]))
    varying = values[:, ~same.all(axis=0)].T
    if not varying.size:
        return None
    codes = [near(one, tolerance) if tolerance else _distinct(one) for one in varying]
    return codes[0] if len(codes) == 1 else _distinct(np.stack(codes, axis=1))


def _distinct(values: NDArray[np.float64] | Indices) -> Indices:
    inverse: Indices = np.unique(values, axis=0, return_inverse=True)[1]
    return inverse.reshape(-1)


def _most(place: Indices) -> int:
    return int(np.unique(place, return_counts=True)[1].max())


def _numbers(slices: Sequence[Attributes], keyword: str) -> Matrix:
    values = [
        value[0] if isinstance(value := one.get(keyword), tuple) and value else np.nan for one in slices
    ]
    return np.array(values, np.float64)[:, None]


def _ranks(slices: Sequence[Attributes], keyword: str) -> Matrix:
    texts = [value if isinstance(value := one.get(keyword), str) else "" for one in slices]
    rank = {text: n for n, text in enumerate(sorted(set(texts)))}
    return np.array([rank[text] for text in texts], np.float64)[:, None]
