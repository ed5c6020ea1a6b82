"""Shards: arrays of prepared images in the store, named by their content and mapped into memory by readers."""

import io
import os
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_magic, write_array_header_1_0
from numpy.typing import NDArray

from imaging.store.content_digest import digest_name, file_digest
from imaging.store.durable_file import TEMPORARY, disk_faults, make_folder
from imaging.store.folder_store import FolderStore
from imaging.store.protocol import Store

SYNC_BYTES = 8 * 2**20
"""Bytes after which writing to the disk is begun, so that the disk works while images are still being prepared."""


def shard_name(digest: str) -> str:
    """Return the name in the store of a shard with this digest (64 hex digits, BLAKE3 of the whole file)."""
    return digest_name("shards", digest, ".npy")


def map_shard(store: Store, digest: str) -> NDArray[np.uint8]:
    """Map a shard (n, ...) into memory; the workers of a node share its pages."""
    with store.open(shard_name(digest)) as file:
        read_magic(file)
        shape, _, kind = read_array_header_1_0(file)
        return np.memmap(file, kind, "r", file.tell(), shape)


def write_shard(store: Store, images: NDArray[np.uint8]) -> str:
    """Write (n, ...) images once, and return the digest that names them."""
    with ShardWriter(store, images.shape[1:]) as shard:
        shard.add(np.ascontiguousarray(images).reshape(-1).data)
        return shard.finish()


class ShardWriter:
    """Writer of one shard: images are written as they come, and the disk is waited for only at the end.

    `shape` is that of one image. An unfinished shard leaves nothing behind. Raises EnvironmentFault where the
    disk cannot be written.
    """

    def __init__(self, store: Store, shape: tuple[int, ...]) -> None:
        self.rows = 0
        self._store, self._shape = store, shape
        self._row_bytes = int(np.prod(shape))
        self._file: io.FileIO | None = None
        self._unsynced = 0
        self._syncing: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)

    def add(self, images: memoryview) -> None:
        """Append the bytes of whole images."""
        with disk_faults(self._folder / "a shard"):
            file = self._file or self._begin()
            _write_all(file, images)
            self.rows += images.nbytes // self._row_bytes
            self._unsynced += images.nbytes
            if self._unsynced >= SYNC_BYTES and (self._syncing is None or self._syncing.done()):
                self._syncing, self._unsynced = self._thread.submit(os.fdatasync, file.fileno()), 0

    def finish(self) -> str:
        """Put the shard into the store, and return its digest."""
        with disk_faults(self._folder / "a shard"):
            file = self._file or self._begin()
            if self._syncing is not None:
                self._syncing.result()
            file.seek(0)
            _write_all(file, memoryview(self._header()))
            digest = file_digest(self._path)
        # Though it may be there already: its time becomes new, and `gc` removes what is old.
        self._store.put(shard_name(digest), self._path)
        return digest

    @property
    def image_bytes(self) -> int:
        """The bytes of the images so far."""
        return self.rows * self._row_bytes

    @property
    def _folder(self) -> Path:
        # From the same file system it becomes an object without a copy.
        return self._store.root if isinstance(self._store, FolderStore) else Path(tempfile.gettempdir())

    def _begin(self) -> io.FileIO:
        make_folder(self._folder)
        descriptor, path = tempfile.mkstemp(dir=self._folder, prefix=TEMPORARY)
        self._path, self._file = Path(path), io.FileIO(descriptor, "wb")
        _write_all(self._file, memoryview(self._header()))
        return self._file

    def _header(self) -> bytes:
        """Return the head of the file, in which numpy leaves room for any number of rows."""
        head = io.BytesIO()
        shape = (self.rows, *self._shape)
        write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return head.getvalue()


def _write_all(file: io.FileIO, content: memoryview) -> None:
    left = content.cast("B")
    while left:
        left = left[file.write(left) :]
