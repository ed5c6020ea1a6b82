"""Owns a destination of de-identified files: how it was made, drafts that become files, and what must go."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from imaging.deidentify.folder.ledger import (
    MANY_PARTS,
    REMOVED,
    Entry,
    Instances,
    Ledger,
    latest,
    read_rows,
    to_bytes,
    to_table,
)
from imaging.errors import EnvironmentFault, UserFault
from imaging.refusal_reasons import CONFLICTING_OBJECT
from imaging.store.folder import FolderStore

IMAGES = "images"
OURS = ".radloop"
"""What is kept beside the images: not to be handed out, since it holds sizes and times of the originals."""
HEAD = f"{OURS}/dataset.json"
PARTS = f"{OURS}/parts"
DRAFTS = f"{OURS}/drafts-"
PENDING = "pending.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a destination was made with: another key, profile or choice would mix what must not be mixed."""

    key_fingerprint: str
    options: dict[str, Any]
    edition: str
    profile_sha256: str


class Destination:
    """A folder of de-identified files and its ledger.

    Drafts are written below a folder of the run's own. A chunk of them is committed in three steps: its rows are
    written beside them, the drafts get their names, the rows become a part of the ledger. Whoever dies in between has
    the last two steps finished by the next run.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = FolderStore(root)
        self.ledger = Ledger(self.store, PARTS)

    @contextmanager
    def held(self, made: Made) -> Iterator[None]:
        """Keep other runs out, after a check that the folder is new or was made alike; mend what a run left.

        Raises UserFault before anything is written.
        """
        self.check(made)
        try:
            self.store.path(OURS).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentFault(
                f"cannot make the destination {self.root} ({error.strerror}): give write access, or another one"
            ) from None
        try:
            with FileLock(self.store.path(f"{OURS}/lock"), timeout=0):
                if not self.store.exists(HEAD):
                    self.store.write(HEAD, json.dumps(asdict(made), indent=1, sort_keys=True).encode())
                self._recover()
                yield
        except Timeout:
            raise UserFault(
                f"another run is writing to {self.root}: wait for its end, or give another destination"
            ) from None

    def made(self) -> bool:
        """Say whether a run has begun it."""
        return self.store.exists(HEAD)

    def check(self, made: Made) -> None:
        """Raise UserFault where the folder holds something else, or was made with something else."""
        if not self.root.parent.is_dir():
            raise UserFault(f"{self.root.parent} is no folder: make it, and {self.root.name} is made in it")
        if not self.made():
            if self.root.exists() and (not self.root.is_dir() or set(_names(self.root)) - {OURS}):
                raise UserFault(f"{self.root} holds other files: give a new folder as the destination")
            return
        before = json.loads(self.store.read(HEAD))
        for name, value in asdict(made).items():
            if before.get(name) != value:
                raise UserFault(_differs(self.root, name, before.get(name), value))

    @contextmanager
    def drafts(self) -> Iterator[Path]:
        """Make a folder for the drafts of a run, and remove it after."""
        folder = Path(mkdtemp(dir=self.store.path(OURS), prefix=DRAFTS.rpartition("/")[2]))
        try:
            yield folder
        finally:
            # A worker that was left behind may still be writing into it: then the next run removes it.
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, drafts: Path, entries: Sequence[Entry], instances: Instances) -> Sequence[Entry]:
        """Make the drafts of one chunk files, or refuse those that are in conflict with what stands; return all."""
        decided = [_decided(entry, instances) for entry in entries]
        self.store.write(f"{OURS}/{drafts.name}/{PENDING}", to_bytes(to_table(decided)))
        self._finish(drafts, to_table(decided))
        return decided

    def sweep(self, removed: pa.Table) -> None:
        """Write tombstones for rows whose source is gone, and remove the outputs that no row names any more."""
        if removed.num_rows:
            with self.drafts() as drafts:
                self.commit(drafts, [_tombstone(row) for row in removed.to_pylist()], Instances(()))
        rows = self.ledger.read()
        live = latest(rows)
        if live.num_rows == rows.num_rows and len(self.ledger.parts()) <= MANY_PARTS:
            return
        for output in _given_up(rows["output"], live["output"]):
            self._remove(self.store.path(output))
        with self.drafts() as drafts:
            self.ledger.compact(f"{OURS}/{drafts.name}/{PENDING}")

    def _recover(self) -> None:
        for drafts in sorted(self.root.glob(f"{DRAFTS}*")):
            if (drafts / PENDING).exists():
                self._finish(drafts, read_rows(drafts / PENDING))
            shutil.rmtree(drafts, ignore_errors=True)

    def _finish(self, drafts: Path, rows: pa.Table) -> None:
        outputs = rows["output"].to_pylist()
        for key, output in zip(rows["source_key"].to_pylist(), outputs, strict=True):
            draft = drafts / draft_name(key)
            if output and draft.exists():
                self.store.rename(f"{OURS}/{drafts.name}/{draft.name}", output)
            draft.unlink(missing_ok=True)
        self.store.sync(output for output in outputs if output)
        self.ledger.add(f"{OURS}/{drafts.name}/{PENDING}")

    def _remove(self, output: Path) -> None:
        output.unlink(missing_ok=True)
        for folder in output.relative_to(self.root).parents:
            if folder.name not in ("", IMAGES):
                with suppress(OSError):
                    (self.root / folder).rmdir()


def draft_name(source_key: str) -> str:
    """Return the name of a draft in its folder."""
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


def _decided(entry: Entry, instances: Instances) -> Entry:
    if not entry.output or instances.claim(entry.output, entry.blake3):
        return entry
    detail = "the same SOPInstanceUID stands with other content"
    return replace(entry, output="", blake3="", reason=CONFLICTING_OBJECT, detail=detail)


def _tombstone(row: dict[str, Any]) -> Entry:
    return replace(Entry(**row), output="", blake3="", reason=REMOVED, detail="", variant_key="")


def _given_up(before: pa.ChunkedArray, live: pa.ChunkedArray) -> set[str]:
    stands = pa.compute.is_in(before, value_set=live.combine_chunks())
    return set(before.filter(pa.compute.invert(stands)).to_pylist()) - {""}


def _names(folder: Path) -> Iterator[str]:
    return (path.name for path in folder.iterdir())


def _differs(root: Path, name: str, before: Any, now: Any) -> str:
    words = {
        "key_fingerprint": "the key",
        "options": "the options",
        "edition": "the edition of the profile",
        "profile_sha256": "the table of the profile",
    }
    if isinstance(before, dict) and isinstance(now, dict):
        changed = [key for key in now if before.get(key) != now[key]]
        before, now = ({key: side.get(key) for key in changed} for side in (before, now))
    return (
        f"{root} was made with {words[name]} {before} and this run has {now}: two of them in one folder would "
        "tear patients apart; give a new destination, or what it was made with"
    )
