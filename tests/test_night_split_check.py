"""Split check of a night: it stops where the same patient or image is in two splits, and names the remedy."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.dataset.split.assignment import draw_splits
from imaging.dataset.split.fingerprint import fingerprints
from imaging.dataset.split.shares import SPLITS, SplitConfig
from imaging.dataset.tables.schemas import TABLES
from imaging.dataset.version.publish import publish
from imaging.errors import UserFault
from services.settings import Settings
from tasks.split_check import check_splits
from tests.synthetic import built, example
from tests.test_assignment import plainly


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
        check_splits.fn("d", settings)


def test_copies_on_one_side_do_not(settings: Settings) -> None:
    published(settings, fixed=False, copy_on=("train", "train"))
    assert check_splits.fn("d", settings) == 0


def test_a_copy_among_the_test_images_of_the_source_stops_it_too(settings: Settings) -> None:
    published(settings, fixed=True, copy_on=("train", "test"))
    with pytest.raises(UserFault, match="in two splits"):
        check_splits.fn("d", settings)


def test_a_copy_in_training_and_validation_of_the_source_is_told(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    published(settings, fixed=True, copy_on=("train", "val"))
    assert check_splits.fn("d", settings) == 1
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


IMAGES = st.tuples(
    st.integers(0, 11), st.integers(0, 20), st.sampled_from(["a", "b", "é", None]), st.integers(0, 2)
)


def labelled(images: list[tuple[int, int, str | None, int]]) -> pa.Table:
    """Return the columns that sides are drawn by; images of one number are equal."""
    told = [
        np.random.default_rng(number).integers(0, 256, 64, np.uint8).tobytes() for _, number, _, _ in images
    ]
    return pa.table(
        {
            "patient_key": pa.array([f"p{patient}" for patient, *_ in images], pa.string()),
            "label": pa.array([label for *_, label, _ in images], pa.string()),
            "site_key": pa.array([f"site {site}" for *_, site in images], pa.string()),
            "source_split": pa.nulls(len(images), pa.string()),
            "fingerprint": pa.array(told, pa.binary(64)),
        }
    )


def drawn_plainly(images: list[tuple[int, int, str | None, int]], previous: dict[str, str]) -> dict[str, str]:
    """Draw the sides of the same, patient by patient."""
    labels: dict[str, set[str]] = {}
    sites: dict[str, set[str]] = {}
    shown: dict[int, set[str]] = {}
    for patient, number, label, site in images:
        if label is not None:
            labels.setdefault(f"p{patient}", set()).add(label)
            sites.setdefault(f"p{patient}", set()).add(f"site {site}")
            shown.setdefault(number, set()).add(f"p{patient}")
    # What only known patients share is not looked for.
    alike = [names for names in shown.values() if names - previous.keys()]
    linked = {name: name for name in labels}
    for _ in labels:
        for names in alike:
            first = min(linked[name] for name in names)
            linked.update(dict.fromkeys(names, first))
    coarse = {name: "|".join(sorted(told)) for name, told in labels.items()}
    strata = {name: (told, f"{told}@" + "|".join(sorted(sites[name]))) for name, told in coarse.items()}
    return {**previous, **plainly(strata, previous, SplitConfig().shares, linked)}


@given(st.lists(IMAGES), st.dictionaries(st.integers(0, 15), st.sampled_from(SPLITS)))
def test_sides_are_drawn_as_patient_by_patient(
    images: list[tuple[int, int, str | None, int]], known: dict[int, str]
) -> None:
    previous = {f"p{patient}": split for patient, split in known.items()}
    before = pa.table([list(previous), list(previous.values())], schema=TABLES["splits"])
    drawn = draw_splits(labelled(images), before, SplitConfig().shares)
    told = dict(zip(drawn["patient_key"].to_pylist(), drawn["split"].to_pylist(), strict=True))
    assert told == drawn_plainly(images, previous)
    assert drawn.schema == TABLES["splits"]
