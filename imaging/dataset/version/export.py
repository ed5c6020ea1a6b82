"""Export of a version as a plain folder: an array of images and a table of rows for each split, for other programs."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from imaging.dataset.split.test_lock import LOCKED
from imaging.dataset.tables.schemas import TABLES
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.dataset.version.example_set import ExampleSet
from imaging.errors import UserFault
from imaging.store.durable_file import TEMPORARY, disk_faults, make_folder

AT_ONCE = 1024
"""Images that are gathered at a time."""
STORE_COLUMNS = ("shard", "row", "fingerprint")
"""Columns that have a meaning in the store alone."""
OnProgress = Callable[[int, int], object]


def export(
    version: DatasetVersion,
    folder: Path,
    splits: Sequence[str],
    reader: str,
    on_progress: OnProgress = lambda *_: None,
) -> dict[str, int]:
    """Write SPLIT.npy and SPLIT.parquet for each split, in one order, and dataset.json; return how many rows each has.

    A finding is a column "finding.NAME" of 1 and 0, null where it is unknown. Where the version has masks,
    SPLIT.masks.npy has those of the images, 0 for the background and 255 where it is unknown, and a column "drawn.NAME"
    says whether the class was drawn.
    The folder appears when it is whole. Reading the test patients is recorded under `reader`. `on_progress` gets how
    many images of how many are written. Raises UserFault where the folder is not new or empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserFault(f"{folder} is not empty: give a new folder")
    chosen = {
        split: version.test_examples(reader) if split == LOCKED else version.examples(split)
        for split in splits
    }
    total, done = sum(map(len, chosen.values())), 0
    with disk_faults(folder), _whole(folder) as partial:
        for split, examples in chosen.items():
            pq.write_table(_table(version, examples), partial / f"{split}.parquet", compression="zstd")
            for count in _images(
                partial / f"{split}.npy", examples.gather, len(examples), version.spec.shape
            ):
                done += count
                on_progress(done, total)
            if version.mask_classes:
                path = partial / f"{split}.masks.npy"
                for _ in _images(path, examples.masks, len(examples), version.spec.shape):
                    pass
        (partial / "dataset.json").write_text(json.dumps(_head(version), indent=1))
    return {split: len(examples) for split, examples in chosen.items()}


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `folder` in the end; one that is not finished is removed."""
    make_folder(folder.parent)
    with TemporaryDirectory(dir=folder.parent, prefix=TEMPORARY, ignore_cleanup_errors=True) as partial:
        yield Path(partial)
        Path(partial).replace(folder)


def _images(
    path: Path,
    gather: Callable[[NDArray[np.int64]], NDArray[np.uint8]],
    count: int,
    shape: tuple[int, ...],
) -> Iterator[int]:
    """Write the images of examples, some at a time; yield how many."""
    if not count:
        # An empty file cannot be mapped.
        np.save(path, np.empty((0, *shape), np.uint8))
        return
    out = np.lib.format.open_memmap(path, "w+", np.uint8, (count, *shape))
    for start in range(0, count, AT_ONCE):
        some = np.arange(start, min(start + AT_ONCE, count))
        out[some] = gather(some)
        yield len(some)
    out.flush()


def _table(version: DatasetVersion, examples: ExampleSet) -> pa.Table:
    names = [name for name in TABLES["examples"].names if name not in STORE_COLUMNS]
    table = version.table("examples", names)
    rows = table.take(
        pc.index_in(pa.array(examples.instance_keys, pa.string()), value_set=table["instance_key"])
    )
    for name, column in zip(version.findings, examples.findings.T, strict=True):
        rows = rows.append_column(f"finding.{name}", pa.array(column, pa.int8(), mask=column < 0))
    for name, unknown in zip(version.mask_classes, examples.unknown_classes.T, strict=True):
        rows = rows.append_column(f"drawn.{name}", pa.array(~unknown))
    return rows


def _head(version: DatasetVersion) -> dict[str, object]:
    return {
        "dataset": version.head.dataset,
        "digest": version.digest,
        "classes": version.classes,
        **({"findings": version.findings} if version.findings else {}),
        **({"mask_classes": version.mask_classes} if version.mask_classes else {}),
        "spec": version.spec.model_dump(mode="json"),
    }
