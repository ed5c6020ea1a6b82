"""Masks of class numbers on the grid of their source, the classes that are read, and the image that a mask is of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.errors import DataFault, UserFault
from imaging.image.source_grid import SourceGrid
from imaging.preprocess.inverse import BACKGROUND, UNKNOWN, Mask

MOST_CLASSES = UNKNOWN - 1
"""A mask has a byte for each pixel, of which 0 and 255 have their meaning."""
QUOTED_VALUES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskClasses:
    """Classes that are read of masks: `names` are those of the classes 1, 2 and so on; 0 is the background.

    Names of segments and regions are compared without case and repeated blanks; `aliases` are other names of a class.
    `values` are the values of NIfTI and PNG masks with the class of each, where they are no class numbers; 255 there
    is unknown. A class comes out on top of those before it where a file has several at one pixel.
    """

    names: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        spelled = [folded(name) for name in self.names]
        if not 1 <= len(self.names) <= MOST_CLASSES or "" in spelled or len({*spelled}) < len(spelled):
            raise UserFault(f"mask classes are {list(self.names)}: give 1 to {MOST_CLASSES} different names")
        wrong = {*self.values.values()} - {*range(len(self.names) + 1), UNKNOWN}
        if wrong or any(folded(name) not in spelled for name in self.aliases.values()):
            raise UserFault(
                f"a value or another name of a mask is given to a class beyond {list(self.names)}: give it a name, or "
                "a number from 0 on of these, or 255 for unknown"
            )

    @property
    def numbers(self) -> frozenset[int]:
        """The numbers of the classes without the background."""
        return frozenset(range(1, len(self.names) + 1))

    def numbers_of(self, labels: Mapping[int, str]) -> dict[int, int]:
        """Return the classes of segments or regions by their names, without those that are not read."""
        known = {folded(name): number for number, name in enumerate(self.names, 1)}
        others = {folded(other): known[folded(name)] for other, name in self.aliases.items()}
        class_of = others | known
        spelled = {number: folded(label) for number, label in labels.items()}
        return {number: class_of[label] for number, label in spelled.items() if label in class_of}

    def of_values(self, stored: NDArray[Any]) -> Mask:
        """Return the class numbers of values; raise DataFault "mask-values" for others than those of the classes."""
        class_of = dict(self.values) or {number: number for number in (BACKGROUND, *self.numbers)}
        present = np.unique(stored).tolist()
        strange = [value for value in present if value not in class_of]
        if strange:
            quoted = ", ".join(f"{value:g}" for value in strange[:QUOTED_VALUES])
            more = f" and {len(strange) - QUOTED_VALUES} more" if len(strange) > QUOTED_VALUES else ""
            raise DataFault(
                "mask-values",
                f"the mask has the values {quoted}{more}, and classes are given for {sorted(class_of)[:20]}: give each "
                "value its class",
            )
        numbers = np.zeros(stored.shape, np.uint8)
        for value in present:
            numbers[stored == value] = class_of[value]
        return numbers

    def to_json(self) -> dict[str, Any]:
        """Return the classes as a JSON value, as they travel into the sandbox."""
        values = [[value, number] for value, number in self.values.items()]
        return {"names": list(self.names), "aliases": dict(self.aliases), "values": values}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "MaskClasses":
        """Return the classes of a JSON value."""
        values = {int(one): int(number) for one, number in value["values"]}
        return cls(names=tuple(value["names"]), aliases=value["aliases"], values=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskTarget:
    """Image that a mask is of: its grid, and the identifiers by which DICOM masks name it, "" where not known.

    `instances` are the SOPInstanceUIDs of the slices in their order, or that of the one object; `frame` counts from 1
    in an object of several frames.
    """

    grid: SourceGrid
    instances: tuple[str, ...] = ()
    frame: int = 0
    frame_of_reference_uid: str = ""
    stated_frames_of_reference: list[str] = field(default_factory=list, compare=False)
    """UIDs that masks stated: where pseudonyms stand for that of the image, they are compared outside."""

    def check_frame_of_reference(self, uid: str) -> None:
        """Raise DataFault "mask-frame-of-reference" where a mask states another one."""
        own = self.frame_of_reference_uid
        self.stated_frames_of_reference.append(uid)
        if own and uid and own != uid:
            raise DataFault(
                "mask-frame-of-reference",
                "the FrameOfReferenceUID of the mask is not that of its image: places in one mean nothing in the other",
            )

    def to_json(self) -> dict[str, Any]:
        """Return the target as a JSON value, as it travels into the sandbox."""
        return {
            "grid": self.grid.to_json(),
            "instances": list(self.instances),
            "frame": self.frame,
            "frame_of_reference_uid": self.frame_of_reference_uid,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "MaskTarget":
        """Return the target of a JSON value."""
        return cls(
            grid=SourceGrid.from_json(value["grid"]),
            instances=tuple(value["instances"]),
            frame=value["frame"],
            frame_of_reference_uid=value["frame_of_reference_uid"],
        )


@dataclass(frozen=True, slots=True, eq=False)
class SourceMask:
    """Class numbers (grid.shape) on the grid of an image: 0 background, 255 unknown.

    `unknown_classes` were not drawn: where they are, the mask has another class or the background.
    """

    classes: Mask
    unknown_classes: frozenset[int]


def folded(name: str) -> str:
    """Return what the spellings of a name share.

    >>> folded(" Left  Ventricle")
    'left ventricle'
    """
    return " ".join(name.casefold().split())


def stacked(parts: Mapping[int, SourceMask], grid: SourceGrid, classes: MaskClasses) -> SourceMask:
    """Return the mask of a volume of masks of its slices, by slice; slices without one are unknown.

    A class that was not drawn in one of the slices is unknown in all: nobody knows where it is there.
    """
    whole = np.full(grid.size, UNKNOWN, np.uint8)
    for number, part in parts.items():
        whole[number] = part.classes.reshape(grid.size[1:])
    unknown = frozenset[int]().union(*(part.unknown_classes for part in parts.values()))
    return SourceMask(whole.reshape(grid.shape), unknown if parts else classes.numbers)


def merged(parts: Iterable[SourceMask], classes: MaskClasses) -> SourceMask:
    """Return the mask of several files of one image, each with classes of its own.

    Raises DataFault "mask-segments" where two of them draw one class.
    """
    masks = list(parts)
    if len(masks) == 1:
        return masks[0]
    drawn = [classes.numbers - mask.unknown_classes for mask in masks]
    twice = {number for number in classes.numbers if sum(number in one for one in drawn) > 1}
    if twice:
        names = ", ".join(classes.names[number - 1] for number in sorted(twice))
        raise DataFault("mask-segments", f"{len(masks)} files of one image draw the same class: {names}")
    whole = np.zeros(masks[0].classes.shape, np.uint8)
    for mask in masks:
        # 255 is the highest number: what one file calls unknown stays so.
        np.maximum(whole, mask.classes, out=whole)
    return SourceMask(whole, classes.numbers.difference(*drawn))
