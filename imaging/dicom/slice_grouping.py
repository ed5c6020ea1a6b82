"""Grouping of slices that can be one volume.

Slices that differ in one of TRAITS are never of one volume. Those that differ in one of COPY_TRAITS are separated only
where the same position occurs more than once: a single volume may have another trigger time for each slice.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imaging.dicom.attributes import Attributes, text
from imaging.dicom.findings import Finding
from imaging.dicom.geometry import (
    COSINE_TOLERANCE,
    SPACINGS,
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
"""Slices closer along the normal are at one position: below the finest step of a scanner, above rounding."""
SAME_SPACING = 1e-3
"""Relative: over 512 pixels it adds up to half a pixel."""
FIELD_OF_VIEW_MM = 1.0
"""Fields of view in one plane that are farther apart are different on purpose; nearer, it is rounding or motion."""


@dataclass(frozen=True, slots=True)
class Trait:
    """A property in which slices may differ: columns of a table, and how far equal values may be from each other.

    The values of an `ordered` trait may be different at each position, as trigger times are: only their order counts.
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
FIELD_OF_VIEW = Trait("field of view", "side-by-side", (), FIELD_OF_VIEW_MM)
"""The only trait that is computed: the position of the first pixel within the plane."""
COPY_TRAITS = (
    FIELD_OF_VIEW,
    Trait("type", "several-types", ("ImageType",)),
    Trait("echo", "several-echoes", ("EchoTime", "EffectiveEchoTime")),
    Trait("acquisition", "several-acquisitions", ("AcquisitionNumber",), ordered=True),
    Trait("time", "several-times", ("TriggerTime",), ordered=True),
    Trait("copy", "copies-untold", ("InstanceNumber",), ordered=True),
)
"""The first that separates all copies of a position, or some of them, is used; then the next for the rest."""

TEXTS = ("SeriesInstanceUID", "SOPInstanceUID", "StackID", "ImageType")
NUMBERS = (
    *("Rows", "Columns", "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoNumbers", "EchoTime"),
    *("EffectiveEchoTime", "DiffusionBValue", "AcquisitionNumber", "TriggerTime", "InstanceNumber"),
    *("SpacingBetweenSlices", "SliceThickness"),
)
STACKING_ATTRIBUTES = (*TEXTS, *NUMBERS, *SPACINGS, "ImagePositionPatient", "ImageOrientationPatient")


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceTable:
    """The headers of n slices with a geometry, as columns (n, values); `index` is the place of each in the input.

    An absent number is NaN; a text is its rank among the texts of all slices.
    """

    index: Indices
    position_mm: Matrix
    spacing: tuple[Spacing, ...]
    columns: Mapping[str, Matrix]


@dataclass(frozen=True, slots=True, eq=False)
class SliceGroup:
    """Slices that may be one volume: rows of a table, how they differ from other groups, and findings."""

    members: Indices
    label: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def tabulate(slices: Sequence[Attributes]) -> tuple[SliceTable, list[tuple[int, str]]]:
    """Return the table of the slices that have a geometry, and the others, each with a key of FINDINGS."""
    faults = [geometry_fault(one) for one in slices]
    good = [n for n, fault in enumerate(faults) if not fault]
    kept = [slices[n] for n in good]
    spacing = tuple(pixel_spacing(one) for one in kept)
    columns = {keyword: _numbers(kept, keyword) for keyword in NUMBERS}
    columns |= {keyword: _ranks(kept, keyword) for keyword in TEXTS}
    columns["localizer"] = np.array([[_is_localizer(one)] for one in kept], np.float64).reshape(-1, 1)
    columns["orientation"] = np.array([orientation(one) for one in kept], np.float64).reshape(-1, 6)
    pairs = np.array([(one.row_mm, one.column_mm) for one in spacing], np.float64).reshape(-1, 2)
    columns["log spacing"] = np.log(pairs)
    position_mm = np.array([position(one) for one in kept], np.float64).reshape(-1, 3)
    table = SliceTable(
        index=np.array(good, np.intp), position_mm=position_mm, spacing=spacing, columns=columns
    )
    return table, [(n, fault) for n, fault in enumerate(faults) if fault]


def geometry_fault(attributes: Attributes) -> str:
    """Return why a slice can be in no volume, a key of FINDINGS, or an empty text."""
    cosines = orientation(attributes)
    if cosines is None or position(attributes) is None:
        return "no-geometry"
    return "" if is_orthonormal(cosines) else "bad-orientation"


def group_slices(table: SliceTable) -> list[SliceGroup]:
    """Return groups of slices, none of which has slices of different volumes."""
    groups = [SliceGroup(np.arange(len(table.index)))] if len(table.index) else []
    for trait in TRAITS:
        groups = [smaller for group in groups for smaller in _divide_by(table, group, trait)]
    return [smaller for group in groups for smaller in _separate_copies(table, group, COPY_TRAITS)]


