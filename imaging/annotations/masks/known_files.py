"""Known files of masks: what was read of a file stands for as long as its size and its times are the same.

This is the rule by which the files of images are known too, and stricter: the time of change (ctime) counts beside
that of modification, so that a copy which keeps its time is seen, and a file that was changed within LEAST_AGE_S before
it was read is read again the next time, since a later change within one tick of a file system's clock would leave the
same time. What it misses is a change that keeps the size and sets both times back.
"""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from imaging.errors import EnvironmentFault
from imaging.file_io import without_path
from imaging.pseudonyms import Pseudonyms
from imaging.store.content_digest import file_digest

FORMAT = 1
"""Raised when what is kept of a file means something else."""
LEAST_AGE_S = 2.0
"""The coarsest clock of a file system is that of FAT, which counts every second second."""
DIGEST = "digest"


class KnownFiles:
    """Facts of files by their keyed names, kept in a file of its own; names may tell of patients.

    Without a `path` nothing is kept. Files that are not asked for are forgotten when it is saved.
    """

    def __init__(self, path: Path | None, pseudonyms: Pseudonyms) -> None:
        self._path, self._pseudonyms = path, pseudonyms
        self._before = _load(path) if path else {}
        self._now: dict[str, dict[str, Any]] = {}
        self._lasting = set[str]()

    def get(self, file: Path, fact: str) -> Any:
        """Return a fact of a file, None where it is not known; ask before the file is read."""
        return self._entry(file).get(fact)

    def add(self, file: Path, fact: str, value: Any) -> None:
        """Note a fact of a file, which was read after `get`."""
        self._entry(file)[fact] = value

    def digest(self, file: Path) -> str:
        """Return the BLAKE3 digest of a file, which is read where it is not known."""
        known = self.get(file, DIGEST)
        if known is None:
            with without_path("a file of masks"):
                known = file_digest(file)
            self.add(file, DIGEST, known)
        return str(known)

    def save(self) -> None:
        """Write what is known now, in one step; raise EnvironmentFault where that is not possible."""
        kept = {key: entry for key, entry in self._now.items() if key in self._lasting}
        if self._path is None or kept == self._before:
            return
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}.partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps({"format": FORMAT, "files": kept}))
            partial.replace(self._path)
        except OSError as error:
            raise EnvironmentFault(f"{self._path} cannot be written: {error.strerror}") from error

    def _entry(self, file: Path) -> dict[str, Any]:
        key = self._pseudonyms.key("file", str(file.absolute()))
        if key not in self._now:
            with without_path("a file of masks"):
                status = file.stat()
            state = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
            before = self._before.get(key, {})
            self._now[key] = dict(before) if before.get("state") == state else {"state": state}
            if time.time_ns() - max(state[1:]) > LEAST_AGE_S * 1e9:
                self._lasting.add(key)
        return self._now[key]


def _load(path: Path) -> dict[str, dict[str, Any]]:
    """Return what was kept; what cannot be read is read from the files again."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(path.read_text())
        if kept["format"] == FORMAT and isinstance(kept["files"], dict):
            return {str(key): entry for key, entry in kept["files"].items() if isinstance(entry, dict)}
    return {}
