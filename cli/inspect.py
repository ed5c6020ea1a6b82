"""Command `radloop inspect`: what is in a source, before anything is taken in."""

from collections import Counter
from dataclasses import fields
from pathlib import Path

import yaml
from rich.console import Console, Group, RenderableType
from rich.table import Table

from cli.terminal import print_result, progress_bar
from imaging.dicom.codecs import check_decoders
from imaging.dicom.findings import FINDINGS
from imaging.formats.peek import FUNCTION, peek_headers
from imaging.private_list import write_private_list
from imaging.refusal_reasons import IGNORED, REASONS
from imaging.sandbox.pool import Pool
from imaging.source_overview import Overview, OverviewCounter, proposed_configuration
from imaging.sources.open_source import open_source
from imaging.sources.protocol import Source, SourceFile

TOP = 12
"""Lines of each list that are printed; --json holds them all."""
STEP = 100
"""Files between two changes of the bar, each of which costs as much as a file."""
MEANINGS = {
    **IGNORED,
    **REASONS,
    **FINDINGS,
    "repeated-instance": "the same SOPInstanceUID comes again",
}


def inspect(address: str, table: Path | None, problems: Path | None, as_json: bool) -> None:
    """Print what a source holds; names of files go nowhere but into the list that was asked for."""
    check_decoders()
    source = open_source(address, table)
    overview, bad = _survey(source, _listed(source))
    if problems:
        write_private_list(problems, ("file", "reason"), bad)
    # (dataclasses.asdict makes nonsense of counters.)
    content = {field.name: getattr(overview, field.name) for field in fields(overview)}
    content["proposed_configuration"] = proposed_configuration(overview)
    print_result(content, _rendered(overview), as_json)


def _listed(source: Source) -> list[SourceFile]:
    with Console(stderr=True).status("listing") as status:
        files = []
        for file in source.scan():
            files.append(file)
            if len(files) % 5000 == 0:
                status.update(f"listing: {len(files):,} files")
    return files


def _survey(source: Source, files: list[SourceFile]) -> tuple[Overview, list[tuple[str, str]]]:
    counter, bad = OverviewCounter(), list[tuple[str, str]]()
    with progress_bar("reading headers", "files") as on_progress, Pool(FUNCTION, {}) as workers:
        for file, header in peek_headers(source, files, workers.map):
            counter.add(file, header)
            if header.reason:
                bad.append((file.name, header.reason))
            if counter.counted.files % STEP == 0:
                on_progress(counter.counted.files, len(files))
    return counter.result(), bad


def _rendered(overview: Overview) -> RenderableType:
    parts: list[RenderableType] = [
        f"[bold]{overview.files:,} files[/bold], {overview.size_bytes / 2**30:.2f} GiB: "
        f"{overview.patients:,} patients, {overview.studies:,} studies, {overview.series:,} series, "
        f"{overview.frames:,} images, {overview.volumes:,} volumes"
    ]
    for title, counts in (
        ("Formats", overview.formats),
        ("Modalities", overview.modalities),
        ("Transfer syntaxes", overview.syntaxes),
        ("Photometric interpretations", overview.photometrics),
        ("Manufacturers", overview.manufacturers),
        ("Columns x rows", overview.sizes),
    ):
        if counts:
            parts += [_table(title, "files", counts), ""]
    if overview.problems:
        parts += [_table("Problems", "files", overview.problems, meanings=True), ""]
    if overview.findings:
        parts.append(_table("Series", "series", overview.findings, meanings=True))
    if overview.patient_variants:
        parts.append(
            f"{overview.patient_variants:,} patients are written in ways that may mean one patient (00123 and 123)"
        )
    if not overview.problems and not overview.findings:
        parts.append("no problems")
    if proposed := proposed_configuration(overview):
        parts += ["", "[bold]Proposed configuration[/bold], for --config:", yaml.safe_dump(proposed).rstrip()]
    return Group(*parts)


def _table(title: str, unit: str, counts: Counter[str], *, meanings: bool = False) -> Table:
    table = Table(title, unit, title_justify="left", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    if meanings:
        table.add_column("what it means")
    for name, count in counts.most_common(TOP):
        table.add_row(name, f"{count:,}", *([MEANINGS.get(name, "")] if meanings else []))
    if len(counts) > TOP:
        rest = sum(count for _, count in counts.most_common()[TOP:])
        table.add_row(f"{len(counts) - TOP} more", f"{rest:,}", *([""] if meanings else []))
    return table
