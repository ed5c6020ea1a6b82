"""Night of masks that are all as they were: what it takes to know that, with files that are known and that are not.

500 files of 4 MB by a table, and a folder of 500 DICOM SEG. What is not known is hashed, and a SEG without a table is
opened for the series that it is of. Rounds are interleaved; the files are in the page cache, and on a disk of a network
their bytes come to it.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from pydicom.sequence import Sequence as Items

from imaging.annotations.masks.known_files import KnownFiles
from imaging.annotations.masks.mask import MaskClasses
from imaging.annotations.masks.mask_folder import FUNCTION, read_mask_folder
from imaging.annotations.masks.mask_table import read_mask_table
from imaging.dataset.ingest.mask_reading import MaskInput, plan_masks
from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.pseudonyms import Pseudonyms
from imaging.sandbox.pool import Pool
from tests.mask_objects import group, item, seg
from tests.synthetic import GREY, example, examples

KEY, CLASSES = Pseudonyms(b"k" * 32), MaskClasses(names=("organ",))
FILES, FILE_BYTES = 500, 4 << 20


def write_files(folder: Path) -> None:
    """Write a table of masks, whose content is not looked at here, and a folder of segmentations."""
    (folder / "seg").mkdir()
    lines = ["SOPInstanceUID,mask", *(f"1.2.{n},m{n}.nii" for n in range(FILES))]
    (folder / "masks.csv").write_text("\n".join(lines))
    for n in range(FILES):
        (folder / f"m{n}.nii").write_bytes(os.urandom(FILE_BYTES))
        series = Items([item(SeriesInstanceUID=f"1.2.5.{n}")])
        content = seg(np.ones((1, 5, 7), np.uint8), [group(0, 1)], ReferencedSeriesSequence=series)
        (folder / "seg" / str(n)).write_bytes(content)


def by_table(folder: Path, rows: LazyRows, known: KnownFiles) -> None:
    table = read_mask_table(folder / "masks.csv", KEY, CLASSES)
    plan_masks(MaskInput(table=table, classes=CLASSES, pseudonyms=KEY, known=known), rows, GREY, None)


def by_folder(folder: Path, _: LazyRows, known: KnownFiles) -> None:
    with Pool(FUNCTION, {}) as pool:
        read_mask_folder(folder / "seg", KEY, (), pool.map, known)


def rounds_of(
    sides: Iterable[tuple[str, Callable[[], None]]], rounds: int
) -> Iterator[tuple[str, list[float]]]:
    took: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, night in sides:
            start = time.perf_counter()
            night()
            took.setdefault(name, []).append(time.perf_counter() - start)
    yield from took.items()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    keys = [KEY.key("instance", f"1.2.{n}") for n in range(FILES)]
    rows = LazyRows.of(examples(*(example(n, object_key=key) for n, key in enumerate(keys))))
    with tempfile.TemporaryDirectory(prefix="radloop-masks-") as name:
        folder = Path(name)
        write_files(folder)
        # Files that were just written are not known.
        time.sleep(3)
        sides = []
        for kind, night in (("table", by_table), ("folder", by_folder)):

            def kept(kind: str = kind, night: Callable[..., None] = night) -> None:
                known = KnownFiles(folder / f"{kind}.json", KEY)
                night(folder, rows, known)
                known.save()

            kept()
            sides += [
                (f"{kind}, read", lambda night=night: night(folder, rows, KnownFiles(None, KEY))),
                (f"{kind}, known", kept),
            ]
        for side, seconds in rounds_of(sides, rounds):
            print(f"| {side} | {statistics.median(seconds):.3f} s |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
