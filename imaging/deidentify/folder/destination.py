"""Destination of de-identified files: the record of how it was made, partial files that are committed, and removals."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock, Timeout

from imaging.deidentify.folder.file_ledger import (
    MANY_PARTS,
    REMOVED,
    FileLedger,
    InstanceContents,
    LedgerEntry,
    latest,
    read_rows,
    to_bytes,
    to_table,
)
from imaging.errors import EnvironmentFault, UserFault
from imaging.refusal_reasons import CONFLICTING_OBJECT
from imaging.store.folder_store import FolderStore

IMAGES = "images"
OWN_FOLDER = ".radloop"
"""Folder beside the images: not to be handed out, since it has sizes and times of the originals."""
HEAD = f"{OWN_FOLDER}/dataset.json"
PARTS = f"{OWN_FOLDER}/parts"
PARTIAL = f"{OWN_FOLDER}/drafts-"
PENDING = "pending.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationRecord:
    """Key, options and profile that a destination was made with: others must not be mixed with them in one folder."""

    key_fingerprint: str
    options: dict[str, Any]
    edition: str
    profile_sha256: str


class Destination:
    """A folder of de-identified files and its ledger.

    Partial files are written below a folder of the run. A chunk of them is committed in three steps: its rows are
    written beside them, the files are moved to their names, the rows become a part of the ledger. Where a run ends in
    between, the next one finishes the last two steps.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = FolderStore(root)
        self.ledger = FileLedger(self.store, PARTS)

    @contextmanager
    def locked(self, record: DestinationRecord) -> Iterator[None]:
        """Lock the folder against other runs, once `check` has passed, and finish what an interrupted run left.

        Raises UserFault before anything is written.
        """
        self.check(record)
        try:
            self.store.path(OWN_FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentFault(
                f"cannot make the destination {self.root} ({error.strerror}): give write access, or another one"
            ) from None
        try:
            with FileLock(self.store.path(f"{OWN_FOLDER}/lock"), timeout=0):
                if not self.store.exists(HEAD):
                    self.store.write(HEAD, json.dumps(asdict(record), indent=1, sort_keys=True).encode())
                self._recover()
                yield
        except Timeout:
            raise UserFault(
                f"another run is writing to {self.root}: wait for its end, or give another destination"
            ) from None

    def exists(self) -> bool:
        """Tell whether a run has begun it."""
        return self.store.exists(HEAD)

    def check(self, record: DestinationRecord) -> None:
        """Raise UserFault where the folder has other files, or was made with another key, options or profile."""
        if not self.root.parent.is_dir():
            raise UserFault(f"{self.root.parent} is no folder: make it, and {self.root.name} is made in it")
        if not self.exists():
            if self.root.exists() and (
                not self.root.is_dir() or {path.name for path in self.root.iterdir()} - {OWN_FOLDER}
            ):
                raise UserFault(f"{self.root} holds other files: give a new folder as the destination")
            return
        before = json.loads(self.store.read(HEAD))
        for name, value in asdict(record).items():
            if before.get(name) != value:
                raise UserFault(_differs(self.root, name, before.get(name), value))

    @contextmanager
    def partial_files(self) -> Iterator[Path]:
        """Make a folder for the partial files of a run, and remove it afterwards."""
        own, prefix = self.store.path(OWN_FOLDER), PARTIAL.rpartition("/")[2]
        # A worker that was given up may still be writing into it: then the next run removes it.
        with TemporaryDirectory(dir=own, prefix=prefix, ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def commit(
        self, partial: Path, entries: Sequence[LedgerEntry], instances: InstanceContents
    ) -> Sequence[LedgerEntry]:
        """Commit the partial files of one chunk but those in conflict with other outputs; return all entries."""
        decided = [_decided(entry, instances) for entry in entries]
        self.store.write(f"{OWN_FOLDER}/{partial.name}/{PENDING}", to_bytes(to_table(decided)))
        self._finish(partial, to_table(decided))
        return decided

    def sweep(self, removed: pa.Table) -> None:
        """Write tombstones for rows whose source is gone, and remove outputs that no row names any more."""
        if removed.num_rows:
            with self.partial_files() as partial:
                gone = {"output": "", "blake3": "", "reason": REMOVED, "detail": "", "variant_key": ""}
                tombstones = [LedgerEntry(**row | gone) for row in removed.to_pylist()]
                self.commit(partial, tombstones, InstanceContents(()))
        rows = self.ledger.read()
        live = latest(rows)
        if live.num_rows == rows.num_rows and len(self.ledger.parts()) <= MANY_PARTS:
            return
        named = pc.is_in(rows["output"], value_set=live["output"])
        for output in set(rows["output"].filter(pc.invert(named)).to_pylist()) - {""}:
            self._remove(self.store.path(output))
        with self.partial_files() as partial:
            self.ledger.compact(f"{OWN_FOLDER}/{partial.name}/{PENDING}")

    def _recover(self) -> None:
        for partial in sorted(self.root.glob(f"{PARTIAL}*")):
            if (partial / PENDING).exists():
                self._finish(partial, read_rows(partial / PENDING))
            shutil.rmtree(partial, ignore_errors=True)

    def _finish(self, partial: Path, rows: pa.Table) -> None:
        outputs = rows["output"].to_pylist()
        for key, output in zip(rows["source_key"].to_pylist(), outputs, strict=True):
            path = partial / partial_name(key)
            if output and path.exists():
                self.store.rename(f"{OWN_FOLDER}/{partial.name}/{path.name}", output)
            path.unlink(missing_ok=True)
        self.store.sync(output for output in outputs if output)
        self.ledger.add(f"{OWN_FOLDER}/{partial.name}/{PENDING}")

    def _remove(self, output: Path) -> None:
        output.unlink(missing_ok=True)
        for folder in output.relative_to(self.root).parents:
            if folder.name not in ("", IMAGES):
                with suppress(OSError):
                    (self.root / folder).rmdir()


def partial_name(source_key: str) -> str:
    """Return the name of a source file's output before it is committed."""
    return f"{source_key}.dcm"


def check_apart(source: Path, destination: Path) -> None:
    """Raise UserFault where one of two paths lies in the other.

    >>> check_apart(Path("/archive"), Path("/archive-deidentified"))
    """
    inner, outer = destination.resolve(), source.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise UserFault(
            f"the destination {destination} and the source {source} lie in one another: give a destination apart "
            "from the source"
        )


def _decided(entry: LedgerEntry, instances: InstanceContents) -> LedgerEntry:
    if not entry.output or instances.claim(entry.output, entry.blake3):
        return entry
    detail = "the same SOPInstanceUID stands with other content"
    return replace(entry, output="", blake3="", reason=CONFLICTING_OBJECT, detail=detail)


def _differs(root: Path, name: str, before: Any, now: Any) -> str:
    names = {
        "key_fingerprint": "the key",
        "options": "the options",
        "edition": "the edition of the profile",
        "profile_sha256": "the table of the profile",
    }
    if isinstance(before, dict) and isinstance(now, dict):
        changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        before, now = ({key: side.get(key) for key in changed} for side in (before, now))
    return (
        f"{root} was made with {names[name]} {before} and this run has {now}: two of them in one folder would "
        "tear patients apart; give a new destination, or what it was made with"
    )
