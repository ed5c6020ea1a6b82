"""Split check: overlaps of the splits are found with both examples, and stop a night where they spoil its verdict."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imaging.dataset.split.check import OVERLAPS, find_overlaps
from imaging.dataset.split.fingerprint import fingerprints
from imaging.dataset.version.publish import publish
from imaging.errors import UserFault
from imaging.store.folder_store import FolderStore
from services.settings import Settings
from tasks.split_check import check_splits
from tests.synthetic import built, example

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 64, 64), np.uint8)
PRINTS = fingerprints(IMAGES)


def row(number: int, shows: int, split: str, **changes: Any) -> Mapping[str, Any]:
    """Return the row of an image that shows one of a few things."""
    values = {"fingerprint": PRINTS[shows].tobytes(), "source_split": split, "source_label": "a"}
    return example(number, **values | changes)


def overlaps(folder: Path, *rows: Mapping[str, Any]) -> list[dict[str, Any]]:
    table = find_overlaps(built(FolderStore(folder), rows))
    assert table.schema == OVERLAPS
    return table.to_pylist()


def test_different_images_do_not_overlap(tmp_path: Path) -> None:
    assert overlaps(tmp_path, row(0, 0, "train"), row(1, 1, "test"), row(2, 2, "val")) == []


@pytest.mark.parametrize("other", ["val", "test"])
def test_one_image_of_two_patients_in_two_splits_is_an_overlap(tmp_path: Path, other: str) -> None:
    (overlap,) = overlaps(tmp_path, row(3, 1, "train"), row(0, 0, "train"), row(2, 0, other))
    assert {overlap["instance_key"], overlap["other_instance_key"]} == {"i0", "i2"}
    assert {overlap["patient_key"], overlap["other_patient_key"]} == {"p0", "p2"}
    assert ({overlap["split"], overlap["other_split"]}, overlap["distance"]) == ({"train", other}, 0)


def test_a_patient_in_two_splits_is_an_overlap_without_a_distance(tmp_path: Path) -> None:
    (overlap,) = overlaps(tmp_path, row(0, 0, "train"), row(1, 1, "test", patient_key="p0"))
    assert (overlap["patient_key"], overlap["other_patient_key"], overlap["distance"]) == ("p0", "p0", None)


def test_one_image_in_one_split_is_no_overlap(tmp_path: Path) -> None:
    assert overlaps(tmp_path, row(0, 0, "train"), row(1, 0, "train")) == []


def test_what_has_no_label_is_no_overlap(tmp_path: Path) -> None:
    assert overlaps(tmp_path, row(0, 0, "train"), row(1, 0, "test", source_label=None)) == []


def test_an_empty_version_has_no_overlaps(tmp_path: Path) -> None:
    assert overlaps(tmp_path) == []


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (1, 64, 64), np.uint8)
    return fingerprints(pixels)[0].tobytes()


def pair_of_copies(*, fixed: bool, copy_in: tuple[str, str]) -> list[dict[str, object]]:
    """Return an example for each split, and a copy of one image on two of them."""
    splits = ("train", "val", "test", *copy_in)
    pictures = [picture(number) for number in (0, 1, 2, 9, 9)]
    return [
        example(
            number,
            fingerprint=pictures[number],
            source_label="ab"[number % 2],
            source_split=split if fixed else None,
        )
        for number, split in enumerate(splits)
    ]


def published(settings: Settings, *, fixed: bool, copy_in: tuple[str, str]) -> None:
    splits = {} if fixed else {f"p{n}": split for n, split in enumerate(("train", "val", "test", *copy_in))}
    publish(built(settings.dataset_store, pair_of_copies(fixed=fixed, copy_in=copy_in), splits=splits), None)


@pytest.mark.parametrize("copy_in", [("train", "test"), ("val", "test"), ("train", "val")])
def test_an_image_in_two_splits_stops_the_night(settings: Settings, copy_in: tuple[str, str]) -> None:
    published(settings, fixed=False, copy_in=copy_in)
    with pytest.raises(UserFault, match=r"1 pairs of images of dataset .*radloop dataset check d"):
        check_splits.fn("d", settings)


def test_copies_in_one_split_do_not(settings: Settings) -> None:
    published(settings, fixed=False, copy_in=("train", "train"))
    assert check_splits.fn("d", settings) == 0


def test_a_copy_among_the_test_images_of_the_source_stops_it_too(settings: Settings) -> None:
    published(settings, fixed=True, copy_in=("train", "test"))
    with pytest.raises(UserFault, match="in two splits"):
        check_splits.fn("d", settings)


def test_a_copy_in_training_and_validation_of_the_source_is_printed(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    published(settings, fixed=True, copy_in=("train", "val"))
    assert check_splits.fn("d", settings) == 1
    assert "1 pairs of images are nearly the same" in capsys.readouterr().out


def test_new_patients_who_share_an_image_are_drawn_together(settings: Settings, tmp_path: Path) -> None:
    pictures = [picture(number // 2) for number in range(40)]
    made = [example(n, fingerprint=pictures[n], source_label="ab"[n // 2 % 2]) for n in range(40)]
    version = built(settings.dataset_store, made)
    drawn = version.splits()
    assert all(drawn[f"p{n}"] == drawn[f"p{n + 1}"] for n in range(0, 40, 2))
    assert set(drawn.values()) == {"train", "val", "test"}


def test_a_new_patient_with_a_known_image_joins_that_split(settings: Settings) -> None:
    made = [example(n, fingerprint=picture(n), source_label="ab"[n % 2]) for n in range(20)]
    before = built(settings.dataset_store, made).splits()
    copies = [example(n + 100, fingerprint=picture(n), source_label="ab"[n % 2]) for n in range(20)]
    after = built(settings.dataset_store, [*made, *copies], splits=before).splits()
    assert {after[f"p{n + 100}"] == before[f"p{n}"] for n in range(20)} == {True}
