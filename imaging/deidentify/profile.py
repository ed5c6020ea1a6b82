"""Owns the table of PS3.15 Annex E: what is to be done with which attribute, under which options."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from imaging.deidentify.options import DeidentifyOptions
from imaging.errors import EnvironmentFault

Action = Literal["D", "Z", "X", "K", "C", "U"]
"""Dummy value, zero length, removed, kept, cleaned, or UIDs replaced (PS3.15 table E.1-1a)."""

EDITION = "2026c"
FILE = Path(__file__).with_name("profile.json")

RESOLVED: dict[str, Action] = {
    "D": "D", "Z": "Z", "X": "X", "K": "K", "C": "C", "U": "U",
    "Z/D": "D", "X/D": "D", "X/Z/D": "D", "X/Z": "Z", "X/Z/U*": "U",
}  # fmt: skip
"""A dummy is valid in every IOD, an empty value wherever removal would be; so one action for each code."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of table E.1-1: an attribute or a pattern of attributes, and its code in each column."""

    tag: str
    """Eight hex digits; x stands for any digit; `odd` for all private elements."""
    name: str
    basic: str
    options: tuple[tuple[str, str], ...] = ()
    """Column (a key of `COLUMNS`) and code, where the column has an entry."""
    derived: bool = False
    """Whether the columns of options were derived from the attribute's kind, as no source had them."""


@dataclass(frozen=True, eq=False)
class Profile:
    """The table of one edition."""

    edition: str
    sha256: str
    rows: tuple[Row, ...]

    def action(self, tag: int, options: DeidentifyOptions) -> Action | None:
        """Return what is to be done with an attribute, or None where the table has no row for it.

        >>> load_profile().action(0x00100010, DeidentifyOptions())
        'Z'
        """
        exact, patterns = _actions(self, options)
        found = exact.get(tag)
        if found is not None:
            return found
        return next((action for mask, value, action in patterns if tag & mask == value), None)


@cache
def load_profile() -> Profile:
    """Read the table beside this module.

    Raises:
        EnvironmentFault: its rows are not those that its hash was made of.
    """
    raise NotImplementedError


@cache
def _actions(
    profile: Profile, options: DeidentifyOptions
) -> tuple[dict[int, Action], list[tuple[int, int, Action]]]:
    raise NotImplementedError
