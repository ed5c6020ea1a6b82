"""Owns what the name of a file says: its format, and that it can be listed once."""

from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType

FETCHED_LIMIT_BYTES = 2 * 2**30
"""The largest file that is fetched into memory; a file of this machine is mapped and may be larger."""

SUFFIXES: Mapping[str, str] = MappingProxyType(
    {
        ".nii": "nifti",
        ".nii.gz": "nifti",
        ".png": "picture",
        ".jpg": "picture",
        ".jpeg": "picture",
        ".tif": "picture",
        ".tiff": "picture",
    }
)
"""The formats that are known by a suffix. DICOM is not: archives name its files as they like."""


def format_of(name: str) -> str:
    """Return a key of `imaging.formats.table.FORMATS`.

    >>> format_of("a/b.NII.gz"), format_of("c.jpg"), format_of("IM0001"), format_of("1.2.840.1")
    ('nifti', 'picture', 'dicom', 'dicom')
    """
    told = name.lower()
    # Asked of each file of an archive, and most have none of them.
    if not told.endswith(tuple(SUFFIXES)):
        return "dicom"
    return next(format for suffix, format in SUFFIXES.items() if told.endswith(suffix))


def once() -> Callable[[str], str]:
    """Return a function that keeps a name the first time and tells later ones apart.

    >>> name = once()
    >>> name("a"), name("b"), name("a"), name("a")
    ('a', 'b', 'a#2', 'a#3')
    """
    seen: Counter[str] = Counter()

    def name(wanted: str) -> str:
        told = wanted
        while seen[told]:
            seen[wanted] += 1
            told = f"{wanted}#{seen[wanted]}"
        seen[told] += 1
        return told

    return name
