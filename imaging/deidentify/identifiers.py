"""Owns what identifies somebody in a data set: the values by kind, and how people spell each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pydicom.dataset import Dataset

from imaging.deidentify.spellings import as_it_is, of_date, of_name, of_number, of_place

Kind = Literal["name", "id", "uid", "date", "place", "device", "text"]

SPELLINGS: Mapping[Kind, Callable[[str], frozenset[str]]] = MappingProxyType(
    {
        "name": of_name,
        "id": of_number,
        "uid": as_it_is,
        "date": of_date,
        "place": of_place,
        "device": of_number,
        "text": as_it_is,
    }
)


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
    """Return the ways in which people write a value, itself among them unless it is too short to point to somebody."""
    return SPELLINGS[identifier.kind](identifier.value)
