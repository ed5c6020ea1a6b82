"""Candidates for text: the screen and the patch check suspect text where it is, and nothing where it is not."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from imaging.deidentify.pixels import text_candidates as module
from imaging.deidentify.pixels.renderings import as_grey
from imaging.deidentify.pixels.text_candidates import SIDE, Candidate, Region, find_candidates, suspected
from imaging.deidentify.pixels.text_detector import read_candidate


def written(rows: int, columns: int) -> NDArray[np.float32]:
    frame = np.full((rows, columns), 50, np.uint8)
    cv2.putText(frame, "DOE 1948", (10, rows - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1, cv2.LINE_AA)
    return frame.astype(np.float32)


def test_candidates_come_in_the_order_of_their_scores_and_none_lies_in_the_patch_of_another() -> None:
    scores = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
    kept = scores.copy()
    points = [(row, column) for row, column in suspected(scores, 0.0)]
    ordered = [kept[row // 8, column // 8] for row, column in points]
    assert all(one >= after for one, after in pairwise(ordered))
    apart = [max(abs(a - c), abs(b - d)) for n, (a, b) in enumerate(points) for c, d in points[:n]]
    assert min(apart) > SIDE // 2


def test_text_is_a_candidate() -> None:
    candidate = next(find_candidates(written(300, 300)))
    assert abs(candidate.row - 284) < SIDE // 2 and candidate.column < 150


def test_the_part_that_is_text_for_sure_lies_in_a_frame_smaller_than_a_patch() -> None:
    certain = [
        candidate.certain_region for candidate in find_candidates(written(40, 90)) if candidate.certain_region
    ]
    assert certain and all(
        0 <= one.top < one.bottom <= 40 and 0 <= one.left < one.right <= 90 for one in certain
    )


@pytest.mark.parametrize(("side", "seed"), [(64, 0), (80, 0), (64, 1), (48, 1)])
def test_candidates_lie_in_a_frame_smaller_than_a_patch(side: int, seed: int) -> None:
    # The border that fills the patch repeats the last pixels of noise, as lines that look like letters.
    noise = np.random.default_rng(seed).normal(100, 8, (side, side)).astype(np.uint8).astype(np.float32)
    for one in find_candidates(noise, thorough=True):
        assert one.row < side and one.column < side
        region = one.certain_region
        assert region is None or (region.top < region.bottom and region.left < region.right)


def test_what_is_text_for_sure_needs_not_be_read() -> None:
    certain = Region(8, 8, 24, 64)
    nothing = np.zeros((300, 300), np.float32)
    assert list(read_candidate(nothing, Candidate(16, 32, certain))) == [certain]
    assert not list(read_candidate(nothing, Candidate(16, 32, None)))


def test_the_patch_check_clears_most_of_what_the_screen_suspects(
    ct_slices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted(ct_slices.glob("*.dcm"))[:12]
    frames = [as_grey(dcmread(path).pixel_array) for path in paths]
    looked_at = sum(1 for frame in frames for _ in find_candidates(frame))
    monkeypatch.setattr(module, "UNCLEAR", -np.inf)
    suspicious = sum(1 for frame in frames for _ in find_candidates(frame))
    assert looked_at < suspicious / 4


def test_a_thorough_search_clears_no_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = written(300, 300)
    monkeypatch.setattr(module, "UNCLEAR", np.inf)
    assert not list(find_candidates(frame)) and list(find_candidates(frame, thorough=True))
