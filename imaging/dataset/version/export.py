"""Owns a version as a plain folder: an array of images and a table of rows for each split, for others' programs."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imaging.dataset.split.test_lock import LOCKED
from imaging.dataset.tables.schemas import TABLES
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.dataset.version.example_set import Rows
from imaging.errors import UserFault
from imaging.store.disk import DRAFT, disk_faults, make_folder

AT_ONCE = 1024
"""Images that are gathered at a time."""
WHERE = ("shard", "row", "fingerprint")
"""Columns that say something of the store alone."""
Told = Callable[[int, int], object]


def export(
    version: DatasetVersion, folder: Path, splits: Sequence[str], reader: str, told: Told = lambda *_: None
) -> dict[str, int]:
    """Write SPLIT.npy and SPLIT.parquet for each split, in one order, and dataset.json; return how many rows each has.

    The folder is seen once it is whole. The test patients' rows are counted as read by `reader`. `told` gets how many
    images of how many are written. Raises UserFault where the folder is not new or empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserFault(f"{folder} is not empty: give a new folder")
    chosen = {
        split: version.locked_rows(reader) if split == LOCKED else version.rows(split) for split in splits
    }
    total, done = sum(map(len, chosen.values())), 0
    with disk_faults(folder), _whole(folder) as draft:
        for split, rows in chosen.items():
            pq.write_table(_table(version, rows), draft / f"{split}.parquet", compression="zstd")
            for count in _images(draft / f"{split}.npy", rows, version.spec.shape):
                done += count
                told(done, total)
        (draft / "dataset.json").write_text(json.dumps(_head(version), indent=1))
    return {split: len(rows) for split, rows in chosen.items()}


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Yield a folder that gets its name in the end; nothing is left of one that was not finished."""
    make_folder(folder.parent)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=DRAFT))
    try:
        yield draft
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _images(path: Path, rows: Rows, shape: tuple[int, ...]) -> Iterator[int]:
    """Write the images of rows, some at a time; yield how many."""
    if not len(rows):
        # Nothing cannot be mapped.
        np.save(path, np.empty((0, *shape), np.uint8))
        return
    out = np.lib.format.open_memmap(path, "w+", np.uint8, (len(rows), *shape))
    for start in range(0, len(rows), AT_ONCE):
        some = np.arange(start, min(start + AT_ONCE, len(rows)))
        out[some] = rows.gather(some)
        yield len(some)
    out.flush()


def _table(version: DatasetVersion, rows: Rows) -> pa.Table:
    names = [name for name in TABLES["examples"].names if name not in WHERE]
    table = version.table("examples", names)
    return table.take(pc.index_in(pa.array(rows.instance_keys, pa.string()), value_set=table["instance_key"]))


def _head(version: DatasetVersion) -> dict[str, object]:
    return {
        "dataset": version.head.dataset,
        "digest": version.digest,
        "classes": version.classes,
        "spec": version.spec.model_dump(mode="json"),
    }
