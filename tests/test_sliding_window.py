"""Sliding window: sums of patches beside the whole, their order and number, borders, and what is refused."""

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from imaging.errors import UserFault
from models.portable.sliding_window import PatchGrid, gaussian, slabs, sliding_window, sliding_window_mask

Values = NDArray[np.float32]
SMALL = PatchGrid(patch=(4, 4))
PAGE = Path(__file__).parent.parent / "docs" / "consumers.md"
RECIPE = next(
    block
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    if "def sliding_window" in block
)
"""What a consumer without our packages is shown."""


def shares(patches: Values) -> Values:
    """A network that looks at each pixel alone: the window cannot change what it gives."""
    return np.stack([1 - patches, patches], axis=1)


def ends(patches: Values) -> Values:
    """A network that sees where in the patch a pixel is."""
    place = np.linspace(0, 1, patches[0].size, dtype=np.float32).reshape(patches.shape[1:])
    return np.stack([place * patches, 1 - place * patches], axis=1)


def at_once(image: Values, patch: tuple[int, ...], overlap: float) -> Values:
    """A second implementation: every patch in turn into sums of the whole size."""
    weight, total, weights = gaussian(patch), 0, 0
    steps = [int(side * (1 - overlap)) for side in patch]
    starts = [
        sorted({min(n, size - side) for n in range(0, size, step)})
        for size, side, step in zip(image.shape, patch, steps, strict=True)
    ]
    for corner in np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, image.ndim):
        box = tuple(slice(begin, begin + side) for begin, side in zip(corner, patch, strict=True))
        placed, counted = np.zeros((2, *image.shape)), np.zeros(image.shape)
        placed[:, *box], counted[box] = ends(image[box][None])[0] * weight, weight
        total, weights = total + placed, weights + counted
    return np.asarray(total / weights, np.float32)


CASES = [((20, 33), (8, 8)), ((9, 20, 17), (4, 8, 16)), ((7, 8, 8), (7, 8, 8)), ((5, 6, 4), (2, 3, 4))]


@pytest.mark.parametrize(("shape", "patch"), CASES)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (3, 1), (None, 1), (2, 3)])
def test_slabs_batches_and_threads_change_nothing(
    shape: tuple[int, ...], patch: tuple[int, ...], overlap: float, batch: int | None, workers: int
) -> None:
    image = np.random.default_rng(0).random(shape, np.float32)
    given = sliding_window(image, ends, PatchGrid(patch=patch, overlap=overlap, batch=batch, workers=workers))
    assert given.shape == (2, *shape) and given.dtype == np.float32
    np.testing.assert_allclose(given, at_once(image, patch, overlap), atol=2e-6)


@pytest.mark.parametrize(("shape", "patch"), [((3, 20), (8, 8)), ((2, 5, 20), (4, 8, 8)), ((3, 2), (8, 8))])
def test_an_image_smaller_than_a_patch_is_continued_and_cut_back(
    shape: tuple[int, ...], patch: tuple[int, ...]
) -> None:
    image = np.random.default_rng(0).random(shape, np.float32)
    np.testing.assert_allclose(sliding_window(image, shares, PatchGrid(patch=patch))[1], image, atol=1e-6)


def test_no_more_is_handed_out_at_once_than_a_patch_is_deep() -> None:
    image = np.random.default_rng(0).random((50, 16, 16), np.float32)
    parts = list(slabs(image, shares, PatchGrid(patch=(8, 8, 8))))
    assert max(part.shape[1] for part in parts) <= 8
    np.testing.assert_allclose(np.concatenate(parts, axis=1)[1], image, atol=1e-6)


def test_a_slab_that_was_handed_out_does_not_change_afterwards() -> None:
    image = np.random.default_rng(0).random((12, 8, 8), np.float32)
    parts = iter(slabs(image, shares, PatchGrid(patch=(4, 8, 8))))
    first = next(parts)
    before = first.copy()
    list(parts)
    assert np.array_equal(first, before)


def test_the_mask_is_the_most_probable_class() -> None:
    image = np.random.default_rng(0).random((9, 20, 17), np.float32)
    mask = sliding_window_mask(image, shares, PatchGrid(patch=(4, 8, 8)))
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, image > 0.5)


def test_no_more_calls_are_made_at_a_time_than_there_are_workers() -> None:
    running, most = [], []

    def counted(patches: Values) -> Values:
        running.append(1)
        most.append(len(running))
        time.sleep(0.005)
        running.pop()
        return shares(patches)

    grid = PatchGrid(patch=(4, 4), overlap=0, batch=1, workers=2)
    sliding_window(np.zeros((16, 16), np.float32), counted, grid)
    assert max(most) == 2


def test_the_batches_are_as_large_as_is_asked_for() -> None:
    sizes = []

    def counted(patches: Values) -> Values:
        sizes.append(len(patches))
        return shares(patches)

    sliding_window(np.zeros((8, 8), np.float32), counted, PatchGrid(patch=(4, 4), overlap=0, batch=2))
    assert sizes == [2, 2]


@pytest.mark.parametrize("patch", [(4, 4, 4), (4,)])
def test_a_patch_of_other_dimensions_is_refused(patch: tuple[int, ...]) -> None:
    with pytest.raises(UserFault, match="needs a patch of 2 sides, got"):
        sliding_window(np.zeros((8, 8), np.float32), shares, PatchGrid(patch=patch))


@pytest.mark.parametrize("overlap", [1.0, -0.1])
def test_an_overlap_without_an_end_is_refused(overlap: float) -> None:
    with pytest.raises(UserFault, match=r"overlap by \S+ of their sides: 0 to 0\.9"):
        PatchGrid(patch=(4, 4), overlap=overlap)


def test_a_network_of_another_shape_is_refused() -> None:
    with pytest.raises(UserFault, match=r"must give \(patches, classes, 4, 4\)"):
        sliding_window(np.zeros((8, 8), np.float32), lambda patches: patches[:, None, ::2], SMALL)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_probabilities_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(UserFault, match="its training diverged"):
        sliding_window(np.full((8, 8), value, np.float32), shares, SMALL)


@pytest.mark.parametrize(("shape", "patch"), CASES)
@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_the_recipe_of_the_page_gives_the_same(
    shape: tuple[int, ...], patch: tuple[int, ...], overlap: float
) -> None:
    names: dict[str, Any] = {}
    exec(RECIPE, names)
    image = np.random.default_rng(0).random(shape, np.float32)
    given = names["sliding_window"](image, patch, ends, overlap)
    np.testing.assert_allclose(
        given, sliding_window(image, ends, PatchGrid(patch=patch, overlap=overlap)), atol=2e-6
    )


def test_the_recipe_needs_numpy_alone_and_few_lines() -> None:
    imported = re.findall(r"^(?:import|from) (\w+)", RECIPE, re.MULTILINE)
    assert imported == ["itertools", "numpy"]
    assert len([line for line in RECIPE.splitlines() if line.strip()]) <= 40
