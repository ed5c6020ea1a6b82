"""Cost of an ingest that finds nothing new, beside another checkout: `python -m bench.quiet_nights --against COMMIT`.

Each round runs the command of both in turns: on a fresh home, then on one whose Prefect server has ended, then with
that server up (the other checkout may start one for each command). Wall time, and the processor time of the command, of
what it started and of the server.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from bench.compared_side import COMMAND_LINE
from bench.same_bytes import DATA, REPOSITORY, checked_out
from services.prefect.server_record import began, read_server

STATES = ("fresh home", "server ended", "server up")
WALL = {"fresh home": 0.6, "server ended": None, "server up": 0.25}
CPU = {"fresh home": None, "server ended": None, "server up": 0.35}
"""Highest ratios to the other checkout that are asked for."""

Cost = tuple[float, float]
"""Seconds of wall time and of processor time."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", default="16ca9f6", help="commit, or a folder with a checkout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--source", type=Path, default=DATA / "ct-contrast", help="folder with labels.csv")
    asked = parser.parse_args()
    costs: dict[tuple[str, str], list[Cost]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="radloop-bench-") as name:
        place = Path(name)
        with checked_out(asked.against, place) as other:
            sides = {"this": REPOSITORY, "other": other}
            for number in range(asked.rounds):
                for side in list(sides)[:: 1 if number % 2 else -1]:
                    home = place / side
                    for state in STATES:
                        costs[side, state].append(cost(sides[side], home, state, asked.source))
                    end_server(home)
                    shutil.rmtree(home)
    return report(costs)


def cost(checkout: Path, home: Path, state: str, source: Path) -> Cost:
    """Run the command with the home in a state, and return what it cost."""
    if state == "server ended":
        end_server(home)
    given = ("--home", home, "ingest", "--source", source, "--labels", source / "labels.csv")
    before, started = processor_s(home), time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", COMMAND_LINE, *given],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    took = time.perf_counter() - started
    return took, processor_s(home) - before


def processor_s(home: Path) -> float:
    """Return the processor time of all commands that have ended, and of the server of this home."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    server = read_server(home)
    of_server = 0.0
    with suppress(psutil.NoSuchProcess):
        if server and server.runs:
            of_server = sum(psutil.Process(server.pid).cpu_times()[:2])
    return ended.ru_utime + ended.ru_stime + of_server


def end_server(home: Path) -> None:
    """End the server of a home, where there is one."""
    server = read_server(home)
    if server and server.runs:
        os.kill(server.pid, 15)
        while began(server.pid) >= 0:
            time.sleep(0.05)


def report(costs: dict[tuple[str, str], list[Cost]]) -> int:
    """Print a table of medians; return 1 where a ratio is above what is asked for."""
    missed = 0
    print(
        "| state | this: wall, CPU | other: wall, CPU | ratio of wall | ratio of CPU |\n|---|---|---|---|---|"
    )
    for state in STATES:
        ours, theirs = (costs[side, state] for side in ("this", "other"))
        cells = [", ".join(f"{middle(one, part):.1f} s" for part in (0, 1)) for one in (ours, theirs)]
        for part, bounds in enumerate((WALL, CPU)):
            ratio = statistics.median(
                one[part] / other[part] for one, other in zip(ours, theirs, strict=True)
            )
            bound = bounds[state]
            late = bound is not None and ratio > bound
            missed |= late
            asked = f" (at most {bound}{', MISSED' if late else ''})" if bound else ""
            cells.append(f"{ratio:.2f} x{asked}")
        print(f"| {state} | {' | '.join(cells)} |", flush=True)
    return int(missed)


def middle(costs: Sequence[Cost], part: int) -> float:
    return statistics.median(one[part] for one in costs)


if __name__ == "__main__":
    sys.exit(main())
