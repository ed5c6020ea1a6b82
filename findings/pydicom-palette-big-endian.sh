#!/usr/bin/env bash
# pydicom 3.0.2 with numpy 2.4.6, seen on 2026-11-30: apply_color_lut reads a palette of 16 bits in the byte order of the
# machine. Of a file in Explicit VR Big Endian the entries 0, 1, 2, 3 become 0, 256, 512, 768, without a warning.
#
# One would assume the same colours from both byte orders: the palette's data is OW, whose words have the order of the
# transfer syntax (PS3.5 7.3). Of segmented palettes the same function does look at the order.
# Only the retired syntax is concerned; big-endian files are converted before their palette is used, or it is swapped.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pydicom==3.0.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
from io import BytesIO

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_color_lut
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, UltrasoundImageStorage


def red(syntax: str, order: str) -> list[int]:
    one = Dataset()
    one.SOPClassUID, one.SOPInstanceUID = UltrasoundImageStorage, "1.2.3"
    one.Rows, one.Columns, one.SamplesPerPixel, one.PhotometricInterpretation = 1, 4, 1, "PALETTE COLOR"
    one.BitsAllocated = one.BitsStored = 8
    one.HighBit, one.PixelRepresentation = 7, 0
    for number in range(3):
        one.add_new(0x00281101 + number, "US", [4, 0, 16])
        one.add_new(0x00281201 + number, "OW", np.arange(4).astype(order + "u2").tobytes())
    one.add_new(0x7FE00010, "OB", bytes([0, 1, 2, 3]))
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = syntax
    one.file_meta.MediaStorageSOPClassUID, one.file_meta.MediaStorageSOPInstanceUID = one.SOPClassUID, "1.2.3"
    file = BytesIO()
    one.save_as(file, enforce_file_format=True, little_endian=order == "<", implicit_vr=False)
    read = dcmread(BytesIO(file.getvalue()))
    return apply_color_lut(read.pixel_array, read)[..., 0].ravel().tolist()


little, big = red(ExplicitVRLittleEndian, "<"), red(ExplicitVRBigEndian, ">")
print("little endian:", little)
print("big endian:   ", big)
assert little == [0, 1, 2, 3]
assert big == [0, 256, 512, 768], "it has changed: this finding is out of date"
PYTHON
