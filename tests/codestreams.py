"""Codestreams for tests of compressed frames: an encoder for each lossless syntax."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from imaging.dicom.dicom_object import open_object
from tests.dicom_objects import dataset, file_bytes, ramp

GREY = ramp((40, 30), np.uint8)
DEEP = ramp((40, 30), np.uint16, step=53)
SEVERAL = ramp((3, 16, 24), np.uint16, step=53)


def rle(stored: NDArray[Any]) -> bytes:
    one = dataset(stored)
    one.file_meta = dcmread(BytesIO(file_bytes(one))).file_meta
    one.compress(RLELossless, encoding_plugin="pydicom")
    (fragment,) = open_object(file_bytes(one, RLELossless)).pixels[1:]
    return bytes(file_bytes(one, RLELossless)[fragment[0] : sum(fragment)])


def unsigned(stored: NDArray[Any], bits: int) -> NDArray[Any]:
    """Return the bits as codecs without a sign take them."""
    mask = np.uint16(2**bits - 1)
    return np.asarray(stored.view(f"u{stored.itemsize}") & mask, f"u{stored.itemsize}")


LOSSLESS: dict[str, Callable[[NDArray[Any], int], bytes]] = {
    JPEGLossless: lambda x, bits: imagecodecs.ljpeg_encode(unsigned(x, bits), bitspersample=bits),
    JPEGLosslessSV1: lambda x, bits: imagecodecs.jpeg8_encode(
        unsigned(x, bits), lossless=True, bitspersample=bits
    ),
    JPEGLSLossless: lambda x, bits: imagecodecs.jpegls_encode(unsigned(x, bits)),
    JPEGLSNearLossless: lambda x, bits: imagecodecs.jpegls_encode(unsigned(x, bits), level=0),
    JPEG2000Lossless: lambda x, bits: imagecodecs.jpeg2k_encode(
        x, codecformat="j2k", reversible=True, bitspersample=bits
    ),
    JPEG2000: lambda x, bits: imagecodecs.jpeg2k_encode(
        x, codecformat="jp2", reversible=True, bitspersample=bits
    ),
    HTJ2KLossless: lambda x, bits: imagecodecs.htj2k_encode(x, reversible=True),
    HTJ2KLosslessRPCL: lambda x, bits: imagecodecs.htj2k_encode(x, reversible=True),
    HTJ2K: lambda x, bits: imagecodecs.htj2k_encode(x, reversible=True),
    RLELossless: lambda x, bits: rle(x),
}
