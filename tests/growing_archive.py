"""Archive that grows from night to night, with the usual faults; and the content of a version as plain values."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from blake3 import blake3

from imaging.dataset.tables.schemas import TABLES
from imaging.dataset.tables.shard import map_shard
from imaging.dataset.upkeep.integrity import find_flaws
from imaging.dataset.version.dataset_version import DatasetVersion, newest_version
from imaging.dataset.version.publish import KEYS
from imaging.pseudonyms import Pseudonyms
from imaging.store.protocol import Store
from tests.ingest_process import KEY
from tests.synthetic import write_dicom, write_labels

FIRST, LATER = 24, 6
"""Slices that the first night and each later one adds, beside what is wrong."""
WRONG = 5
NIGHTS = 40


def grow(folder: Path, night: int) -> int:
    """Write what a night adds to the archive, the first being 0; return how many files there are now."""
    first = FIRST + LATER * (night - 1) if night else 0
    for number in range(first, FIRST + LATER * night):
        # The second half of the later patients have been there before.
        patient = number if number < FIRST or number % LATER < LATER // 2 else number - FIRST
        write_slice(folder / f"{night:02d}-{number:03d}", number, patient)
    repeated, disputed, copied = (folder / f"00-{(night + at) % FIRST:03d}" for at in (3, 7, 11))
    place = folder / f"{night:02d}-wrong"
    place.mkdir()
    (place / "repeated").write_bytes(repeated.read_bytes())
    (place / "cut").write_bytes(repeated.read_bytes()[:-100])
    (place / "notes.txt").write_text(f"of night {night}")
    write_slice(place / "disputed", 1000 + night, 0, SOPInstanceUID=uid(disputed))
    write_slice(place / "copied", int(copied.name[3:]), 1000 + night, SOPInstanceUID=f"1.2.9.{night}")
    return FIRST + LATER * night + WRONG * (night + 1)


def uid(path: Path) -> str:
    """Return the SOPInstanceUID of a slice."""
    return f"1.2.3.{int(path.name[3:])}"


def write_slice(path: Path, number: int, patient: int, **changes: Any) -> None:
    """Write a slice like no other of a patient; its pixels follow from its number."""
    pixels = np.random.default_rng(number).integers(-100, 180, (16, 16))
    attributes = {
        "PatientID": f"P{patient}",
        "SOPInstanceUID": f"1.2.3.{number}",
        "StudyInstanceUID": f"1.2.{patient}",
    }
    write_dicom(path, pixels, **attributes | changes)


def labels(path: Path, contrary: bool = False) -> Path:
    """Write the label of each patient there will ever be."""
    names = ("plain", "contrast")[:: -1 if contrary else 1]
    patients = range(FIRST + LATER * NIGHTS)
    return write_labels(path, [{"PatientID": f"P{n}", "label": names[n % 2]} for n in patients])


def content(version: DatasetVersion | None) -> Mapping[str, Any] | None:
    """Return all that is in a version but the places of rows, and the digest of each image."""
    if version is None:
        return None
    content: dict[str, Any] = {}
    for name in TABLES:
        table = version.table(name).sort_by([(KEYS[name], "ascending"), (TABLES[name].names[0], "ascending")])
        content[name] = table.select(
            [one for one in table.column_names if one not in ("shard", "row")]
        ).to_pylist()
    content["images"] = images(version)
    content["classes"] = version.classes
    return content


def images(version: DatasetVersion) -> dict[str, str]:
    """Return the digest of each example's image, by the instance."""
    rows = version.table("examples", ["instance_key", "shard", "row"]).to_pylist()
    shards = {row["shard"]: map_shard(version.store, row["shard"]) for row in rows}
    return {
        row["instance_key"]: blake3(shards[row["shard"]][row["row"]].tobytes()).hexdigest() for row in rows
    }


def seen(store: Store) -> DatasetVersion | None:
    """Return the version that a reader sees, after a look at every byte of it."""
    version = newest_version(store, "d")
    if version is not None:
        assert find_flaws(version) == []
    return version


def files_of(archive: Path, tables: Sequence[pa.Table]) -> Counter[str]:
    """Return how many rows each file of an archive has; a row of another file counts as one of ""."""
    names = Pseudonyms(bytes.fromhex(KEY))
    files = (path.relative_to(archive).as_posix() for path in archive.rglob("*") if path.is_file())
    keyed = {names.key("file", name): name for name in files}
    return Counter(keyed.get(key, "") for table in tables for key in table["source_key"].to_pylist())
