"""Owns `radloop inspect`: what is in a source, before anything is taken in."""

import csv
import json
import os
import time
from collections import Counter
from dataclasses import fields
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from imaging.dicom.codecs import check_decoders
from imaging.dicom.findings import FINDINGS
from imaging.formats.peek import FUNCTION, peek_headers
from imaging.overview import Overview, OverviewCounter
from imaging.refusal_reasons import IGNORED, REASONS
from imaging.sandbox.pool import Pool
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


def inspect(address: str, table: Path | None, problems: Path | None, as_json: bool, console: Console) -> None:
    """Print what a source holds; names of files go nowhere but into the list that was asked for."""
    check_decoders()
    source = open_source(address, table)
    files = _listed(source, console)
    overview, bad = _survey(source, files, console)
    if problems:
        _write(problems, bad)
    if as_json:
        # (dataclasses.asdict makes nonsense of counters.)
        print(json.dumps({field.name: getattr(overview, field.name) for field in fields(overview)}, indent=1))
    else:
        _print(overview, console)


def _listed(source: Source, console: Console) -> list[SourceFile]:
    with console.status("listing") as status:
        files = []
        for file in source.scan():
            files.append(file)
            if len(files) % 5000 == 0:
                status.update(f"listing: {len(files):,} files")
    return files


def _survey(
    source: Source, files: list[SourceFile], console: Console
) -> tuple[Overview, list[tuple[str, str]]]:
    counter, bad, started = OverviewCounter(), list[tuple[str, str]](), time.monotonic()
    rate = TextColumn("{task.fields[rate]:,.0f} files/s")
    columns = (TextColumn("reading headers"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with (
        Progress(*columns, console=console, transient=True) as progress,
        Pool(FUNCTION, {}) as workers,
    ):
        bar = progress.add_task("", total=len(files), rate=0.0)
        for file, peek in peek_headers(source, files, workers.map):
            counter.add(file, peek)
            if peek.reason:
                bad.append((file.name, peek.reason))
            if counter.files % STEP == 0:
                progress.update(
                    bar, completed=counter.files, rate=counter.files / (time.monotonic() - started)
                )
    return counter.result(), bad


def _write(path: Path, bad: list[tuple[str, str]]) -> None:
    """Write the names of files, which may identify patients, for the owner of the archive alone."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([("file", "reason"), *bad])


def _print(overview: Overview, console: Console) -> None:
    console.print(
        f"[bold]{overview.files:,} files[/bold], {overview.size_bytes / 2**30:.2f} GiB: "
        f"{overview.patients:,} patients, {overview.studies:,} studies, {overview.series:,} series, "
        f"{overview.frames:,} images, {overview.volumes:,} volumes",
        highlight=False,
    )
    for title, counts in (
        ("Formats", overview.formats),
        ("Modalities", overview.modalities),
        ("Transfer syntaxes", overview.syntaxes),
        ("Photometric interpretations", overview.photometrics),
        ("Manufacturers", overview.manufacturers),
        ("Columns x rows", overview.sizes),
    ):
        if counts:
            console.print(_table(title, "files", counts), "")
    if overview.problems:
        console.print(_table("Problems", "files", overview.problems, meanings=True), "")
    if overview.findings:
        console.print(_table("Series", "series", overview.findings, meanings=True))
    if overview.patient_variants:
        console.print(
            f"{overview.patient_variants:,} patients are written in ways that may mean one patient (00123 and 123)"
        )
    if not overview.problems and not overview.findings:
        console.print("no problems")


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
