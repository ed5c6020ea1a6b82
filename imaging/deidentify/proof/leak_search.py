"""Leak search: what a run has left behind is searched for identifiers of a sample of the patients it has read."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from imaging.deidentify.identity.identifiers import Identifier
from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.proof.file_search import FileSearch
from imaging.deidentify.proof.output_search import FUNCTION, Hit
from imaging.errors import DataFault
from imaging.pseudonyms import Pseudonyms
from imaging.sandbox.pool import Item, Pool
from imaging.sandbox.worker_process import Answer
from imaging.sources.protocol import Source, SourceFile

SAMPLE = 50
LISTED = 100_000
"""Files of the listing from which the sample is drawn: to list a large archive again would take minutes."""
BUDGET_BYTES = 1 << 30
"""Bytes that are searched at most, in some 20 seconds; of more files a sample is drawn anew each time."""
PATIENT_ID, FILE_NAME = 0x00100020, 0
NAME_CHARACTERS = 12
ROWS = "medmnist"
"""Format whose files are ranges of rows: the number of a row identifies nobody."""
OBJECTS_AT_A_TIME = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakReport:
    """The counts of a search and its hits; `left_out` counts files beyond the budget."""

    files: int
    left_out: int
    identifiers: int
    hits: tuple[Hit, ...]

    def __add__(self, other: "LeakReport") -> "LeakReport":
        """Return the sum of two searches for the same identifiers."""
        return LeakReport(
            files=self.files + other.files,
            left_out=self.left_out + other.left_out,
            identifiers=self.identifiers,
            hits=self.hits + other.hits,
        )


def search_files(
    paths: Iterable[Path], identifiers: Sequence[Identifier], root: Path, seed: str
) -> LeakReport:
    """Search files for identifiers; values that many patients share, such as recent dates, prove nothing here."""
    drawn = sorted(paths)
    random.Random(seed).shuffle(drawn)
    chosen, size = [], 0
    for path in drawn:
        size += _size(path)
        if size <= BUDGET_BYTES:
            chosen.append(path)
    search = FileSearch([(path, _relative(path, root)) for path in chosen])
    search.add(identifiers)
    search.flush()
    return LeakReport(
        files=len(chosen),
        left_out=len(drawn) - len(chosen),
        identifiers=len(identifiers),
        hits=tuple(search.hits),
    )


def sample_identifiers(source: Source, seed: str) -> tuple[Identifier, ...]:
    """Return the identifiers of the patients of a sample of a source's files, read in the sandbox.

    Of files that are no DICOM: their names, and the patients' numbers in their metadata.
    """
    identifiers: dict[Identifier, None] = {}
    objects: list[Path | bytes] = []
    for file in draw_sample(source.scan(), seed, SAMPLE):
        try:
            payload = source.fetch(file)
        except DataFault:
            continue
        if payload.format == ROWS:
            continue
        identifiers |= dict.fromkeys(identifiers_of_name(file.name))
        identifiers |= {
            Identifier("id", text, PATIENT_ID): None for name, text in payload.metadata if name == "patient"
        }
        if payload.format == "dicom":
            objects.append(payload.contents[0])
    identifiers |= dict.fromkeys(_of_objects(objects))
    return tuple(identifiers)


def identifiers_of_name(name: str) -> Iterator[Identifier]:
    """Yield the identifiers in the name of a file: the whole name, and its parts that may name somebody.

    >>> [one.value for one in identifiers_of_name("ROSSI_ANNA_19620412/20260101/IM00012")]
    ['ROSSI_ANNA_19620412/20260101/IM00012', 'ROSSI_ANNA_19620412']
    """
    for part in dict.fromkeys((name, *PurePosixPath(name).parts)):
        letters, digits = (any(map(test, part)) for test in (str.isalpha, str.isdigit))
        if len(part) >= NAME_CHARACTERS and letters and digits:
            yield Identifier("id", part, FILE_NAME)


def draw_sample(files: Iterator[SourceFile], seed: str, count: int) -> list[SourceFile]:
    """Return some of the files, each with the same chance (Vitter 1985, algorithm R)."""
    chance, kept = random.Random(seed), []
    for number, file in enumerate(islice(files, LISTED)):
        if number < count:
            kept.append(file)
        elif (place := chance.randrange(number + 1)) < count:
            kept[place] = file
    return kept


def _of_objects(objects: Sequence[Path | bytes]) -> Iterator[Identifier]:
    if not objects:
        return
    # No output is made, so the key does not matter.
    options = DeidentifyOptions(dates="remove")
    setup = {"options": options.model_dump_json(), "secret": Pseudonyms(b"none").secret.hex()}
    parts = [objects[at : at + OBJECTS_AT_A_TIME] for at in range(0, len(objects), OBJECTS_AT_A_TIME)]
    # One: to start another takes longer than to read so few.
    with Pool(FUNCTION, setup, workers=1) as pool:
        for outcome in pool.map(Item({"objects": [""] * len(part)}, tuple(part)) for part in parts):
            if isinstance(outcome, Answer):
                for kind, value, tag in outcome.value["identifiers"]:
                    yield Identifier(kind, value, tag)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        # Gone meanwhile: a server's own file.
        return 0


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
