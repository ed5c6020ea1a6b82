"""Owns how single header values are read for a decision: plain strings whatever the header holds, never an error."""

from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset

FRAME_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def told(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """Return the values of an attribute as stripped strings; none where it is absent, empty or cannot be read.

    >>> made = Dataset()
    >>> made.ImageType = ["DERIVED", "SECONDARY "]
    >>> told(made, "ImageType"), told(made, "Modality")
    (('DERIVED', 'SECONDARY'), ())
    """
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom raises whatever a damaged value leads to; its messages quote the value
        return ()
    if value is None:
        return ()
    parts = value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    return tuple(text for part in parts if (text := str(part).strip(" \0")))


def items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    """Return the items of a sequence; none where it cannot be read."""
    try:
        found = dataset.get(keyword)
    except Exception:  # as above
        return ()
    return found if isinstance(found, Sequence) and not isinstance(found, str) else ()


def codes(dataset: Dataset, keywords: Sequence[str]) -> Iterator[str]:
    """Yield the code values of sequences of codes, those of frames in their functional groups too (C.7.6.16.2.8)."""
    groups = [group for name in FRAME_GROUPS for group in items(dataset, name)]
    anatomies = [anatomy for group in groups for anatomy in items(group, "FrameAnatomySequence")]
    for place in (dataset, *anatomies):
        for keyword in keywords:
            for item in items(place, keyword):
                yield from told(item, "CodeValue")
