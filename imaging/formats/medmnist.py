"""Owns the reading of rows of an NPZ file into instances."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from imaging.image.instance import Instance
from imaging.sources.medmnist_file import MedMnistFile
from imaging.sources.protocol import Payload


def read_rows(payload: Payload, modality: str) -> Iterator[Instance]:
    """Yield one instance a row; `modality` does not matter here."""
    (content,) = payload.contents
    path = Path(str(content))
    return _opened(path, path.stat().st_mtime_ns).instances(payload.name)


@lru_cache(maxsize=1)
def _opened(path: Path, mtime_ns: int) -> MedMnistFile:
    """Keep the last file open: its rows come in many payloads, and inflating it takes a second."""
    return MedMnistFile(path)
