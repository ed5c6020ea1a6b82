"""Steps of a de-identification: compare the source with the ledger, do the chunks, remove what is gone."""

import csv
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from imaging.compatibility import canonical
from imaging.deidentify.folder.deidentify_chunk import DicomOnly
from imaging.deidentify.folder.destination import Destination, DestinationRecord, check_apart
from imaging.deidentify.folder.file_ledger import (
    REMOVED,
    InstanceContents,
    ReadPlan,
    latest,
    output_digests,
    plan_reading,
)
from imaging.deidentify.payload import FUNCTION
from imaging.deidentify.profile.profile import load_profile
from imaging.deidentify.proof.verification import Verification
from imaging.deidentify.proof.verify import verify
from imaging.dicom.codecs import check_decoders
from imaging.errors import EnvironmentFault, UserFault
from imaging.pseudonyms import Pseudonyms
from imaging.refusal_reasons import IGNORED
from imaging.sources.open_source import open_source
from imaging.sources.protocol import Source
from services.ray.chunk_pool import one_behind, run_chunks
from services.ray.deidentify_worker import FACTORY
from services.ray.jobs import job_of_step, run_job
from services.settings import Settings
from tasks.requests import DeidentifyRequest
from tasks.retry import INPUT_OUTPUT


@dataclass(frozen=True, kw_only=True)
class DeidentifyOutcome:
    """What a de-identification did, in numbers; it holds no identifier.

    `objects` and `patients` are those that stand in the destination. `patient_variants` counts the patients whose
    number is spelled like that of another one ("00123", "123").
    """

    destination: str
    files_listed: int
    files_read: int
    files_removed: int
    objects: int
    patients: int
    patient_variants: int
    quarantined: Mapping[str, int]
    ignored: Mapping[str, int]
    problems_file: str | None


