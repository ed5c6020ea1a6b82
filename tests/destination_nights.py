"""De-identification nights that die before one of their steps: `python -m tests.destination_nights FOLDER`.

FOLDER/start is the destination before the night. FOLDER/NNN-died is its state after a death before step NNN, and
FOLDER/NNN its state after the next night; the last one is of a night that did not die.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pandas  # noqa: F401  # Arrow loads it with its first array: once here, and not in each child

from imaging.deidentify.folder.destination import Destination, DestinationRecord, partial_name
from imaging.deidentify.folder.file_ledger import REMOVED, InstanceContents, LedgerEntry, latest
from imaging.store.folder_store import FolderStore

MADE = DestinationRecord(
    key_fingerprint="f" * 16, options={"dates": "shift"}, edition="2026c", profile_sha256="a" * 64
)
STEPS = (
    *((FolderStore, name) for name in ("rename", "write", "finalize", "sync")),
    (Path, "unlink"),
)
DIED = 9


def entry(key: str, output: str = "", content: str = "0", **others: str) -> LedgerEntry:
    name = f"images/p/s/t/{output}.dcm" if output else ""
    return LedgerEntry(
        source_key=key * 32, source_size=1, source_mtime_ns=1, output=name, blake3=content * 64, **others
    )


BEFORE = (entry("a", "1"), entry("b", "2", "1"), entry("c", "5", "4"))
WANTED = (entry("a", "1"), entry("b", "3", "2"), entry("d", "4", "3"))
"""A night in which one file has become another object, one is gone and one is new."""


def night(root: Path) -> None:
    """Do what `tasks.deidentification` does with a destination."""
    made = Destination(root)
    with made.locked(MADE):
        live = [row for row in latest(made.ledger.read()).to_pylist() if row["reason"] != REMOVED]
        known = {(row["source_key"], row["output"]) for row in live}
        new = [one for one in WANTED if (one.source_key, one.output) not in known]
        if new:
            with made.partial_files() as partial:
                for one in new:
                    (partial / "written").write_text(one.blake3)
                    FolderStore(partial).finalize("written", partial_name(one.source_key))
                made.commit(partial, new, InstanceContents(()))
        rows, keys = latest(made.ledger.read()), {one.source_key for one in WANTED}
        gone = [row["source_key"] not in keys and row["reason"] != REMOVED for row in rows.to_pylist()]
        made.sweep(rows.filter(gone))


def dying(step: Callable[..., Any], steps: Iterator[int], last: int) -> Callable[..., Any]:
    def take(*arguments: Any, **named: Any) -> Any:
        if next(steps) == last:
            os._exit(DIED)
        return step(*arguments, **named)

    return take


def passed(root: Path, last: int = -1) -> int:
    """Pass a night in a process that dies before a step; return its exit code."""
    # Nothing of Arrow has run in this process yet, so that it may be forked.
    child = os.fork()
    if not child:
        steps = count()
        for owner, name in STEPS:
            setattr(owner, name, dying(getattr(owner, name), steps, last))
        night(root)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(place: Path) -> int:
    for step in count():
        root = place / f"{step:03d}"
        shutil.copytree(place / "start", root)
        if (code := passed(root, step)) != DIED:
            return code
        shutil.copytree(root, place / f"{root.name}-died")
        if passed(root):
            return 1
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
