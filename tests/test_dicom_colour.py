"""Colour images: they become brightness in every photometric interpretation."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from tests.dicom_objects import fault, file_bytes, image, images, made, ramp
from tests.shown import shown

LUMA = np.array([0.299, 0.587, 0.114])
COLOUR = (np.random.default_rng(3).integers(0, 256, (16, 16, 3))).astype(np.uint8)


def grey(rgb: NDArray[Any], white: float = 255) -> NDArray[Any]:
    return np.asarray(rgb @ LUMA / white * 255)


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_is_shown_as_its_brightness(planar: int) -> None:
    value = COLOUR.transpose(2, 0, 1).tobytes() if planar else COLOUR.tobytes()
    data = made(COLOUR, PlanarConfiguration=planar, PixelData=value)
    np.testing.assert_allclose(shown(data), grey(COLOUR), 0, 0.51)


def test_rgb_of_twelve_bits_has_its_own_white() -> None:
    deep = COLOUR.astype(np.uint16) * 16
    np.testing.assert_allclose(shown(made(deep, BitsStored=12)), grey(deep, 4095), 0, 0.51)


def ybr_to_rgb(ybr: NDArray[Any]) -> NDArray[np.float64]:
    """PS3.3 C.7.6.3.1.2."""
    y, cb, cr = np.moveaxis(ybr.astype(np.float64), -1, 0)
    rgb = (y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128))
    return np.clip(np.stack(rgb, -1), 0, 255)


def test_ybr_full_becomes_rgb() -> None:
    data = made(COLOUR, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(shown(data), grey(ybr_to_rgb(COLOUR)), 0, 1)


def test_ybr_full_422_becomes_rgb() -> None:
    y, cb, cr = np.moveaxis(COLOUR, -1, 0)
    value = np.stack([y[:, ::2], y[:, 1::2], cb[:, ::2], cr[:, ::2]], -1).tobytes()
    shared = np.stack([y, cb[:, ::2].repeat(2, 1), cr[:, ::2].repeat(2, 1)], -1)
    data = made(COLOUR, PhotometricInterpretation="YBR_FULL_422", PixelData=value)
    np.testing.assert_allclose(shown(data), grey(ybr_to_rgb(shared)), 0, 1)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_compressed_colour_is_what_pydicom_makes_of_it(photometric: str) -> None:
    plain = made(COLOUR, PhotometricInterpretation=photometric)
    one = dcmread(BytesIO(plain))
    one.compress(RLELossless)
    np.testing.assert_array_equal(shown(file_bytes(one, RLELossless)), shown(plain))


def test_several_frames_of_subsampled_colour_are_separated() -> None:
    frames = np.random.default_rng(4).integers(0, 256, (3, 16 * 16 * 2)).astype(np.uint8)
    attributes = {
        "PhotometricInterpretation": "YBR_FULL_422",
        "NumberOfFrames": 3,
        "PixelData": frames.tobytes(),
    }
    several = images(made(COLOUR, **attributes))
    for one, value in zip(several, frames, strict=True):
        alone = image(made(COLOUR, **attributes | {"NumberOfFrames": 1, "PixelData": value.tobytes()}))
        np.testing.assert_array_equal(one.stored, alone.stored)


def palette(bits: int, segmented: bool = False, first: int = 0) -> dict[str, Any]:
    attributes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    kind = np.uint8 if bits == 8 else np.uint16
    for number, name in enumerate(("Red", "Green", "Blue"), 1):
        attributes[f"{name}PaletteColorLookupTableDescriptor"] = [256, first, bits]
        if segmented:
            # A line from 0 to white (PS3.3 C.7.9.2.2), after one discrete entry.
            values = np.array([0, 1, 0, 1, 255, (2**bits - 1) // number], kind)
            attributes[f"Segmented{name}PaletteColorLookupTableData"] = values.tobytes()
        else:
            entries = (np.arange(256) * (2**bits // 256) // number).astype(kind)
            attributes[f"{name}PaletteColorLookupTableData"] = entries.tobytes()
    return attributes


@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_is_what_pydicom_makes_of_it(bits: int, segmented: bool) -> None:
    stored = ramp((16, 16), np.uint8)
    data = made(stored, **palette(bits, segmented))
    rgb = apply_color_lut(stored, dcmread(BytesIO(data)))
    np.testing.assert_allclose(shown(data), grey(rgb, 2**bits - 1), 0, 0.51)
    assert shown(data).max() > 128


@pytest.mark.parametrize("missing", ["all", "BluePaletteColorLookupTableData"])
def test_a_palette_without_tables_is_a_fault(missing: str) -> None:
    attributes = palette(8) if missing != "all" else {"PhotometricInterpretation": "PALETTE COLOR"}
    attributes.pop(missing, None)
    assert fault(made(ramp((16, 16), np.uint8), **attributes)).reason == "undecodable"


def narrow(kind: str) -> dict[str, Any]:
    """Return palettes that say 8 bits, or have 8, and are written in another way."""
    changes = palette(8)
    for name in ("Red", "Green", "Blue"):
        entries = np.arange(256, dtype=np.uint16)
        data = {
            "empty high bytes": entries.tobytes(),
            "the same in both bytes": (entries * 257).tobytes(),
            "bytes under 16 bits": entries.astype(np.uint8).tobytes(),
            "only one descriptor": entries.astype(np.uint8).tobytes(),
            "one byte more": entries.astype(np.uint8).tobytes() + b"\0\0",
        }[kind]
        changes[f"{name}PaletteColorLookupTableData"] = data
        if kind == "bytes under 16 bits":
            changes[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        if kind == "only one descriptor" and name != "Red":
            del changes[f"{name}PaletteColorLookupTableDescriptor"]
    return changes


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    "kind",
    [
        *("empty high bytes", "the same in both bytes", "bytes under 16 bits"),
        *("only one descriptor", "one byte more"),
    ],
)
def test_the_entries_of_a_palette_are_as_wide_as_their_data(kind: str, syntax: str) -> None:
    # PS3.3 C.7.6.3.1.5 and its note: 8-bit entries that have 16 bits each are known by the length of the data beside
    # the number of entries. C.7.6.3.1.6: a palette fills all of its bits, an 8-bit value in 16 by being there twice.
    stored = ramp((16, 16), np.uint8)
    np.testing.assert_array_equal(shown(made(stored, syntax, **narrow(kind))), stored)


def test_white_is_that_of_the_palette_and_not_of_the_image() -> None:
    # All pixels of this frame are entries below 256 of a palette of 16 bits.
    changes = palette(8)
    for name in ("Red", "Green", "Blue"):
        changes[f"{name}PaletteColorLookupTableData"] = (np.arange(256) * 257).astype(np.uint16).tobytes()
    np.testing.assert_array_equal(shown(made(np.ones((16, 16), np.uint8), **changes)), 1)


def test_a_dark_palette_of_16_bits_stays_dark() -> None:
    changes = palette(16)
    for name in ("Red", "Green", "Blue"):
        changes[f"{name}PaletteColorLookupTableData"] = np.arange(256).astype(np.uint16).tobytes()
    assert shown(made(ramp((16, 16), np.uint8), **changes)).max() == 1


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_is_read_most_significant_byte_first_where_the_file_is(bits: int) -> None:
    stored, changes = ramp((16, 16), np.uint8), palette(bits)
    for name in ("Red", "Green", "Blue"):
        value = changes[f"{name}PaletteColorLookupTableData"]
        # Two entries of 8 bits share a word (OW), whose bytes change places (PS3.5 7.3).
        changes[f"{name}PaletteColorLookupTableData"] = np.frombuffer(value, "<u2").astype(">u2").tobytes()
    big = shown(made(stored, ExplicitVRBigEndian, **changes))
    np.testing.assert_array_equal(big, shown(made(stored, **palette(bits))))


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"BluePaletteColorLookupTableData": b""}, "BluePaletteColorLookupTableData is missing or holds no"),
        (
            {"GreenPaletteColorLookupTableData": b"ab"},
            "GreenPaletteColorLookupTableData has 2 entries, 256 are needed",
        ),
        (
            {"RedPaletteColorLookupTableDescriptor": [256, 0]},
            "RedPaletteColorLookupTableDescriptor is missing or not",
        ),
        ({"RedPaletteColorLookupTableDescriptor": [255, 0, 8]}, "tables differ in length or first value"),
    ],
)
def test_a_damaged_palette_has_a_detail(changes: dict[str, Any], detail: str) -> None:
    one = fault(made(ramp((16, 16), np.uint8), **{**palette(8), **changes}))
    assert one.reason == "undecodable"
    assert detail in one.detail
