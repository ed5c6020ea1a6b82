"""Masks between the grid of a source and the model's: the geometry of the image's preparation, and round trips."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from imaging.errors import DataFault
from imaging.image.image import Image
from imaging.image.source_grid import SourceGrid
from imaging.preprocess.inverse import (
    UNKNOWN,
    mask_to_model,
    mask_to_source,
    model_affine,
    model_axes,
    probabilities_to_source,
)
from imaging.preprocess.slice import prepare
from imaging.preprocess.spec import PreprocessSpec
from imaging.preprocess.volume import prepare_volume

OBLIQUE = np.array([[0.8, -0.6, 0.0], [0.36, 0.48, 0.8], [0.48, 0.64, -0.6]])
HALF = 0.5

Case = tuple[SourceGrid, PreprocessSpec]


def spec(size: int, **more: Any) -> PreprocessSpec:
    return PreprocessSpec(modality="OT", window={"center": 128, "width": 256}, size_px=size, **more)


def volume(size: int, slices: int, spacing: tuple[float, float, float] | None = None) -> PreprocessSpec:
    return spec(size, kind="volume", slices=slices, spacing_mm=spacing)


def grid(shape: tuple[int, ...], spacing: tuple[float, ...] | None = None) -> SourceGrid:
    affine = np.eye(4)
    steps = np.array([*reversed(spacing or (1.0,) * len(shape)), 1.0][:3])
    affine[:3, :3], affine[:3, 3] = OBLIQUE * steps, (-10.0, 20.0, 30.0)
    return SourceGrid(shape, spacing, affine)


CASES: dict[str, Case] = {
    "square": (grid((96, 96)), spec(32)),
    "padded below": (grid((60, 97)), spec(32)),
    "padded beside, odd": (grid((101, 64)), spec(24)),
    "not square pixels": (grid((80, 90), (0.9, 0.5)), spec(40)),
    "nearly square pixels": (grid((64, 64), (0.5, 0.50001)), spec(16)),
    "a long strip": (grid((16, 200)), spec(64)),
    "finer than the image": (grid((20, 30)), spec(64)),
    "frame of several": (grid((48, 48), (0.7, 0.7)), spec(36)),
    "volume, scaled": (grid((12, 48, 64), (3.0, 0.5, 0.5)), volume(24, 8)),
    "volume, scaled to more slices": (grid((6, 48, 40), (3.0, 0.5, 0.5)), volume(24, 10)),
    "volume, cropped": (grid((20, 60, 64), (2.0, 0.8, 0.7)), volume(24, 8, (4.0, 1.5, 1.5))),
    "volume, padded": (grid((9, 30, 40), (3.0, 1.0, 1.1)), volume(32, 12, (5.0, 2.0, 2.0))),
    "volume, padded and cropped": (grid((7, 64, 30), (5.0, 0.6, 1.2)), volume(20, 16, (3.0, 1.3, 1.9))),
    "volume, finer": (grid((8, 24, 24), (4.0, 1.0, 1.0)), volume(48, 16, (2.0, 0.6, 0.6))),
}


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def blob(shape: tuple[int, ...], seen: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return an ellipsoid in the middle third of what is seen, off the middle by no whole number of pixels."""
    middle, radius = seen.mean(axis=1) + 0.3, np.maximum((seen[:, 1] - seen[:, 0]) / 3.5, 1.2)
    at = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij"), axis=-1)
    inside = (((at - middle) / radius) ** 2).sum(axis=-1) <= 1
    return inside.astype(np.uint8)


def shape_in(case: Case) -> NDArray[np.uint8]:
    where, made_by = case
    seen = [(max(0.0, a.edges[0]), min(float(a.length), a.edges[-1])) for a in model_axes(where, made_by)]
    return blob(where.size, np.array(seen)).reshape(where.shape)


