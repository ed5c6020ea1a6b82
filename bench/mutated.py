"""Mutated files: each ends as examples or as one typed reason, within limits of memory and time.

Files that ship with pydicom are damaged in many ways and go through the sandbox as ingest has them read.
"""

import argparse
import resource
import sys
import time
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from bench.mutations import MUTATIONS, Damaged
from bench.seeds import MODALITY, NAMES, Seed, seed, seeds_of_all
from imaging.dataset.ingest.prepare_files import FUNCTION, item_of
from imaging.errors import DataFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.refusal_reasons import IGNORED, REASONS
from imaging.sandbox.pool import Item, Pool
from imaging.sandbox.worker_process import Answer
from imaging.sources.dispatch import Outcome
from imaging.sources.protocol import Payload

SPEC = PreprocessSpec(modality=MODALITY)
DEADLY = ("decoder-crashed", "decoder-hung", "out-of-memory")
LIMIT_S, LIMIT_MIB = 300, 1024


@dataclass(frozen=True, slots=True)
class Case:
    """One damaged file; its number and the run's seed are enough to make it again."""

    number: int
    name: str
    mutation: str
    damaged: Damaged


@dataclass(slots=True)
class Tally:
    """Outcomes of all files."""

    files: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    untyped: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    deadly: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    seconds: float = 0.0
    peak_mib: float = 0.0

    def add(self, case: Case, outcome: Outcome) -> None:
        fault = outcome if isinstance(outcome, DataFault) else _fault_of(outcome)
        reason = fault.reason if fault else "examples"
        called = f"{case.number} ({case.name}, {case.mutation})"
        self.files += 1
        self.reasons[reason] += 1
        if reason in DEADLY:
            self.deadly[f"{case.name}: {reason}"].append(called)
        elif fault and (fault is outcome or reason not in REASONS | IGNORED):
            # A reader's own fault comes as an answer; what comes as a fault escaped it.
            self.untyped.append(f"{called}: {reason}, {fault.detail}")
        if case.damaged.short and not fault:
            self.silent.append(called)

    def verdicts(self) -> Iterator[tuple[str, bool]]:
        yield f"untyped exceptions: {_some(self.untyped)}", not self.untyped
        yield f"silent truncations: {_some(self.silent)}", not self.silent
        hung = self.reasons["decoder-hung"]
        yield f"hung: {hung}", not hung
        yield (
            f"peak memory of a worker: {self.peak_mib:.0f} MiB, at most {LIMIT_MIB}",
            self.peak_mib <= LIMIT_MIB,
        )
        limit_s = LIMIT_S * max(self.files / 10_000, 0.1)
        yield f"time: {self.seconds:.0f} s, at most {limit_s:.0f}", self.seconds <= limit_s


def _fault_of(answer: Answer) -> DataFault | None:
    return next((DataFault(reason, detail) for _, reason, detail, _ in answer.value["faults"]), None)


def _some(called: Sequence[str]) -> str:
    return f"{len(called)}" + "".join(f"\n    {one}" for one in called[:12])


def make(run: int, number: int, seeds: Sequence[Seed]) -> Case:
    """Damage one file; the same numbers give the same bytes."""
    draw = Random(f"{run}/{number}")
    one, other = seeds[number % len(seeds)], draw.choice(seeds)
    mutation = draw.choice(list(MUTATIONS))
    return Case(number, one.name, mutation, MUTATIONS[mutation](draw, one, other))


def sandbox() -> Pool:
    """Return the pool of workers that reads files in ingest."""
    return Pool(FUNCTION, {"spec": SPEC.model_dump_json()})


def examine(cases: Iterable[Case], pool: Pool) -> Tally:
    """Return the outcomes of files that are read as in ingest."""
    tally, sent, started = Tally(), deque[Case](), time.perf_counter()

    def items() -> Iterator[Item]:
        for case in cases:
            sent.append(case)
            yield item_of([Payload(format="dicom", name=str(case.number), contents=(case.damaged.data,))])

    with pool:
        for outcome in pool.map(items()):
            tally.add(sent.popleft(), outcome)
    tally.seconds = time.perf_counter() - started
    # Of the largest of all that have ended, in KiB.
    tally.peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return tally


def table(counts: Mapping[str, int]) -> str:
    rows = [f"| {reason} | {count} |" for reason, count in sorted(counts.items(), key=lambda pair: -pair[1])]
    return "\n".join(["| outcome | files |", "|---|---|", *rows])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--wide", action="store_true", help="begin with every image that pydicom ships")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    seeds = seeds_of_all() if arguments.wide else [seed(name) for name in NAMES]
    cases = (make(arguments.seed, number, seeds) for number in range(arguments.files))
    tally = examine(cases, sandbox())
    print(f"{tally.files} files of {len(seeds)} seeds\n{table(tally.reasons)}")
    for where, called in sorted(tally.deadly.items()):
        print(f"cost a worker: {where}: {_some(called)}")
    missed = [text for text, kept in tally.verdicts() if not kept]
    for text, kept in tally.verdicts():
        print(f"{'' if kept else 'MISSED '}{text}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
