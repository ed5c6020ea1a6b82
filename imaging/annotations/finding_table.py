"""Finding tables of a person: several findings for each image, in a column each or as one list such as "a;b".

A line becomes a code with one character a finding (`PRESENT`, `ABSENT` or `UNKNOWN`), so that lines are compared and
joined as those of a label table are. Missing and uncertain values are unknown, never absent. A list names all that is
there: what it does not name is absent.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imaging.annotations.class_order import is_negative
from imaging.annotations.label_spelling import check_spellings, folded
from imaging.annotations.label_table import (
    LabelTable,
    UnevenLines,
    build_label_table,
    identifier_columns,
    label_column,
    table_rows,
)
from imaging.errors import UserFault
from imaging.pseudonyms import Pseudonyms
from imaging.quantities import quantity
from imaging.sources.label_file import MISSING, LabelFile, missing_values, open_label_file

PRESENT, ABSENT, UNKNOWN = "1", "0", "?"
SIDES = {"present": 1, "absent": 0, "unknown": -1}
"""What may be known of a finding, and how arrays of findings have it."""
MEANINGS: Mapping[str, str] = {
    **dict.fromkeys(("1", "true", "yes", "y", "present", "positive"), PRESENT),
    **dict.fromkeys(("0", "false", "no", "n", "absent", "negative"), ABSENT),
    # -1 is how CheXpert writes what its reports leave open (Irvin et al. 2019).
    **dict.fromkeys(("-1", "u", "uncertain", "unknown", "?"), UNKNOWN),
}
"""What the value of a finding's column means, without case and as the shortest number."""
MOST_FINDINGS = 256
"""More different names in a list are no findings: the separator or the column is wrong."""
KEPT_CODES = 2**16
"""Different lines whose codes are kept at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingQuery:
    """What a person asks for: names of findings, () for all of a list, and how the tables have them.

    With a `separator`, `column` has lists (None is the column called label); without, each finding is a column.
    """

    names: tuple[str, ...] = ()
    separator: str | None = None
    column: str | None = None
    missing: Sequence[str] = MISSING


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingTables:
    """Findings by pseudonym from one table or several, whose values are codes with a character for each of `names`.

    `files` are the names of the tables. Lines are counted through all of them: `starts` is how many come before each.
    """

    names: tuple[str, ...]
    tables: tuple[LabelTable, ...]
    files: tuple[str, ...]
    starts: tuple[int, ...]

    @property
    def lines(self) -> dict[str, tuple[int, int, int]]:
        """How many identifiers have each finding, have it not, and leave it open."""
        arrays = [decoded(pa.chunked_array([table.values]), len(self.names)) for table in self.tables]
        whole = np.concatenate(arrays)
        return {
            name: (int((column == 1).sum()), int((column == 0).sum()), int((column < 0).sum()))
            for name, column in zip(self.names, whole.T, strict=True)
        }

    @property
    def missing(self) -> dict[str, int]:
        """How many lines say nothing about any finding."""
        return dict(sum((Counter(table.missing) for table in self.tables), Counter[str]()))

    @property
    def uneven(self) -> tuple[int, int]:
        """Lines with more or fewer fields than their header: how many, and the first."""
        counts = [(table.uneven, start) for table, start in zip(self.tables, self.starts, strict=True)]
        firsts = [first + start for (count, first), start in counts if count]
        return sum(count for (count, _), _ in counts), min(firsts, default=0)

    @property
    def opposed(self) -> dict[int, int]:
        """The line that says something else by the first line of each image."""
        return {
            one + start: other + start
            for table, start in zip(self.tables, self.starts, strict=True)
            for one, other in table.opposed.items()
        }

    def place(self, line: int) -> str:
        """Return the table and the line of a line that is counted through all tables."""
        number = int(np.searchsorted(self.starts, line, side="left")) - 1
        return f"{line - self.starts[number]} of {self.files[number]}" if len(self.files) > 1 else str(line)


def read_findings(
    paths: Sequence[Path], pseudonyms: Pseudonyms, query: FindingQuery, *, volumes: bool = False
) -> FindingTables:
    """Read tables of findings; raise UserFault for columns that are not there and values that mean nothing."""
    check_finding_columns(paths, query)
    names = query.names or _listed_names(paths, query)
    tables, starts = [], [0]
    for path in paths:
        with open_label_file(path) as file:
            at, reader, uneven = identifier_columns(file, volumes=volumes), file.reader(), UnevenLines()
            code_of = _codes(file, reader, names, query)
            rows = table_rows(reader, len(file.columns), at, uneven, code_of)
            table = build_label_table(at.level, rows, pseudonyms, parents=tuple(at.parents), missing=())
            tables.append(replace(table, uneven=(uneven.count, uneven.first)))
            starts.append(starts[-1] + reader.line_num)
    return FindingTables(
        names=names,
        tables=tuple(tables),
        files=tuple(path.name for path in paths),
        starts=tuple(starts[:-1]),
    )


def check_finding_columns(paths: Sequence[Path], query: FindingQuery) -> None:
    """Raise UserFault where the first lines of the tables do not have what is asked for."""
    seen = set[str]()
    for path in paths:
        with open_label_file(path) as file:
            identifier_columns(file)
            if query.separator is not None:
                label_column(file, query.column)
                continue
            here = _finding_columns(file, query.names)
            if not here:
                raise UserFault(
                    f"{file.name} has the columns {file.columns} and none of the findings {list(query.names)}: "
                    "correct --findings, or leave the table out"
                )
            if any(name.strip().lower() == "label" for name in file.columns) and "label" not in here:
                raise UserFault(
                    f"{file.name} has a column 'label' and columns of findings, and either can be learned: leave "
                    "--findings out to learn 'label', give --label-separator to read findings out of 'label', or "
                    "remove the column 'label' to learn the findings"
                )
            seen.update(here)
    if query.separator is None and (absent := [name for name in query.names if name not in seen]):
        raise UserFault(
            f"no table has a column for {', '.join(map(repr, absent))} of --findings: correct the names, or give the "
            "table that has them"
        )


def decoded(codes: pa.ChunkedArray, names: int) -> NDArray[np.int8]:
    """Return the findings (n, names) of codes: 1 is present, 0 absent, -1 unknown, as of a code that is null.

    >>> decoded(pa.chunked_array([["10", None, "?1"]]), 2).tolist()
    [[1, 0], [-1, -1], [-1, 1]]
    """
    coded = codes.combine_chunks().dictionary_encode()
    number = {PRESENT: 1, ABSENT: 0, UNKNOWN: -1}
    values = [[number[letter] for letter in code] for code in coded.dictionary.to_pylist()]
    values.append([-1] * names)
    findings: NDArray[np.int8] = np.array(values, np.int8)[
        coded.indices.fill_null(len(values) - 1).to_numpy()
    ]
    return findings


def _finding_columns(file: LabelFile, names: Sequence[str]) -> dict[str, int]:
    """Return the positions of the findings that are columns of a table."""
    plain = [name.strip() for name in file.columns]
    here = {name: plain.index(name) for name in names if name in plain}
    for name, at in here.items():
        if plain.count(name) > 1:
            raise UserFault(
                f"{file.name} has {plain.count(name)} columns called {name!r}: keep or rename one of them"
            )
        if at in file.identifiers.values():
            raise UserFault(
                f"{name!r} of {file.name} is a column of identifiers, and no finding: correct --findings"
            )
    return here


def _codes(
    file: LabelFile, reader: Any, names: Sequence[str], query: FindingQuery
) -> Callable[[list[str]], str]:
    """Return the function that makes the code of a line, "" where nothing is known."""
    none = missing_values(query.missing)
    if query.separator is not None:
        column = label_column(file, query.column)
        return _kept(
            lambda cells: _list_code(cells, names, query.separator or "", none), [column], file, reader
        )
    here = _finding_columns(file, names)
    places = [names.index(name) for name in here]

    def code(cells: Sequence[str]) -> str:
        letters = [UNKNOWN] * len(names)
        for place, name, cell in zip(places, here, cells, strict=True):
            letters[place] = _meaning(name, cell, none)
        return "".join(letters)

    return _kept(code, list(here.values()), file, reader)


def _kept(
    code_of: Callable[[Sequence[str]], str], columns: Sequence[int], file: LabelFile, reader: Any
) -> Callable[[list[str]], str]:
    """Return a function of a line that makes the code of equal cells once; its errors name the line."""
    pick, codes = itemgetter(*columns), dict[Any, str]()

    def code(row: list[str]) -> str:
        cells = pick(row)
        known = codes.get(cells)
        if known is None:
            if len(codes) > KEPT_CODES:
                codes.clear()
            with _named(file, reader):
                known = code_of((cells,) if len(columns) == 1 else cells)
            known = codes[cells] = known if PRESENT in known or ABSENT in known else ""
        return known

    return code


@contextmanager
def _named(file: LabelFile, reader: Any) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UserFault(f"line {reader.line_num} of {file.name} {error}") from None


def _meaning(name: str, cell: str, none: frozenset[str]) -> str:
    plain = cell.strip()
    if plain.casefold() in none:
        return UNKNOWN
    _check_breaks(plain)
    meaning = MEANINGS.get(folded(plain))
    if meaning is None:
        raise ValueError(
            f"has {plain!r} for the finding {name!r}, which is neither 1 (yes, present), 0 (no, absent), "
            f"-1 (uncertain) nor missing: correct it, or give --missing {plain!r} where it stands for none"
        )
    return meaning


def _list_code(cells: Sequence[str], names: Sequence[str], separator: str, none: frozenset[str]) -> str:
    parts = _parts(cells[0], separator)
    listed = {part for part in parts if part.casefold() not in none}
    if not listed:
        return ""
    negative = {part for part in listed if part not in names and is_negative(part)}
    if negative and listed != negative:
        raise ValueError(
            f"lists {sorted(negative)[0]!r} beside {sorted(listed - negative)[0]!r}, which contradict each other: "
            "remove one of them"
        )
    rest = ABSENT if len(listed) == len(set(parts)) else UNKNOWN
    return "".join(PRESENT if name in listed else rest for name in names)


def _parts(cell: str, separator: str) -> list[str]:
    _check_breaks(cell)
    return [part.strip() for part in cell.split(separator) if part.strip()]


def _check_breaks(cell: str) -> None:
    if len(cell.splitlines()) > 1:
        # Not quoted: two stray quotes make one value of all that is between them, other lines' identifiers too.
        raise ValueError("ends a value that has a line break: a quote is missing or too much there")


def _listed_names(paths: Sequence[Path], query: FindingQuery) -> tuple[str, ...]:
    """Return the different names in the lists of the tables, without those of what is normal."""
    none, separator = missing_values(query.missing), query.separator or ""
    counts = Counter[str]()
    for path in paths:
        with open_label_file(path) as file:
            at, reader = label_column(file, query.column), file.reader()
            cells = Counter(row[at] for row in reader if at < len(row))
            with _named(file, reader):
                for cell, lines in cells.items():
                    counts.update(dict.fromkeys(_parts(cell, separator), lines))
        if len(counts) > MOST_FINDINGS:
            raise UserFault(
                f"{path.name} lists {quantity(len(counts), 'different findings')} and at most {MOST_FINDINGS} can be "
                "learned: correct --label-column or --label-separator, or name some with --findings"
            )
        check_spellings(path, counts)
    names = sorted(name for name in counts if name.casefold() not in none and not is_negative(name))
    if not names:
        raise UserFault(
            f"no line of {', '.join(path.name for path in paths)} lists a finding: correct --label-column or "
            "--label-separator"
        )
    return tuple(names)
