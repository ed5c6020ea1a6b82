"""Ledger: one line for every decision about the champion; lines are only ever added."""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def add(path: Path, entry: Mapping[str, Any]) -> None:
    """Add a line that is on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **entry}) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def entries(path: Path) -> list[dict[str, Any]]:
    """Return all lines, oldest first."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