def divide(group: SliceGroup, codes: Indices | None, noun: str, finding: str) -> list[SliceGroup]:
    """Return the slices of each code as a group, in the order of the codes; the group itself where there is one."""
    if codes is None:
        return [group]
    counts = np.bincount(codes)
    total = len(counts)
    if total == 1:
        return [group]
    divided = np.split(group.members[np.argsort(codes, kind="stable")], counts.cumsum()[:-1])
    findings = (*group.findings, Finding(finding, f"{noun}: {total}"))
    return [
        SliceGroup(members, (*group.label, f"{noun} {n} of {total}"), findings)
        for n, members in enumerate(divided, 1)
    ]


def direction(table: SliceTable, members: Indices) -> Matrix:
    """Return the cosines (6,) of all members: their median, which does not depend on their order."""
    cosines = table.columns["orientation"][members]
    middle: Matrix = cosines[0] if len(members) == 1 else np.median(cosines, axis=0)
    return middle


def place_numbers(table: SliceTable, members: Indices, cosines: Matrix) -> Indices:
    """Return the number of the position of each member along their normal, from 0 on; copies have the same one."""
    return cluster(table.position_mm[members] @ normal(cosines), SAME_PLACE_MM)


def cluster(values: Matrix, tolerance: float) -> Indices:
    """Return the cluster number of values (n,), from the smallest on; in a cluster they differ by at most `tolerance`.

    >>> cluster(np.array([5.0, 1.0, 5.0005]), 1e-3)
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


def _separate_copies(table: SliceTable, group: SliceGroup, traits: Sequence[Trait]) -> list[SliceGroup]:
    """Return a group in which positions repeat divided by the first traits that separate the copies."""
    if not traits or len(group.members) == 1:
        return [group]
    cosines = direction(table, group.members)
    place = place_numbers(table, group.members, cosines)
    if _largest_count(place) == 1:
        return [group]
    trait = traits[0]
    if trait is FIELD_OF_VIEW:
        values = table.position_mm[group.members] @ cosines.reshape(2, 3).T
    else:
        values = _values(table, group.members, trait)
    codes = _copy_codes(_codes(values, trait.tolerance), place, ordered=trait.ordered)
    divided = divide(group, codes, trait.noun, trait.finding)
    return [smaller for one in divided for smaller in _separate_copies(table, one, traits[1:])]


def _divide_by(table: SliceTable, group: SliceGroup, trait: Trait) -> list[SliceGroup]:
    if len(group.members) == 1:
        return [group]
    codes = _codes(_values(table, group.members, trait), trait.tolerance)
    return divide(group, codes, trait.noun, trait.finding)


def _copy_codes(codes: Indices | None, place: Indices, *, ordered: bool) -> Indices | None:
    """Return a number of each slice that separates copies of a position, or None.

    Codes with few values that leave fewer copies are used as they are. Where each position has values of its own,
    their order is used, but only if all positions have equally many: if one is missing, it is not known which.
    """
    copies = _largest_count(place)
    if codes is None:
        return None
    total = int(codes.max()) + 1
    if total <= copies and _largest_count(place * total + codes) < copies:
        return codes
    if not ordered or len(codes) != copies * (place.max() + 1):
        return None
    order = np.lexsort((codes, place))
    if not np.diff(codes[order].reshape(-1, copies), axis=1).all():
        return None
    ranks = np.empty_like(codes)
    ranks[order] = np.arange(len(codes)) % copies
    return ranks


def _values(table: SliceTable, members: Indices, trait: Trait) -> Matrix:
    return np.hstack([table.columns[name][members] for name in trait.columns])


def _codes(values: Matrix, tolerance: float) -> Indices | None:
    """Return the number of each row of values (n, m) among the different rows; None where all rows are the same."""
    same = (values == values[0]) | (np.isnan(values) & np.isnan(values[0]))
    varying = values[:, ~same.all(axis=0)].T
    if not varying.size:
        return None
    codes = [cluster(one, tolerance) if tolerance else _distinct(one) for one in varying]
    return codes[0] if len(codes) == 1 else _distinct(np.stack(codes, axis=1))


def _distinct(values: NDArray[np.float64] | Indices) -> Indices:
    inverse: Indices = np.unique(values, axis=0, return_inverse=True)[1]
    return inverse.reshape(-1)


def _largest_count(place: Indices) -> int:
    return int(np.unique(place, return_counts=True)[1].max())


def _is_localizer(attributes: Attributes) -> bool:
    """Return whether an image was made to plan others: value 3 of ImageType (PS3.3 C.8.2.1.1.1, C.8.16.1.3)."""
    return text(attributes, "ImageType").split("\\")[2:3] == ["LOCALIZER"]


def _numbers(slices: Sequence[Attributes], keyword: str) -> Matrix:
    values = [
        value[0] if isinstance(value := one.get(keyword), tuple) and value else np.nan for one in slices
    ]
    return np.array(values, np.float64)[:, None]


def _ranks(slices: Sequence[Attributes], keyword: str) -> Matrix:
    texts = [value if isinstance(value := one.get(keyword), str) else "" for one in slices]
    rank = {text: n for n, text in enumerate(sorted(set(texts)))}
    return np.array([rank[text] for text in texts], np.float64)[:, None]
