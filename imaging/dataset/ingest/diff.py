"""Owns what is new: the listing of a source held against what was taken in before."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.dataset.ingest.listing import Listing, hold
from imaging.dataset.tables.lazy_rows import Blocks
from imaging.dataset.tables.row_operations import concat, instance_words, together
from imaging.dataset.tables.schemas import EXAMPLES, REFUSALS, SOURCE, TABLES
from imaging.dataset.tables.table_files import Rows
from imaging.dataset.version.dataset_version import DatasetVersion, VersionHead
from imaging.errors import UserFault
from imaging.pseudonyms import Pseudonyms
from imaging.refusal_reasons import IGNORED, NO_LOSS

REPEATS = ("duplicate-instance", "duplicate-pixels", "conflicting-instance")
HELD = [*(field.name for field in SOURCE), "spec"]
"""Columns that are held against a listing."""
CONFLICT, LOST_WITH_STUDY = "conflicting-instance", "bad-study"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Rows that were taken in before: those of a version, or of chunks that were finished after it."""

    examples: Blocks
    refusals: pa.Table

    @classmethod
    def of(cls, version: DatasetVersion | None) -> "Known":
        """Return what a version knows; before the first night it is nothing."""
        if version is None:
            return cls(examples=Blocks(EXAMPLES), refusals=REFUSALS.empty_table())
        examples = Blocks.stored(version.store, version.head.parts["examples"], EXAMPLES)
        return cls(examples=examples, refusals=version.table("quarantine"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanPlan:
    """What must be read, and what stands.

    `turns` of examples are low for those that came first. `superseded` are such whose file was changed: they stay
    where it holds their instance with other pixels now. `gone` are those whose file is no longer listed, and
    `tombstones` of such as went before. Files are counted that are `listed`, and that were `removed`.
    """

    to_read: Listing
    examples: Blocks
    turns: NDArray[np.int64]
    superseded: Blocks
    gone: Blocks
    refusals: pa.Table
    tombstones: pa.Table
    listed: int
    removed: int


def plan(
    listing: Listing,
    previous: DatasetVersion | None,
    spec: str,
    pseudonyms: Pseudonyms,
    *,
    base: DatasetVersion | None = None,
    drops_studies: bool = False,
) -> ScanPlan:
    """Decide by name, size, modification time, ETag and spec (its digest) which files must be read beside a version.

    `base` is the version that was there when the files were listed: what another run has changed since then stands.
    Raises UserFault where the version was made with another key, or another policy about variants of a PatientID.
    """
    if previous is not None:
        _check_patients(previous.head, pseudonyms)
    moved = previous is not None and (base is None or base.digest != previous.digest)
    old = _sift(Known.of(previous), listing, spec, Known.of(base) if moved else None)
    # As long as a changed file is refused for its other pixels, the first ones stand.
    disputed = old.refusals.filter(pc.equal(old.refusals["reason"], CONFLICT))["source_key"]
    stays = pc.is_in(old.changed.select(["source_key"])["source_key"], value_set=disputed)
    standing = old.changed.only(stays) + old.standing
    firm = _firm(old.refusals, standing, drops_studies=drops_studies)
    return ScanPlan(
        to_read=_but(listing, standing, firm),
        examples=standing,
        turns=np.zeros(standing.num_rows, np.int64),
        superseded=old.changed.only(pc.invert(stays)),
        gone=old.gone,
        refusals=firm,
        tombstones=previous.table("tombstones") if previous else TABLES["tombstones"].empty_table(),
        listed=len(listing),
        removed=len(pc.unique(_files_of(old.gone, old.refusals_gone))),
    )


def with_finished(scan: ScanPlan, finished: Known, spec: str) -> ScanPlan:
    """Add the rows of chunks that are finished and that no version holds yet."""
    # Of files that are still to be read: another run may have finished the same ones, and published them.
    new = _sift(finished, scan.to_read, spec)
    # As they are listed, whatever chunk they were in: of a repeated instance the first one stands.
    files = new.standing.select(["source_key"])["source_key"]
    at = pc.index_in(files, value_set=scan.to_read.table["source_key"]).to_numpy().astype(np.int64)
    return replace(
        scan,
        to_read=_but(scan.to_read, new.standing, new.refusals),
        examples=scan.examples + new.standing,
        turns=np.concatenate([scan.turns, 1 + at]),
        refusals=concat([scan.refusals, new.refusals], REFUSALS),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sifted:
    """Examples that stand, whose file was changed, and whose file is gone; refusals that stand, and that are gone."""

    standing: Blocks
    changed: Blocks
    gone: Blocks
    refusals: pa.Table
    refusals_gone: pa.Table


def _sift(known: Known, listing: Listing, spec: str, before: Known | None = None) -> _Sifted:
    held, refused = (
        hold(rows.select(HELD), listing.table, spec, earlier and earlier.select(HELD))
        for rows, earlier in (
            (known.examples, before and before.examples),
            (known.refusals, before and before.refusals),
        )
    )
    return _Sifted(
        standing=known.examples.only(held.stands),
        changed=known.examples.only(held.changed),
        gone=known.examples.only(held.gone),
        refusals=known.refusals.filter(refused.stands),
        refusals_gone=known.refusals.filter(refused.gone),
    )


def _firm(firm: pa.Table, standing: Blocks, *, drops_studies: bool) -> pa.Table:
    """Return refusals but for those whose cause may be gone.

    That is what a repeated one repeats, and what its study was lost for.
    """
    repeats = pc.is_in(firm["reason"], value_set=pa.array(REPEATS))
    repeated = firm["detail"].filter(repeats)
    # Most archives have few of them, and the words of a million instances take a second.
    first = instance_words(standing.select(["instance_key"])["instance_key"]) if len(repeated) else repeated
    there = first.filter(pc.is_in(first, value_set=repeated))
    again = pc.and_(repeats, pc.invert(pc.is_in(firm["detail"], value_set=there)))
    with_study = pc.equal(firm["reason"], LOST_WITH_STUDY)
    if drops_studies:
        harmless = pa.array([*IGNORED, *NO_LOSS])
        causes = firm.filter(pc.invert(pc.is_in(firm["reason"], value_set=harmless)))
        with_study = pc.and_(
            with_study, pc.invert(pc.is_in(firm["study_key"], value_set=causes["study_key"]))
        )
    return firm.filter(pc.invert(pc.or_(again, with_study)))


def _but(files: Listing, *tables: Rows) -> Listing:
    """Return the files that no row is of."""
    done = pc.is_in(files.table["source_key"], value_set=_files_of(*tables))
    return files.only(pc.invert(done))


def _files_of(*tables: Rows) -> pa.ChunkedArray:
    return together(table.select(["source_key"])["source_key"] for table in tables)


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
