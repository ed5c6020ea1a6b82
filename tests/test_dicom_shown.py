"""Shown levels of padding, inverted images, overlays and pixels that are not square."""

from typing import Any

import numpy as np
import pytest

from imaging.preprocess.slice import prepare
from imaging.preprocess.spec import PreprocessSpec
from tests.dicom_objects import image, made, ramp
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
