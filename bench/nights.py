"""Nights over the phantom archive: the first, one without anything new, one with 1 % new; memory; SIGKILLs.

They have the real sandbox, and Ray where they are large. What is timed is the flow, without Prefect's engine; to paint
a hundred thousand slices takes longer than all nights together.
"""

import argparse
import cProfile
import os
import pstats
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from imaging.cores import available_cores
from imaging.phantom.phantom_archive import write_phantom
from imaging.phantom.schedule import PhantomSpec
from imaging.sources.folder_source import FolderSource
from services.settings import Settings
from tasks.ingest import RAY_FROM
from tests.growing_archive import labels
from tests.ingest_process import KEY, Night, Plan, take_in
from tests.test_ingest_kills import kill_again_and_again

SLICES, VISITS = 8, 1.5
"""Slices of a study, and studies of a patient in the mean."""
ALLOCATOR = "ARROW_DEFAULT_MEMORY_POOL"
KILLS_A_SEED, TIMES = 50, 3
UNCHANGED_S, NEW_SHARE, FLAT = 3.0, 0.02, 1.25
JUDGED_FROM = 100_000
"""With fewer files the start of the sandbox is more than 2 % of a night."""
MIB = 2**20
EVERY_S = 0.5
"""Interval at which memory is read; the kernel keeps the peak of each process."""


