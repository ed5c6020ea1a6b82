"""Owns the bytes of a de-identified file: a preamble of zeros, a file meta group of our own, the data set."""

from pydicom.dataset import Dataset


def write_object(dataset: Dataset) -> bytes:
    """Return a DICOM file (PS3.10 section 7) of a data set that `scrub` returned, in its own transfer syntax."""
    raise NotImplementedError
