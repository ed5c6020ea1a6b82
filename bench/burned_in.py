"""Burned-in text: how much of 2,000 synthetic overlays is caught, how often images without text alarm, and the time.

Overlays on the real slices of ct-contrast, and every fifth on a phantom's: names, numbers and dates in the fonts of
matplotlib, PIL, OpenCV and, where installed, Debian's Liberation; upright, in quarter turns and slanted; every fifth
object MONOCHROME1, every tenth of eight frames of which one has text. Three in ten are faint, a grey 12 to 25 % of the
image's range away from what lies under it; all stand out from noise five times. Each goes through `check_pixels` as a
whole file. The screen was trained on half of the patients of ct-contrast, with other texts.

False alarms on the 100 slices of ct-contrast and 200 radiographs of PneumoniaMNIST, enlarged to 512 x 512 (they are
28 x 28 pixels: what an enlarged one shows is smooth). MNIST is left out: its digits are text.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from bench.overlays import SEEN, UNSEEN, Hand, burn, patients_apart
from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.pixels import text_detector
from imaging.deidentify.pixels.pixel_check import check_pixels
from imaging.deidentify.pixels.renderings import as_grey, leveled
from imaging.deidentify.pixels.text_candidates import cell_scores
from imaging.dicom.parse import parse
from imaging.errors import DataFault
from imaging.phantom.anatomy import paint, sample_chest

FRAMES = 8
OPTIONS = DeidentifyOptions()
BITS = 12
RADIOGRAPHS = 200
SURE = 60
"""Of tesseract's hundred: a word that it is sure of."""


@dataclass(frozen=True, slots=True)
class Trial:
    data: bytes
    kind: str
    picture: NDArray[np.generic]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--overlays", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=2027)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    root = Path(os.environ.get("RADLOOP_DATA", Path(__file__).parent.parent.parent / "shared/data"))
    slices = [path.read_bytes() for path in sorted((root / "ct-contrast").glob("*.dcm"))]
    test_slices = [path.read_bytes() for path in patients_apart(root)[1]]
    caught_of(test_slices, arguments.overlays, arguments.seed, UNSEEN)
    alarms_of(slices, list(radiographs(root)))
    times_of(slices)
    second_opinion(slices, arguments.seed)


def alarm(data: bytes) -> str:
    """Return why the pixels of a file may not pass, empty where they may."""
    try:
        check_pixels(parse(data), data, OPTIONS)
    except DataFault as fault:
        return fault.reason
    return ""


def caught_of(slices: list[bytes], overlays: int, seed: int, hand: Hand) -> None:
    missed: list[str] = []
    for trial in trials(slices, overlays, seed, hand):
        if alarm(trial.data) != "burned-in-text":
            missed.append(trial.kind)
    share = 1 - len(missed) / overlays
    verdict = "" if share >= 0.995 else "  MISSED"
    print(f"caught {share:.2%} of {overlays} overlays, at least 99.50% asked for{verdict}")
    for part, name in enumerate(("turn", "drawn", "value", "size", "object")):
        counts = Counter(kind.split()[part] for kind in missed)
        print(
            f"  missed by {name}: {', '.join(f'{what} {count}' for what, count in counts.most_common()) or 'none'}"
        )


def trials(slices: list[bytes], count: int, seed: int, hand: Hand = SEEN) -> Iterator[Trial]:
    """Yield objects with one text each."""
    random = np.random.default_rng(seed)
    for number in range(count):
        dataset = dcmread(BytesIO(slices[random.integers(len(slices))]))
        image = phantom(random) if number % 5 == 4 else dataset.pixel_array
        overlay = burn(random, image, BITS, hand)
        frames, kind = [overlay.stored], "single"
        if number % 10 == 3:
            frames = [image] * FRAMES
            frames[random.integers(FRAMES)] = overlay.stored
            kind = "multi-frame"
        if number % 5 == 2:
            frames, kind = [frame.max() + frame.min() - frame for frame in frames], f"{kind}-inverted"
            dataset.PhotometricInterpretation = "MONOCHROME1"
        yield Trial(file_of(dataset, np.stack(frames)), f"{overlay.kind} {kind}", overlay.stored)


