"""Proof of a de-identification in the terminal: the search of a destination, its table, and what it hit."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import typer
from rich.table import Table

from cli.terminal import console, print_result, progress_bar
from imaging.deidentify.folder.deidentify_chunk import DicomOnly
from imaging.deidentify.folder.destination import Destination
from imaging.deidentify.folder.file_ledger import latest
from imaging.deidentify.proof.output_search import Hit
from imaging.deidentify.proof.verification_record import Verification, table_rows
from imaging.deidentify.proof.verify import verify
from imaging.sources.open_source import open_source
from services.destination_checks import existing_key
from services.settings import Settings

NOT_CLEAN = 1
"""The exit code where the proof found something; 2 is for what a person can mend."""
LISTED = 200
"""Lines of hits that are printed: the table counts them all, and a person reads the first."""


def print_proof(folder: Path, against: str, as_json: bool) -> None:
    """Search a destination for the identifiers of its source, and print what was found; exit with 1 for a hit."""
    with progress_bar("searching", "files") as on_progress:
        proof = prove(folder, against, Settings(), on_progress)
    if as_json:
        # Not the hits themselves: the name of a file may be what was found.
        hits = [place(hit) for hit in proof.hits]
        print_result({"clean": proof.clean, **asdict(proof), "hits": hits}, "", as_json)
    else:
        _print_table(proof)
    if not proof.clean:
        raise typer.Exit(NOT_CLEAN)


def _print_table(proof: Verification) -> None:
    table = Table(box=None, show_header=False)
    table.add_column()
    # A digest that is cut off proves nothing.
    table.add_column(overflow="fold")
    for row in table_rows(proof):
        table.add_row(*row)
    console.print(table, soft_wrap=True, highlight=False)
    results = [f"found: {place(hit)}" for hit in proof.hits] + [
        f"not proven: {why}" for why in proof.unproven
    ]
    for line in results[:LISTED]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if len(results) > LISTED:
        console.print(f"and {len(results) - LISTED} more", highlight=False)


def prove(
    folder: Path, against: str, settings: Settings, on_progress: Callable[[int, int], object]
) -> Verification:
    """Search a destination for the identifiers of its source."""
    destination = Destination(folder.expanduser().resolve())
    outputs = len(latest(destination.ledger.read()))
    source, key = DicomOnly(open_source(against)), existing_key(settings, destination)
    return verify(
        destination.root, source, key, on_progress=lambda done: on_progress(done, max(done, outputs))
    )


def place(hit: Hit) -> str:
    """Return where an original value was found, and of which kind it is; never the value itself.

    >>> from imaging.deidentify.proof.output_search import Hit
    >>> place(Hit(output="images/1.dcm", kind="id", tag=0x00100020, encoding="UTF-8", where="texts", offset=41))
    'images/1.dcm, an id as UTF-8, at byte 41 of its texts'
    """
    article = "an" if hit.kind[0] in "aeio" else "a"
    if hit.where == "name":
        # The name of the file would show the value.
        return f"a file beside the images, {article} {hit.kind} in its name"
    return f"{hit.output}, {article} {hit.kind} as {hit.encoding}, at byte {hit.offset} of its {hit.where}"
