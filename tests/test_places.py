"""The screen and the glance suspect text where it is, and agree on nothing where it is not."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from imaging.deidentify.pixels import places as module
from imaging.deidentify.pixels.detector import look
from imaging.deidentify.pixels.pictures import as_grey
from imaging.deidentify.pixels.places import SIDE, Place, Region, places, suspected


def written(rows: int, columns: int) -> NDArray[np.float32]:
    frame = np.full((rows, columns), 50, np.uint8)
    cv2.putText(frame, "DOE 1948", (10, rows - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1, cv2.LINE_AA)
    return frame.astype(np.float32)


def test_places_come_in_the_order_of_their_scores_and_none_lies_in_anothers_glance() -> None:
    scores = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
    kept = scores.copy()
    found = [(row, column) for row, column in suspected(scores, 0.0)]
    told = [kept[row // 8, column // 8] for row, column in found]
    assert all(one >= after for one, after in pairwise(told))
    apart = [max(abs(a - c), abs(b - d)) for n, (a, b) in enumerate(found) for c, d in found[:n]]
    assert min(apart) > SIDE // 2


def test_text_is_a_place() -> None:
    place = next(places(written(300, 300)))
    assert abs(place.row - 284) < SIDE // 2 and place.column < 150


def test_the_part_that_is_text_for_sure_lies_in_a_frame_smaller_than_a_glance() -> None:
    sure = [place.sure for place in places(written(40, 90)) if place.sure]
    assert sure and all(0 <= one.top < one.bottom <= 40 and 0 <= one.left < one.right <= 90 for one in sure)


def test_what_is_text_for_sure_needs_not_be_read() -> None:
    sure = Region(8, 8, 24, 64)
    nothing = np.zeros((300, 300), np.float32)
    assert list(look(nothing, Place(16, 32, sure))) == [sure]
    assert not list(look(nothing, Place(16, 32, None)))


def test_a_glance_lets_most_of_what_the_screen_suspects_pass(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted((data_dir / "ct-contrast").glob("*.dcm"))[:12]
    frames = [as_grey(dcmread(path).pixel_array) for path in paths]
    looked_at = sum(1 for frame in frames for _ in places(frame))
    monkeypatch.setattr(module, "UNCLEAR", -np.inf)
    suspicious = sum(1 for frame in frames for _ in places(frame))
    assert looked_at < suspicious / 4


def test_a_thorough_search_trusts_no_glance(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = written(300, 300)
    monkeypatch.setattr(module, "UNCLEAR", np.inf)
    assert not list(places(frame)) and list(places(frame, thorough=True))
