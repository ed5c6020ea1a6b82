"""Near duplicates: which copies of an image are found, which other patients' images are taken for one, and how fast.

On ct-contrast, pneumoniamnist and painted chests, then on a million rows made of them.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from bench.copies import AREA, RESIZED, SAME, SKIPPED, SPLITS, Copy, Images, chests, ct_contrast, pneumonia
from bench.interleaved import interleave, ratio
from imaging.dataset.split.fingerprint import fingerprints, flat
from imaging.dataset.split.near_duplicates import DISTANCE, linked_groups, near_pairs, row_overlaps
from imaging.dataset.tables.row_operations import codes
from imaging.image.image import Image
from imaging.preprocess.slice import prepare
from imaging.preprocess.spec import PreprocessSpec

SLICES = 50
"""Rows of a patient in the million."""
PLANTED = 1000


class Table:
    """Rows that are printed, and whether one has missed its bound."""

    def __init__(self) -> None:
        self.missed = False
        print("| what | found | asked for |\n|---|---|---|")

    def row(self, what: str, figure: str, limit: str, *, kept: bool = True) -> None:
        self.missed |= not kept
        print(f"| {what} | {figure} | {limit}{'' if kept else '  MISSED'} |", flush=True)


def recall(
    table: Table, images: Images, copies: Mapping[str, Copy], least: float, at_most: int = 300
) -> None:
    """Print how many copies of each kind are found, and compare their sum with a limit."""
    some = images.values[:: len(images.values) // at_most + 1]
    before = images.fingerprints(some)
    chosen = [one for one, nothing in zip(some, flat(before), strict=True) if not nothing]
    before = before[~flat(before)]
    counts = {name: recognized_copies(images, chosen, before, copy) for name, copy in copies.items()}
    every, total = sum(counts.values()), len(copies) * len(chosen)
    each = ", ".join(f"{name} {count}" for name, count in counts.items())
    limit = f"at least {least:.1%}" if least else "shown only"
    what = f"{images.name}: copies of {len(chosen)} images; {each}"
    table.row(what, f"{every} of {total} ({every / total:.2%})", limit, kept=every >= least * total)


def recognized_copies(images: Images, chosen: Sequence[np.ndarray], before: np.ndarray, copy: Copy) -> int:
    """Return how many copies are within DISTANCE of their original."""
    after = fingerprints(np.stack([copy(images, one) for one in chosen]))
    return int((apart(before, after) <= DISTANCE).sum())


def apart(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return the distances of fingerprints, row by row."""
    return np.sqrt(((one.astype(int) - two.astype(int)) ** 2).sum(axis=1))


def others(table: Table, images: Images, most: int) -> None:
    """Print how many pairs of different patients' different images are taken for one, and how many images are flat."""
    prepared = np.stack([images.prepared(one) for one in images.values])
    prints = fingerprints(prepared)
    pairs = near_pairs(prints)
    strangers = pairs[images.patients[pairs[:, 0]] != images.patients[pairs[:, 1]]]
    equal = (prepared[strangers[:, 0]] == prepared[strangers[:, 1]]).all(axis=(1, 2))
    count = len(images.patients)
    beside = f"{int(equal.sum())} more are equal; {int(flat(prints).sum())} images are flat"
    what = f"{images.name}: pairs of {count} images taken for one ({beside})"
    mistaken = int((~equal).sum())
    table.row(what, f"{mistaken} of {count * (count - 1) // 2:,}", f"at most {most}", kept=mistaken <= most)


def speed(table: Table, rounds: int) -> None:
    """Print what a fingerprint takes, and beside what preparing the slice does."""
    images = ct_contrast(224)
    values = [Image(stored=one) for one in images.values[:64]]
    for size in (64, 224, 256):
        spec = PreprocessSpec(size_px=size)
        prepared = np.stack([prepare(one, spec) for one in values])
        took = interleave(
            {
                "fingerprints": lambda _, p=prepared: fingerprints(p),
                "prepare": lambda _, s=spec: [prepare(one, s) for one in values],
            },
            1,
            rounds,
        )
        share = 1 / ratio(took["prepare"], took["fingerprints"])
        each = float(np.median(took["fingerprints"])) / len(values)
        what = f"a fingerprint at {size}, and its share of preparing the slice"
        table.row(what, f"{each:.4f} ms, {share:.1%}", "at most 0.02 ms", kept=each <= 0.02)


