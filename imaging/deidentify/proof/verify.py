"""Proof of a de-identified folder: every original identifying value is searched for in every byte of it.

An output is searched for all values of its own original, and for values that identify patients of the originals read
with it; all other files of the folder, its ledger too, are searched for values that identify any patient.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3

from imaging.deidentify.identity.identifiers import Identifier
from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.profile.profile import load_profile
from imaging.deidentify.proof.file_search import FileSearch
from imaging.deidentify.proof.output_register import OutputRegister
from imaging.deidentify.proof.output_search import FUNCTION, Hit
from imaging.deidentify.proof.patterns import ENCODINGS
from imaging.deidentify.proof.verification_record import Verification, outputs_digest, sign
from imaging.errors import DataFault, UserFault
from imaging.pseudonyms import Pseudonyms
from imaging.release_compatibility import read_config
from imaging.sandbox.pool import Item, Pool
from imaging.sources.dispatch import Outcome, dispatch
from imaging.sources.protocol import Payload, Source, format_of

__all__ = ["Hit", "Verification", "verify"]

HEAD, PARTS = ".radloop/dataset.json", ".radloop/parts"
OBJECTS_AT_A_TIME = 16
BYTES_AT_A_TIME = 16 << 20
"""Of originals; their outputs are about as large."""


@dataclass(slots=True)
class RunningCounts:
    """The counts and hits so far; what is known of each output is in the register."""

    originals: int = 0
    outputs: int = 0
    searched: Counter[str] = field(default_factory=Counter)
    hits: dict[Hit, None] = field(default_factory=dict)


def verify(
    destination: Path,
    source: Source,
    pseudonyms: Pseudonyms,
    workers: int | None = None,
    on_progress: Callable[[int], object] = lambda outputs: None,
) -> Verification:
    """Search all files below `destination` for the identifiers of its originals in `source`.

    `on_progress` is called with the number of outputs that are done. Without a record of how the folder was made, the
    default options are assumed and each file is searched for values that identify any patient. Raises UserFault where
    there is nothing to search, or where the record names another key.
    """
    began = time.monotonic()
    record = _record(destination, pseudonyms)
    options = read_config(DeidentifyOptions, record.get("options", {}), str(destination))
    register = OutputRegister(sorted((destination / PARTS).glob("*.parquet")))
    others = sorted(_others(destination, register))
    counts, others_search = RunningCounts(), FileSearch(others)
    setup = {"options": options.model_dump_json(), "secret": pseudonyms.secret.hex()}
    sent: dict[str, str] = {}

    def item_of(payloads: Sequence[Payload]) -> Item:
        outputs, blobs = [], list[Path | bytes]()
        for payload in payloads:
            output = register.output_of(pseudonyms.key("file", payload.name))
            existing = output if (destination / output).is_file() else ""
            sent[payload.name] = existing
            outputs.append(existing)
            blobs += [payload.contents[0], destination / existing] if existing else [payload.contents[0]]
        return Item({"objects": outputs}, tuple(blobs))

    originals = (file for file in source.scan() if format_of(file.name) == "dicom")
    with Pool(FUNCTION, setup, workers) as pool:
        for batch, outcome in dispatch(
            source, originals, pool.map, item_of, OBJECTS_AT_A_TIME, BYTES_AT_A_TIME
        ):
            # An original that cannot be fetched was not sent, and leaves its output unproven.
            outputs = [sent.pop(file.name, "") for file in batch]
            _count(counts, register, outputs, outcome, others_search)
            on_progress(counts.outputs)
    others_search.flush()
    counts.hits |= others_search.hits
    profile = load_profile()
    return sign(
        Verification(
            outputs=register.searched() + len(others),
            originals=counts.originals,
            searched=dict(sorted(counts.searched.items())),
            encodings=(*ENCODINGS, "character sets of the object"),
            hits=tuple(counts.hits),
            unproven=tuple(f"{output}: {why}" for output, why in register.unproven()),
            seconds=time.monotonic() - began,
            edition=str(record.get("edition", profile.edition)),
            profile_sha256=str(record.get("profile_sha256", profile.sha256)),
            key_fingerprint=pseudonyms.fingerprint,
            options=options.model_dump_json(),
            outputs_sha256=outputs_digest(
                register.digests(blake3().update_mmap(path).hexdigest() for path, _ in others)
            ),
        ),
        pseudonyms,
    )


def _record(destination: Path, pseudonyms: Pseudonyms) -> Mapping[str, Any]:
    if not destination.is_dir() or not any(destination.iterdir()):
        raise UserFault(f"{destination} holds nothing: give the folder that radloop deidentify has written")
    head = destination / HEAD
    record: Mapping[str, Any] = json.loads(head.read_text()) if head.exists() else {}
    made_with = record.get("key_fingerprint", pseudonyms.fingerprint)
    if made_with != pseudonyms.fingerprint:
        raise UserFault(
            f"{destination} was made with the key {made_with} and this key is {pseudonyms.fingerprint}: which output "
            "is whose cannot be told; give the key it was made with"
        )
    return record


def _others(destination: Path, register: OutputRegister) -> Iterator[tuple[Path, str]]:
    """Yield the files that are no outputs, with their names."""
    # A folder at a time, where Path.rglob remembers all of them.
    for folder, _, names in os.walk(destination):
        for path in (Path(folder, name) for name in names):
            name = path.relative_to(destination).as_posix()
            if path.is_file() and not register.has(name):
                yield path, name


def _count(
    counts: RunningCounts,
    register: OutputRegister,
    outputs: Sequence[str],
    outcome: Outcome,
    others_search: FileSearch,
) -> None:
    if isinstance(outcome, DataFault):
        for output in outputs:
            register.record_unsearched(output, outcome.reason)
        return
    value = outcome.value
    counts.originals += len(outputs) - len(value["faults"])
    counts.searched.update(kind for kind, _, _ in value["identifiers"])
    counts.hits |= {Hit(**hit): None for hit in value["hits"]}
    counts.outputs += len(value["digests"])
    register.record_searched(value["digests"])
    for number, reason in value["faults"].items():
        register.record_unsearched(outputs[int(number)], reason)
    others_search.add(Identifier(kind, text, tag) for kind, text, tag in value["identifiers"])
