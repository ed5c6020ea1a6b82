"""Attribute values as plain strings, for decisions on pixels: a value that cannot be read counts as absent."""

from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset

from imaging.dicom.attributes import parts_of, quietly

FRAME_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def attribute_texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """Return the values of an attribute as stripped strings; none where it is absent, empty or cannot be read.

    >>> made = Dataset()
    >>> made.ImageType = ["DERIVED", "SECONDARY "]
    >>> attribute_texts(made, "ImageType"), attribute_texts(made, "Modality")
    (('DERIVED', 'SECONDARY'), ())
    """
    value = quietly(lambda: dataset.get(keyword))
    parts = () if value is None else parts_of(value)
    return tuple(text for part in parts if (text := str(part).strip(" \0")))


def sequence_items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    """Return the items of a sequence; none where it cannot be read."""
    value = quietly(lambda: dataset.get(keyword))
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def code_values(dataset: Dataset, keywords: Sequence[str]) -> Iterator[str]:
    """Yield the code values of sequences of codes, those of frames in their functional groups too (C.7.6.16.2.8)."""
    groups = [group for name in FRAME_GROUPS for group in sequence_items(dataset, name)]
    anatomies = [anatomy for group in groups for anatomy in sequence_items(group, "FrameAnatomySequence")]
    for holder in (dataset, *anatomies):
        for keyword in keywords:
            for item in sequence_items(holder, keyword):
                yield from attribute_texts(item, "CodeValue")
