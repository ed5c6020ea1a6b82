"""How fast slices become examples, beside the chain that one writes first and beside MONAI: `python -m bench.ingest`.

The whole of it, on one core: read, check, hash, replace identifiers, window, resize and store, through the process that
guards against bad files. Series of real slices with neighbours made of them, each file once for every candidate, for
what was met before costs less; the candidates take turns with groups of files. Beside the time stands the work: what
all processes had of the core, whoever else had it meanwhile, and without waiting for the disk, on which only ours
insists that it is written. Then batches drawn from a shard.
"""

import argparse
import gc
import hashlib
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import psutil
import pydicom
import torch
from monai.data import PersistentDataset
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Resized, ScaleIntensityRanged

from bench.deidentify import ARCHIVE, raw_slices, series
from bench.interleaved import interleave, row
from imaging.dataset.ingest.chunk import prepare_chunk
from imaging.dataset.ingest.prepare_files import FUNCTION
from imaging.dataset.tables.shard import map_shard, shard_name, write_shard
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import Pseudonyms
from imaging.sandbox.pool import Pool
from imaging.sources.folder_source import FolderSource
from imaging.store.folder_store import FolderStore

LOWER, UPPER = PreprocessSpec().portable_window.bounds
BESIDE = {256: {"naive": 7.0, "MONAI": 8.0}, 224: {"naive": 3.5, "MONAI": 8.0}}
"""How many times as fast ingest is asked to be, by the size of an example."""
BATCH, IMAGES = 64, 2048
GATHER, SIZE = 0.9, 1.02

Times = dict[str, list[float]]
Candidate = Callable[[Path, Path], None]
"""Prepares the files of one folder into another."""


def ours(pool: Pool, spec: PreprocessSpec, source: Path, out: Path) -> None:
    """Prepare a folder as one chunk."""
    files = list(FolderSource(source).scan())
    made = prepare_chunk(FolderSource(source), files, spec, Pseudonyms(b"k" * 32), FolderStore(out), pool.map)
    assert made.examples.num_rows == len(files), made.refusals.to_pylist()[:3]


def naive(size: int, source: Path, out: Path) -> None:
    """Prepare a folder file by file, with the defaults of each library."""
    for path in sorted(source.iterdir()):
        dataset = pydicom.dcmread(path)
        values = dataset.pixel_array.astype(np.float64) * float(dataset.RescaleSlope)
        values += float(dataset.RescaleIntercept)
        levels = (np.clip((values - LOWER) / (UPPER - LOWER), 0, 1) * 255).astype(np.uint8)
        small = PIL.Image.fromarray(levels).resize((size, size))
        name = hashlib.sha256(path.read_bytes()).hexdigest()
        np.save(out / f"{name}.npy", np.asarray(small))


def monai(size: int, source: Path, out: Path) -> None:
    """Prepare a folder as MONAI's tutorials do, each image kept as a file."""
    steps = [
        LoadImaged(keys="image", reader="PydicomReader"),
        EnsureChannelFirstd(keys="image"),
        ScaleIntensityRanged(keys="image", a_min=LOWER, a_max=UPPER, b_min=0, b_max=1, clip=True),
        Resized(keys="image", spatial_size=(size, size), mode="area"),
    ]
    files = [{"image": str(path)} for path in sorted(source.iterdir())]
    dataset = PersistentDataset(files, Compose(steps), cache_dir=out)
    for at in range(len(dataset)):
        dataset[at]


def worked() -> float:
    """Return the seconds of a core that this process and those that it started have had."""
    own = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in (own, *own.children()))


def in_turn(candidates: Mapping[str, Candidate], groups: Sequence[Path]) -> tuple[Times, Times]:
    """Return the milliseconds a file of each candidate with each group, all groups once: the time, and the work."""
    took, work = ({name: [] for name in candidates} for _ in range(2))
    for number, group in enumerate(groups):
        turn = number % len(candidates)
        for name in [*candidates][turn:] + [*candidates][:turn]:
            with tempfile.TemporaryDirectory(dir=group.parent) as out:
                each = 1e3 / len(list(group.iterdir()))
                started, before = time.perf_counter(), worked()
                candidates[name](group, Path(out))
                took[name].append((time.perf_counter() - started) * each)
                work[name].append((worked() - before) * each)
    return took, work


def whole_ingest(size: int, groups: Sequence[Path], warm: Path) -> list[str]:
    """Time one size beside both others; the processes have begun before."""
    spec = PreprocessSpec(size_px=size)
    with Pool(FUNCTION, {"spec": spec.model_dump_json()}, workers=1) as pool:
        candidates: dict[str, Candidate] = {
            "ours": partial(ours, pool, spec),
            "naive": partial(naive, size),
            "MONAI": partial(monai, size),
        }
        in_turn(candidates, [warm])
        measured = in_turn(candidates, groups)
    return [
        row(f"whole ingest of 512 x 512 to {size}, {what}", took, "ours", least, other)
        for other, least in BESIDE[size].items()
        for what, took in zip(("time", "work"), measured, strict=True)
    ]


def shuffled(rounds: int) -> list[str]:
    """Time batches drawn from a mapped shard beside the same in memory, and tell how large the shard is."""
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (IMAGES, 224, 224), np.uint8)
    batches = [rng.choice(IMAGES, BATCH, replace=False) for _ in range(20)]
    out = np.empty((BATCH, 224, 224), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder))
        digest = write_shard(store, images)
        mapped = map_shard(store, digest)
        took = interleave(
            {
                "ours": lambda at: np.take(mapped, batches[at], axis=0, out=out),
                "in memory": lambda at: np.take(images, batches[at], axis=0, out=out),
            },
            len(batches),
            rounds,
        )
        share = store.local(shard_name(digest)).stat().st_size / images.nbytes
    verdict = "" if share <= SIZE else "  MISSED"
    return [
        row(f"shuffled batch of {BATCH} at 224 x 224", took, "ours", GATHER, "in memory"),
        f"| size of the shard | {share:.6f} | raw 1 | | at most {SIZE:g}{verdict} |",
    ]


def made_groups(folder: Path, count: int, files: int) -> list[Path]:
    """Write groups of series, each of eight patients of its own."""
    slices = raw_slices(ARCHIVE)
    groups = [folder / f"group-{number}" for number in range(count)]
    firsts = slices[:: max(len(slices) // (8 * count), 1)]
    for number, group in enumerate(groups):
        group.mkdir()
        for path in firsts[8 * number : 8 * number + 8]:
            series(path, files // 8, group)
    return groups


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=5)
    parser.add_argument("--files", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=30)
    asked = parser.parse_args()
    # The worker inherits it: all of ingest shares one core.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1), torch.set_num_threads(1)
    # MONAI says once a group that it decodes by pydicom.
    logging.getLogger("monai").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    print("| what | ours | beside | speed | asked for |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        *groups, warm = made_groups(Path(folder), asked.groups + 1, asked.files)
        gc.collect()
        gc.freeze()
        rows = []
        for size in BESIDE:
            rows += whole_ingest(size, groups, warm)
            print(*rows[-4:], sep="\n", flush=True)
        rows += shuffled(asked.rounds)
        print(*rows[-2:], sep="\n")
    return int(any("MISSED" in one for one in rows))


if __name__ == "__main__":
    raise SystemExit(main())
