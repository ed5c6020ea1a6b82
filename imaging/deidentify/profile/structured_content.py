"""Table of PS3.15 E.3.4: which action is taken on which content item, under which options."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.profile.profile import Action, chosen_columns, read_table, resolved

EDITION = "2026d"
FILE = Path(__file__).with_name("structured_content.json")

Concept = tuple[str, str]
"""Code and scheme, as returned by `concept`."""

SNOMED = frozenset({"SRT", "SNM3", "99SDM"})
"""Retired names of one coding scheme (PS3.16 table 8-1), whose codes are to be known still."""
WITHOUT_TEXT = frozenset(
    {"CONTAINER", "SCOORD", "SCOORD3D", "TCOORD", "TABLE", "IMAGE", "COMPOSITE", "WAVEFORM", "UIDREF"}
)
"""Value types of geometry, references and structure: their values are treated by attribute."""


@dataclass(frozen=True, slots=True)
class ContentRow:
    """One row of table E.3.4-1: a concept name and a value type, and the code in each column."""

    code: str
    scheme: str
    meaning: str
    value_type: str
    basic: str
    options: Mapping[str, str]
    """Code by column of an option, where the column has an entry."""
    retired: str
    """The SNOMED code that the concept had before it was one of SNOMED CT; empty for other schemes."""


@dataclass(frozen=True, eq=False)
class ContentTable:
    """The table of one edition, and the numbers that DICOM itself defines codes for, first and last of each run."""

    edition: str
    sha256: str
    rows: tuple[ContentRow, ...]
    dcm: tuple[tuple[int, int], ...]

    def action(self, name: Concept, value_type: str, options: DeidentifyOptions) -> Action | None:
        """Return the action on a content item, or None where the table does not list its concept.

        A concept that is listed with another value type only is no freer than it would be with that one.

        >>> load_content().action(("121029", "DCM"), "PNAME", DeidentifyOptions())
        'D'
        """
        rows = _by_concept(self).get(name, {})
        if value_type in rows:
            return _resolved(rows[value_type], options)
        # A concept that is described in text may also be coded or measured, and is no secret then.
        others = [
            row for row in rows.values() if value_type == "TEXT" or "clean_descriptors" not in row.options
        ]
        if value_type in WITHOUT_TEXT or not others:
            return None
        actions = {_resolved(row, options) for row in others}
        return "X" if actions & {"X", "K"} else "D" if "D" in actions else "C"

    def knows(self, name: Concept) -> bool:
        """Tell whether the table or DICOM defines a concept; the content of others is unknown.

        >>> load_content().knows(("112039", "DCM")), load_content().knows(("112039", "99LOCAL"))
        (True, False)
        """
        code, scheme = name
        if scheme == "DCM" and code.isascii() and code.isdecimal():
            return any(first <= int(code) <= last for first, last in self.dcm)
        return name in _by_concept(self)


def concept(code: str, scheme: str) -> Concept:
    """Return a concept in the form in which the table is looked up.

    >>> concept("G-C0E3 ", "99SDM"), concept("76", "NCDR [2.0b]")
    (('G-C0E3', 'SRT'), ('76', 'NCDR'))
    """
    plain = scheme.partition("[")[0].strip().upper()
    return code.strip().upper(), "SRT" if plain in SNOMED else plain


@cache
def load_content() -> ContentTable:
    """Return the table of the file beside this module.

    Raises:
        EnvironmentFault: its edition is another, or its content is not that which its hash was made of.
    """
    table = read_table(FILE, "content", EDITION)
    content = table["content"]
    rows = tuple(ContentRow(*row) for row in content["rows"])
    return ContentTable(table["edition"], table["sha256"], rows, tuple(map(tuple, content["dcm"])))


@cache
def _by_concept(table: ContentTable) -> dict[Concept, dict[str, ContentRow]]:
    by_concept: dict[Concept, dict[str, ContentRow]] = {}
    now = ((concept(row.code, row.scheme), row) for row in table.rows)
    before = ((concept(row.retired, "SRT"), row) for row in table.rows if row.retired)
    for name, row in chain(now, before):
        by_concept.setdefault(name, {})[row.value_type] = row
    return by_concept


def _resolved(row: ContentRow, options: DeidentifyOptions) -> Action:
    return resolved(row.basic, row.options, chosen_columns(options))