@dataclass(frozen=True, kw_only=True)
class NightCosts:
    """Costs of a night: seconds of the listing alone and of all, writes to the store, peaks of memory in bytes."""

    files: int
    listing_s: float
    seconds: float
    writes: int
    driver_bytes: int
    worker_bytes: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--size-px", type=int, default=128, help="Rows and columns of a slice.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument(
        "--archive", type=Path, help="Where the first day of the archives is kept for other runs."
    )
    parser.add_argument("--profile", action="store_true", help="print a profile of an unchanged night")
    arguments = parser.parse_args()
    print("| what | took | asked for |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.archive) as place:
        folder, few, many = Path(place), arguments.objects // 10, arguments.objects
        # A night in a process of its own has it in its environment; these are forked from one that has begun.
        os.environ[ALLOCATOR] = Settings(home=folder).defaults()[ALLOCATOR]
        small = passed(archive(folder / "few", spec(few, arguments.size_px), arguments.archive))
        large = spec(many, arguments.size_px)
        plan = archive(folder / "many", large, arguments.archive)
        missed = nights(plan, small, large, few, many)
        if arguments.profile:
            profile(plan)
        missed += kills(folder / "kills", arguments.kills)
    return min(missed, 1)


def archive(folder: Path, hospital: PhantomSpec, kept: Path | None) -> Plan:
    """Return the plan of a night over an archive, which is painted or taken from `kept`."""
    files = round(hospital.patients * VISITS * SLICES)
    painted = kept / f"{hospital.patients}-{hospital.size_px}" if kept else folder
    if not (painted / "labels.csv").exists():
        print(f"painting {files} slices", file=sys.stderr, flush=True)
        write_phantom(painted, hospital, workers=available_cores())
    if painted != folder:
        # The second day is written beside the first, and what is kept stays as it is.
        shutil.copytree(painted / "dicom", folder / "dicom", copy_function=os.link)
        shutil.copy(painted / "labels.csv", folder / "labels.csv")
    # Both archives go the same way, however small they are.
    return Plan(
        home=folder / "home",
        source=folder / "dicom",
        labels=folder / "labels.csv",
        chunk_files=256,
        ray_from=min(RAY_FROM, files // 2),
        in_process=False,
    )


def spec(files: int, size_px: int) -> PhantomSpec:
    """Return a hospital with so many slices; on the second day comes a hundredth, a tenth of it from patients known."""
    studies = round(files / SLICES)
    come = studies // 100
    return PhantomSpec(
        patients=round(studies / VISITS),
        new_patients=round(0.9 * come / VISITS),
        returning=come // 10,
        slices=SLICES,
        size_px=size_px,
    )


def passed(plan: Plan) -> NightCosts:
    """Run a night, and return its costs."""
    started = time.perf_counter()
    listed = sum(1 for _ in FolderSource(plan.source).scan())
    listing_s = time.perf_counter() - started
    night = Night(plan)
    with watched(night.pid) as peaks:
        answer = night.over()
    assert answer.get("files_listed") == listed, answer
    return NightCosts(
        files=listed,
        listing_s=listing_s,
        seconds=answer["seconds"],
        # Making the home is no write to the store.
        writes=sum(step != "mkdir " for step in night.steps),
        driver_bytes=answer["peak_bytes"],
        worker_bytes=max(peaks.values(), default=0),
    )


@contextmanager
def watched(pid: int) -> Iterator[dict[str, int]]:
    """Keep the largest peak of memory of the processes that work for another, by what they are."""
    peaks: dict[str, int] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(EVERY_S):
            with suppress(psutil.Error):
                for one in psutil.Process(pid).children(recursive=True):
                    name = work_of(one)
                    if name:
                        peaks[name] = max(peaks.get(name, 0), peak_of(one.pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def work_of(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        command_line = " ".join(process.cmdline())
        return next((name for name in ("imaging.sandbox.worker_loop", "ray::") if name in command_line), "")
    return ""


def peak_of(pid: int) -> int:
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
    return 0


def nights(plan: Plan, small: NightCosts, large: PhantomSpec, few: int, many: int) -> int:
    """Run the first night, some with nothing new and some with 1 % new; return the number of missed figures."""
    first = passed(plan)
    again = middle([passed(plan) for _ in range(TIMES)])
    homes = [shutil.copytree(plan.home, plan.home.with_name(f"home{number}")) for number in range(TIMES)]
    new = write_phantom(plan.labels.parent, large, day=2).files
    more = middle([passed(replace(plan, home=home)) for home in homes])
    missed = row(
        f"first night of {first.files} files",
        f"{first.seconds:.1f} s, {first.files / first.seconds:.0f} files/s",
        "",
    )
    missed += row("listing alone", f"{again.listing_s:.2f} s", "")
    bound = UNCHANGED_S + again.listing_s
    missed += row(
        "unchanged night", f"{again.seconds:.2f} s", f"at most {bound:.2f} s", again.seconds <= bound
    )
    missed += row("writes in it", f"{again.writes}", "none", again.writes == 0)
    bound = NEW_SHARE * first.seconds + more.listing_s
    missed += row(
        f"{new} new",
        f"{more.seconds:.2f} s",
        f"at most {bound:.2f} s",
        more.seconds <= bound or many < JUDGED_FROM,
    )
    for who in ("driver", "worker"):
        before, after = (getattr(one, f"{who}_bytes") for one in (small, first))
        took = f"{before / MIB:.0f} and {after / MIB:.0f} MiB, {after / before:.2f} x"
        missed += row(
            f"peak of the {who}, {few} and {many} files", took, f"at most {FLAT} x", after <= FLAT * before
        )
    return missed


def middle(nights: Sequence[NightCosts]) -> NightCosts:
    """Return the night of median duration, without the listing before it."""
    return sorted(nights, key=lambda night: night.seconds - night.listing_s)[len(nights) // 2]


def kills(folder: Path, count: int) -> int:
    """Kill nights and check each time what readers see; raise AssertionError where it is wrong."""
    folder.mkdir()
    count_nights = 0
    started = time.perf_counter()
    for seed in range(0, count, KILLS_A_SEED):
        at = folder / str(seed)
        at.mkdir()
        plan = Plan(home=at / "killed", source=at / "archive", labels=labels(at / "labels.csv"))
        whole = Plan(home=at / "whole", source=plan.source, labels=plan.labels)
        count_nights += kill_again_and_again(plan, whole, min(KILLS_A_SEED, count - seed), seed)
    took = f"{count_nights} nights, {time.perf_counter() - started:.0f} s"
    return row(f"{count} SIGKILLs", took, "nothing invalid seen, no finished chunk done again")


def profile(plan: Plan) -> None:
    """Print a profile of an unchanged night."""
    import flows.ingest  # noqa: F401 (what it costs to load is no part of a night)

    os.environ.update(RADLOOP_HOME=str(plan.home), RADLOOP_KEY=KEY)
    profiler = cProfile.Profile()
    profiler.runcall(take_in, plan)
    pstats.Stats(profiler).sort_stats("cumtime").print_stats(40)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(20)


def row(what: str, took: str, asked: str, reached: bool = True) -> int:
    """Print a line of the table; return 1 where a bound was missed."""
    print(f"| {what} | {took} | {asked}{'' if reached else '  MISSED'} |", flush=True)
    return int(not reached)


if __name__ == "__main__":
    sys.exit(main())
