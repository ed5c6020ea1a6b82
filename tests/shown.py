"""Images, tables and windows for tests of transforms."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from imaging.preprocess.slice import prepare
from imaging.preprocess.spec import PreprocessSpec
from tests.dicom_objects import image

STORED = (np.arange(16 * 16) * 16 - 1024).astype(np.int16).reshape(16, 16)
FILE = PreprocessSpec(window="file", size_px=16)


def shown(data: bytes, number: int = 1) -> NDArray[np.uint8]:
    """Return a 16 x 16 image as its file wants it shown, pixel by pixel."""
    return prepare(image(data), FILE.model_copy(update={"window_number": number}))


def table(entries: Any, first: int, bits: int, vr: str = "US", count: int | None = None) -> Sequence:
    item = Dataset()
    item.add_new(
        "LUTDescriptor", "SS" if first < 0 else "US", [len(entries) if count is None else count, first, bits]
    )
    data = np.asarray(entries, np.uint16)
    item.add_new("LUTData", vr, data.tolist() if vr == "US" else data.tobytes())
    item.ModalityLUTType = "US"
    return Sequence([item])