def phantom(random: np.random.Generator) -> NDArray[np.int16]:
    hu = paint(sample_chest(random, lesion=bool(random.random() < 0.5)), 512, random)[0]
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def file_of(dataset: Dataset, frames: NDArray[np.generic]) -> bytes:
    """Return an object with other pixels, (frames, rows, columns), as a file."""
    dataset.Rows, dataset.Columns = frames.shape[1:]
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
    dataset.BitsAllocated = dataset.BitsStored = 8 * frames.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(frames.dtype.kind == "i")
    dataset.PixelData = frames.tobytes()
    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def radiographs(root: Path) -> Iterator[bytes]:
    """Yield radiographs of PneumoniaMNIST as files of 512 x 512 pixels."""
    with np.load(root / "pneumoniamnist.npz") as arrays:
        images = arrays["test_images"][:RADIOGRAPHS]
    dataset = dcmread(sorted((root / "ct-contrast").glob("*.dcm"))[0])
    dataset.Modality, dataset.ImageType = "DX", ["ORIGINAL", "PRIMARY"]
    for image in images:
        yield file_of(dataset, cv2.resize(image, (512, 512), interpolation=cv2.INTER_CUBIC)[None])


def alarms_of(slices: list[bytes], others: list[bytes]) -> None:
    for name, files in (("slices of ct-contrast", slices), ("radiographs of PneumoniaMNIST", others)):
        alarms = sum(bool(alarm(data)) for data in files)
        verdict = "" if alarms <= 0.02 * len(files) else "  MISSED"
        print(f"false alarms {alarms} of {len(files)} {name}, at most 2% asked for{verdict}")


def times_of(slices: list[bytes]) -> None:
    """Print what a raw slice costs: with the screen, and if all of it were looked at."""
    frames = [dcmread(BytesIO(data)).pixel_array for data in slices]
    ways = {
        "screen alone": lambda frame: cell_scores(leveled(as_grey(frame))),
        "search with the screen": lambda frame: list(text_detector.find_text(frame)),
    }
    for name, way in ways.items():
        took = [_milliseconds(way, frame) for frame in frames]
        print(
            f"{name}: {statistics.median(took):.1f} ms a slice (median), {statistics.mean(took):.1f} ms (mean)"
        )
    everywhere = [
        _milliseconds(lambda frame: list(text_detector.find_text(frame, thorough=True)), f)
        for f in frames[:5]
    ]
    print(f"thorough search, without a screen: {statistics.median(everywhere):.0f} ms a slice (median)")


def _milliseconds(call: object, *arguments: object) -> float:
    began = time.perf_counter()
    call(*arguments)  # type: ignore[operator]
    return (time.perf_counter() - began) * 1e3


def second_opinion(slices: list[bytes], seed: int, count: int = 100) -> None:
    """Print what tesseract finds in some of the same images."""
    if not shutil.which("tesseract"):
        print("tesseract is not installed: no second opinion")
        return
    caught = sum(tesseract(trial.picture) for trial in trials(slices, count, seed))
    alarms = sum(tesseract(dcmread(BytesIO(data)).pixel_array) for data in slices[:count])
    print(
        f"tesseract, full range: caught {caught} of {count} overlays, false alarms {alarms} of {count} slices"
    )


def tesseract(frame: NDArray[np.generic]) -> bool:
    """Tell whether tesseract is sure of a word of two letters or digits."""
    grey = as_grey(frame)
    low, high = np.percentile(grey, (1, 99.5))
    picture = np.clip((grey - low) * (255 / max(high - low, 1)), 0, 255).astype(np.uint8)
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        file.write(cv2.imencode(".png", picture)[1].tobytes())
        file.flush()
        command = ["tesseract", file.name, "-", "--psm", "11", "tsv"]
        limited = os.environ | {"OMP_THREAD_LIMIT": "1"}
        output = subprocess.run(command, capture_output=True, text=True, check=True, env=limited).stdout
    rows = [line.split("\t") for line in output.splitlines()[1:]]
    return any(
        float(row[10]) >= SURE and sum(map(str.isalnum, row[11])) >= 2 for row in rows if len(row) == 12
    )


if __name__ == "__main__":
    main()
