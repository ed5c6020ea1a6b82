"""Owns what identifies somebody in a data set: the values by kind, and how people spell each."""

from dataclasses import dataclass
from typing import Literal

from pydicom.dataset import Dataset

Kind = Literal["name", "id", "uid", "date", "place", "device", "text"]


@dataclass(frozen=True, slots=True)
class Identifier:
    """One identifying value, decoded, and the tag of the element where it stood first."""

    kind: Kind
    value: str
    tag: int


def collect(dataset: Dataset) -> tuple[Identifier, ...]:
    """Return every identifying value of an original at every depth, private elements and file meta included."""
    raise NotImplementedError


def spellings(identifier: Identifier) -> frozenset[str]:
    """Return the ways in which people write a value, itself among them."""
    raise NotImplementedError
