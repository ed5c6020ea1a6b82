"""Owns the search of files that belong to no original: whatever identifies any patient must not be in them."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from imaging.deidentify.identifiers import Identifier
from imaging.deidentify.object_pieces import is_object, object_pieces
from imaging.deidentify.patterns import patterns
from imaging.deidentify.pieces import Piece, pieces
from imaging.deidentify.proof import Hit, find
from imaging.deidentify.search import Searcher
from imaging.errors import DataFault

IDENTIFIERS_AT_A_TIME = 1000
"""They become some 50 patterns each; a search for these takes about 100 MB."""


class Outside:
    """Files below `root` other than `known`; identifiers are gathered, and all files searched for some at a time."""

    def __init__(self, root: Path, known: frozenset[str]) -> None:
        files = (path for path in sorted(root.rglob("*")) if path.is_file())
        names = ((path, path.relative_to(root).as_posix()) for path in files)
        self._files = [(path, name) for path, name in names if name not in known]
        self._waiting: dict[tuple[str, str], Identifier] = {}
        self.hits: dict[Hit, None] = {}
        self.digests = {name: _digest(path) for path, name in self._files}

    def seek(self, identifiers: Iterable[Identifier]) -> None:
        """Look for some more."""
        for identifier in identifiers:
            self._waiting[identifier.kind, identifier.value] = identifier
        if len(self._waiting) >= IDENTIFIERS_AT_A_TIME:
            self.flush()

    def flush(self) -> None:
        """Search for those that wait."""
        if not self._waiting:
            return
        # An owner that no file has: what many patients share counts in none of these.
        searcher = Searcher(found for one in self._waiting.values() for found in patterns(one, owner=-1))
        self._waiting = {}
        for path, name in self._files:
            self.hits |= dict.fromkeys(find(name, all_pieces(path), searcher))


def all_pieces(path: Path) -> Iterable[Piece]:
    """Yield what there is to search in a file of any kind."""
    yield from pieces(path)
    if is_object(path):
        try:
            yield from object_pieces(path.read_bytes())
        except DataFault:
            # Not whole: its bytes were searched.
            return


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
