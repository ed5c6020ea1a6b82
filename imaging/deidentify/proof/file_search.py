"""Search of files that belong to no original: whatever identifies any patient must not be in them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from imaging.deidentify.identity.identifiers import Identifier
from imaging.deidentify.proof.contents import all_contents
from imaging.deidentify.proof.output_search import Hit, find_hits
from imaging.deidentify.proof.pattern_search import Searcher
from imaging.deidentify.proof.patterns import NO_OBJECT, patterns

IDENTIFIERS_AT_A_TIME = 1000
"""Each becomes some 50 patterns; a search for those of a thousand takes about 100 MB."""


class FileSearch:
    """Files and their names in reports; all files are searched whenever enough identifiers have come together."""

    def __init__(self, files: Sequence[tuple[Path, str]]) -> None:
        self._files = files
        self._waiting: dict[tuple[str, str], Identifier] = {}
        self.hits: dict[Hit, None] = {}

    def add(self, identifiers: Iterable[Identifier]) -> None:
        """Add identifiers to search for."""
        for identifier in identifiers:
            self._waiting[identifier.kind, identifier.value] = identifier
            if len(self._waiting) >= IDENTIFIERS_AT_A_TIME:
                self.flush()

    def flush(self) -> None:
        """Search for the identifiers that were added and not yet searched for."""
        waiting, self._waiting = self._waiting, {}
        searcher = Searcher(pattern for one in waiting.values() for pattern in patterns(one, owner=NO_OBJECT))
        for path, name in self._files if len(searcher) else ():
            try:
                self.hits |= dict.fromkeys(find_hits(name, all_contents(path, name), searcher))
            except FileNotFoundError:
                # A server's own file that came and went.
                continue
