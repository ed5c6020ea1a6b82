"""Spellings of labels: those that differ in case, blanks or the form of a number alone are of one class."""

import re
import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

from imaging.errors import UserFault
from imaging.quantities import quantity

MOST_CLASSES = 2**10
"""Different labels of which the lines are counted; more are no classes."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")


def check_spellings(path: Path, counts: Mapping[str, int]) -> None:
    """Raise UserFault where labels differ in case, blanks or the form of a number alone: they would be two classes."""
    if len(counts) > MOST_CLASSES:
        return
    spellings: dict[str, list[str]] = {}
    for label in sorted(counts):
        spellings.setdefault(folded(label), []).append(label)
    repeated = [
        " and ".join(f"{label!r} ({quantity(counts[label], 'lines')})" for label in labels)
        for labels in spellings.values()
        if len(labels) > 1
    ]
    if repeated:
        raise UserFault(
            f"{path.name} spells one class in more than one way: {'; '.join(repeated)}: write it in one way in all "
            "lines, or give what are two classes names that differ in more than case, blanks and zeros"
        )


def folded(label: str) -> str:
    """Return what the spellings of one class share.

    >>> [folded(label) for label in ("1.0", "01", "No  Finding")]
    ['1', '1', 'no finding']
    """
    text = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
    return f"{Decimal(text).normalize():f}" if NUMBER.fullmatch(text) else text
