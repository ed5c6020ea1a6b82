"""Identifier search: a night stops where a file that it left has an identifier of a patient.

HOME/private is left out: it is for the eyes of those who may see the names. So is the source, where it lies in HOME.
What Prefect and MLflow keep on servers, and what the night wrote to a store on S3, is fetched first.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlparse

from prefect import task
from prefect.cache_policies import NO_CACHE

from imaging.deidentify.identity.identifiers import Identifier
from imaging.deidentify.proof.leak_search import FILE_NAME, LeakReport, sample_identifiers, search_files
from imaging.deidentify.proof.output_search import Hit
from imaging.errors import EnvironmentFault
from imaging.quantities import quantity
from imaging.sources.open_source import open_source
from services.flow_requests import IngestRequest
from services.mask_input import patient_table
from services.settings import Settings
from tasks.identifier_search_remote import fetch, fetch_written, has_servers

SLACK_S = 120
"""Files change a little before the first stage of a night is timed."""


@task(name="search for leaks", cache_policy=NO_CACHE)
def search_identifiers(request: IngestRequest, settings: Settings, *, took_s: float, seed: str) -> LeakReport:
    """Search what the last `took_s` seconds left for what identifies a sample of the source, drawn from a seed.

    Raises EnvironmentFault: in which file, of which kind, never the value.
    """
    source = open_source(request.source, patient_table(request))
    identifiers = sample_identifiers(source, seed)
    since_s = time.time() - took_s - SLACK_S
    residue = search_files(left_since(since_s, request, settings), identifiers, settings.folder, seed)
    if identifiers:
        residue += _of_store(settings, identifiers, since_s, seed)
    if identifiers and has_servers(settings):
        residue += _of_servers(request.dataset, settings, identifiers, since_s, seed)
    if residue.hits:
        raise EnvironmentFault(_message(residue))
    beyond = f"; {residue.left_out} more were beyond the limit" if residue.left_out else ""
    print(
        f"{request.dataset}: searched {quantity(residue.files, 'files')} for "
        f"{quantity(len(identifiers), 'identifiers')} of patients: none is there{beyond}"
    )
    return residue


def _of_store(settings: Settings, identifiers: Sequence[Identifier], since_s: float, seed: str) -> LeakReport:
    paths, left_out = fetch_written(settings, since_s, seed)
    residue = search_files(paths, identifiers, settings.cache, seed)
    # The copies are in a cache that others use too: what went meanwhile was not searched.
    return replace(residue, left_out=left_out + sum(not path.exists() for path in paths))


def _of_servers(
    dataset: str, settings: Settings, identifiers: Sequence[Identifier], since_s: float, seed: str
) -> LeakReport:
    settings.private.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Private, since what is found there is no less a leak here.
    with TemporaryDirectory(dir=settings.private, prefix="servers-") as folder:
        whole = fetch(settings, dataset, since_s, Path(folder))
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        residue = search_files(paths, identifiers, Path(folder), seed)
    return residue if whole else replace(residue, left_out=residue.left_out + 1)


def left_since(since_s: float, request: IngestRequest, settings: Settings) -> Iterator[Path]:
    """Yield the files that were written since: of the home, the store, and MLflow's artifacts in a folder."""
    given = [
        Path(place).expanduser().resolve()
        for place in (request.source, request.labels, request.masks, *request.more_labels)
        if place
    ]
    seen: set[Path] = set()
    for root in (settings.folder, settings.store_root, *_artifacts(settings)):
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            # What was handed in is no leak; with it goes the folder of the home that it lies in. Of the cache, what the
            # night itself wrote is looked for in the store.
            if folder in (settings.private, settings.cache) or any(
                place.is_relative_to(folder) for place in given
            ):
                continue
            for path in folder.rglob("*") if folder.is_dir() else (folder,):
                if path not in seen and path.is_file() and path.stat().st_mtime >= since_s:
                    seen.add(path)
                    yield path


def _artifacts(settings: Settings) -> tuple[Path, ...]:
    place = urlparse(settings.artifact_location or "")
    return (Path(unquote(place.path)),) if place.scheme == "file" else ()


def _message(residue: LeakReport) -> str:
    first, more = residue.hits[0], len(residue.hits) - 1
    return (
        f"what identifies a patient was found {_place(first)}, and {quantity(more, 'times')} more in "
        f"{quantity(len({hit.output for hit in residue.hits}), 'files')}: the night has stopped; keep these files "
        "from others, find what wrote it, and tell whoever answers for privacy"
    )


def _place(hit: Hit) -> str:
    what = (
        "the name of a source file"
        if hit.tag == FILE_NAME
        else f"a value of ({hit.tag >> 16:04X},{hit.tag & 0xFFFF:04X})"
    )
    kind = f"({what}, kind {hit.kind}, written as {hit.encoding})"
    if hit.where == "name":
        # The name of the file would show the value.
        return f"in the name of a file {kind}"
    return f"in {hit.output} {kind} at byte {hit.offset} of its {hit.where}"
