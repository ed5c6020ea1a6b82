"""A version of a million rows: what `show`, `diff` and `check` take, and what drawing its splits does.

Each in a process of its own, from its start to its end, with its peak of memory. The rows are made up; their
fingerprints are those of `bench.near_duplicates.million`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from imaging.dataset.version.publish import Recipe
    from imaging.preprocess.spec import PreprocessSpec

NAME = "million"
PER_PATIENT = 50
LIMIT_S, LIMIT_GB = 20.0, 2.0
OURS = (sys.executable, "-m", "bench.versions")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--home", type=Path, help="Where the versions are made, or were.")
    parser.add_argument("--make", action="store_true", help="Make the versions alone.")
    parser.add_argument("--split", choices=["patients", "images"], help="Draw the splits alone.")
    arguments = parser.parse_args()
    if arguments.make:
        make(arguments.home, arguments.rows)
    elif arguments.split:
        split(arguments.home, alone=arguments.split == "images")
    elif arguments.home:
        return table(arguments.home)
    else:
        with tempfile.TemporaryDirectory() as home:
            subprocess.run([*OURS, "--home", home, "--rows", str(arguments.rows), "--make"], check=True)
            return table(Path(home))
    return 0


def table(home: Path) -> int:
    """Print what each takes; nothing large is loaded here, as a process begins with the memory of its parent."""
    radloop = [sys.executable, "-m", "cli.main", "--home", str(home), "dataset"]
    old, new = (home / "digests").read_text().split()
    work = {
        "show": [*radloop, "show", NAME, "--json"],
        "diff": [*radloop, "diff", f"{NAME}@{old}", f"{NAME}@{new}", "--json"],
        "diff of a version with itself": [*radloop, "diff", NAME, NAME, "--json"],
        "split check": [*radloop, "check", NAME, "--json"],
        f"split, {PER_PATIENT} images a patient": [*OURS, "--home", str(home), "--split", "patients"],
        "split, one image a patient": [*OURS, "--home", str(home), "--split", "images"],
    }
    print("| what | time | memory | asked for |\n|---|---|---|---|")
    missed = 0
    for name, command in work.items():
        seconds, worked, gigabytes = measured(command)
        kept = seconds <= LIMIT_S and gigabytes <= LIMIT_GB
        missed += not kept
        verdict = "" if kept else "  MISSED"
        asked = f"at most {LIMIT_S:g} s and {LIMIT_GB:g} GB{verdict}"
        print(
            f"| {name} | {seconds:.1f} s ({worked:.1f} s of all cores) | {gigabytes:.2f} GB | {asked} |",
            flush=True,
        )
    return int(missed > 0)


def measured(command: Sequence[str]) -> tuple[float, float, float]:
    """Return seconds, seconds of all cores and peak memory in GB of a command; it may find something (exit code 1)."""
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command[:6])} ended with {process.returncode}")
    return time.monotonic() - started, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9


def make(home: Path, rows: int) -> None:
    """Publish two versions: of the second, a hundredth is new, a hundredth gone, and a hundredth labelled late."""
    import numpy as np
    import pyarrow as pa

    from imaging.dataset.tables.lazy_rows import LazyRows
    from imaging.dataset.tables.schemas import REFUSALS, TABLES
    from imaging.dataset.version.publish import build_version, publish
    from imaging.store.folder_store import FolderStore

    store = FolderStore(home / "store")
    every = examples(rows + rows // 100)
    numbers = np.arange(len(every))
    refused = {name: every[name][: rows // 10] for name in ("source_key", "source_size", "source_mtime_ns")}
    constant = {"source_tag": "", "study_key": "", "spec": spec().digest, "reason": "no-pixels", "detail": ""}
    refused |= {name: pa.repeat(value, rows // 10) for name, value in constant.items()}
    refusals = pa.table([refused[name] for name in REFUSALS.names], schema=REFUSALS)
    late = every["source_label"].to_numpy(zero_copy_only=False).copy()
    late[numbers % 100 == 7] = None
    labels = every.schema.get_field_index("source_label")
    before = every.set_column(labels, every.schema.field(labels), pa.array(late, pa.string()))
    gone = every.filter(pa.array(numbers % 100 == 3)).select(TABLES["tombstones"].names)
    first = build_version(store, recipe(), LazyRows.of(before[:rows]), refusals, None)
    stays = every.filter(pa.array(numbers % 100 != 3))
    second = build_version(store, recipe(), LazyRows.of(stays), refusals, first.table("splits"), gone)
    if not publish(first, None) or not publish(second, first.digest):
        raise SystemExit("somebody else published meanwhile")
    (home / "digests").write_text(f"{first.digest} {second.digest}")


def split(home: Path, *, alone: bool) -> None:
    """Draw the splits of all patients as the first night does, or as if each image was of a patient of its own."""
    import pyarrow as pa

    from imaging.dataset.split.assignment import draw_splits
    from imaging.dataset.split.shares import SplitConfig
    from imaging.dataset.tables.schemas import TABLES
    from imaging.dataset.version.dataset_version import newest_version
    from imaging.store.folder_store import FolderStore

    version = newest_version(FolderStore(home / "store"), NAME)
    if version is None:
        raise SystemExit("make the versions first: --make")
    patient = "instance_key" if alone else "patient_key"
    rows = version.table("examples", [patient, "label", "site_key", "fingerprint"])
    rows = rows.rename_columns(["patient_key", *rows.column_names[1:]])
    rows = rows.append_column("source_split", pa.nulls(len(rows), pa.string()))
    print(draw_splits(rows, TABLES["splits"].empty_table(), SplitConfig().shares).num_rows)


def examples(rows: int) -> "pa.Table":
    """Return rows of patients with 50 slices each; their splits, and what these have in common, are fixed."""
    import numpy as np
    import pyarrow as pa

    from bench.near_duplicates import million
    from imaging.dataset.split.fingerprint import as_column
    from imaging.dataset.tables.schemas import EXAMPLES

    rng = np.random.default_rng(0)
    fingerprints, names, splits = million(rows)
    patient = np.unique(names, return_inverse=True)[1]

    def keys(numbers: np.ndarray, digits: int) -> "pa.Array":
        """Return hex digits that look like a pseudonym or a digest, the same for the same number."""
        count = int(numbers.max()) + 1
        texts = rng.bytes(count * digits // 2).hex()
        return pa.array([texts[at * digits : (at + 1) * digits] for at in range(count)]).take(numbers)

    def some(values: Sequence[object], kind: "pa.DataType", of: np.ndarray = patient) -> "pa.Array":
        """Return one of these values for each patient."""
        chosen = rng.integers(len(values), size=int(of.max()) + 1)
        return pa.array(values, kind).take(pa.array(chosen[of]))

    each = np.arange(rows)
    text, number = pa.string(), pa.float64()
    columns = {
        **{f"{level}_key": keys(each, 32) for level in ("instance", "object", "source")},
        **{f"{level}_key": keys(patient, 32) for level in ("patient", "study", "series")},
        "content_blake3": keys(each, 64),
        "pixel_blake3": keys(each, 64),
        "fingerprint": as_column(fingerprints),
        "shard": keys(each // 2048, 64),
        "row": pa.array(each % 2048),
        "site_key": some([f"{at:032x}" for at in range(20)], text),
        "source_label": some(["no lesion", "lesion"], text),
        "source_split": pa.array(splits.tolist()),
        "manufacturer": some(["GE", "SIEMENS", "Philips", "TOSHIBA", "UIH"], text),
        "model": some([f"model {at}" for at in range(30)], text),
        "spacing_mm": pa.array(rng.uniform(0.4, 1.0, int(patient.max()) + 1)[patient]),
        "kvp": some([80.0, 100.0, 120.0, 140.0, None], number),
    }
    fixed = {"source_size": 526_000, "source_mtime_ns": 10**18, "frame": 0, "rows": 512, "columns": 512}
    fixed |= {"modality": "CT", "spec": spec().digest, "slices": 1, "slice_spacing": None}
    fixed |= {"row_spacing": 0.7, "column_spacing": 0.7, "affine": rng.bytes(96)}
    for field in EXAMPLES:
        if field.name not in columns:
            columns[field.name] = pa.repeat(pa.scalar(fixed.get(field.name, ""), field.type), rows)
    return pa.table([columns[name] for name in EXAMPLES.names], schema=EXAMPLES)


def spec() -> "PreprocessSpec":
    from imaging.preprocess.spec import PreprocessSpec

    return PreprocessSpec(size_px=256)


def recipe() -> "Recipe":
    from imaging.dataset.split.shares import SplitConfig
    from imaging.dataset.version.publish import Recipe

    return Recipe(dataset=NAME, spec=spec(), key_fingerprint="bench", shares=SplitConfig().shares)


if __name__ == "__main__":
    sys.exit(main())
