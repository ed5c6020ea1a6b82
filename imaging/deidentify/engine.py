"""Owns the way from one parsed DICOM object to the same object without what identifies a patient."""

from pydicom.dataset import Dataset

from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.pseudonyms import Pseudonyms


def scrub(dataset: Dataset, options: DeidentifyOptions, pseudonyms: Pseudonyms) -> Dataset:
    """Return the data set de-identified by the Basic Profile and the options (PS3.15 annex E); it may be the same one.

    The data set is one that `parse` returned. Raises DataFault: "missing-identifier", "document", "unsupported".
    """
    raise NotImplementedError
