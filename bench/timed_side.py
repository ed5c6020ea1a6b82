"""One of two checkouts whose speed is compared: does the timed jobs that `bench.side_by_side` sends it, with its code.

A line of JSON comes in and one goes out, so that the other checkout waits meanwhile. Only what both have is called:
the functions of their own benches.
"""

import gc
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

TURN_S = 300
"""Longest wait for the other side's epoch; after that it has died."""


def milliseconds(call: Callable[[Any], object], inputs: Sequence[Any]) -> list[float]:
    took = []
    for one in inputs:
        started = time.perf_counter()
        call(one)
        took.append((time.perf_counter() - started) * 1e3)
    return took


def read(files: list[str]) -> list[float]:
    """Milliseconds of reading each slice: attributes and stored values."""
    from bench.reading import FileBuffer, read

    buffer = FileBuffer()
    return milliseconds(partial(read, buffer), [Path(one) for one in files])


def deidentify(groups: list[list[str]], looks: bool, out: str) -> list[float]:
    """Milliseconds of each file of series of which nothing was seen before."""
    from bench import deidentify as bench

    modules = vars(bench)
    if looks:
        payload = modules.get("payload") or modules["parcel"]
        function = getattr(payload, "deidentify_payload", None) or payload.deidentify_parcel
        bench.load_networks()
    else:
        function = bench.without_pixels
    for name in ("cache_for", "_folded_spellings", "memory_of", "_words"):
        if name in modules:
            modules[name].cache_clear()
    took: list[float] = []
    for number, group in enumerate(groups):
        folder = Path(out, str(number))
        folder.mkdir(parents=True)
        took += milliseconds(
            partial(bench.ours, function, [Path(one) for one in group], folder), range(len(group))
        )
    shutil.rmtree(out)
    return took


class Ingest:
    """Ingest of folders as one chunk each, in a process of the sandbox that stays."""

    def __init__(self, size_px: int) -> None:
        from bench.ingest import FUNCTION, Pool, PreprocessSpec

        self.spec = PreprocessSpec(size_px=size_px)
        self.pool = Pool(FUNCTION, {"spec": self.spec.model_dump_json()}, workers=1)
        self.pool.start()

    def take_in(self, folders: list[str], out: str) -> list[float]:
        from bench.ingest import ours

        def prepare(folder: str) -> None:
            target = Path(out, Path(folder).name)
            target.mkdir(parents=True)
            ours(self.pool, self.spec, Path(folder), target)

        took = milliseconds(prepare, folders)
        shutil.rmtree(out)
        return took


def wait_for_turn(
    folder: Path, me: str, first: bool, epochs: int, metrics: Mapping[str, float], _: object
) -> None:
    """Report that an epoch is over, and wait until that of the other side is: the first side goes first in each."""
    epoch = int(metrics["epoch"])
    (folder / f"{me}-{epoch}").touch()
    other = "b" if me == "a" else "a"
    awaited = folder / f"{other}-{epoch if first else epoch + 1}"
    deadline = time.monotonic() + TURN_S
    while epoch < epochs - 1 and not awaited.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{awaited.name} has not come in {TURN_S} s: the other side has ended")
        time.sleep(0.02)


def train(folder: str, me: str, epochs: int) -> list[float]:
    """Milliseconds of a step in each epoch but the first, with two processes of torch's DDP."""
    from bench.step_time import launch, ordered, steps_ms, synthetic

    place = Path(folder)
    launch(ordered(epochs), synthetic(), place / me, partial(wait_for_turn, place, me, me == "a", epochs))
    return list(steps_ms(place / me))


def night(home: str, archive: str, ray_from: int) -> list[float]:
    """Milliseconds of a night."""
    from bench.nights import Plan, passed

    plan = Plan(
        home=Path(home), source=Path(archive, "dicom"), labels=Path(archive, "labels.csv"), chunk_files=256,
        ray_from=ray_from, in_process=False,
    )  # fmt: skip
    return [passed(replace(plan)).seconds * 1e3]


def main() -> None:
    answers = sys.stdout
    sys.stdout = sys.stderr
    ingest: dict[int, Ingest] = {}
    for line in sys.stdin:
        job = json.loads(line)
        kind = job.pop("kind")
        # What a job left is not collected in the time of the next.
        gc.collect()
        if kind == "ingest":
            size = job.pop("size_px")
            ingest.setdefault(size, Ingest(size)) if size not in ingest else None
            took = ingest[size].take_in(**job)
        else:
            took = {"read": read, "deidentify": deidentify, "train": train, "night": night}[kind](**job)
        print(json.dumps(took), file=answers, flush=True)
    for one in ingest.values():
        one.pool.end()


if __name__ == "__main__":
    main()
