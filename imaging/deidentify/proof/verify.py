"""Owns the proof of a de-identified folder: every original identifying value is looked for in every byte of it.

An output is searched for all values of its own original and for what identifies patients in those that are read with
it; what is in the folder beside the outputs, its ledger too, for what identifies any patient.
"""

import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from blake3 import blake3

from imaging.deidentify.identity.identifiers import Identifier
from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.profile.profile import load_profile
from imaging.deidentify.proof.originals import FUNCTION, Hit
from imaging.deidentify.proof.outside import Pile
from imaging.deidentify.proof.patterns import ENCODINGS
from imaging.deidentify.proof.register import Register
from imaging.deidentify.proof.signed import Verification, outputs_digest, sign
from imaging.errors import DataFault, UserFault
from imaging.pseudonyms import Pseudonyms
from imaging.sandbox.pool import Item, Pool
from imaging.sources.dispatch import Outcome
from imaging.sources.protocol import Source

__all__ = ["Hit", "Verification", "verify"]

HEAD, PARTS = ".radloop/dataset.json", ".radloop/parts"
OBJECTS_AT_A_TIME = 16
BYTES_AT_A_TIME = 32 << 20

Batch = tuple["Pair", ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """An original as its source hands it over, and its output below the destination, "" where it has none."""

    contents: Path | bytes
    output: str


@dataclass(slots=True)
class Tally:
    """What is known so far, beside the register."""

    originals: int = 0
    outputs: int = 0
    searched: Counter[str] = field(default_factory=Counter)
    hits: dict[Hit, None] = field(default_factory=dict)


def verify(
    destination: Path,
    source: Source,
    pseudonyms: Pseudonyms,
    workers: int | None = None,
    told: Callable[[int], object] = lambda outputs: None,
) -> Verification:
    """Search what lies below `destination` for the identifiers of its originals in `source`.

    `told` is called with the number of outputs that are done. Without a record of how it was made, the default options
    are taken and each file is searched for what identifies any patient. Raises UserFault where there is nothing to
    search, or where the record names another key.
    """
    began = time.monotonic()
    record = _record(destination, pseudonyms)
    options = DeidentifyOptions.model_validate(record.get("options", {}))
    register = Register(sorted((destination / PARTS).glob("*.parquet")))
    others = sorted(_others(destination, register))
    tally, outside = Tally(), Pile(others)
    setup = {"options": options.model_dump_json(), "secret": pseudonyms.secret.hex()}
    with Pool(FUNCTION, setup, workers) as pool:
        failed: list[Pair] = []
        for batch, outcome in _answers(
            pool, destination, _batches(source, destination, register, pseudonyms)
        ):
            if isinstance(outcome, DataFault):
                # One of them ended the worker: each by itself, then.
                failed += batch
            else:
                _count(tally, register, batch, outcome, outside)
                told(tally.outputs)
        for batch, outcome in _answers(pool, destination, ((pair,) for pair in failed)):
            _count(tally, register, batch, outcome, outside)
    outside.flush()
    tally.hits |= outside.hits
    profile = load_profile()
    return sign(
        Verification(
            outputs=register.searched() + len(others),
            originals=tally.originals,
            searched=dict(sorted(tally.searched.items())),
            encodings=(*ENCODINGS, "character sets of the object"),
            hits=tuple(tally.hits),
            unproven=tuple(f"{output}: {why}" for output, why in register.unproven()),
            seconds=time.monotonic() - began,
            edition=str(record.get("edition", profile.edition)),
            profile_sha256=str(record.get("profile_sha256", profile.sha256)),
            key_fingerprint=pseudonyms.fingerprint,
            options=options.model_dump_json(),
            outputs_sha256=outputs_digest(register.digests(_digest(path) for path, _ in others)),
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


def _others(destination: Path, register: Register) -> Iterator[tuple[Path, str]]:
    """Yield what lies beside the outputs, with its names."""
    # A folder at a time, where Path.rglob remembers all of them.
    for folder, _, names in os.walk(destination):
        for path in (Path(folder, name) for name in names):
            name = path.relative_to(destination).as_posix()
            if path.is_file() and not register.has(name):
                yield path, name


def _digest(path: Path) -> str:
    return blake3().update_mmap(path).hexdigest()


def _batches(
    source: Source, destination: Path, register: Register, pseudonyms: Pseudonyms
) -> Iterator[Batch]:
    """Fetch the originals of a source, some at a time; what cannot be fetched shows as an output unproven."""
    batch: list[Pair] = []
    size = 0
    for file in source.scan():
        try:
            payload = source.fetch(file)
        except DataFault:
            continue
        output = register.output_of(pseudonyms.key("file", file.name))
        if payload.format != "dicom":
            continue
        there = output if (destination / output).is_file() else ""
        batch.append(Pair(payload.contents[0], there))
        size += 2 * file.size_bytes
        if len(batch) >= OBJECTS_AT_A_TIME or size >= BYTES_AT_A_TIME:
            yield tuple(batch)
            batch, size = [], 0
    if batch:
        yield tuple(batch)


def _answers(pool: Pool, destination: Path, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Outcome]]:
    sent: deque[Batch] = deque()

    def items() -> Iterator[Item]:
        for batch in batches:
            sent.append(batch)
            blobs = (
                (one.contents, destination / one.output) if one.output else (one.contents,) for one in batch
            )
            yield Item({"objects": [one.output for one in batch]}, tuple(chain.from_iterable(blobs)))

    for outcome in pool.map(items()):
        yield sent.popleft(), outcome


def _count(tally: Tally, register: Register, batch: Batch, outcome: Outcome, outside: Pile) -> None:
    if isinstance(outcome, DataFault):
        for one in batch:
            register.doubt(one.output, outcome.reason)
        return
    value = outcome.value
    tally.originals += len(batch) - len(value["faults"])
    tally.searched.update(kind for kind, _, _ in value["sought"])
    tally.hits |= {Hit(**hit): None for hit in value["hits"]}
    tally.outputs += len(value["digests"])
    register.note(value["digests"])
    for number, reason in value["faults"].items():
        register.doubt(batch[int(number)].output, reason)
    outside.seek(Identifier(kind, text, tag) for kind, text, tag in value["sought"])
