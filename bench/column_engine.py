"""Column engine of a dataset beside pyarrow.acero and DuckDB: time and peak memory of the operations of a night.

Each operation of each engine has a process of its own. Time and memory begin when the input is loaded: seconds on the
clock, seconds of all cores, and the peak above the memory before. All engines must give the same result. DuckDB is
not among our requirements: `pip install duckdb` first, or its column is left out.
"""

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from types import MappingProxyType

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from blake3 import blake3

from imaging.dataset.ingest.listing import LISTED, compare_with_listing
from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.dataset.tables.row_operations import refuse_repeats
from imaging.dataset.tables.schemas import EXAMPLES
from imaging.dataset.tables.spill import grouped_by_prefix
from imaging.dataset.tables.table_files import cut_by_prefix, parquet_bytes, prefix_digits, rows_digest
from imaging.store.folder_store import FolderStore

OURS = (sys.executable, "-m", "bench.column_engine")
CHUNK_ROWS = 256
"""Rows of a chunk of ingest, which is a file in the journal."""
COMPARED = ("source_key", "source_size", "source_mtime_ns", "source_tag", "spec")
KEY = "instance_key"
Result = Callable[[], list[bytes]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--make", type=Path, metavar="HOME", help="Write the input alone.")
    parser.add_argument("--one", nargs=3, metavar=("OPERATION", "ENGINE", "HOME"), help="Measure one alone.")
    arguments = parser.parse_args()
    if arguments.one:
        operation, engine, home = arguments.one
        measure(operation, engine, Path(home))
        return
    if arguments.make:
        make(arguments.make, arguments.rows)
        return
    with tempfile.TemporaryDirectory() as home:
        # Not here: a process begins with the peak of its parent's memory.
        subprocess.run([*OURS, "--rows", str(arguments.rows), "--make", home], check=True)
        table(Path(home), arguments.rounds)


def table(home: Path, rounds: int) -> None:
    """Print the medians of all operations; the engines take turns."""
    there = [name for name in ENGINES if name != "duckdb" or importlib.util.find_spec("duckdb")]
    print("| operation | " + " | ".join(there) + " |\n" + "|---" * (len(there) + 1) + "|")
    for operation in OPERATIONS:
        runs = [{engine: in_process(operation, engine, home) for engine in there} for _ in range(rounds)]
        if len({run[engine][3] for run in runs for engine in there}) != 1:
            raise SystemExit(f"{operation}: the engines do not agree")
        cells = (
            "{:.2f} s ({:.2f} s of all cores), {:.2f} GB".format(
                *(median(run[engine][n] for run in runs) for n in range(3))
            )
            for engine in there
        )
        print(f"| {operation} | " + " | ".join(cells) + " |", flush=True)


def in_process(operation: str, engine: str, home: Path) -> tuple[float, float, float, str]:
    """Return seconds, seconds of all cores, peak memory in GB and digest of the result of one operation."""
    command = [*OURS, "--one", operation, engine, str(home)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds, worked, gigabytes, digest = json.loads(done.stdout)
    return seconds, worked, gigabytes, digest


def measure(operation: str, engine: str, home: Path) -> None:
    """Print what `in_process` returns."""
    work = OPERATIONS[operation](engine, home)
    before, started, worked, digest = (
        psutil.Process().memory_info().rss,
        time.monotonic(),
        time.process_time(),
        blake3(),
    )
    for part in work():
        digest.update(part)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    took = (time.monotonic() - started, time.process_time() - worked, (peak - before) / 1e9)
    print(json.dumps([*took, digest.hexdigest(length=8)]))


def make(home: Path, rows: int) -> None:
    """Write rows, a listing (a hundredth each is new, changed and removed), and the rows as chunks."""
    random = np.random.default_rng(0)
    keys = [f"{a:016x}{b:016x}" for a, b in random.integers(0, 2**63, (rows + rows // 100, 2)).tolist()]
    every = pa.table({name: _column(name, keys[:rows], random) for name in EXAMPLES.names}, schema=EXAMPLES)
    save(home / "rows.arrow", every)
    numbers = np.arange(len(keys))
    listing = {
        "name": pa.array(keys, pa.string()).cast(pa.binary()),
        "source_key": pa.array(keys, pa.string()),
        "source_size": pa.array(np.full(len(keys), 526_000)),
        "source_mtime_ns": pa.array(np.where(numbers % 100 == 7, 2, 1)),
        "source_tag": pa.repeat("", len(keys)),
    }
    listed = pa.table(listing, schema=LISTED).filter(pa.array(numbers % 100 != 3))
    save(home / "listing.arrow", listed.take(pa.array(random.permutation(len(listed)))))
    store = FolderStore(home / "store")
    for number in range(0, rows, CHUNK_ROWS):
        store.write(f"chunks/{number:08d}.parquet", parquet_bytes(every[number : number + CHUNK_ROWS]))


def _column(name: str, keys: list[str], random: np.random.Generator) -> pa.Array:
    field, rows = EXAMPLES.field(name), len(keys)
    if name in ("fingerprint", "affine"):
        return pa.array([random.bytes(field.type.byte_width)] * rows, field.type)
    if name in ("object_key", "source_key"):
        return pa.array(keys)
    if name in (KEY, "pixel_blake3"):
        # Each fiftieth repeats the one that lies a hundred before it; of those, every second has other pixels.
        step = 50 if name == KEY else 100
        return pa.array([keys[n - 100] if n % step == 0 and n >= 100 else keys[n] for n in range(rows)])
    if name in ("series_key", "study_key", "patient_key"):
        return pa.array([keys[n - n % 50] for n in range(rows)])
    if field.type == pa.string():
        return pa.repeat("" if name == "source_tag" else name, rows)
    return pa.repeat(526_000 if name == "source_size" else 1, rows).cast(field.type)


def save(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, 2**16)


def load(path: Path, columns: tuple[str, ...]) -> pa.Table:
    """Return columns of a file, in memory."""
    with pa.OSFile(str(path)) as file:
        numbers = [pa.ipc.open_file(file).schema.get_field_index(name) for name in columns]
        options = pa.ipc.IpcReadOptions(included_fields=numbers)
        return pa.ipc.open_file(file, options=options).read_all().select(columns)


def against_listing(engine: str, home: Path) -> Result:
    """Which rows are as listed, changed or removed, and which files are new: two joins over all keys."""
    rows, listing = load(home / "rows.arrow", COMPARED), load(home / "listing.arrow", tuple(LISTED.names))
    spec = "spec"

    def ours() -> list[bytes]:
        masks = compare_with_listing(rows, listing, spec)
        known = pc.is_in(listing["source_key"], value_set=rows.filter(masks.current)["source_key"])
        return _bytes(masks.current, masks.changed, masks.removed, pc.invert(known))

    def acero() -> list[bytes]:
        numbered = rows.append_column("at", pa.array(np.arange(len(rows))))
        listed = listing.drop_columns("name").append_column("listed", pa.repeat(True, len(listing)))
        both = numbered.join(listed, "source_key", join_type="left outer", right_suffix="_2").sort_by("at")
        there, of_spec = pc.fill_null(both["listed"], False), pc.equal(both["spec"], spec)
        same = there
        for name in ("source_size", "source_mtime_ns", "source_tag"):
            same = pc.and_(same, pc.fill_null(pc.equal(both[name], both[f"{name}_2"]), False))
        current, changed = pc.and_(same, of_spec), pc.and_(pc.and_(there, of_spec), pc.invert(same))
        files = listing.select(["source_key"]).append_column("at", pa.array(np.arange(len(listing))))
        new = files.join(rows.filter(current).select(["source_key"]), "source_key", join_type="left anti")
        mask = np.zeros(len(listing), np.bool_)
        mask[new["at"].to_numpy()] = True
        return _bytes(current, changed, pc.invert(there), pa.chunked_array([mask]))

    def duckdb() -> list[bytes]:
        connection = _duckdb(home, rows=rows, listing=listing)
        same = " AND ".join(f"r.{name} = l.{name}" for name in COMPARED[1:4])
        masks = connection.sql(
            f"""SELECT coalesce({same}, false) AND spec = '{spec}' AS current,
                l.source_key IS NOT NULL AND spec = '{spec}' AND NOT ({same}) AS changed,
                l.source_key IS NULL AS removed
                FROM (SELECT *, row_number() OVER () AS n FROM rows) r LEFT JOIN listing l USING (source_key)
                ORDER BY n"""
        ).to_arrow_table()
        kept = rows.filter(masks["current"]).select(["source_key"])
        connection.register("kept", kept)
        new = connection.sql(
            """SELECT source_key NOT IN (SELECT source_key FROM kept) AS new
               FROM (SELECT source_key, row_number() OVER () AS n FROM listing) ORDER BY n"""
        ).to_arrow_table()["new"]
        return _bytes(masks["current"], masks["changed"], masks["removed"], new)

    return {"ours": ours, "acero": acero, "duckdb": duckdb}[engine]


def first_of_instance(engine: str, home: Path) -> Result:
    """Which rows repeat an instance, and of which first row: of a repeated one the refusal names the first."""
    columns = tuple(EXAMPLES.names)
    rows = load(home / "rows.arrow", columns if engine == "ours" else (KEY, "pixel_blake3"))

    def ours() -> list[bytes]:
        _, refused = refuse_repeats(LazyRows.of(rows), np.zeros(len(rows), np.int64), drop_equal_pixels=False)
        return _bytes(refused["detail"], refused["reason"])

    def acero() -> list[bytes]:
        numbered = rows.append_column("at", pa.array(np.arange(len(rows))))
        # Without threads, for "first" needs an order.
        first = numbered.group_by(KEY, use_threads=False).aggregate(
            [("at", "first"), ("pixel_blake3", "first")]
        )
        both = numbered.join(first, KEY).sort_by("at")
        again = both.filter(pc.not_equal(both["at"], both["at_first"]))
        same = pc.equal(again["pixel_blake3"], again["pixel_blake3_first"])
        return _refused(again[KEY], same)

    def duckdb() -> list[bytes]:
        again = (
            _duckdb(home, rows=rows)
            .sql(
                f"""SELECT {KEY}, pixel_blake3 = first_pixels AS same FROM (
                    SELECT {KEY}, pixel_blake3, n, first_value(n) OVER same_instance AS first_n,
                    first_value(pixel_blake3) OVER same_instance AS first_pixels
                    FROM (SELECT *, row_number() OVER () AS n FROM rows)
                    WINDOW same_instance AS (PARTITION BY {KEY} ORDER BY n)
                ) WHERE n != first_n ORDER BY n"""
            )
            .to_arrow_table()
        )
        return _refused(again[KEY], again["same"])

    return {"ours": ours, "acero": acero, "duckdb": duckdb}[engine]


def by_prefix(engine: str, home: Path) -> Result:
    """All rows of chunks, cut by the first digits of their keys and in the keys' order, a few groups in memory."""
    store = FolderStore(home / "store")
    names = sorted(one.name for one in store.names("chunks/"))
    rows = LazyRows.stored(store, names, EXAMPLES)
    digits = max(prefix_digits(rows.num_rows), 1)
    key = "object_key"

    def contents(groups: Iterator[pa.Table]) -> list[bytes]:
        return [
            rows_digest(part.select([key, "fingerprint"])).encode()
            for group in groups
            for part in cut_by_prefix(group, key, digits)
        ]

    def ours() -> list[bytes]:
        with grouped_by_prefix(rows, key, digits) as groups:
            return contents(group.select(EXAMPLES.names) for group in groups)

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(rows.blocks), 16):
            part = LazyRows(EXAMPLES, rows.blocks[start : start + 16]).select(EXAMPLES.names)
            prefix = pc.utf8_slice_codeunits(part[key], 0, digits)
            yield from part.append_column("prefix", prefix).combine_chunks().to_batches()

    def acero() -> list[bytes]:
        schema = EXAMPLES.append(pa.field("prefix", pa.string()))
        with tempfile.TemporaryDirectory() as folder:
            partitioning = ds.partitioning(pa.schema([schema.field("prefix")]))
            ds.write_dataset(batches(), folder, format="ipc", schema=schema, partitioning=partitioning)
            prefixes = sorted(path.name for path in Path(folder).iterdir())
            return contents(
                ds.dataset(Path(folder) / one, EXAMPLES, format="ipc").to_table().cast(EXAMPLES)
                for one in prefixes
            )

    def duckdb() -> list[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            connection = _duckdb(home)
            files = str(store.root / "chunks/*.parquet")
            connection.execute(
                f"""COPY (SELECT *, {key}[:{digits}] AS prefix FROM read_parquet('{files}'))
                    TO '{folder}/groups' (FORMAT parquet, PARTITION_BY prefix)"""
            )
            prefixes = sorted(path.name for path in (Path(folder) / "groups").iterdir())
            return contents(
                connection.sql(f"SELECT {', '.join(EXAMPLES.names)} FROM '{folder}/groups/{one}/*.parquet'")
                .to_arrow_table()
                .cast(EXAMPLES)
                for one in prefixes
            )

    return {"ours": ours, "acero": acero, "duckdb": duckdb}[engine]


def _refused(keys: pa.ChunkedArray, same: pa.ChunkedArray) -> list[bytes]:
    details = pc.binary_join_element_wise("instance", pc.utf8_slice_codeunits(keys, 0, 12), " ")
    return _bytes(details, pc.if_else(same, "duplicate-instance", "conflicting-instance"))


def _bytes(*columns: pa.ChunkedArray) -> list[bytes]:
    """Return what is compared of results, as JSON or as bytes of a mask."""
    return [
        column.to_numpy().astype(np.bool_).tobytes()
        if pa.types.is_boolean(column.type)
        else json.dumps(column.to_pylist()).encode()
        for column in columns
    ]


def _duckdb(home: Path, **tables: pa.Table) -> "object":
    import duckdb

    connection = duckdb.connect(
        config={"threads": 2, "memory_limit": "1GB", "temp_directory": str(home / "spill")}
    )
    for name, table in tables.items():
        connection.register(name, table)
    return connection


ENGINES = ("ours", "acero", "duckdb")
OPERATIONS: Mapping[str, Callable[[str, Path], Result]] = MappingProxyType(
    {
        "rows against a listing": against_listing,
        "first of each instance": first_of_instance,
        "groups by prefix, through files": by_prefix,
    }
)

if __name__ == "__main__":
    main()
