"""Shown levels of padding, inverted images, overlays and pixels that are not square."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from imaging.preprocess.slice import prepare
from imaging.preprocess.spec import PreprocessSpec
from tests.dicom_objects import dataset, fault, file_bytes, image, images, made, ramp
from tests.shown import STORED, shown, table

VOIS: list[dict[str, Any]] = [
    {"WindowCenter": 40, "WindowWidth": 400},
    {"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"},
    {"VOILUTSequence": table(np.linspace(0, 65535, 4096).astype(int), -1024, 16)},
]


@pytest.mark.parametrize("voi", VOIS, ids=["window", "sigmoid", "table"])
def test_monochrome1_is_turned_over_behind_the_window(voi: dict[str, Any]) -> None:
    one, two = (made(STORED, PhotometricInterpretation=f"MONOCHROME{n}", **voi) for n in (1, 2))
    np.testing.assert_allclose(shown(one).astype(int), 255 - shown(two).astype(int), 0, 1)


def test_monochrome1_behind_a_modality_table_is_turned_over() -> None:
    stored = ramp((16, 16), np.uint8)
    data = made(
        stored,
        PhotometricInterpretation="MONOCHROME1",
        ModalityLUTSequence=table(np.arange(256), 0, 8),
        WindowCenter=128,
        WindowWidth=256,
    )
    np.testing.assert_array_equal(shown(data), 255 - stored)


PADDED: list[tuple[Any, dict[str, Any]]] = [
    (-1024, {"PixelPaddingValue": -1024}),
    (-1024, {"PixelPaddingValue": -1024, "PixelPaddingRangeLimit": -1000}),
    (3056, {"PixelPaddingValue": 3056}),
    (0, {"PixelPaddingValue": 0}),
    (48, {"PixelPaddingValue": 64, "PixelPaddingRangeLimit": 32}),
]


@pytest.mark.parametrize(("padding", "changes"), PADDED)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("voi", VOIS, ids=["window", "sigmoid", "table"])
@pytest.mark.parametrize("order", ["window-resize", "resize-window"])
def test_padding_is_black_and_bleeds_into_nothing(
    padding: int, changes: dict[str, Any], photometric: str, voi: dict[str, Any], order: Any
) -> None:
    plain = np.full((32, 32), 200, np.int16)
    stored = plain.copy()
    stored[:, :15] = padding
    spec = PreprocessSpec(window="file", size_px=16, order=order)
    data = made(stored, PhotometricInterpretation=photometric, **changes, **voi)
    whole = prepare(image(made(plain, PhotometricInterpretation=photometric, **voi)), spec)[0, 0]
    levels = prepare(image(data), spec).astype(float)
    assert (levels[:, :7] == 0).all()
    np.testing.assert_allclose(levels[:, 7], whole / 2, 0, 1)
    assert (levels[:, 8:] == whole).all()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_unsigned_padding_behind_a_modality_table_is_black(photometric: str) -> None:
    stored = ramp((16, 16), np.uint16)
    data = made(
        stored,
        PhotometricInterpretation=photometric,
        PixelPaddingValue=100,
        PixelPaddingRangeLimit=200,
        ModalityLUTSequence=table(np.arange(256), 0, 8),
        WindowCenter=128,
        WindowWidth=256,
    )
    padded = (stored >= 100) & (stored <= 200)
    assert (shown(data)[padded] == 0).all()
    assert (shown(data)[~padded] > 0).sum() >= (~padded).sum() - 1


def test_an_overlay_in_high_bits_changes_no_level() -> None:
    stored = ramp((16, 16), np.uint16) * 16
    voi = {"WindowCenter": 2048, "WindowWidth": 4096, "BitsStored": 12}
    noisy = stored | (np.uint16(0x1000) << (ramp((16, 16), np.uint16) % 4))
    np.testing.assert_array_equal(shown(made(noisy, **voi)), shown(made(stored, **voi)))


@pytest.mark.parametrize(
    "changes",
    [{"PixelAspectRatio": [2, 1]}, {"PixelSpacing": [1.0, 0.5]}, {"ImagerPixelSpacing": [0.6, 0.3]}],
)
def test_pixels_that_are_not_square_keep_their_proportions(changes: dict[str, Any]) -> None:
    stored = np.full((16, 32), 400, np.int16)
    levels = prepare(image(made(stored, **changes)), PreprocessSpec(size_px=32))
    assert (levels == 255).all()
    levels = prepare(image(made(stored)), PreprocessSpec(size_px=32))
    assert (levels[:8] == 0).all()
    assert (levels[8:24] == 255).all()


EXTREMES = [
    np.nan,
    np.inf,
    -np.inf,
    -float(np.finfo(np.float32).max),
    float(np.finfo(np.float32).max),
    -1000.0,
]


def floats(stored: Any, **changes: Any) -> bytes:
    """Return a file of Float or Double Float Pixel Data."""
    keyword = "FloatPixelData" if stored.dtype == np.float32 else "DoubleFloatPixelData"
    return made(stored, **{"PixelData": None, keyword: stored.tobytes(), "BitsStored": None} | changes)


@pytest.mark.parametrize("padding", EXTREMES)
@pytest.mark.parametrize(("kind", "prefix"), [(np.float32, "Float"), (np.float64, "DoubleFloat")])
@pytest.mark.parametrize("order", ["window-resize", "resize-window"])
@pytest.mark.parametrize("voi", VOIS, ids=["window", "sigmoid", "table"])
def test_padding_of_floating_point_pixels_is_black(
    padding: float, kind: Any, prefix: str, order: Any, voi: dict[str, Any]
) -> None:
    # PS3.3 C.7.6.24 and C.7.6.25: the padding may be any value of IEEE 754, NaN and infinity too.
    stored = np.full((32, 32), 200, kind)
    whole = prepare(image(floats(stored, **voi)), PreprocessSpec(window="file", size_px=16, order=order))[
        0, 0
    ]
    stored[:, :15] = padding
    data = floats(stored, **voi, **{f"{prefix}PixelPaddingValue": padding})
    with np.errstate(all="raise", under="ignore"):
        levels = prepare(image(data), PreprocessSpec(window="file", size_px=16, order=order)).astype(float)
    assert (levels[:, :7] == 0).all()
    np.testing.assert_allclose(levels[:, 7], whole / 2, 0, 1)
    assert (levels[:, 8:] == whole).all()


@pytest.mark.parametrize(
    ("value", "limit"), [(-5, -2), (-2, -5), (-np.inf, -2), (np.nan, np.nan), (np.nan, -2)]
)
def test_padding_of_floating_point_pixels_may_be_a_range(value: float, limit: float) -> None:
    stored = np.linspace(-8, 7, 256, dtype=np.float32).reshape(16, 16)
    stored[3, 3] = np.nan if np.isnan(value) else -2
    data = floats(stored, FloatPixelPaddingValue=value, FloatPixelPaddingRangeLimit=limit)
    ends = [end for end in (value, limit) if not np.isnan(end)] or [np.inf]
    expected = (stored >= min(ends)) & (stored <= max(ends)) | (
        np.isnan(stored) & np.isnan([value, limit]).any()
    )
    np.testing.assert_array_equal(image(data).padded, expected)


@pytest.mark.parametrize(
    "changes", [{}, {"FloatPixelPaddingValue": -1.0}, {"DoubleFloatPixelPaddingValue": np.nan}]
)
def test_a_pixel_that_is_no_number_and_no_padding_is_a_fault(changes: dict[str, Any]) -> None:
    stored = np.ones((4, 4), np.float32)
    stored[0, 0] = np.nan
    one = fault(floats(stored, **changes))
    assert one.args == (
        "undecodable",
        "values are no numbers (NaN), and the header does not call them padding",
    )


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize(
    ("kind", "value", "limit"),
    [
        (np.uint16, 63536, None),  # -2000 of a scanner that pads in 16 signed bits around 12 unsigned ones
        (np.uint16, 4096, 65535),
        (np.int16, -32768, None),
        (np.int16, -2000 - 2048, -2049),
        (np.int16, 2**14, None),
    ],
)
def test_padding_beyond_its_bits_is_padding(syntax: str, kind: Any, value: int, limit: int | None) -> None:
    # PS3.3 C.7.5.1.1.2: padding corresponds "to a value in the original stored pixel data". It should fit into Bits
    # Stored; where it does not, what is left of it in 12 bits is a value like that of tissue.
    stored = (np.arange(256) * 7 + 100).astype(kind).reshape(16, 16)
    stored[:, :4] = value
    changes = {"PixelPaddingValue": value, "PixelPaddingRangeLimit": limit, "BitsStored": 12}
    one = dataset(stored, **changes, WindowCenter=1000, WindowWidth=2000)
    if syntax == RLELossless:
        one.file_meta = dcmread(BytesIO(file_bytes(one))).file_meta
        one.compress(RLELossless)
    (result,) = images(file_bytes(one, syntax))
    levels = prepare(result, PreprocessSpec(window="file", size_px=16))
    assert (levels[:, :4] == 0).all()
    assert (levels[:, 4:] > 0).all()
    np.testing.assert_array_equal(result.stored[:, 4:], stored[:, 4:])


def test_padding_within_its_bits_is_compared_without_an_overlay() -> None:
    stored = np.full((16, 16), 0x1005, np.uint16)
    stored[0] = 0x1001
    result = image(made(stored, BitsStored=12, PixelPaddingValue=1, PixelPaddingRangeLimit=2))
    np.testing.assert_array_equal(
        result.stored, np.where(np.arange(16)[:, None] == 0, 1, 5) * np.ones((1, 16))
    )
    assert result.padded is not None
    assert result.padded.sum() == 16


def test_slices_with_padding_beyond_their_bits_are_read_alike_from_the_cache() -> None:
    stored = np.full((16, 16), 100, np.uint16)
    stored[:, :4] = 63536
    files = [
        made(stored + n, BitsStored=12, PixelPaddingValue=63536, SOPInstanceUID=f"1.9.{n}") for n in range(2)
    ]
    masks = [image(data).padded for data in (*files, *files)]
    assert [None if mask is None else int(mask.sum()) for mask in masks] == [64, None, 64, None]
