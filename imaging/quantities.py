"""Quantities in sentences: a count with its noun, in the singular where it is one."""

SINGULARS = {"series": "series", "studies": "study", "classes": "class"}
"""Of the nouns that do not lose an s alone."""


def gib(count: int) -> str:
    """Return a count of bytes in the unit of memory.

    >>> gib(3 * 2**29)
    '1.5 GiB'
    """
    return f"{count / 2**30:.1f} GiB"


def quantity(count: int, nouns: str) -> str:
    """Return a count with its noun, which is given in the plural.

    >>> quantity(1, "patients"), quantity(1200, "studies"), quantity(0, "images"), quantity(1, "studies")
    ('1 patient', '1,200 studies', '0 images', '1 study')
    """
    return f"{count:,} {SINGULARS.get(nouns, nouns.removesuffix('s')) if count == 1 else nouns}"
