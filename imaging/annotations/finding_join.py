"""Join of finding tables with examples: what is known of each image, and the lines that have no effect."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.annotations.finding_table import FindingTables, decoded
from imaging.annotations.label_join import LabelReport, join_labels, joined_columns, line_of
from imaging.errors import UserFault
from imaging.quantities import quantity

VALUES = {1: "present", 0: "absent"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedFindings:
    """Findings of each example (n, names), 1, 0 or -1, the reason where none is known, and lines without effect."""

    findings: NDArray[np.int8]
    faults: pa.ChunkedArray
    report: LabelReport
    lines_of_others: tuple[int, ...]


def finding_columns(tables: FindingTables) -> list[str]:
    """Return the columns of examples that `join_findings` needs."""
    return sorted({name for table in tables.tables for name in joined_columns(table)})


def join_findings(tables: FindingTables, examples: pa.Table) -> JoinedFindings:
    """Return the findings of examples; of several tables each adds what it knows.

    Raises UserFault where two tables contradict each other about an image: which of them is right, a person decides.
    """
    joined = [join_labels(table, examples) for table in tables.tables]
    arrays = [decoded(one.labels, len(tables.names)) for one in joined]
    findings = arrays[0]
    for number, new in enumerate(arrays[1:], 1):
        contradicted = (findings >= 0) & (new >= 0) & (findings != new)
        if contradicted.any():
            raise UserFault(_contradiction(tables, examples, arrays, contradicted, number))
        findings = np.where(new >= 0, new, findings)
    known = pa.array((findings >= 0).any(axis=1))
    disputed = np.logical_or.reduce(
        [np.asarray(pc.fill_null(pc.equal(one.faults, "two-labels"), False), np.bool_) for one in joined]
    )
    why = pc.if_else(pa.array(disputed), "two-labels", "no-label")
    return JoinedFindings(
        findings=findings,
        faults=pa.chunked_array([pc.if_else(known, pa.scalar(None, pa.string()), why)]),
        report=LabelReport(
            lines_without_image=_lines(tables, [one.report.lines_without_image for one in joined]),
            lines_in_conflict=_lines(tables, [one.report.lines_in_conflict for one in joined]),
        ),
        lines_of_others=_lines(tables, [one.lines_of_others for one in joined]),
    )


def _lines(tables: FindingTables, lines: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the lines of all tables, counted through them."""
    return tuple(start + line for start, some in zip(tables.starts, lines, strict=True) for line in some)


def _contradiction(
    tables: FindingTables,
    examples: pa.Table,
    arrays: list[NDArray[np.int8]],
    contradicted: NDArray[np.bool_],
    number: int,
) -> str:
    image, finding = (int(at) for at in np.argwhere(contradicted)[0])
    other = next(at for at in range(number) if arrays[at][image, finding] >= 0)
    one, two = (
        f"line {line_of(tables.tables[at], examples[image : image + 1])} of {tables.files[at]} "
        f"{VALUES[int(arrays[at][image, finding])]}"
        for at in (other, number)
    )
    images = quantity(int(contradicted.any(axis=1).sum()), "images")
    return (
        f"two tables contradict each other about {images}: of finding {tables.names[finding]!r}, {one} and {two}; "
        "correct one of them, leave its value empty, or give only the table that counts"
    )
