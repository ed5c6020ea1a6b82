"""The check of a whole version: a leak is named with its two images, and what nobody reads is none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imaging.dataset.split.check import OVERLAPS, find_overlaps
from imaging.dataset.split.fingerprint import fingerprints
from imaging.store.folder_store import FolderStore
from tests.synthetic import built, example

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 64, 64), np.uint8)
PRINTS = fingerprints(IMAGES)


def row(number: int, shows: int, split: str, **changes: Any) -> Mapping[str, Any]:
    """Return the row of an image that shows one of a few things."""
    told = {"fingerprint": PRINTS[shows].tobytes(), "source_split": split, "source_label": "a"}
    return example(number, **told | changes)


def found(folder: Path, *rows: Mapping[str, Any]) -> list[dict[str, Any]]:
    table = find_overlaps(built(FolderStore(folder), rows))
    assert table.schema == OVERLAPS
    return table.to_pylist()


def test_different_images_leak_nothing(tmp_path: Path) -> None:
    assert found(tmp_path, row(0, 0, "train"), row(1, 1, "test"), row(2, 2, "val")) == []


@pytest.mark.parametrize("side", ["val", "test"])
def test_one_image_of_two_patients_on_two_sides_is_a_leak(tmp_path: Path, side: str) -> None:
    (leak,) = found(tmp_path, row(3, 1, "train"), row(0, 0, "train"), row(2, 0, side))
    assert {leak["instance_key"], leak["other_instance_key"]} == {"i0", "i2"}
    assert {leak["patient_key"], leak["other_patient_key"]} == {"p0", "p2"}
    assert ({leak["split"], leak["other_split"]}, leak["distance"]) == ({"train", side}, 0)


def test_a_patient_on_two_sides_is_a_leak_without_a_distance(tmp_path: Path) -> None:
    (leak,) = found(tmp_path, row(0, 0, "train"), row(1, 1, "test", patient_key="p0"))
    assert (leak["patient_key"], leak["other_patient_key"], leak["distance"]) == ("p0", "p0", None)


def test_one_image_on_one_side_is_no_leak(tmp_path: Path) -> None:
    assert found(tmp_path, row(0, 0, "train"), row(1, 0, "train")) == []


def test_what_has_no_label_is_no_leak(tmp_path: Path) -> None:
    assert found(tmp_path, row(0, 0, "train"), row(1, 0, "test", source_label=None)) == []


def test_an_empty_version_leaks_nothing(tmp_path: Path) -> None:
    assert found(tmp_path) == []
