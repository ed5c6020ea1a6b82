"""Limits on the size of a file and its parts, checked with Python's integers before memory of that size is used."""

from dataclasses import dataclass

from imaging.errors import DataFault

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest numbers that one DICOM object may claim: far above what scanners make, below what ends a worker."""

    file_bytes: int = 8 * 1024 * MIB
    """A whole file: large ones are mapped into memory, not read."""
    parsed_bytes: int = 512 * MIB
    """The bytes that pydicom parses at once: everything but the pixel data of a well-formed file."""
    inflated_bytes: int = 256 * MIB
    inflate_ratio: int = 200
    """Real data sets deflate to a third; zlib's own bound is 1032."""
    rows_columns: int = 65535
    """The largest number in the two bytes of Rows and Columns (PS3.5 6.2); codestreams can claim more."""
    frame_bytes: int = 384 * MIB
    """One decoded frame."""
    frame_samples: int = 2**26
    """One frame: 8192 x 8192 grey pixels. Single precision and its copies take 12 bytes each in a worker's 1 GiB."""
    frames: int = 100_000
    depth: int = 32
    """Sequences in sequences; structured reports reach about 15."""
    elements: int = 1_000_000
    """Elements and items at all depths; an enhanced object of 2,000 frames has about 200,000."""


LIMITS = Limits()


def check_limit(reason: str, what: str, number: int, limit: int) -> None:
    """Raise DataFault `reason` where a number is above its limit.

    >>> check_limit("too-large", "Rows x Columns", 3, 2)
    Traceback (most recent call last):
    imaging.errors.DataFault: ('too-large', 'Rows x Columns is 3, the limit is 2')
    """
    if number > limit:
        raise DataFault(reason, f"{what} is {number}, the limit is {limit}")
