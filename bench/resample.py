"""Speed of resampling a volume, beside SimpleITK and scipy with the same grid and the same result.

48 x 512 x 512 voxels become 60 x 400 x 400. The rounds are interleaved, so that whatever else the machine does falls
on all; the result is medians and the median of the ratios of neighbours in time. Turning arrays into SimpleITK's
images and back is not counted.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage

from imaging.preprocess.resample import resample

SPACING_MM = (2.5, 0.78125, 0.78125)
NEW_SPACING_MM = (2.0, 1.0, 1.0)
SIZE = (60, 400, 400)


def volume() -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(-1000, 2000, (48, 512, 512)).astype(np.float32)


def by_simple_itk(image: SimpleITK.Image) -> SimpleITK.Image:
    origin = [(new - old) / 2 for old, new in zip(SPACING_MM[::-1], NEW_SPACING_MM[::-1], strict=True)]
    return SimpleITK.Resample(
        image,
        SIZE[::-1],
        SimpleITK.Transform(),
        SimpleITK.sitkLinear,
        origin,
        NEW_SPACING_MM[::-1],
        image.GetDirection(),
        0.0,
        SimpleITK.sitkFloat32,
    )


def by_scipy(values: NDArray[np.float32]) -> NDArray[np.float32]:
    factors = [new / old for old, new in zip(values.shape, SIZE, strict=True)]
    return ndimage.zoom(values, factors, order=1, mode="nearest", grid_mode=True)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    values = volume()
    image = SimpleITK.GetImageFromArray(values)
    image.SetSpacing(SPACING_MM[::-1])
    works: dict[str, Callable[[], object]] = {
        "ours, linear": lambda: resample(values, SPACING_MM, NEW_SPACING_MM, antialias=False),
        "ours, area in plane": lambda: resample(values, SPACING_MM, NEW_SPACING_MM),
        "SimpleITK, linear": lambda: by_simple_itk(image),
        "scipy zoom, linear": lambda: by_scipy(values),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            times[name].append(seconds(work))
    ours = times["ours, linear"][1:]
    exact = by_scipy(values.astype(np.float64))
    off = {
        "ours, linear": np.abs(resample(values, SPACING_MM, NEW_SPACING_MM, antialias=False) - exact).max(),
        "SimpleITK, linear": np.abs(SimpleITK.GetArrayFromImage(by_simple_itk(image)) - exact).max(),
    }
    print(
        f"48 x 512 x 512 to 60 x 400 x 400, {rounds} rounds, OpenCV {cv2.getNumThreads()} threads, ", end=""
    )
    print(f"SimpleITK {SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()}, scipy 1")
    for name, taken in times.items():
        ratio = statistics.median(one / other for one, other in zip(taken[1:], ours, strict=True))
        largest = (
            f", at most {off[name]:.4f} of 3000 levels off scipy in double precision" if name in off else ""
        )
        print(f"{name:20} {1000 * statistics.median(taken[1:]):7.1f} ms, {ratio:5.2f} x ours{largest}")


if __name__ == "__main__":
    main()