def million(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return fingerprints, patients and splits: patients of 50 slices that change slowly, a thousand rows planted.

    A patient's slices go through four real or painted images, each mixed with a fifth that stays.
    """
    rng = np.random.default_rng(0)
    sources = [ct_contrast(32), pneumonia(), chests(200, 64)]
    pool = np.concatenate(
        [
            np.stack([cv2.resize(s.prepared(v), (32, 32), interpolation=AREA) for v in s.values[:2000]])
            for s in sources
        ]
    ).astype(np.float32)
    way = np.linspace(0.2, 2.8, SLICES)
    weights = np.clip(1 - np.abs(way[:, None] - np.arange(4)), 0, 1).astype(np.float32)
    made = []
    for _ in range(0, rows, SLICES * 100):
        path, stays = (
            pool[rng.integers(len(pool), size=(100, 4))],
            pool[rng.integers(len(pool), size=(100, 1))],
        )
        slices = 0.6 * np.einsum("sk,pkij->psij", weights, path) + 0.4 * stays
        slices += rng.normal(0, 1, slices.shape)
        made.append(fingerprints(np.clip(slices, 0, 255).astype(np.uint8).reshape(-1, 32, 32)))
    values = np.concatenate(made)[:rows]
    patient = np.arange(rows) // SLICES
    split = np.array(SPLITS)[np.searchsorted([0.6, 0.75], rng.random(patient[-1] + 1))][patient]
    # From the last train patients into the first test ones; and what must not cost its square.
    test, train = np.flatnonzero(split == "test"), np.flatnonzero(split == "train")
    values[test[:PLANTED]] = values[train[-PLANTED:]]
    values[train[: rows // 100]], values[test[-rows // 100 :]] = 128, 128
    values[train[rows // 100 :][: rows // 100]] = values[train[rows // 50]]
    return values, np.char.mod("%06d", patient), split


def at_scale(table: Table, rows: int) -> None:
    """Print what the search for overlaps takes; nothing else has run in this process, whose memory is printed."""
    values, patients, splits = million(rows)
    numbered = codes(patients.tolist())
    work: Mapping[str, Callable[[], Any]] = {
        "overlaps of a quarter that is for test, and of val": lambda: row_overlaps(values, patients, splits),
        "patients who belong together": lambda: together(linked_groups(values, numbered)),
        "the same, a hundredth of the rows new": lambda: together(
            linked_groups(values, numbered, np.arange(rows) >= rows * 0.99)
        ),
    }
    for what, call in work.items():
        started, worked = time.perf_counter(), time.process_time()
        answer = call()
        seconds, worked = time.perf_counter() - started, time.process_time() - worked
        if what.startswith("overlaps"):
            named = set(answer["row"].to_pylist()) | set(answer["other"].to_pylist())
            hidden = len(set(np.flatnonzero(splits == "test")[:PLANTED].tolist()) - named)
            table.row("planted overlaps that are missed", f"{hidden} of {PLANTED}", "0", kept=not hidden)
        table.row(
            f"{rows:,} rows: {what}",
            f"{seconds:.1f} s ({worked:.1f} s of all cores), {len(answer):,}",
            "at most 20 s",
            kept=seconds <= 20,
        )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    table.row(f"{rows:,} rows: memory of the process", f"{memory:.2f} GB", "at most 2 GB", kept=memory <= 2)


def together(groups: np.ndarray) -> np.ndarray:
    """Return who is of one group with others."""
    return np.flatnonzero(np.bincount(groups)[groups] > 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--patients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    table = Table()
    at_scale(table, arguments.rows)
    slices, radiographs, painted = ct_contrast(64), pneumonia(), chests(arguments.patients, 256)
    for images in (slices, ct_contrast(224)):
        recall(table, images, SAME, 1)
        recall(table, images, RESIZED, 0.99)
        recall(table, images, SKIPPED, 0.9)
        others(table, images, 0)
    recall(table, painted, SAME, 1)
    recall(table, painted, RESIZED, 0.97)
    others(table, painted, 0)
    recall(table, radiographs, SAME, 0.99)
    recall(table, radiographs, RESIZED, 0)
    others(table, radiographs, 0)
    speed(table, arguments.rounds)
    return int(table.missed)


if __name__ == "__main__":
    sys.exit(main())
