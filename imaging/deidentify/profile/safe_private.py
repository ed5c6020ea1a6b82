"""List of private elements that are known to be safe, PS3.15 table E.3.10-1 in part.

No package is known to carry the table (479 elements in edition 2026a). safe_private.json has the 343 that at least
two of three public lists agree on: those of PixelMed and GDCM, and one more. A UID (NQHeader 02) and bulk data of
images (HOLOGIC 7E01, SIEMENS 7FD1) were left out, as nothing replaces the one and nothing looks into the other.
An element that is not listed is removed.
"""

from functools import cache
from pathlib import Path

from imaging.deidentify.profile.profile import read_table

FILE = Path(__file__).with_name("safe_private.json")


def is_safe(creator: str, tag: int) -> bool:
    """Tell whether a private element may stay; its block (the third byte of the tag) does not matter.

    >>> is_safe("GEMS_ACQU_01", 0x00191023), is_safe("GEMS_ACQU_01", 0x00190010)
    (True, False)

    Raises:
        EnvironmentFault: the list beside this module was changed.
    """
    # Below 1000 are the creators themselves (PS3.5 7.8.1): whoever keeps an element keeps its creator.
    is_element = tag & 0xFFFF >= 0x1000
    return is_element and (creator.strip(" \0"), tag >> 16, tag & 0xFF) in _elements()


@cache
def _elements() -> frozenset[tuple[str, int, int]]:
    groups = read_table(FILE, "elements")["elements"]
    return frozenset(
        (creator, int(group, 16), int(element, 16))
        for creator, listed in groups.items()
        for group, elements in listed.items()
        for element in elements.split()
    )
