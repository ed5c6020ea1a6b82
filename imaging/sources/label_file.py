"""Label file of a person: a table of text whose first line names its columns, as spreadsheets write it."""

import codecs
import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from imaging.errors import UserFault
from imaging.pseudonyms import Level

LEVEL_OF_COLUMN: Mapping[str, Level] = {
    "file": "file",
    "sopinstanceuid": "instance",
    "seriesinstanceuid": "series",
    "studyinstanceuid": "study",
    "patientid": "patient",
}
"""Level of the identifiers in a column, by its name without case, spaces and underscores; the finest level first."""

ENCODINGS: Mapping[bytes, str] = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""By the first two bytes; all else is UTF-8. Excel writes UTF-16 as "Unicode text"."""

DELIMITERS: Mapping[str, str] = {",": "','", ";": "';'", "\t": "tab"}
"""What separates columns, and how an error calls it. Excel writes ';' where a comma is the decimal sign."""

EXCEL = re.compile(r"sep=([^\w\s\"]|\t)", re.IGNORECASE)
"""First line that tells Excel what separates the columns of the rest."""

MISSING = ("NA", "N/A", "#N/A", "<NA>", "nan", "null", ".", "-")
"""Values that stand for none: what R, pandas, Excel, SAS and SQL write. An empty one is always missing.

"None" is not among them: it is what a radiologist writes who found nothing.
"""


def missing_values(missing: Sequence[str] = MISSING) -> frozenset[str]:
    """Return the values that stand for none, in lower case, with the empty one."""
    return frozenset({"", *(word.casefold() for word in missing)})


@dataclass(frozen=True, slots=True)
class LabelFile:
    """An open label file: its columns, the position of each identifier's column by level, and its other lines.

    `identifiers` are ordered from the finest level to the coarsest. `file` is open as long as they are read.
    """

    name: str
    columns: list[str]
    identifiers: Mapping[Level, int]
    delimiter: str
    file: TextIO
    above: int = 0
    """Lines above the one that names the columns: Excel's "sep=;"."""

    def reader(self) -> Any:
        """Return the reader (`csv.reader`) of the lines after the first.

        Its `line_num` counts as an editor counts, blank lines and line breaks in quotes included.
        """
        self.file.seek(0)
        reader = csv.reader(self.file, delimiter=self.delimiter, strict=True)
        for _ in range(self.above + 1):
            next(reader, None)
        return reader


@contextmanager
def open_label_file(path: Path) -> Iterator[LabelFile]:
    """Open a label file; raise UserFault where there is none, or what is read of it is no table of text.

    Two columns for one identifier are refused too: nobody knows which of them counts. So are bad quotes: what follows
    one that is not closed would be one value, with the identifiers of other lines in it.
    """
    if not path.is_file():
        raise UserFault(f"no label table at {path}: give --labels the path of a CSV file")
    with path.open("rb") as start:
        encoding = ENCODINGS.get(start.read(2), "utf-8-sig")
    try:
        with path.open(newline="", encoding=encoding) as file:
            above, delimiter, columns = _header(file)
            if any("\0" in name for name in columns):
                raise UnicodeError
            if not any(name.strip() for name in columns):
                raise UserFault(_no_names(path, file))
            identifiers = _identifiers(path, columns)
            yield LabelFile(path.name, columns, identifiers, delimiter, file, above)
    # The errors quote the bytes around them, and these may name a patient.
    except UnicodeError:
        raise UserFault(
            f"{path.name} is no CSV in UTF-8, nor in UTF-16 with a byte order mark: save it as 'CSV UTF-8'"
        ) from None
    except csv.Error:
        raise UserFault(
            f"{path.name} has a quote that is not closed, or text behind a closing one: correct the quotes, or save it "
            "as 'CSV UTF-8' again"
        ) from None


def plain_column(name: str) -> str:
    """Return the name of a column without case, spaces and underscores."""
    return name.strip().lower().replace(" ", "").replace("_", "")


def plain_file_name(path: str) -> str:
    """Return a path as sources list it, from the spelling of any system."""
    return path.strip().replace("\\", "/").removeprefix("./")


def _no_names(path: Path, file: TextIO) -> str:
    file.seek(0)
    if any(line.strip() for line in file):
        return f"the first line of {path.name} is blank: it must name the columns, as in PatientID,label"
    return f"{path.name} is empty: its first line must name the columns, as in PatientID,label"


def _header(file: TextIO) -> tuple[int, str, list[str]]:
    """Return how many lines are above the names of the columns, the delimiter, and these names.

    The delimiter is what Excel's first line says, else what shows a column of identifiers, else the comma.
    """
    stated = EXCEL.fullmatch(file.readline().rstrip("\r\n").strip('"'))
    if stated:
        return 1, stated[1], next(csv.reader(file, delimiter=stated[1]), [])
    headers = {}
    for delimiter in DELIMITERS:
        file.seek(0)
        headers[delimiter] = next(csv.reader(file, delimiter=delimiter), [])
    shows = (
        delimiter
        for delimiter, columns in headers.items()
        if any(plain_column(name) in LEVEL_OF_COLUMN for name in columns)
    )
    delimiter = next(shows, ",")
    return 0, delimiter, headers[delimiter]


def _identifiers(path: Path, columns: list[str]) -> dict[Level, int]:
    plain = [plain_column(name) for name in columns]
    for name in LEVEL_OF_COLUMN:
        if plain.count(name) > 1:
            same = [column for column, one in zip(columns, plain, strict=True) if one == name]
            raise UserFault(
                f"{path.name} has {len(same)} columns of one name, {same}: keep or rename one of them"
            )
    return {level: plain.index(name) for name, level in LEVEL_OF_COLUMN.items() if name in plain}
