"""Owns what is new: the listing of a source held against the version that is already there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from imaging.dataset.chunk import Example, Refusal
from imaging.dataset.version import DatasetVersion, VersionHead
from imaging.deidentify.pseudonyms import Pseudonyms
from imaging.errors import UserFault
from imaging.preprocess import PreprocessSpec
from imaging.sources.protocol import SourceFile

CHUNK_FILES = 256
REPEATS = frozenset({"duplicate-instance", "duplicate-pixels", "conflicting-instance"})
LOST_WITH_STUDY = "bad-study"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanPlan:
    """What must be read, and what stands from the version before."""

    to_read: tuple[SourceFile, ...]
    examples: tuple[Example, ...]
    refusals: tuple[Refusal, ...]
    listed: int
    removed: int

    def chunks(self) -> Iterator[Sequence[SourceFile]]:
        """Yield the files to read, some hundreds at a time."""
        for start in range(0, len(self.to_read), CHUNK_FILES):
            yield self.to_read[start : start + CHUNK_FILES]


def plan(
    files: Sequence[SourceFile],
    previous: DatasetVersion | None,
    spec: PreprocessSpec,
    pseudonyms: Pseudonyms,
) -> ScanPlan:
    """Decide by name, size and modification time which files must be read.

    Raises UserFault where the version was made with another key, or another policy about variants of a PatientID.
    """
    if previous is not None:
        _check_patients(previous.head, pseudonyms)
    current = {pseudonyms.key("file", file.name): file for file in files}
    if previous is None:
        return ScanPlan(to_read=tuple(files), examples=(), refusals=(), listed=len(files), removed=0)

    def stands(row: Example | Refusal) -> bool:
        file = current.get(row.source_key)
        return file is not None and (file.size_bytes, file.mtime_ns) == (row.source_size, row.source_mtime_ns)

    was_examples, was_refusals = previous.examples(), previous.refusals()
    known = {row.source_key for row in was_examples} | {row.source_key for row in was_refusals}
    removed = len(known - current.keys())
    examples = [row for row in was_examples if previous.spec == spec and stands(row)]
    # The file that a repeated one repeats may be gone, by itself or with its study: then the repetition counts, so
    # it is read again. What was lost with its study is read each night: the bad slice may have been mended.
    lost = any(row.reason == LOST_WITH_STUDY for row in was_refusals)
    again = {LOST_WITH_STUDY} | (REPEATS if lost or len(examples) < len(was_examples) else set())
    firm = [row for row in was_refusals if row.reason not in again]
    refusals = [row for row in firm if previous.spec == spec and stands(row)]
    standing = {row.source_key for row in examples} | {row.source_key for row in refusals}
    return ScanPlan(
        to_read=tuple(file for key, file in current.items() if key not in standing),
        examples=tuple(examples),
        refusals=tuple(refusals),
        listed=len(files),
        removed=removed,
    )


def _check_patients(head: VersionHead, pseudonyms: Pseudonyms) -> None:
    """Refuse what would make other patients of those that are there: they could change sides of the split."""
    if head.key_fingerprint != pseudonyms.fingerprint:
        raise UserFault(
            f"dataset {head.dataset!r} was made with the key {head.key_fingerprint} "
            f"and this key is {pseudonyms.fingerprint}: "
            "restore the key file, or start a new dataset with another --name"
        )
    if head.patient_variants != pseudonyms.patient_variants:
        raise UserFault(
            f"dataset {head.dataset!r} was made with patient_variants {head.patient_variants!r} and is asked for "
            f"with {pseudonyms.patient_variants!r}, which would move patients between training and test: "
            f"keep {head.patient_variants!r}, or start a new dataset with another --name"
        )
