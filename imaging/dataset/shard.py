"""Owns shards: arrays of prepared images, named by their content and mapped into memory by readers."""

import hashlib
import io

import numpy as np
from numpy.typing import NDArray

from imaging.store.folder import FolderStore


def shard_name(digest: str) -> str:
    """Return where a shard of this digest lives in the store."""
    return f"shards/{digest[:2]}/{digest}.npy"


def write_shard(store: FolderStore, images: NDArray[np.uint8]) -> str:
    """Write (n, size, size) images once, and return the digest that names them."""
    digest = hashlib.sha256(f"{images.shape}{images.dtype}".encode() + images.tobytes()).hexdigest()[:32]
    if not store.exists(shard_name(digest)):
        buffer = io.BytesIO()
        np.save(buffer, images, allow_pickle=False)
        store.write(shard_name(digest), buffer.getvalue())
    return digest


def map_shard(store: FolderStore, digest: str) -> NDArray[np.uint8]:
    """Map a shard into memory; the workers of a node share its pages."""
    return np.load(store.path(shard_name(digest)), mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
