"""A night stops where the same patient or image is on two sides, and says how that is mended."""

from pathlib import Path

import numpy as np
import pytest

from imaging.dataset.fingerprint import fingerprints
from imaging.dataset.publish import publish
from imaging.errors import UserFault
from tasks.leakage import check_sides
from tasks.settings import Settings
from tests.synthetic import built, example


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (1, 64, 64), np.uint8)
    return fingerprints(pixels)[0].tobytes()


def rows(*, fixed: bool, copy_on: tuple[str, str]) -> list[dict[str, object]]:
    """Return an example for each split, and a copy of one image on two of them."""
    splits = ("train", "val", "test", *copy_on)
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


def published(settings: Settings, *, fixed: bool, copy_on: tuple[str, str]) -> None:
    sides = {} if fixed else {f"p{n}": split for n, split in enumerate(("train", "val", "test", *copy_on))}
    publish(built(settings.dataset_store, rows(fixed=fixed, copy_on=copy_on), splits=sides), None)


@pytest.mark.parametrize("copy_on", [("train", "test"), ("val", "test"), ("train", "val")])
def test_an_image_on_two_sides_stops_the_night(settings: Settings, copy_on: tuple[str, str]) -> None:
    published(settings, fixed=False, copy_on=copy_on)
    with pytest.raises(UserFault, match=r"1 pairs of images of dataset .*radloop dataset check d"):
        check_sides.fn("d", settings)


def test_copies_on_one_side_do_not(settings: Settings) -> None:
    published(settings, fixed=False, copy_on=("train", "train"))
    assert check_sides.fn("d", settings) == 0


def test_a_copy_among_the_test_images_of_the_source_stops_it_too(settings: Settings) -> None:
    published(settings, fixed=True, copy_on=("train", "test"))
    with pytest.raises(UserFault, match="on two sides"):
        check_sides.fn("d", settings)


def test_a_copy_in_training_and_validation_of_the_source_is_told(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    published(settings, fixed=True, copy_on=("train", "val"))
    assert check_sides.fn("d", settings) == 1
    assert "1 pairs of images are nearly the same" in capsys.readouterr().out


def test_new_patients_who_share_an_image_are_drawn_together(settings: Settings, tmp_path: Path) -> None:
    pictures = [picture(number // 2) for number in range(40)]
    made = [example(n, fingerprint=pictures[n], source_label="ab"[n // 2 % 2]) for n in range(40)]
    version = built(settings.dataset_store, made)
    sides = version.splits()
    assert all(sides[f"p{n}"] == sides[f"p{n + 1}"] for n in range(0, 40, 2))
    assert set(sides.values()) == {"train", "val", "test"}


def test_a_new_patient_with_a_known_image_joins_that_side(settings: Settings) -> None:
    made = [example(n, fingerprint=picture(n), source_label="ab"[n % 2]) for n in range(20)]
    before = built(settings.dataset_store, made).splits()
    copies = [example(n + 100, fingerprint=picture(n), source_label="ab"[n % 2]) for n in range(20)]
    after = built(settings.dataset_store, [*made, *copies], splits=before).splits()
    assert {after[f"p{n + 100}"] == before[f"p{n}"] for n in range(20)} == {True}
