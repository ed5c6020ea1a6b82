"""Mutated files: each ends as examples or as one typed reason; the bench finds a failure that is planted."""

import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bench.mutated import SPEC, Case, Tally, make
from bench.mutations import MUTATIONS, Damaged
from bench.seeds import NAMES, Seed, seed
from imaging.dataset.ingest.prepare_files import item_of, prepare_payloads
from imaging.errors import DataFault
from imaging.sandbox.worker_process import Answer
from imaging.sources.dispatch import Outcome
from imaging.sources.protocol import Payload

FILES = 400
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def seeds() -> list[Seed]:
    return [seed(name) for name in NAMES]


def outcome(data: bytes) -> Answer:
    item = item_of([Payload(format="dicom", name="", contents=(data,))])
    value, blobs = prepare_payloads({"spec": SPEC.model_dump_json()}, item.value, item.blobs)
    return Answer(value, tuple(memoryview(blob) for blob in blobs))


def tallied(data: bytes, became: Outcome, *, short: bool = False) -> Tally:
    tally = Tally()
    tally.add(Case(0, "it", "cut", Damaged(data, short)), became)
    return tally


@pytest.mark.parametrize("name", NAMES)
def test_an_unharmed_seed_gives_examples(name: str) -> None:
    data = seed(name).file()
    assert tallied(data, outcome(data)).reasons == {"examples": 1}


def test_the_same_number_gives_the_same_file(seeds: list[Seed]) -> None:
    assert [make(0, n, seeds) for n in range(50)] == [make(0, n, seeds) for n in range(50)]
    assert [make(0, n, seeds) for n in range(50)] != [make(1, n, seeds) for n in range(50)]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutation_changes_files(mutation: str, seeds: list[Seed]) -> None:
    files = [MUTATIONS[mutation](Random(n), one, seeds[0]).data for n, one in enumerate(seeds)]
    assert sum(data != one.file() for data, one in zip(files, seeds, strict=True)) > len(seeds) / 2


def test_an_example_of_a_short_file_is_a_silent_truncation(seeds: list[Seed]) -> None:
    data = seeds[0].file()
    assert tallied(data, outcome(data), short=True).silent
    assert not tallied(data, outcome(data)).silent


def test_an_exception_that_escaped_a_reader_is_untyped() -> None:
    assert tallied(b"", DataFault("unreadable", "KeyError")).untyped
    assert tallied(b"", Answer({"rows": [], "faults": [[0, "no-such-reason", "", ""]]})).untyped
    assert not tallied(b"", Answer({"rows": [], "faults": [[0, "truncated", "", ""]]})).untyped


def test_what_kills_a_worker_is_listed_by_its_seed() -> None:
    tally = tallied(b"", DataFault("decoder-crashed", "the worker ended with signal 11"))
    assert list(tally.deadly) == ["it: decoder-crashed"]
    assert not tally.untyped


@pytest.mark.parametrize(
    "change",
    [
        {"untyped": ["1"]},
        {"silent": ["1"]},
        {"peak_mib": 1025.0},
        {"seconds": 31.0},
        {"reasons": Counter({"decoder-hung": 1})},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_verdict_can_be_missed(change: dict[str, Any]) -> None:
    assert all(kept for _, kept in Tally(files=1000).verdicts())
    assert not all(kept for _, kept in replace(Tally(files=1000), **change).verdicts())


@pytest.mark.slow
def test_mutated_files_end_as_examples_or_as_one_reason() -> None:
    # A process of its own: the peak of memory is that of all its children, and only those of the sandbox count.
    command = [sys.executable, "-m", "bench.mutated", "--files", str(FILES)]
    output = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False
    ).stdout
    assert output.startswith(f"{FILES} files")
    # The machine may be busy with other tests; how long all may take is the bench's to say.
    assert not [line for line in output.splitlines() if line.startswith("MISSED") and "time" not in line]
    assert "decoder-crashed" not in output
    assert int(re.findall(r"examples \| (\d+)", output)[0]) > FILES / 4
