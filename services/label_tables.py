"""Label tables of a request: where they are, what is asked of them, and what they hold."""

from pathlib import Path

from imaging.annotations.finding_table import FindingQuery, FindingTables, read_findings
from imaging.annotations.label_table import LabelTable, read_labels
from imaging.pseudonyms import Pseudonyms
from services.flow_requests import IngestRequest


def label_paths(request: IngestRequest) -> list[Path]:
    """Return the paths of the tables of a request; none where the source has the labels."""
    return [Path(place).expanduser() for place in (request.labels, *request.more_labels) if place]


def finding_query(request: IngestRequest) -> FindingQuery:
    """Return what a request for findings asks of its tables."""
    return FindingQuery(
        names=request.findings,
        separator=request.label_separator,
        column=request.label_column,
        missing=request.missing,
    )


def read_label_tables(
    request: IngestRequest, pseudonyms: Pseudonyms, *, volumes: bool
) -> LabelTable | FindingTables | None:
    """Return the labels or the findings of a request, or None where the source has the labels."""
    paths = label_paths(request)
    if not paths:
        return None
    if request.has_findings:
        return read_findings(paths, pseudonyms, finding_query(request), volumes=volumes)
    return read_labels(paths[0], pseudonyms, request.label_column, missing=request.missing, volumes=volumes)
