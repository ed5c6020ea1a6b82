"""Order of the classes: of two, the second is the one that is looked for, by what people call the other."""

import re
from collections.abc import Callable, Iterable
from typing import Literal

from imaging.errors import UserFault

DecidedBy = Literal["person", "names", "order"]
"""What decided which of two classes is looked for: --positive, their names, or nothing but their order."""

NEGATIVE = frozenset(
    {"0", "absent", "benign", "control", "false", "healthy", "negative", "no", "none", "normal"}
)
"""Names of the negative class; of two classes it comes first."""
NEGATIVE_TERMS = NEGATIVE - {"0", "no"} | {"controls", "neg", "negatives", "normals"}
"""Words of which one in a name, as in "benign nevus", makes the class the negative one."""
NEGATIONS = frozenset({"no", "non", "not", "without"})
"""Words with which the negative class begins, as in "No Finding": before one of the negative words, "not normal", they
make it the other."""
ALSO_NEGATIVE = frozenset({"-1", "0.0", "0.", "nofinding", "nofindings"})
"""Names that no rule about words covers: -1 of two numbers, and names written as one word."""


def order_classes(labels: Iterable[str], positive: str | None = None) -> tuple[str, ...]:
    """Return the classes in their order; of two, the second is the positive one.

    >>> order_classes(["normal", "lesion", "normal"])
    ('normal', 'lesion')
    >>> order_classes(["10", "9"])
    ('9', '10')
    """
    classes = sorted(
        set(labels), key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)
    )
    if positive is not None and positive not in classes:
        raise UserFault(f"positive label {positive!r} is not among the labels {classes}: name one of them")
    if len(classes) == 2:
        # Plain names after the rule about terms: what they decided before there was one stays so.
        last = positive or _other(classes, is_negative) or _other(classes, _is_plain_negative) or classes[1]
        classes.sort(key=lambda name: name == last)
    return tuple(classes)


def decided_by(classes: Iterable[str], positive: str | None = None) -> DecidedBy:
    """Return what decided which of two classes comes second.

    >>> decided_by(("cat", "dog"))
    'order'
    """
    if positive is not None:
        return "person"
    return "names" if _other(list(classes), is_negative) else "order"


def _other(classes: list[str], is_negative: Callable[[str], bool]) -> str | None:
    """Return the one class that is not negative; None where there are two or none."""
    others = [name for name in classes if not is_negative(name)]
    return others[0] if len(others) == 1 else None


def _is_plain_negative(name: str) -> bool:
    return name.lower() in NEGATIVE


def is_negative(name: str) -> bool:
    """Return whether a name is that of what is normal.

    >>> [is_negative(name) for name in ("No Finding", "non-COVID", "benign nevus", "not normal", "abnormal")]
    [True, True, True, False, False]
    """
    plain = name.strip().casefold()
    terms = re.split(r"[\W_]+", plain)
    negated = terms[0] in NEGATIONS
    return plain in NEGATIVE | ALSO_NEGATIVE or negated != (not NEGATIVE_TERMS.isdisjoint(terms[negated:]))
