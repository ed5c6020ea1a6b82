#!/usr/bin/env bash
# pydicom 3.0.2 (2026-11-30): `apply_voi` wraps around where the entries of a VOI LUT have 8 bits.
#
# What happens: the place in the table is kept in the type of the table's entries. With entries of 8 bits (third value
# of LUT Descriptor), a pixel whose value is 256 or more above the first mapped value is shown by the entry 256 places
# too low: value 256 is shown as value 0, black instead of bright. Entries of 10 to 16 bits are right.
# What one would assume: PS3.3 C.11.2.1.1 allows any number of entries beside entries of 8 bits, and has values above
# the last one mapped to the last entry.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.processing import apply_voi
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

pixels = np.array([0, 100, 255, 256, 511, 512, 1023, 4000], np.uint16)


def shown(bits: int) -> list[int]:
    """Return what the pixels are shown as by a table of 1,024 entries that rises from 0 to white."""
    item, one = Dataset(), Dataset()
    item.LUTDescriptor = [1024, 0, bits]
    item["LUTDescriptor"].VR = "US"
    item.add_new("LUTData", "US", np.rint(np.linspace(0, 2**bits - 1, 1024)).astype(int).tolist())
    one.VOILUTSequence = Sequence([item])
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return np.asarray(apply_voi(pixels, one)).tolist()


print("pixels          ", pixels.tolist())
print("entries, 12 bits", shown(12))
print("entries, 8 bits ", shown(8))
assert shown(12) == [0, 400, 1021, 1025, 2045, 2050, 4095, 4095], "entries of 12 bits are shown otherwise now"
# Right would be [0, 25, 64, 64, 127, 128, 255, 255].
assert shown(8) == [0, 25, 64, 0, 64, 0, 64, 40], "entries of 8 bits are shown otherwise now"
PY
