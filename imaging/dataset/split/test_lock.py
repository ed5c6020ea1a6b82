"""Lock of the test patients: each reading of their rows is recorded in the store, and can be counted."""

import json
from datetime import UTC, datetime
from secrets import token_hex

from imaging.store.protocol import Store

LOCKED = "test"
"""The split whose patients nothing may be trained on."""


def record_read(store: Store, dataset: str, digest: str, reader: str, rows: int) -> None:
    """Record that `reader` read the test rows of a version."""
    now = datetime.now(UTC)
    record = {"time": now.isoformat(timespec="seconds"), "version": digest, "reader": reader, "rows": rows}
    # A name of its own for each: readers on many machines never wait for each other, and none is lost.
    store.write(f"{_folder(dataset)}{now:%Y%m%dT%H%M%S%f}-{token_hex(4)}.json", json.dumps(record).encode())


def count_reads(store: Store, dataset: str) -> int:
    """Return how often the test rows of any version of a dataset were read."""
    return sum(1 for _ in store.names(_folder(dataset)))


def _folder(dataset: str) -> str:
    return f"datasets/{dataset}/test-reads/"
