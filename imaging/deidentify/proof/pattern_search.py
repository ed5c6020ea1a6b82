"""Search of bytes for many patterns at once, in memory that grows with the patterns and not with the bytes."""

from collections.abc import Iterable, Iterator
from mmap import mmap
from typing import Literal

import ahocorasick  # type: ignore[import-not-found]

from imaging.deidentify.proof.patterns import Pattern, Strength
from imaging.dicom.elements import Buffer

SearchLevel = Literal["bytes", "values", "text"]
"""Kind of bytes that are searched: any; values and lines, whose words have borders; texts of one object."""

ADMITTED: dict[SearchLevel, frozenset[Strength]] = {
    "bytes": frozenset({"sure"}),
    "values": frozenset({"sure", "plain"}),
    "text": frozenset({"sure", "plain", "weak"}),
}
HEXADECIMAL = tuple("0123456789abcdef")
WINDOW_BYTES = 4 << 20
Searchable = Buffer | mmap


class Searcher:
    """Search for patterns whatever the case of ASCII letters (Aho and Corasick 1975)."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._groups: list[list[Pattern]] = []
        self._automaton = ahocorasick.Automaton()
        group_numbers: dict[str, int] = {}
        for pattern in patterns:
            number = group_numbers.setdefault(pattern.key, len(self._groups))
            if number == len(self._groups):
                self._groups.append([])
                self._automaton.add_word(pattern.key, number)
            self._groups[number].append(pattern)
        self._longest = max(map(len, group_numbers), default=0)
        if group_numbers:
            self._automaton.make_automaton()

    def __len__(self) -> int:
        return len(self._groups)

    def search(
        self, data: Searchable, level: SearchLevel, owner: int | None = None
    ) -> Iterator[tuple[Pattern, int]]:
        """Yield each pattern that is in the data and strong enough to prove something there, and where it begins."""
        if not self._groups:
            return
        for start in range(0, len(data), WINDOW_BYTES):
            # A pattern that begins in this window may end, or have its neighbour, in the next.
            begin = max(start - 2, 0)
            raw = bytes(data[begin : start + WINDOW_BYTES + self._longest + 2])
            yield from self._window(raw, begin, range(start, start + WINDOW_BYTES), level, owner)

    def _window(
        self, raw: bytes, begin: int, starts: range, level: SearchLevel, owner: int | None
    ) -> Iterator[tuple[Pattern, int]]:
        text = raw.lower().decode("latin-1")
        admitted = ADMITTED[level]
        for end, number in self._automaton.iter(text):
            group = self._groups[number]
            at = end + 1 - len(group[0].key)
            if begin + at not in starts:
                continue
            for pattern in group:
                if pattern.strength not in admitted or pattern.owner not in (None, owner):
                    continue
                if pattern.exact and raw[at : end + 1] != pattern.exact:
                    continue
                if pattern.strength == "sure" or _bordered(text, at, end + 1, pattern):
                    yield pattern, begin + at


def _bordered(text: str, start: int, stop: int, pattern: Pattern) -> bool:
    """Tell whether no digit continues digits, and no letter letters, in front of a pattern or behind it."""
    before = text[max(start - pattern.unit, 0) : start].strip("\0")
    after = text[stop : stop + pattern.unit].strip("\0")
    key = pattern.key.strip("\0")
    if pattern.kind == "date" and pattern.strength == "plain" and key.isdigit():
        # Otherwise it may be part of a hexadecimal number, or begin a UUID.
        return not (before in HEXADECIMAL or after in (*HEXADECIMAL, "-"))
    return not (_continues(before, key[0], pattern) or _continues(after, key[-1], pattern))


def _continues(neighbour: str, edge: str, pattern: Pattern) -> bool:
    if pattern.kind == "uid" and neighbour == ".":
        return True
    return (neighbour.isdigit() and edge.isdigit()) or (_letter(neighbour) and _letter(edge))


def _letter(character: str) -> bool:
    # Above ASCII the bytes are those of some encoding, and say little about letters.
    return character.isascii() and character.isalpha()
