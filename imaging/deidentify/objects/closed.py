"""Owns the words that make an object what it is: they stay, though a patient were called so."""

from types import MappingProxyType

IMAGE_TYPES = frozenset(
    {"ORIGINAL", "DERIVED", "MIXED", "PRIMARY", "SECONDARY", "AXIAL", "LOCALIZER", "VOLUME", "NONE"}
)
VALUE_TYPES = frozenset(
    {"TEXT", "NUM", "CODE", "DATETIME", "DATE", "TIME", "UIDREF", "PNAME", "COMPOSITE", "IMAGE", "WAVEFORM"}
    | {"SCOORD", "SCOORD3D", "TCOORD", "CONTAINER", "TABLE"}
)
RELATIONSHIPS = frozenset(
    {"CONTAINS", "HAS PROPERTIES", "HAS OBS CONTEXT", "HAS ACQ CONTEXT", "INFERRED FROM", "SELECTED FROM"}
    | {"HAS CONCEPT MOD"}
)
PHOTOMETRIC = frozenset(
    {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
)
POSITIONS = frozenset(
    {"HFS", "HFP", "FFS", "FFP", "HFDR", "HFDL", "FFDR", "FFDL", "LFP", "LFS", "RFP", "RFS"}
)
SHAPES = frozenset(
    {"POINT", "MULTIPOINT", "POLYLINE", "CIRCLE", "ELLIPSE", "POLYGON", "ELLIPSOID", "OPEN_PLANAR"}
    | {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "OPEN_NONPLANAR"}
)

CLOSED = MappingProxyType(
    {
        0x00080008: IMAGE_TYPES,
        0x00185100: POSITIONS,
        0x00280004: PHOTOMETRIC,
        0x00281056: frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"}),
        0x0040A010: RELATIONSHIPS,
        0x0040A040: VALUE_TYPES,
        0x0040A050: frozenset({"SEPARATE", "CONTINUOUS"}),
        0x00620001: frozenset({"BINARY", "FRACTIONAL", "LABELMAP"}),
        0x00620008: frozenset({"AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"}),
        0x00700023: SHAPES,
        0x30060042: SHAPES,
    }
)
"""The terms of attributes without which nobody can read an object (PS3.3)."""
