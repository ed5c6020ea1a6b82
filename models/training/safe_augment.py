"""Table of safe augmentation by modality: variation that leaves the meaning of an image as it is."""

from collections.abc import Mapping
from types import MappingProxyType

from models.config import AugmentConfig

RADIOGRAPH = AugmentConfig(rotate_deg=8, shift_fraction=0.06, scale=0.1, contrast=0.2, brightness=0.1)
"""Not mirrored: the heart on the right is a finding."""
# Hounsfield units are the same on every scanner, so grey levels vary little.
CT = AugmentConfig(rotate_deg=10, shift_fraction=0.08, scale=0.1, contrast=0.08, brightness=0.04)
# Values have no unit and depend on coil and sequence.
MR = AugmentConfig(rotate_deg=10, shift_fraction=0.08, scale=0.1, contrast=0.3, brightness=0.1)
NUCLEAR = AugmentConfig(rotate_deg=8, shift_fraction=0.08, scale=0.1, contrast=0.25, brightness=0.05)
MAMMOGRAM = AugmentConfig(flip=True, rotate_deg=10, shift_fraction=0.06, scale=0.1, contrast=0.15)
"""A mirrored right breast is a left one."""
ULTRASOUND = AugmentConfig(rotate_deg=10, shift_fraction=0.08, scale=0.15, contrast=0.3, brightness=0.12)
EYE = AugmentConfig(flip=True, rotate_deg=15, shift_fraction=0.05, scale=0.1, contrast=0.2, brightness=0.1)
"""A mirrored right eye is a left one."""
EYE_LAYERS = EYE.model_copy(update={"rotate_deg": 5.0})
"""The layers of the retina lie one upon the other."""
DENTAL = RADIOGRAPH
"""Teeth are numbered by their side."""
WITHOUT_DIRECTION = AugmentConfig(
    flip=True,
    flip_vertical=True,
    rotate_deg=180,
    shift_fraction=0.06,
    scale=0.1,
    contrast=0.2,
    brightness=0.1,
)
"""Tissue under a microscope, skin and the inside of a bowel have no side that is up."""

SAFE: Mapping[str, AugmentConfig] = MappingProxyType(
    dict.fromkeys(("CR", "DX", "RG", "RF", "XA"), RADIOGRAPH)
    | dict.fromkeys(("PT", "NM"), NUCLEAR)
    | dict.fromkeys(("US", "IVUS", "BDUS"), ULTRASOUND)
    | dict.fromkeys(("OPT", "OCT", "OPTENF"), EYE_LAYERS)
    | dict.fromkeys(("IO", "PX"), DENTAL)
    | dict.fromkeys(("SM", "GM", "CFM", "ES", "DMS"), WITHOUT_DIRECTION)
    | {"CT": CT, "MR": MR, "MG": MAMMOGRAM, "OP": EYE}
)
"""By Modality (0008,0060), with the defined terms of PS3.3 C.7.3.1.1.1."""


def safe_augment(modality: str) -> AugmentConfig:
    """Return the safe variation of a modality; of one that is not in the table, the defaults, which mirror nothing.

    >>> safe_augment("SM").rotate_deg, safe_augment("DX").flip, safe_augment("OT") == AugmentConfig()
    (180.0, False, True)
    """
    return SAFE.get(modality, AugmentConfig())
