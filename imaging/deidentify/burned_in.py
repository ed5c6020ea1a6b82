"""Owns the decision whether the pixels of an object may pass: burned-in text and faces stop it, and so does doubt."""

from pydicom.dataset import Dataset

from imaging.deidentify.options import DeidentifyOptions
from imaging.dicom.elements import Buffer


def check_pixels(dataset: Dataset, data: Buffer, options: DeidentifyOptions) -> Dataset:
    """Return the data set that may go on to be scrubbed: the same, or one whose text is blanked where options say so.

    `dataset` is what `parse` made of the file `data`, before anything of it was changed. Raises DataFault
    "burned-in-text", "burned-in-doubt" (text could not be looked for) or "face".
    """
    raise NotImplementedError
