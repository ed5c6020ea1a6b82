"""Speed of this checkout beside another: `python -m bench.side_by_side --against COMMIT`.

Reading, ingest, de-identification, training steps and nights, in turns, so that a slow machine slows both alike. Each
row is the median of ratios of neighbours in time: above 1 this checkout is faster.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.deidentify import ARCHIVE, raw_slices, series, strangers
from bench.nights import spec
from bench.same_bytes import REPOSITORY, checked_out
from imaging.cores import available_cores
from imaging.phantom.phantom_archive import write_phantom

LEAST = 0.97


class TimedSide:
    """A process with the code of one checkout."""

    def __init__(self, checkout: Path, name: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("timed_side.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=checkout,
            env=os.environ | {"PYTHONPATH": str(checkout)},
        )  # fmt: skip

    def do(self, kind: str, **job: Any) -> list[float]:
        """Return the milliseconds of each part of a job."""
        assert self._process.stdin and self._process.stdout
        print(json.dumps({"kind": kind} | job), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the side {self.name} ended at {kind}: see its error above")
        return list(json.loads(answer))

    def end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)


Sides = tuple[TimedSide, TimedSide]
"""This checkout, and the other."""


def in_turn(sides: Sides, number: int, job: Callable[[TimedSide], list[float]]) -> list[float]:
    """Return the ratios of a job done by both, one after the other: the other's time over ours."""
    took = {side.name: job(side) for side in (sides if number % 2 else sides[::-1])}
    ours, theirs = (took[side.name] for side in sides)
    return [other / own for own, other in zip(ours, theirs, strict=True)]


def row(what: str, ratios: Sequence[float]) -> bool:
    """Print a line of the table; return whether the median reaches the bound."""
    low, middle, high = statistics.quantiles(ratios, n=4)
    verdict = "" if middle >= LEAST else "  MISSED"
    print(f"| {what} | {middle:.3f} x ({low:.3f} to {high:.3f}) | {len(ratios)} |{verdict}", flush=True)
    return not verdict


def ratios_of(
    sides: Sides, groups: Sequence[list[str]], job: Callable[[list[str], TimedSide], list[float]]
) -> list[float]:
    """Return the ratios of a job for groups of files. The first group is done once before, for processes to begin."""
    in_turn(sides, 0, partial(job, groups[0]))
    return [one for number, group in enumerate(groups) for one in in_turn(sides, number, partial(job, group))]


def reading(sides: Sides, _: Path) -> list[bool]:
    files = [str(path) for path in raw_slices(ARCHIVE)[:40]]
    ratios = ratios_of(sides, [files] * 40, lambda group, side: side.do("read", files=group))
    return [row("attributes and stored values of a raw slice", ratios)]


def archives(folder: Path, count: int, neighbours: int) -> list[list[str]]:
    """Write series made of real slices, each in a folder of its own; return their files."""
    slices = raw_slices(ARCHIVE)
    groups = []
    for number in range(count):
        place = folder / f"series-{number}"
        place.mkdir(parents=True)
        groups.append([str(path) for path in series(slices[number % len(slices)], neighbours, place)])
    return groups


def ingest(sides: Sides, folder: Path) -> list[bool]:
    groups = archives(folder, 100, 20)
    reached = []
    for size in (256, 224):

        def take_in(group: list[str], side: TimedSide, size_px: int = size) -> list[float]:
            source, out = str(Path(group[0]).parent), str(folder / f"out-{side.name}")
            return side.do("ingest", size_px=size_px, folder=source, out=out)

        reached.append(row(f"ingest of a series of 20 slices to {size}", ratios_of(sides, groups, take_in)))
    return reached


def deidentify(sides: Sides, folder: Path) -> list[bool]:
    of_series = archives(folder / "series", 32, 20)
    single = folder / "single"
    single.mkdir()
    for number, path in enumerate(raw_slices(ARCHIVE)):
        strangers(path, number, 6, single)
    others = sorted(str(path) for path in single.iterdir())
    reached = []
    for looks in (False, True):

        def clean(group: list[str], side: TimedSide, looks: bool = looks) -> list[float]:
            return side.do("deidentify", files=group, looks=looks, out=str(folder / f"out-{side.name}"))

        for what, groups in (("series", of_series), ("single slices", [others[at::32] for at in range(32)])):
            name = f"de-identification, {what}, with{'' if looks else 'out'} the text detector"
            reached.append(row(name, ratios_of(sides, groups, clean)))
    return reached


def step_time(sides: Sides, folder: Path) -> list[bool]:
    ratios: list[float] = []
    for number in range(3):
        place = folder / str(number)
        place.mkdir()
        took: dict[str, list[float]] = {}

        def fit(side: TimedSide, me: str, place: Path = place, took: dict[str, list[float]] = took) -> None:
            took[side.name] = side.do("train", folder=str(place), me=me, epochs=21)

        pairs = zip(sides if number % 2 else sides[::-1], "ab", strict=True)
        threads = [threading.Thread(target=fit, args=pair) for pair in pairs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ours, theirs = (took[side.name] for side in sides)
        ratios += [other / own for own, other in zip(ours, theirs, strict=True)]
    return [row("training step, two processes, turns of an epoch", ratios)]


def nights(sides: Sides, folder: Path, objects: int = 10_000) -> list[bool]:
    archive, hospital = folder / "archive", spec(objects, 128)
    files = write_phantom(archive, hospital, workers=available_cores()).files
    results: dict[str, list[float]] = {"first": [], "unchanged": [], "1 % new": []}

    def pass_night(what: str, number: int) -> None:
        def job(side: TimedSide) -> list[float]:
            home = str(folder / f"{side.name}-{number}")
            return side.do("night", home=home, archive=str(archive), ray_from=files // 2)

        results[what] += in_turn(sides, number, job)

    for number in range(8):
        pass_night("first", number)
        for _ in range(8):
            pass_night("unchanged", number)
    write_phantom(archive, hospital, day=2)
    for number in range(8):
        pass_night("1 % new", number)
    shutil.rmtree(archive)
    return [row(f"night, {what}, {files} files", ratios) for what, ratios in results.items()]


ROWS = {one.__name__: one for one in (reading, ingest, deidentify, step_time, nights)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", required=True, help="commit, or a folder with a checkout")
    parser.add_argument("--rows", nargs="*", default=[*ROWS], choices=[*ROWS])
    asked = parser.parse_args()
    reached: list[bool] = []
    with tempfile.TemporaryDirectory(prefix="radloop-bench-") as name:
        place = Path(name)
        with checked_out(asked.against, place) as other:
            sides = TimedSide(REPOSITORY, "this"), TimedSide(other, "other")
            print("| what | speed, median of ratios (quartiles) | pairs |\n|---|---|---|", flush=True)
            for one in asked.rows:
                (place / one).mkdir()
                reached += ROWS[one](sides, place / one)
            for side in sides:
                side.end()
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