@task(name="de-identify", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def deidentify_source(request: DeidentifyRequest, settings: Settings, flow_run_id: str) -> DeidentifyOutcome:
    """Bring a destination up to date with its source; done again it reads only what is new."""
    if settings.ray_address:
        return bring_up_to_date_on_cluster(request, settings, flow_run_id, print)
    return bring_up_to_date(request, settings, print)


def bring_up_to_date_on_cluster(
    request: DeidentifyRequest, settings: Settings, flow_run_id: str, log: Callable[[str], None]
) -> DeidentifyOutcome:
    """Do it as a job of the cluster at RADLOOP_RAY_ADDRESS, whose nodes see the home, source and destination."""
    # Here first: what a person can mend is raised without a job.
    _, destination = open_places(request)
    destination.check(_made(request, existing_key(settings, destination)))
    # Private, since the name of the source may tell of a patient.
    folder = settings.private / "deidentify" / flow_run_id
    folder.mkdir(parents=True, exist_ok=True)
    places = {"source": _place(request.source), "destination": str(destination.root)}
    (folder / "job.json").write_text(request.model_copy(update=places).model_dump_json())
    try:
        run_job(job_of_step("deidentify", folder, flow_run_id, settings), log)
        return DeidentifyOutcome(**json.loads((folder / "outcome.json").read_text()))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def bring_up_to_date(
    request: DeidentifyRequest, settings: Settings, log: Callable[[str], None], function: str = FUNCTION
) -> DeidentifyOutcome:
    """Read what is new, write its twins, remove those whose source is gone; `function` is the sandbox's."""
    source, destination = open_places(request)
    pseudonyms = existing_key(settings, destination)
    with destination.locked(_made(request, pseudonyms)):
        files = tuple(source.scan())
        work = plan_reading(files, latest(destination.ledger.read()), pseudonyms)
        _check_same_source(work, destination)
        log(f"{len(files)} files listed, {len(work.to_read)} to read")
        if work.to_read:
            order = {
                "source": _place(request.source),
                "options": request.options.model_dump_json(),
                "home": str(settings.folder),
                "key_fingerprint": pseudonyms.fingerprint,
                "function": function,
            }
            _read(work, order, destination, log)
        destination.sweep(work.removed)
        return _outcome(destination, work, settings)


def open_places(request: DeidentifyRequest) -> tuple[Source, Destination]:
    """Return source and destination, after a look at both; nothing is written."""
    if not request.source or not request.destination:
        raise UserFault("give the source and the destination: radloop deidentify SRC DST")
    load_profile()
    check_decoders()
    source = open_source(request.source)
    if source.kind == "medmnist":
        raise UserFault(
            "an .npz file holds no DICOM objects: give a folder, an archive, s3:// or dicomweb+https://"
        )
    destination = Destination(Path(request.destination).expanduser().resolve())
    if "://" not in request.source:
        check_apart(Path(request.source).expanduser(), destination.root)
    if next(source.scan(), None) is None:
        raise UserFault("the source holds no files: is it mounted, and the right one?")
    return DicomOnly(source), destination


def prove(
    destination: Path, against: str, settings: Settings, told: Callable[[int, int], object]
) -> Verification:
    """Search a destination for the identifiers of its source; `told` gets how many outputs of how many are done."""
    place = Destination(destination.expanduser().resolve())
    outputs = len(latest(place.ledger.read()))
    source = DicomOnly(open_source(against))
    return verify(
        place.root,
        source,
        existing_key(settings, place),
        on_progress=lambda done: told(done, max(done, outputs)),
    )


def existing_key(settings: Settings, destination: Destination) -> Pseudonyms:
    """Return the key; one is made only where nothing was made with another before."""
    path = settings.private / "pseudonym.key"
    if destination.exists() and settings.key is None and not path.exists():
        raise EnvironmentFault(
            f"{destination.root} was made with a key and there is none at {path}: restore it from your backup, set "
            "RADLOOP_KEY, or give a new destination"
        )
    return settings.pseudonyms()


def _place(source: str) -> str:
    # Workers run elsewhere, so that a relative path would lead them astray.
    return source if "://" in source else str(Path(source).expanduser().resolve())


def _made(request: DeidentifyRequest, pseudonyms: Pseudonyms) -> DestinationRecord:
    profile = load_profile()
    return DestinationRecord(
        key_fingerprint=pseudonyms.fingerprint,
        options=canonical(request.options),
        edition=profile.edition,
        profile_sha256=profile.sha256,
    )


def _check_same_source(work: ReadPlan, destination: Destination) -> None:
    if work.removed.num_rows and work.removed.num_rows == work.known:
        raise UserFault(
            f"none of the {work.known} files that {destination.root} was made from is in the source, so that all of it "
            "would go: give the source that it was made from, or a new destination"
        )


def _read(
    work: ReadPlan, order: Mapping[str, Any], destination: Destination, log: Callable[[str], None]
) -> None:
    total, done, started = len(work.to_read), 0, time.monotonic()
    instances = InstanceContents(output_digests(work.current))
    with destination.partial_files() as partial:
        chunks = run_chunks(FACTORY, {**order, "drafts": str(partial)}, work.to_read)
        # A commit waits for the disk, and meanwhile the workers shall not wait for it.
        for decided in one_behind(lambda chunk: destination.commit(partial, chunk[1], instances), chunks):
            done += len(decided)
            rate = done / (time.monotonic() - started)
            log(f"{done}/{total} files, {rate:.0f} files/s, {(total - done) / rate:.0f} s left")


def _outcome(destination: Destination, work: ReadPlan, settings: Settings) -> DeidentifyOutcome:
    rows = latest(destination.ledger.read())
    rows = rows.filter(pa.compute.not_equal(rows["reason"], REMOVED))
    outputs = rows.filter(pa.compute.not_equal(rows["output"], ""))
    reasons = Counter(rows.filter(pa.compute.equal(rows["output"], ""))["reason"].to_pylist())
    patients = _patients(outputs)
    problems = _write_problems(
        rows, work, settings.private / f"problems-deidentify-{destination.root.name}.csv"
    )
    return DeidentifyOutcome(
        destination=str(destination.root),
        files_listed=len(work.files),
        files_read=len(work.to_read),
        files_removed=work.removed.num_rows,
        objects=len(pa.compute.unique(outputs["output"])),
        patients=len(patients),
        patient_variants=sum(count for count in Counter(patients.values()).values() if count > 1),
        quarantined={reason: count for reason, count in reasons.most_common() if reason not in IGNORED},
        ignored={reason: count for reason, count in reasons.most_common() if reason in IGNORED},
        problems_file=str(problems) if problems else None,
    )


def _patients(outputs: pa.Table) -> dict[str, str]:
    """Return the patients by their new numbers, each with what all spellings of the number share."""
    found: dict[str, str] = {}
    for batch in outputs.select(["output", "variant_key"]).to_batches(max_chunksize=65536):
        output, variant = (column.to_pylist() for column in batch.columns)
        found |= {name.split("/")[1]: key for name, key in zip(output, variant, strict=True)}
    return found


def _write_problems(rows: pa.Table, work: ReadPlan, path: Path) -> Path | None:
    """Write the original names of what was not passed on, for the eyes of those who may see them."""
    refused = rows.filter(pa.compute.not_equal(rows["reason"], "")).to_pylist()
    if not refused:
        path.unlink(missing_ok=True)
        return None
    why = {row["source_key"]: (row["reason"], row["detail"]) for row in refused}
    keys = zip(work.keys.tolist(), work.files, strict=True)
    listed = [("file", file.name, *why[key.decode()]) for key, file in keys if key.decode() in why]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([("what", "where", "reason", "detail"), *listed])
    return path
