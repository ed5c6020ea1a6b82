"""Cleaning of free text by value: whatever names somebody in the same object is taken out of it."""

import unicodedata
from collections.abc import Iterable, Iterator, Set
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from ahocorasick import Automaton  # type: ignore[import-not-found]  # a C module without types

from imaging.deidentify.identity.identifiers import Identifier, spellings
from imaging.deidentify.identity.spellings import FORMS, date_spellings
from imaging.deidentify.identity.text_folding import LAST_ALPHABET, fold, folded_positions

Span = tuple[int, int]
Breaks = Set[tuple[int, ...]]

SHORT_WORD, SHORT_NUMBER = 6, 8
"""Lengths below which a word or number counts only as a whole one, as it may be a part of others."""

WIDEST_BREAK = 3
"""Characters between two letters of a spelling, as in "Doe - John": with more between them it is something else."""


SHAPES = {code: "0" if chr(code).isalnum() else " " for code in range(128)}
"""Texts of one shape have their breaks at the same places."""


class _FoldedSpelling(NamedTuple):
    """A spelling, folded. `breaks` are the positions after which it may be interrupted; None: anywhere.

    `left` and `right` tell whether a word must begin or end there: at an initial, or where all of it is short.
    """

    folded: str
    breaks: Breaks | None
    left: bool
    right: bool


class TextCleaner:
    """Search of text for any spelling of some identifiers, whatever the case, the accents and the separators.

    Identifiers of the kind "text" are left out: a description is no secret by itself.
    """

    __slots__ = ("_automaton",)

    def __init__(self, identifiers: Iterable[Identifier]) -> None:
        self._automaton = Automaton()
        for identifier in identifiers:
            for spelling in _folded_spellings(identifier):
                known = self._automaton.get(spelling.folded, None)
                self._automaton.add_word(spelling.folded, _either(known, spelling) if known else spelling)
        self._automaton.make_automaton()

    def matches(self, text: str) -> bool:
        """Tell whether the text names somebody."""
        return next(self._spans(text), None) is not None

    def clean(self, text: str) -> str:
        """Return the text without what names somebody; the same text where nothing does."""
        # Repeated, as what is left may join to another name.
        while spans := list(self._spans(text)):
            text = _without(text, spans)
        return text

    def _spans(self, text: str) -> Iterator[Span]:
        if not len(self._automaton):
            return
        at: list[int] = []
        for last, word in self._automaton.iter(fold(text)):
            at = at or folded_positions(text)
            span = _span(text, at[last - len(word.folded) + 1 : last + 1], word)
            if span is not None:
                yield span


@lru_cache(maxsize=4096)
def _folded_spellings(identifier: Identifier) -> tuple[_FoldedSpelling, ...]:
    """Return the folded spellings of an identifier; objects of one patient share most of them."""
    if identifier.kind == "text":
        return ()
    breaks_by_spelling: dict[str, set[tuple[int, ...]]] = {}
    is_date = identifier.kind == "date"
    for spelling in date_spellings(identifier.value, FORMS) if is_date else spellings(identifier):
        breaks_by_spelling.setdefault(fold(spelling), set()).add(_breaks_of(spelling))
    breaks_by_spelling.pop("", None)
    return tuple(_folded_spelling(*item, loose=not is_date) for item in breaks_by_spelling.items())


def _folded_spelling(folded: str, breaks: Breaks, *, loose: bool) -> _FoldedSpelling:
    length, short = len(folded), SHORT_NUMBER if folded.isdecimal() else SHORT_WORD
    whole = length < short and min(folded) <= LAST_ALPHABET
    positions: set[int] = set().union(*breaks)
    kept = None if loose and length >= SHORT_WORD else breaks
    return _FoldedSpelling(folded, kept, whole or 1 in positions, whole or length - 1 in positions)


def _either(one: _FoldedSpelling, other: _FoldedSpelling) -> _FoldedSpelling:
    breaks = None if one.breaks is None or other.breaks is None else one.breaks | other.breaks
    return _FoldedSpelling(one.folded, breaks, one.left and other.left, one.right and other.right)


def _breaks_of(text: str) -> tuple[int, ...]:
    return (
        _breaks_of_shape(text.translate(SHAPES)) if text.isascii() else _breaks(text, folded_positions(text))
    )


@lru_cache(1024)
def _breaks_of_shape(shape: str) -> tuple[int, ...]:
    return _breaks(shape, folded_positions(shape))


def _breaks(text: str, at: list[int]) -> tuple[int, ...]:
    """Return after how many characters something other than letters and digits stands."""
    return tuple(
        number
        for number, (one, next_one) in enumerate(pairwise(at), 1)
        if any(not unicodedata.combining(between) for between in text[one + 1 : next_one])
    )


def _span(text: str, at: list[int], word: _FoldedSpelling) -> Span | None:
    begin, end = at[0], at[-1] + 1
    if any(following - one > WIDEST_BREAK + 1 for one, following in pairwise(at)):
        return None
    if word.breaks is not None and _breaks(text, at) not in word.breaks:
        return None
    if text[begin].isdecimal():
        # Zeros before a number are its padding.
        begin = len(text[:begin].rstrip("0"))
    while end < len(text) and unicodedata.combining(text[end]):
        end += 1
    if word.left and _same(text[begin - 1 : begin], text[begin]):
        return None
    if word.right and _same(text[end : end + 1], text[end - 1]):
        return None
    return begin, end


def _same(neighbour: str, edge: str) -> bool:
    """Tell whether a word or number goes on beyond its edge; John2 is John, and so is John before a bare accent."""
    if not fold(neighbour):
        return False
    return (neighbour.isalpha() and edge.isalpha()) or (neighbour.isdecimal() and edge.isdecimal())


def _without(text: str, spans: Iterable[Span]) -> str:
    kept, reached = "", 0
    for begin, end in sorted(spans):
        kept = _joined(kept, text[reached:begin]) if begin > reached else kept
        reached = max(reached, end)
    left = _joined(kept, text[reached:]).strip(" ")
    # Commas and brackets by themselves say nothing.
    return left if fold(left) else ""


def _joined(left: str, right: str) -> str:
    if not left or not right:
        return left or right.lstrip(" ")
    return f"{left.rstrip(' ')} {right.lstrip(' ')}"
