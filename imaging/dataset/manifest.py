"""Owns the manifest: the rows of examples and of refusals as tables, merged from night to night."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields

import pyarrow as pa
import pyarrow.parquet as pq

from imaging.dataset.chunk import Example, Refusal
from imaging.dataset.quarantine import IGNORED, NO_LOSS

_TYPES = {"int": pa.int64(), "str": pa.string(), "str | None": pa.string(), "float | None": pa.float64()}


def _schema(row: type) -> pa.Schema:
    # dataclass fields carry their types as objects; their names are the keys of the table above.
    return pa.schema(
        [(f.name, _TYPES[getattr(f.type, "__name__", None) or str(f.type)]) for f in fields(row)]
    )


def example_schema() -> pa.Schema:
    """Return the columns of an example, before label and split are joined."""
    return _schema(Example)


def refusal_schema() -> pa.Schema:
    """Return the columns of a refused file."""
    return _schema(Refusal)


def to_table(rows: Iterable[Example | Refusal], schema: pa.Schema) -> pa.Table:
    """Return rows as a table."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)


def merge(
    kept: Sequence[Example], new: Sequence[Example], *, drop_equal_pixels: bool
) -> tuple[list[Example], list[Refusal]]:
    """Return the examples that stand, first come first kept, and a refusal for each repeated instance.

    The same pixels under two SOPInstanceUIDs could end on both sides of a split, so the later one is refused
    where splits are drawn here (`drop_equal_pixels`), and kept where the source fixes them.
    """
    by_instance: dict[str, Example] = {}
    by_pixels: set[str] = set()
    refusals = []
    for example in (*kept, *new):
        first = by_instance.get(example.instance_key)
        if first is not None:
            same = first.pixel_sha256 == example.pixel_sha256
            refusals.append(_repeated(example, "duplicate-instance" if same else "conflicting-instance"))
        elif drop_equal_pixels and example.pixel_sha256 in by_pixels:
            refusals.append(_repeated(example, "duplicate-pixels"))
        else:
            by_instance[example.instance_key] = example
            by_pixels.add(example.pixel_sha256)
    return list(by_instance.values()), refusals


def drop_studies(
    examples: Sequence[Example], refusals: Sequence[Refusal]
) -> tuple[list[Example], list[Refusal]]:
    """Refuse what is left of a study of which a slice is bad: the policy drop-study."""
    lost = {refusal.study_key for refusal in refusals if refusal.reason not in {*IGNORED, *NO_LOSS}} - {""}
    kept = [example for example in examples if example.study_key not in lost]
    files = {example.source_key: example for example in examples if example.study_key in lost}
    return kept, [_refused(example, "bad-study", "") for example in files.values()]


def _repeated(example: Example, reason: str) -> Refusal:
    return _refused(example, reason, f"instance {example.instance_key[:12]}")


def _refused(example: Example, reason: str, detail: str) -> Refusal:
    return Refusal(
        source_key=example.source_key,
        source_size=example.source_size,
        source_mtime_ns=example.source_mtime_ns,
        study_key=example.study_key,
        reason=reason,
        detail=detail,
    )


def table_digest(tables: Iterable[pa.Table], *others: str) -> str:
    """Return the digest of tables by their content, not by how a Parquet writer lays it out."""
    digest = hashlib.sha256("\0".join(others).encode())
    for table in tables:
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as stream:
            for batch in table.combine_chunks().to_batches(max_chunksize=65536):
                stream.write_batch(batch)
        digest.update(sink.getvalue())
    return digest.hexdigest()[:32]


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
