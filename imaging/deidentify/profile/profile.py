"""Table of PS3.15 Annex E: which action is taken on which attribute, under which options."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from imaging.deidentify.options import DeidentifyOptions
from imaging.errors import EnvironmentFault

Action = Literal["D", "Z", "X", "K", "C", "U"]
"""Dummy value, zero length, removed, kept, cleaned, or UIDs replaced (PS3.15 table E.1-1a)."""

EDITION = "2026c"
FILE = Path(__file__).with_name("profile.json")

DATES = "retain_longitudinal_modified_dates"
PRIVATE = "private"
"""Name of the row of all private elements, in place of a tag."""

RESOLVED: dict[str, Action] = {
    "D": "D", "Z": "Z", "X": "X", "K": "K", "C": "C", "U": "U",
    "Z/D": "D", "X/D": "D", "X/Z/D": "D", "X/Z": "Z", "X/Z/U*": "U",
}  # fmt: skip
"""A dummy is valid in every IOD, an empty value wherever removal would be; so one action for each code."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of table E.1-1: an attribute or a pattern of attributes, and its code in each column."""

    tag: str
    """Eight hex digits, where x stands for any digit; or `PRIVATE`."""
    name: str
    basic: str
    options: Mapping[str, str]
    """Code by column of an option, where the column has an entry; no column of this edition is derived."""

    @property
    def pattern(self) -> tuple[int, int]:
        """Mask and value: a tag belongs to this row where `tag & mask == value`."""
        if self.tag == PRIVATE:
            return 0x00010000, 0x00010000
        mask = "".join("0" if digit == "x" else "f" for digit in self.tag)
        return int(mask, 16), int(self.tag.replace("x", "0"), 16)


@dataclass(frozen=True, eq=False)
class Profile:
    """The table of one edition."""

    edition: str
    sha256: str
    rows: tuple[Row, ...]

    def action(self, tag: int, options: DeidentifyOptions) -> Action | None:
        """Return the action on an attribute, or None where the table has no row for it.

        >>> load_profile().action(0x00100010, DeidentifyOptions())
        'Z'
        """
        exact, patterns = _actions(self, options)
        action = exact.get(tag)
        if action is not None:
            return action
        return next((action for mask, value, action in patterns if tag & mask == value), None)


@cache
def load_profile() -> Profile:
    """Return the table of the file beside this module.

    Raises:
        EnvironmentFault: its edition is another, or its rows are not those that its hash was made of.
    """
    table = read_table(FILE, "rows", EDITION)
    return Profile(table["edition"], table["sha256"], tuple(Row(*row) for row in table["rows"]))


def read_table(file: Path, part: str, edition: str | None = None) -> dict[str, Any]:
    """Return a table from a file whose `sha256` is that of the canonical JSON of one part of it.

    Raises:
        EnvironmentFault: it cannot be read, was changed, or is of another edition than asked for.
    """
    remedy = "de-identification must not run by it: install radloop anew"
    try:
        table: dict[str, Any] = json.loads(file.read_bytes())
        content = json.dumps(table[part], sort_keys=True, separators=(",", ":"))
        stated = table["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EnvironmentFault(f"{file.name} cannot be read ({type(error).__name__}); {remedy}") from error
    if hashlib.sha256(content.encode()).hexdigest() != stated:
        raise EnvironmentFault(
            f"{file.name} has other {part} than its sha256 {str(stated)[:16]} says; {remedy}"
        )
    if edition is not None and table.get("edition") != edition:
        raise EnvironmentFault(
            f"{file.name} is edition {table.get('edition')}, not {edition}: install radloop anew"
        )
    return table


@cache
def _actions(
    profile: Profile, options: DeidentifyOptions
) -> tuple[dict[int, Action], list[tuple[int, int, Action]]]:
    """Return each exact tag and each pattern with its action, so that a look-up costs one dictionary."""
    chosen = chosen_columns(options)
    exact: dict[int, Action] = {}
    patterns: list[tuple[int, int, Action]] = []
    # Private elements first: groups such as 5001 are private, not curves.
    for row in sorted(profile.rows, key=lambda row: row.tag != PRIVATE):
        mask, value = row.pattern
        if mask == 0xFFFFFFFF:
            exact[value] = resolved(row.basic, row.options, chosen)
        else:
            patterns.append((mask, value, resolved(row.basic, row.options, chosen)))
    return exact, patterns


@cache
def chosen_columns(options: DeidentifyOptions) -> frozenset[str]:
    """Return the columns of the tables that the options stand for."""
    wanted = {
        "retain_safe_private": options.safe_private,
        "retain_uids": options.uids,
        "retain_device_identity": options.device_identity,
        "retain_patient_characteristics": options.patient_characteristics,
        DATES: options.dates == "shift",
        "clean_descriptors": options.descriptors,
        "clean_structured_content": options.structured,
        "clean_graphics": options.graphics,
    }
    return frozenset(column for column, chosen in wanted.items() if chosen)


def resolved(basic: str, options: Mapping[str, str], chosen: frozenset[str]) -> Action:
    """Return the one action of a row: that of a chosen column, the stricter of two, or the Basic Profile's."""
    codes = {code for column, code in options.items() if column in chosen}
    # To retain the device must not retain a date, where dates were asked to go.
    kept_date = DATES in options and DATES not in chosen
    if not codes or kept_date:
        return RESOLVED[basic]
    return "C" if "C" in codes else RESOLVED[codes.pop()]
