"""What an ingest must read: the listing of a source compared with the rows that were taken in before."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.dataset.ingest.listing import Comparison, Listing, compare_with_listing
from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.dataset.tables.row_operations import codes, concat, concat_columns, instance_details
from imaging.dataset.tables.schemas import EXAMPLES, REFUSALS, SOURCE, TABLES
from imaging.dataset.tables.table_files import ColumnSource
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.dataset.version.head import VersionHead
from imaging.errors import UserFault
from imaging.pseudonyms import Pseudonyms
from imaging.refusal_reasons import CONFLICTING_INSTANCE, IGNORED, NO_LOSS

REPEATS = ("duplicate-instance", "duplicate-pixels", CONFLICTING_INSTANCE)
COMPARED = [*(field.name for field in SOURCE), "spec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRows:
    """Rows that were taken in before: those of a version, or of chunks that were finished after it."""

    examples: LazyRows
    refusals: pa.Table

    @classmethod
    def of(cls, version: DatasetVersion | None) -> "KnownRows":
        """Return the rows of a version; before the first night there are none."""
        if version is None:
            return cls(examples=LazyRows(EXAMPLES), refusals=REFUSALS.empty_table())
        examples = LazyRows.stored(version.store, version.head.parts["examples"], EXAMPLES)
        return cls(examples=examples, refusals=version.table("quarantine"))


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestPlan:
    """Which files must be read, and which rows are kept.

    `ranks` has a number for each of the `examples`, lower where it was taken in earlier. `superseded` are examples
    whose file was changed: they are kept where the file now has their instance with other pixels. `removed` are
    examples whose file is no longer listed, and `tombstones` name the ones that were removed earlier. `listed_files`
    and `removed_files` are counts.
    """

    to_read: Listing
    examples: LazyRows
    ranks: NDArray[np.int64]
    superseded: LazyRows
    removed: LazyRows
    refusals: pa.Table
    tombstones: pa.Table
    listed_files: int
    removed_files: int


def plan_ingest(
    listing: Listing,
    previous: DatasetVersion | None,
    spec: str,
    pseudonyms: Pseudonyms,
    *,
    base: DatasetVersion | None = None,
    drops_studies: bool = False,
) -> IngestPlan:
    """Return which files must be read beside a version, by name, size, modification time, ETag and spec (its digest).

    `base` is the version that was there when the files were listed: what another run has changed since then is kept.
    Raises UserFault where the version was made with another key, or another policy about variants of a PatientID.
    """
    if previous is not None:
        check_patients(previous.head, pseudonyms)
    moved = previous is not None and (base is None or base.digest != previous.digest)
    known = KnownRows.of(previous)
    examples, refusals = _compare(known, listing, spec, KnownRows.of(base) if moved else None)
    current = known.refusals.filter(refusals.current)
    changed = known.examples.filter(examples.changed)
    # As long as a changed file is refused for its other pixels, the first ones are kept.
    disputed = current.filter(pc.equal(current["reason"], CONFLICTING_INSTANCE))["source_key"]
    stays = pc.is_in(changed.select(["source_key"])["source_key"], value_set=disputed)
    kept = changed.filter(stays) + known.examples.filter(examples.current)
    lasting = _lasting(current, kept, drops_studies=drops_studies)
    removed = known.examples.filter(examples.removed)
    return IngestPlan(
        to_read=_without_files_of(listing, kept, lasting),
        examples=kept,
        ranks=np.zeros(kept.num_rows, np.int64),
        superseded=changed.filter(pc.invert(stays)),
        removed=removed,
        refusals=lasting,
        tombstones=previous.table("tombstones") if previous else TABLES["tombstones"].empty_table(),
        listed_files=len(listing),
        removed_files=len(pc.unique(_files_of(removed, known.refusals.filter(refusals.removed)))),
    )


def current_rows(
    finished: Sequence[KnownRows], to_read: Listing, spec: str
) -> tuple[KnownRows, NDArray[np.bool_]]:
    """Return the rows of finished chunks that save a file from being read, and the mask of chunks that have any.

    Of a file that several chunks have as it is listed now, the rows of the first one count. A night that published
    nothing leaves rows of files that were changed since: they must not stand for what a later night has read.
    """
    known = KnownRows(
        examples=LazyRows(EXAMPLES, [block for chunk in finished for block in chunk.examples.blocks]),
        refusals=concat([chunk.refusals for chunk in finished], REFUSALS),
    )
    examples, refusals = _compare(known, to_read, spec)
    current = np.concatenate([np.asarray(kind.current, np.bool_) for kind in (examples, refusals)])
    numbers = np.arange(len(finished))
    counts = [
        [chunk.examples.num_rows for chunk in finished],
        [chunk.refusals.num_rows for chunk in finished],
    ]
    chunk_of = np.concatenate([numbers.repeat(count) for count in counts])
    files = codes(_files_of(known.examples, known.refusals))
    first = np.full(files.max(initial=-1) + 1, len(finished))
    np.minimum.at(first, files[current], chunk_of[current])
    kept = current & (first[files] == chunk_of)
    rows = known.examples.num_rows
    saving = KnownRows(
        examples=known.examples.filter(pa.array(kept[:rows])),
        refusals=known.refusals.filter(pa.array(kept[rows:])),
    )
    return saving, np.isin(numbers, chunk_of[kept])


def with_finished_chunks(plan: IngestPlan, finished: KnownRows) -> IngestPlan:
    """Return a plan with the rows of chunks that are finished and in no version yet, see `current_rows`."""
    # Ranked as they are listed, whatever chunk they were in: of a repeated instance the first one is kept.
    files = finished.examples.select(["source_key"])["source_key"]
    at = pc.index_in(files, value_set=plan.to_read.table["source_key"]).to_numpy().astype(np.int64)
    return replace(
        plan,
        to_read=_without_files_of(plan.to_read, finished.examples, finished.refusals),
        examples=plan.examples + finished.examples,
        ranks=np.concatenate([plan.ranks, 1 + at]),
        refusals=concat([plan.refusals, finished.refusals], REFUSALS),
    )


def _compare(
    known: KnownRows, listing: Listing, spec: str, before: KnownRows | None = None
) -> tuple[Comparison, Comparison]:
    """Return how the examples and the refusals compare with a listing."""
    examples, refusals = (
        compare_with_listing(rows.select(COMPARED), listing.table, spec, earlier and earlier.select(COMPARED))
        for rows, earlier in (
            (known.examples, before and before.examples),
            (known.refusals, before and before.refusals),
        )
    )
    return examples, refusals


def _lasting(refusals: pa.Table, examples: LazyRows, *, drops_studies: bool) -> pa.Table:
    """Return refusals without those whose cause may be gone.

    The cause of a repetition is the instance that it repeats, and of a lost study its bad slice.
    """
    repeats = pc.is_in(refusals["reason"], value_set=pa.array(REPEATS))
    repeated = refusals["detail"].filter(repeats)
    # Most archives have few of them, and the details of a million instances take a second.
    first = instance_details(examples.select(["instance_key"])["instance_key"]) if len(repeated) else repeated
    there = first.filter(pc.is_in(first, value_set=repeated))
    undone = pc.and_(repeats, pc.invert(pc.is_in(refusals["detail"], value_set=there)))
    with_study = pc.equal(refusals["reason"], "bad-study")
    if drops_studies:
        harmless = pa.array([*IGNORED, *NO_LOSS])
        causes = refusals.filter(pc.invert(pc.is_in(refusals["reason"], value_set=harmless)))
        with_study = pc.and_(
            with_study, pc.invert(pc.is_in(refusals["study_key"], value_set=causes["study_key"]))
        )
    return refusals.filter(pc.invert(pc.or_(undone, with_study)))


def _without_files_of(files: Listing, *tables: ColumnSource) -> Listing:
    done = pc.is_in(files.table["source_key"], value_set=_files_of(*tables))
    return files.filter(pc.invert(done))


def _files_of(*tables: ColumnSource) -> pa.ChunkedArray:
    return concat_columns(table.select(["source_key"])["source_key"] for table in tables)


def check_patients(head: VersionHead, pseudonyms: Pseudonyms) -> None:
    """Refuse what would make other patients of known ones: they could change sides of the split."""
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
