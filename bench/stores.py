"""Speed of the stores with shards: into and out of a real S3 server beside boto3's own transfers, and into a folder.

All on this machine and on one disk, so that the server takes its part of the cores; candidates take turns.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import boto3
import psutil
from blake3 import blake3

from bench.interleaved import interleave, row
from imaging.file_io import write_file
from imaging.store.content_digest import digest_name
from imaging.store.open_store import open_store
from imaging.store.protocol import Store
from imaging.store.s3_store import S3Store
from tests.servers import make_bucket, s3_server

BUCKET = "bench"
UPLOAD, DOWNLOAD, FOLDER = 0.85, 1.0, 0.9
"""Least speed beside candidates that check less: ours takes SHA-256 of every part on the way in (boto3 CRC-32), and on
the way out BLAKE3 of the whole, and waits for the disk."""

LARGE_BYTES, MEMORY_BYTES = 512 * 10**6, 64 * 10**6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    print(
        f"shards of {asked.megabytes} MB\n| what | ours | beside | speed | asked for |\n|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)):
        shard = Shard(Path(folder), asked.megabytes * 10**6)
        rows = [*s3_rows(shard, asked.rounds), folder_row(shard, asked.rounds), memory_row(Path(folder))]
    return int(any("MISSED" in one for one in rows))


@contextmanager
def served(folder: Path) -> Iterator[None]:
    """Run an S3 server that boto3 finds for as long as the block lasts."""
    before = dict(os.environ)
    try:
        with s3_server(folder / "server") as server:
            os.environ.update(server.aws)
            make_bucket(BUCKET)
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Shard:
    """Random bytes under their name, and files of them that a store may take."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.content = folder, os.urandom(size)
        self.name = digest_name("shards", blake3(self.content).hexdigest(), ".npy")

    def file(self) -> Path:
        """Write the shard anew, as a worker does before it puts it."""
        path = self.folder / "drafts" / "shard"
        path.parent.mkdir(exist_ok=True)
        write_file(path, [self.content])
        return path


def s3_rows(shard: Shard, rounds: int) -> Iterator[str]:
    store, client = (
        open_store(f"s3://{BUCKET}/ours", shard.folder / "cache"),
        boto3.session.Session().client("s3"),
    )
    assert isinstance(store, S3Store)
    key, copy = f"plain/{shard.name}", shard.folder / "copy"

    def upload(_: int) -> None:
        client.upload_file(str(shard.file()), BUCKET, key)

    def download(_: int) -> None:
        client.download_file(BUCKET, key, str(copy))

    def local(_: int) -> None:
        shutil.rmtree(store.cache.folder, ignore_errors=True)
        store.local(shard.name)

    took = interleave({"ours": putting(store, shard), "upload_file": upload}, 1, rounds)
    yield shown(row("S3: file written and put", took, "ours", UPLOAD, "upload_file"))
    took = interleave({"ours": local, "download_file": download}, 1, rounds)
    yield shown(row("S3: fetched, verified and lasting", took, "ours", DOWNLOAD, "download_file"))


def folder_row(shard: Shard, rounds: int) -> str:
    store = open_store(shard.folder / "store", shard.folder)

    def plain(_: int) -> None:
        path = shard.file()
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.replace(shard.folder / "plain")

    took = interleave({"ours": putting(store, shard), "write, fsync, rename": plain}, 1, rounds)
    return shown(row("folder: file written and put", took, "ours", FOLDER, "write, fsync, rename"))


def memory_row(folder: Path) -> str:
    """Return what this process holds more at its highest while a large shard goes to S3 and comes back."""
    shard = Shard(folder, LARGE_BYTES)
    name, file = shard.name, shard.file()
    del shard
    store = open_store(f"s3://{BUCKET}/memory", folder / "memory")
    store.exists("any")  # the client is made
    before, highest, done = own_bytes(), [0], Event()

    def watch() -> None:
        while not done.wait(0.01):
            highest[0] = max(highest[0], own_bytes() - before)

    with ThreadPoolExecutor(1) as watching:
        watching.submit(watch)
        try:
            store.put(name, file)
            shutil.rmtree(folder / "memory")
            store.local(name)
        finally:
            done.set()
    verdict = "" if highest[0] <= MEMORY_BYTES else "  MISSED"
    return shown(
        f"| S3: memory for a shard of {LARGE_BYTES / 1e6:.0f} MB, put and fetched | {highest[0] / 1e6:.0f} MB | | "
        f"| at most {MEMORY_BYTES / 1e6:.0f} MB{verdict} |"
    )


def own_bytes() -> int:
    return int(psutil.Process().memory_full_info().uss)


def putting(store: Store, shard: Shard) -> Callable[[int], None]:
    return lambda _: store.put(shard.name, shard.file())


def shown(line: str) -> str:
    print(line, flush=True)
    return line


if __name__ == "__main__":
    raise SystemExit(main())
