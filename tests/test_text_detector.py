"""The search for text finds small, faint and slanted text on real slices, and is silent where there is none."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from bench.burned_in import alarm, trials
from imaging.deidentify.pixels.renderings import as_grey, compressed, embossed, leveled
from imaging.deidentify.pixels.text_candidates import TILE, cell_scores
from imaging.deidentify.pixels.text_detector import LARGE, find_text, reads_as_text
from tests.public_images import ct_of_pydicom

OVERLAYS, SLICES = 60, 40


@pytest.fixture(scope="module")
def slices(ct_slices: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(ct_slices.glob("*.dcm"))]


@pytest.mark.slow
def test_every_overlay_of_a_sample_is_caught(slices: list[bytes]) -> None:
    missed = [
        trial.kind for trial in trials(slices, OVERLAYS, seed=4) if alarm(trial.data) != "burned-in-text"
    ]
    assert not missed


@pytest.mark.slow
def test_real_slices_without_text_pass(slices: list[bytes]) -> None:
    assert not [reason for data in slices[:SLICES] if (reason := alarm(data))]


@pytest.mark.parametrize("path", ct_of_pydicom()[:2], ids=lambda path: path.name)
def test_a_real_slice_of_pydicoms_package_passes(path: Path) -> None:
    assert alarm(path.read_bytes()) == ""


def test_the_regions_cover_their_text_and_little_else() -> None:
    frame = np.full((200, 300), 50, np.uint8)
    cv2.putText(frame, "19480223", (150, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1, cv2.LINE_AA)
    covered = np.zeros(frame.shape, bool)
    for region in find_text(frame):
        covered[region.top : region.bottom, region.left : region.right] = True
    assert covered[frame > 50].all()
    assert not covered[:40].any() and not covered[72:].any() and not covered[:, :140].any()


def test_the_screen_gives_a_score_to_every_cell_of_a_frame_in_parts() -> None:
    rows, columns = TILE + 100, TILE + 13
    scores = cell_scores(np.zeros((rows, columns), np.float32))
    assert scores.shape == (-(-rows // 8), -(-columns // 8)) and np.isfinite(scores).all()
    assert min(rows, columns) > LARGE


def test_a_picture_of_nothing_does_not_read() -> None:
    assert not reads_as_text(np.full((20, 90), 128, np.uint8))


def test_the_range_of_a_black_frame_is_that_of_its_few_letters() -> None:
    frame = np.zeros((64, 64), np.float32)
    frame[10, 10] = 1000
    assert leveled(frame)[10, 10] == 2


def test_values_that_are_no_numbers_become_numbers() -> None:
    assert np.isfinite(as_grey(np.array([[np.nan, np.inf], [1.0, 2.0]]))).all()


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.float32])
def test_a_frame_without_extremes_is_searched_once(kind: type) -> None:
    noise = np.random.default_rng(0).normal(100, 8, (96, 96)).astype(kind)
    black = np.zeros((96, 96), kind)
    black[10:12, 10:40] = 200
    assert compressed(noise) is None and compressed(black) is None


def test_what_is_no_number_is_brighter_than_infinity() -> None:
    frame = np.random.default_rng(0).normal(100, 8, (96, 96))
    frame[0, :3] = np.nan, np.inf, -np.inf
    picture = compressed(frame)
    assert picture is not None and np.isfinite(picture).all()
    assert picture[0, 0] > picture[0, 1] > picture[1:].max() and picture[0, 2] < picture[1:].min()


def test_letters_stand_out_from_a_bright_organ() -> None:
    frame = np.zeros((64, 64), np.float32)
    frame[:, 32:] = 1000
    frame[20, 48] = 1100
    picture = embossed(frame, 9).astype(int)
    assert picture[20, 48] > picture[40, 48] + 5


@pytest.mark.slow
def test_a_worker_runs_the_networks_without_sockets_or_written_files(tmp_path: Path) -> None:
    program = """
import sys
touched = []
def watch(event, arguments):
    if event.startswith("socket.") or (event == "open" and "w" in str(arguments[1] or "")):
        touched.append(event)
import numpy as np
from imaging.deidentify.pixels import text_detector
from imaging.deidentify.pixels.text_candidates import Candidate
from imaging.sandbox.worker_loop import limit_size
sys.addaudithook(watch)
limit_size(768 << 20)
frame = np.random.default_rng(0).normal(0, 9, (3000, 2500)).astype(np.float32)
list(text_detector.find_text(frame))
next(text_detector.read_candidate(frame[:512, :512], Candidate(100, 100, None)), None)
text_detector.reads_as_text(np.zeros((20, 90), np.uint8))
sys.exit(", ".join(touched) or 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(tmp_path.iterdir())
