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
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

OPENED = ExitStack()
"""What stays open between jobs: the sandboxes of ingest."""
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


def deidentify(files: list[str], looks: bool, out: str) -> list[float]:
    """Milliseconds of each file, where nothing was seen before."""
    from bench import deidentify as bench

    # Names before and after the house was built anew.
    modules = vars(bench)
    function = bench.without_pixels
    if looks:
        payload = modules.get("payload") or modules["parcel"]
        function = getattr(payload, "deidentify_payload", None) or payload.deidentify_parcel
        bench.load_networks()
    for name in ("cache_for", "_folded_spellings", "memory_of", "_words"):
        if name in modules:
            modules[name].cache_clear()
    Path(out).mkdir()
    took = milliseconds(
        partial(bench.ours, function, [Path(one) for one in files], Path(out)), range(len(files))
    )
    shutil.rmtree(out)
    return took


@cache
def prepare(size_px: int) -> Callable[[Path, Path], None]:
    """Return what prepares a folder as one chunk, in a process of the sandbox that stays for the next one."""
    from bench.ingest import FUNCTION, Pool, PreprocessSpec, ours

    spec = PreprocessSpec(size_px=size_px)
    pool = OPENED.enter_context(Pool(FUNCTION, {"spec": spec.model_dump_json()}, workers=1))
    return partial(ours, pool, spec)


def ingest(size_px: int, folder: str, out: str) -> list[float]:
    """Milliseconds of an ingest of a folder."""
    Path(out).mkdir()
    took = milliseconds(lambda source: prepare(size_px)(source, Path(out)), [Path(folder)])
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
    """Milliseconds of a night, with everything loaded before."""
    from bench.nights import Night, Plan, passed

    # Some checkouts load MLflow, and much that Ray needs too, with the flow of ingest; others do not.
    if "mlflow" not in (loaded := sys.modules[Night.__module__].LOADED):
        loaded.insert(0, "mlflow")
    plan = Plan(
        home=Path(home), source=Path(archive, "dicom"), labels=Path(archive, "labels.csv"), chunk_files=256,
        ray_from=ray_from, in_process=False,
    )  # fmt: skip
    return [passed(plan).seconds * 1e3]


JOBS: Mapping[str, Callable[..., list[float]]] = {
    one.__name__: one for one in (read, ingest, deidentify, train, night)
}


def main() -> None:
    answers = sys.stdout
    # What a job prints is no answer.
    sys.stdout = sys.stderr
    with OPENED:
        for line in sys.stdin:
            job = json.loads(line)
            # What a job left is not collected in the time of the next.
            gc.collect()
            print(json.dumps(JOBS[job.pop("kind")](**job)), file=answers, flush=True)


if __name__ == "__main__":
    main()
