"""Fingerprints: equal for one image however it comes, hardly changed by copying, and flat for an empty image."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.copies import RESIZED, SAME, Copy, Images, chests
from bench.near_duplicates import apart
from imaging.dataset.split.fingerprint import as_column, fingerprints, flat, from_column
from imaging.dataset.split.near_duplicates import DISTANCE
from imaging.dataset.tables.schemas import FINGERPRINT_BYTES

PATIENTS = 12
sizes = st.sampled_from([16, 17, 28, 64, 100, 224, 256])


@pytest.fixture(scope="module")
def painted() -> Images:
    return chests(PATIENTS, 256)


def noise(count: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size), dtype=np.uint8)


def volumes(painted: Images) -> np.ndarray:
    """Return (3, 4, 64, 64) volumes of four slices each."""
    return np.stack([painted.prepared(one) for one in painted.values]).reshape(3, 4, 64, 64)


@given(sizes, st.integers(1, 70))
def test_an_image_has_one_fingerprint_alone_and_among_others(size: int, count: int) -> None:
    images = noise(count, size)
    alone = np.concatenate([fingerprints(images[at : at + 1]) for at in range(count)])
    assert (fingerprints(images) == alone).all()


@pytest.mark.parametrize("shape", [(5, 16, 16), (5, 224, 224), (5, 2, 64, 64), (5, 7, 32, 32)])
def test_each_image_or_volume_has_64_bytes(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    prints = fingerprints(images)
    assert (prints.shape, prints.dtype) == ((5, FINGERPRINT_BYTES), np.uint8)


def test_no_images_have_no_fingerprints() -> None:
    assert fingerprints(np.empty((0, 64, 64), np.uint8)).shape == (0, FINGERPRINT_BYTES)


@pytest.mark.parametrize("copy", [*SAME.values(), *RESIZED.values()], ids=[*SAME, *RESIZED])
def test_a_copy_stays_near(copy: Copy, painted: Images) -> None:
    before = painted.fingerprints(painted.values)
    after = fingerprints(np.stack([copy(painted, one) for one in painted.values]))
    assert (apart(before, after) <= DISTANCE).mean() >= 0.9


def test_other_patients_are_far(painted: Images) -> None:
    prints = painted.fingerprints(painted.values)
    assert all((apart(prints[[at]], np.delete(prints, at, 0)) > 2 * DISTANCE).all() for at in range(PATIENTS))


def test_brightness_and_contrast_make_no_difference(painted: Images) -> None:
    prepared = np.stack([painted.prepared(one) for one in painted.values])
    dimmer = np.rint(prepared * 0.5 + 60).astype(np.uint8)
    assert (apart(fingerprints(prepared), fingerprints(dimmer)) <= DISTANCE).all()


@given(st.integers(0, 255), sizes)
def test_a_flat_image_has_none_even_with_a_level_more_or_less(level: int, size: int) -> None:
    grey = np.clip(np.full((3, size, size), level) + noise(3, size) % 3 - 1, 0, 255).astype(np.uint8)
    assert flat(fingerprints(grey)).all()


def test_an_image_that_shows_something_is_not_flat(painted: Images) -> None:
    assert not flat(painted.fingerprints(painted.values)).any()


def test_a_volume_with_a_level_more_or_less_stays_near(painted: Images) -> None:
    before = volumes(painted)
    after = np.clip(before.astype(int) + noise(1, 64)[0] % 3 - 1, 0, 255).astype(np.uint8)
    assert (apart(fingerprints(before), fingerprints(after)) <= DISTANCE).all()


def test_a_volume_upside_down_is_another(painted: Images) -> None:
    before = volumes(painted)
    assert (apart(fingerprints(before), fingerprints(before[:, ::-1])) > DISTANCE).all()


def test_other_volumes_are_far(painted: Images) -> None:
    prints = fingerprints(volumes(painted))
    assert (apart(prints, np.roll(prints, 1, axis=0)) > 2 * DISTANCE).all()


def test_a_column_gives_back_what_it_was_made_of() -> None:
    prints = fingerprints(noise(9, 32))
    column = pa.chunked_array([as_column(prints[:5]), as_column(prints[5:])]).slice(2)
    assert (from_column(column) == prints[2:]).all()


def test_an_empty_column_gives_back_none() -> None:
    assert from_column(pa.chunked_array([], pa.binary(FINGERPRINT_BYTES))).shape == (0, FINGERPRINT_BYTES)
