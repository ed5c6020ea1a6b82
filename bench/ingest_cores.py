"""Speed of ingest on two cores beside one, through Ray: `python -m bench.ingest_cores`.

Each side is a Ray of its own, all its processes kept to its cores, with a worker for each core; beside each worker is
the process that guards against bad files. Both sides take in the same series of raw slices, by turns, into an empty
store. What counts is all of it, from the first chunk that is handed out to the last one that is in the journal; Ray and
the workers have begun before, in a round that does not count. "Work" is the time of cores that all processes used.
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import psutil

from bench.deidentify import ARCHIVE, raw_slices, series
from bench.interleaved import ratio
from imaging.preprocess.spec import PreprocessSpec
from imaging.sources.folder_source import FolderSource
from services.ray.chunk_pool import STORE_BYTES, run_chunks
from services.ray.cluster import local_ray
from services.ray.ingest_worker import FACTORY, FileItem
from services.settings import Settings

SIZES = (256, 224)
LEAST = 1.7
SERIES_FILES = 128
KEY = "5e" * 32

Costs = tuple[float, float]
"""Milliseconds a file: of time, and of work."""


class Ingest(Protocol):
    """Ingest of all files at a size."""

    def take_in(self, size: int) -> Costs: ...


class Side:
    """A process on some cores that takes in a folder for each size that it receives."""

    def __init__(self, cores: Sequence[int], source: Path, home: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._mine, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, cores, source, home))
        self._process.start()
        # Otherwise the end of the process would not be seen.
        theirs.close()

    def take_in(self, size: int) -> Costs:
        self._mine.send(size)
        costs: Costs = self._mine.recv()
        return costs

    def end(self) -> None:
        self._mine.close()
        self._process.join()


def serve(parent: Connection, cores: Sequence[int], source: Path, home: Path) -> None:
    """Take in all files for each size that is received."""
    # Processes that are started later inherit it, and Ray has as many workers.
    os.sched_setaffinity(0, cores)
    os.environ["RADLOOP_KEY"] = KEY
    settings = Settings(home=home)
    files = [FileItem(file) for file in FolderSource(source).scan()]
    with local_ray(len(cores), STORE_BYTES):
        while (size := _next(parent)) is not None:
            started, before = time.perf_counter(), worked()
            chunks = run_chunks(FACTORY, order_of(settings, source, size), files)
            done = sum(made.examples for _, made in chunks)
            seconds, work_s = time.perf_counter() - started, worked() - before
            assert done == len(files), f"{len(files) - done} files were refused"
            shutil.rmtree(settings.store_root)
            parent.send((seconds * 1e3 / done, work_s * 1e3 / done))


def _next(parent: Connection) -> int | None:
    try:
        size: int = parent.recv()
    except EOFError:
        return None
    return size


def order_of(settings: Settings, source: Path, size: int) -> Mapping[str, Any]:
    """Return the order that `tasks.ingest` gives its workers."""
    return {
        "home": str(settings.folder),
        "store": None,
        "source": str(source),
        "labels": None,
        "dataset": "d",
        "patient_variants": "report",
        "spec": PreprocessSpec(size_px=size).model_dump_json(),
        "bad_slice": "drop-slice",
        "made_with": str(size),
        "key_fingerprint": settings.pseudonyms().fingerprint,
    }


def worked() -> float:
    """Return the seconds of cores that this process and its descendants have used."""
    own = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in (own, *own.children(recursive=True)))


def archive(folder: Path, files: int) -> Path:
    """Write series of as many patients."""
    folder.mkdir()
    slices, count = raw_slices(ARCHIVE), files // SERIES_FILES
    for path in slices[:: max(len(slices) // count, 1)][:count]:
        series(path, SERIES_FILES, folder)
    # Otherwise it would be written during a timed round.
    os.sync()
    return folder


def in_turn(size: int, one: Ingest, both: Ingest, rounds: int) -> tuple[list[Costs], list[Costs]]:
    """Return the costs of each round on one core and on both, after a round that does not count."""
    sides = {"one": one, "both": both}
    took: dict[str, list[Costs]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            took[name].append(sides[name].take_in(size))
    return took["one"][1:], took["both"][1:]


def row(size: int, one: Sequence[Costs], both: Sequence[Costs]) -> str:
    """Return a line of the table; the speed is that of rounds beside each other."""
    times, works = ([[costs[at] for costs in side] for side in (both, one)] for at in range(2))
    reached = ratio(times[1], times[0])
    cells = [
        f"{statistics.median(time):.2f} ms, work {statistics.median(work):.2f} ms"
        for time, work in zip(times, works, strict=True)
    ]
    verdict = "" if reached >= LEAST else "  MISSED"
    return (
        f"| whole ingest of 512 x 512 to {size} through Ray | 2 cores {cells[0]} | 1 core {cells[1]} "
        f"| {reached:.2f} x | at least {LEAST:g} x{verdict} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("this needs two cores")
    print("| what | ours | beside | speed | asked for |\n|---|---|---|---|---|", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        source = archive(Path(place, "archive"), asked.files)
        one, both = (Side(cores[-count:], source, Path(place, f"home-{count}")) for count in (1, 2))
        try:
            for size in SIZES:
                rows.append(row(size, *in_turn(size, one, both, asked.rounds)))
                print(rows[-1], flush=True)
        finally:
            one.end()
            both.end()
    return int(any("MISSED" in line for line in rows))


if __name__ == "__main__":
    raise SystemExit(main())
