"""CPU and wall time of commands beside another commit: `python -m bench.startup --against COMMIT`.

Both checkouts take turns, each command in a process of its own, on a home with one dataset and one model. CPU is that
of the command and of all processes that it has waited for; medians. Refused requests leave no process and no file: the
homes and the processes are counted before and after.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import psutil

from bench.same_bytes import REPOSITORY, checked_out
from tests.synthetic import write_archive

ARCHIVE = ("--source", "{archive}", "--labels", "{labels}")
COMMANDS: dict[str, tuple[str, ...]] = {
    "--help": ("--help",),
    "run --help": ("run", "--help"),
    "status": ("status",),
    "dataset list": ("dataset", "list"),
    "dataset show": ("dataset", "show", "chest"),
    "inspect, 24 files": ("inspect", "{archive}"),
    "refused: no such source": ("run", "--source", "nowhere"),
    "refused: --label-column": ("ingest", *ARCHIVE, "--label-column", "grade"),
    "refused: --modality": ("ingest", *ARCHIVE, "--modality", "XY"),
    "refused: --network": ("train", "--network", "vgg"),
    "refused: deidentify nowhere": ("deidentify", "nowhere", "out"),
}
SERVER: dict[str, tuple[str, ...]] = {
    "refused: --positive": ("run", *ARCHIVE, "--positive", "tumour"),
    "refused: no such dataset": ("train", "--name", "brain"),
    "ingest with nothing new": ("ingest", *ARCHIVE, "--name", "chest"),
}
"""Commands that start Prefect's server, on one of the sides at least."""
LIMIT_CPU_S, LIMIT_WALL_S = 0.5, 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", default="d6a33eb")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--server-rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, checked_out(arguments.against, Path(folder)) as other:
        sides = {"this": REPOSITORY, "other": other}
        archive, labels = write_archive(Path(folder) / "dicom")
        places = {"archive": str(archive), "labels": str(labels)}
        for side, checkout in sides.items():
            timed(
                checkout,
                home_of(folder, side),
                "ingest",
                *filled(SERVER["ingest with nothing new"], places)[1:],
            )
        times: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        for commands, rounds in ((COMMANDS, arguments.rounds), (SERVER, arguments.server_rounds)):
            for _ in range(rounds):
                for name, command in commands.items():
                    for side, checkout in sides.items():
                        home = home_of(folder, side)
                        times[name, side].append(timed(checkout, home, *filled(command, places)))
        print(f"{'':32}{'CPU s':>8}{'before':>8}{'ratio':>8}{'wall s':>10}{'before':>8}")
        for name in COMMANDS | SERVER:
            (cpu, wall), (cpu_before, wall_before) = (
                np.median(times[name, side], axis=0) for side in ("this", "other")
            )
            print(
                f"{name:32}{cpu:8.2f}{cpu_before:8.2f}{cpu / cpu_before:8.2f}{wall:10.2f}{wall_before:8.2f}"
            )
        slow = [name for name in ("--help", "status") if median_cpu(times[name, "this"]) > LIMIT_CPU_S]
        return int(
            bool(slow) or leaves_something(Path(folder), filled(SERVER["refused: --positive"], places))
        )


def home_of(folder: str, side: str) -> Path:
    return Path(folder) / f"home-{side}"


def filled(command: tuple[str, ...], places: dict[str, str]) -> list[str]:
    return [part.format(**places) for part in command]


def median_cpu(times: list[tuple[float, float]]) -> float:
    return statistics.median(cpu for cpu, _ in times)


def timed(checkout: Path, home: Path, *command: str) -> tuple[float, float]:
    """Return seconds of processor and of the clock that a command of a checkout takes."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        [sys.executable, "-P", "-m", "cli.main", "--home", home, *command],
        cwd=home.parent, env=os.environ | {"PYTHONPATH": str(checkout)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def leaves_something(folder: Path, command: list[str]) -> bool:
    """Return whether 50 refused processes leave a file or a process behind."""
    seen, running = set(folder.rglob("*")), set(psutil.pids())
    for _ in range(50):
        timed(REPOSITORY, folder / "home-refused", *command)
    new = [pid for pid in set(psutil.pids()) - running if str(folder) in command_line(pid)]
    print(f"50 refused processes leave {len(set(folder.rglob('*')) - seen)} files and {len(new)} processes")
    return bool(set(folder.rglob("*")) - seen or new)


def command_line(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


if __name__ == "__main__":
    sys.exit(main())
