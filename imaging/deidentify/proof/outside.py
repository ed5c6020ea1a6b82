"""Owns the search of files that belong to no original: whatever identifies any patient must not be in them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from imaging.deidentify.identity.identifiers import Identifier
from imaging.deidentify.proof.object_pieces import is_object, object_pieces
from imaging.deidentify.proof.originals import Hit, find
from imaging.deidentify.proof.patterns import NOBODY, patterns
from imaging.deidentify.proof.pieces import Piece, pieces
from imaging.deidentify.proof.search import Searcher
from imaging.errors import DataFault

IDENTIFIERS_AT_A_TIME = 1000
"""They become some 50 patterns each; a search for these takes about 100 MB."""


class Pile:
    """Files with the names to tell them by; identifiers are gathered, and all files searched for some at a time."""

    def __init__(self, files: Sequence[tuple[Path, str]]) -> None:
        self._files = files
        self._waiting: dict[tuple[str, str], Identifier] = {}
        self.hits: dict[Hit, None] = {}

    def seek(self, identifiers: Iterable[Identifier]) -> None:
        """Look for some more."""
        for identifier in identifiers:
            self._waiting[identifier.kind, identifier.value] = identifier
            if len(self._waiting) >= IDENTIFIERS_AT_A_TIME:
                self.flush()

    def flush(self) -> None:
        """Search for those that wait."""
        waiting, self._waiting = self._waiting, {}
        searcher = Searcher(found for one in waiting.values() for found in patterns(one, owner=NOBODY))
        for path, name in self._files if len(searcher) else ():
            try:
                self.hits |= dict.fromkeys(find(name, all_pieces(path, name), searcher))
            except FileNotFoundError:
                # A server's own file that came and went.
                continue


def all_pieces(path: Path, name: str = "") -> Iterable[Piece]:
    """Yield what there is to search in a file of any kind, and in its name, with the folders that this tells."""
    yield Piece("name", "values", name.encode("utf-8", "surrogateescape"))
    yield from pieces(path)
    if is_object(path):
        try:
            yield from object_pieces(path.read_bytes())
        except DataFault:
            # Not whole: its bytes were searched.
            return