def centroid(mask: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.argwhere(mask == 1).mean(axis=0) + HALF


def model_shares(mask: NDArray[np.uint8], case: Case) -> NDArray[np.float32]:
    """Return the share of class 1 in each of the model's pixels as the preparation of an image gives it."""
    where, made_by = case
    image = Image(stored=mask * np.uint8(255), spacing_mm=where.spacing)
    made = prepare_volume(image, made_by) if len(where.shape) == 3 else prepare(image, made_by)
    return made.astype(np.float32) / 255


def test_a_mask_goes_where_the_image_goes(case: Case) -> None:
    mask = shape_in(case)
    shares = model_shares(mask, case)
    made = mask_to_model(mask, *case)
    steps = [axis.step for axis in model_axes(*case)[-len(mask.shape) :]]
    # To finer voxels images are interpolated, and the edge of a shape is a ramp of one voxel.
    sure = np.abs(shares - HALF) > (0.02 if min(steps) >= 1 else 0.49)
    assert sure.mean() > 0.5
    assert np.array_equal(made[sure], shares[sure] > HALF)


def test_a_mask_comes_back_less_than_half_a_pixel_off(case: Case) -> None:
    mask = shape_in(case)
    back = mask_to_source(mask_to_model(mask, *case), *case)
    assert back.shape == mask.shape
    assert np.abs(centroid(back) - centroid(mask)).max() < HALF
    assert abs(int(back.sum()) / int(mask.sum()) - 1) < 0.25


def edges(mask: NDArray[np.uint8]) -> Iterator[float]:
    """Yield where the shape begins and ends along each axis."""
    for axis in range(mask.ndim):
        lines = np.flatnonzero((mask == 1).any(axis=tuple(n for n in range(mask.ndim) if n != axis)))
        yield from (lines[0], lines[-1] + 1)


def box_in(case: Case) -> NDArray[np.uint8]:
    """Return a box whose edges are on no edge of the model's pixels."""
    where, made_by = case
    mask = np.zeros(where.size, np.uint8)
    spans = []
    for axis in model_axes(where, made_by):
        low, high = max(0.0, axis.edges[0]), min(float(axis.length), axis.edges[-1])
        spans.append(slice(round(low + (high - low) * 0.22), max(round(low + (high - low) * 0.71), 1)))
    mask[tuple(spans)] = 1
    return mask.reshape(where.shape)


def test_the_edges_come_back_at_most_half_a_pixel_of_each_grid_off(case: Case) -> None:
    mask = box_in(case)
    back = mask_to_source(mask_to_model(mask, *case), *case)
    steps = np.repeat([max(a.step, 1) for a in model_axes(*case)[-mask.ndim :]], 2)
    off = np.abs(np.array([*edges(back)]) - [*edges(mask)])
    assert (off <= steps / 2 + HALF).all()


def test_the_edges_of_probabilities_come_back_less_than_half_a_pixel_of_the_source_off(case: Case) -> None:
    mask = box_in(case)
    shares = model_shares(mask, case)
    back = probabilities_to_source(np.stack([1 - shares, shares]), *case)
    # The middle line along each axis: corners are round.
    off = []
    for axis in range(mask.ndim):
        middle = tuple(
            slice(None) if n == axis else int(at) for n, at in enumerate(np.argwhere(mask).mean(axis=0))
        )
        off += list(np.array([*edges(back[middle])]) - [*edges(mask[middle])])
    steps = [axis.step for axis in model_axes(*case)]
    # A crossing between two centres is found to a quarter of a pixel of the source where those are four apart.
    assert np.abs(off).max() <= (1 if max(steps) < 1 else HALF + max(steps) / 8)
    assert np.abs(np.mean(off)) <= HALF


def test_what_the_model_does_not_see_is_background() -> None:
    where, made_by = CASES["volume, cropped"]
    back = mask_to_source(np.ones(made_by.shape, np.uint8), where, made_by)
    rows = model_axes(where, made_by)[1]
    seen = np.flatnonzero(back.any(axis=(0, 2)))
    assert np.abs(np.array([seen[0], seen[-1] + 1]) - rows.edges[[0, -1]]).max() <= HALF
    assert back[0].max() == 0


def test_the_last_slice_is_reached_where_nothing_is_cropped() -> None:
    # 9 slices of 3 mm are 27 mm, 5 of 5 mm are 25: the model's last slice is drawn out to the end.
    where, made_by = CASES["volume, padded"]
    assert mask_to_source(np.ones(made_by.shape, np.uint8), where, made_by).min() == 1


@pytest.mark.parametrize(
    ("pixels", "chosen"),
    [([1, 1, 0, 0], 1), ([1, 0, 0, 0], 0), ([1, 1, 2, 2], 1), ([2, 2, 2, 1], 2), ([UNKNOWN, UNKNOWN, 1, 1], UNKNOWN),
     ([UNKNOWN, 1, 1, 1], 1), ([UNKNOWN, UNKNOWN, 0, 0], UNKNOWN), ([3, 1, 0, UNKNOWN], UNKNOWN), ([3, 2, 0, 0], 0)],
)  # fmt: skip
def test_the_class_with_the_largest_share_is_taken(pixels: list[int], chosen: int) -> None:
    mask = np.tile(np.array(pixels, np.uint8).reshape(2, 2), (16, 16))
    assert np.unique(mask_to_model(mask, SourceGrid((32, 32)), spec(16))).tolist() == [chosen]


def test_the_border_of_a_padded_image_is_background() -> None:
    made = mask_to_model(np.full((32, 64), 3, np.uint8), SourceGrid((32, 64)), spec(16))
    assert made[:4].max() == made[12:].max() == 0
    assert made[4:12].min() == 3


def test_large_images_are_worked_on_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    where, made_by = CASES["not square pixels"]
    mask = shape_in((where, made_by))
    small = mask_to_model(mask, where, made_by)
    back = mask_to_source(small, where, made_by)
    monkeypatch.setattr("imaging.preprocess.inverse.STRIP_PIXELS", 200)
    assert np.array_equal(mask_to_model(mask, where, made_by), small)
    assert np.array_equal(mask_to_source(small, where, made_by), back)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(DataFault) as caught:
        mask_to_model(np.zeros((32, 31), np.uint8), SourceGrid((32, 32)), spec(16))
    assert caught.value.reason == "mask-grid"
    assert caught.value.detail == "the mask has 32 x 31 pixels, its image 32 x 32"


def test_a_volume_without_a_spacing_is_refused_where_one_is_asked_for() -> None:
    with pytest.raises(DataFault) as caught:
        model_axes(SourceGrid((8, 32, 32)), volume(16, 4, (2.0, 1.0, 1.0)))
    assert caught.value.reason == "no-geometry"


def test_the_affine_of_the_model_puts_its_centres_where_the_axes_do(case: Case) -> None:
    where, made_by = case
    affine = model_affine(where, made_by)
    assert affine is not None and where.affine is not None
    slices, rows, columns = model_axes(where, made_by)
    middles = [axis.edges[0] + axis.step / 2 - HALF for axis in (columns, rows, slices)]
    assert np.allclose(affine[:, 3], where.affine @ [*middles, 1])
    assert np.allclose(affine[:3, 0], where.affine[:3, 0] * columns.step)


def test_probabilities_of_equal_size_give_the_lower_class() -> None:
    same = np.full((3, 16, 16), 1 / 3, np.float32)
    assert probabilities_to_source(same, SourceGrid((16, 16)), spec(16)).max() == 0
