"""Owns bytes by name below a prefix of an S3 bucket: verified from end to end, and pointers moved by conditions."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fcntl import LOCK_SH, flock
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, BinaryIO

from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError
from s3transfer.manager import TransferConfig, TransferManager
from urllib3.exceptions import HTTPError

from imaging.store.cache import Cache
from imaging.store.digest import bytes_digest, check_digest, digest_of, file_digest
from imaging.store.disk import drafted
from imaging.store.protocol import Damaged, Missing, Stored
from imaging.store.s3_client import TRANSFERS, Bucket, Unreachable, again, code_of, nanoseconds, status_of

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

PART_BYTES = 8 * 2**20
"""Of a large object, this much travels in a request; eight of them travel at a time."""
PIECE_BYTES = 2**20
"""What a thread holds in memory of a part on its way to the disk."""
UPLOAD = TransferConfig(
    multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_request_concurrency=TRANSFERS
)
DIGEST, WRITER = "blake3", "writer"
"""Metadata of ours: an object's digest, where its name has none; who moved a pointer."""
CHECKSUM: dict[str, Any] = {"ChecksumAlgorithm": "SHA256"}
"""The server checks what it was sent against it, each part of a large object alone."""
LOST_RACE = (409, 412)


@dataclass(frozen=True)
class S3Store:
    """A store (`imaging.store.protocol.Store`) below a prefix of a bucket.

    `cache` holds what `local` fetched, and what was sent from this machine, so that it need not be fetched. A call
    repeats what fails in passing, for about a minute: a server that restarts is waited for.
    """

    bucket: Bucket
    cache: Cache

    def exists(self, name: str) -> bool:
        """Say whether a whole object of this name is there."""
        try:
            again(lambda: self._head(name))
        except Missing:
            return False
        return True

    def read(self, name: str) -> bytes:
        """Return the bytes of an object."""
        return again(lambda: self._get(name)[0])

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Write an object whole, or leave what was visible before."""
        whole = bytes(content)
        again(lambda: self._send(name, whole))
        if digest_of(name) == bytes_digest(whole):
            self.cache.write(self._kept(name), whole)

    def put(self, name: str, path: Path) -> None:
        """Upload a file, large ones in parts; it becomes the copy in the cache where its name says its content."""
        path.stat()  # a file that is not there is no fault of the server, to be waited for
        digest = digest_of(name) or file_digest(path)
        again(lambda: self._upload(name, path, digest))
        if digest_of(name):
            self.cache.take(self._kept(name), path)
        else:
            path.unlink()

    def local(self, name: str) -> Path:
        """Return a copy in the cache: an object whose name says its content is fetched once, any other each time."""
        kept = self._kept(name)
        fixed = digest_of(name) is not None
        if not (fixed and self.cache.asked(kept)):
            with self.cache.faults(kept), self.cache.fetching(kept):
                if not (fixed and self.cache.asked(kept)):
                    again(lambda: self._fetch(name, kept))
        return kept

    def open(self, name: str) -> BinaryIO:
        """Open a copy in the cache, which stays there meanwhile."""
        while True:
            # Between the two others may take its place.
            if file := self.cache.opened(self.local(name)):
                return file

    def names(self, prefix: str = "") -> Iterator[Stored]:
        """List the objects whose names begin with a prefix, a thousand a request."""
        for name, found in self.bucket.listed(prefix):
            yield Stored(name, found["Size"], nanoseconds(found["LastModified"]))

    def remove(self, name: str) -> None:
        """Remove an object, and its copy in this machine's cache."""
        again(lambda: self._delete(name))
        self._kept(name).unlink(missing_ok=True)

    def sweep(self, age_s: float) -> int:
        """Give up uploads in parts that were begun so long ago; remove what was half fetched into the cache."""
        latest = datetime.now(UTC) - timedelta(seconds=age_s)
        return self.cache.sweep(age_s) + again(lambda: self._give_up(latest))

    def pointer(self, name: str) -> str | None:
        """Return what a pointer points at, or None where it was never set."""
        return again(lambda: self._pointer(name))[0]

    def swap(self, name: str, expected: str | None, new: str) -> bool:
        """Move a pointer from `expected` to `new`; False if somebody else moved it first.

        A reply may be lost and the request repeated, which then fails because of its own success: each swap signs
        what it writes, so that it knows its own hand. If the pointer was moved on since, it says False too.
        """
        writer = token_hex(16)

        def attempt() -> bool:
            found, etag, hand = self._pointer(name)
            if hand == writer or found != expected:
                return hand == writer
            self._send(
                name, f"{new}\n".encode(), writer, **({"IfMatch": etag} if etag else {"IfNoneMatch": "*"})
            )
            return True

        return again(attempt)

    def _kept(self, name: str) -> Path:
        return self.cache.folder / self.bucket.name / self.bucket.prefix / name

    def _at(self, name: str) -> dict[str, Any]:
        return {"Bucket": self.bucket.name, "Key": self.bucket.prefix + name}

    def _faults(self, name: str) -> AbstractContextManager[None]:
        return self.bucket.faults(name)

    def _head(self, name: str) -> "HeadObjectOutputTypeDef":
        with self._faults(name):
            return self.bucket.client.head_object(**self._at(name))

    def _get(self, name: str) -> tuple[bytes, str, str]:
        """Return content, ETag and writer of an object."""
        with self._faults(name):
            answer = self.bucket.client.get_object(**self._at(name))
        with _whole(name):
            content = answer["Body"].read()
        check_digest(name, bytes_digest(content), answer["Metadata"].get(DIGEST))
        return content, answer["ETag"], answer["Metadata"].get(WRITER, "")

    def _pointer(self, name: str) -> tuple[str | None, str, str]:
        try:
            content, etag, writer = self._get(name)
        except Missing:
            return None, "", ""
        return content.decode().strip(), etag, writer

    def _send(self, name: str, content: bytes, writer: str = "", **condition: Any) -> None:
        told = {DIGEST: bytes_digest(content), WRITER: writer}
        with self._faults(name), _races(name):
            self.bucket.client.put_object(
                **self._at(name), Body=content, Metadata=told, **CHECKSUM, **condition
            )

    def _delete(self, name: str) -> None:
        with self._faults(name):
            self.bucket.client.delete_object(**self._at(name))

    def _give_up(self, latest: datetime) -> int:
        bucket, count = self.bucket.name, 0
        with self.bucket.faults():
            client = self.bucket.client
            pages = client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=bucket, Prefix=self.bucket.prefix):
                for begun in page.get("Uploads", ()):
                    if begun["Initiated"] <= latest:
                        client.abort_multipart_upload(
                            Bucket=bucket, Key=begun["Key"], UploadId=begun["UploadId"]
                        )
                        count += 1
        return count

    def _upload(self, name: str, path: Path, digest: str) -> None:
        bucket, key = self.bucket.name, self.bucket.prefix + name
        extra = {**CHECKSUM, "Metadata": {DIGEST: digest}}
        with self._faults(name), _races(name):
            try:
                with TransferManager(self.bucket.client, UPLOAD) as transfers:
                    transfers.upload(str(path), bucket, key, extra_args=extra).result()
            except ClientError as error:
                # Some servers forget an upload that has ended: where that reply was lost, its end cannot be repeated.
                if code_of(error) != "NoSuchUpload" or self._head(name)["Metadata"].get(DIGEST) != digest:
                    raise

    def _fetch(self, name: str, kept: Path) -> None:
        """Fetch an object into a draft, by several requests at a time, and rename it once it is verified."""
        head = self._head(name)
        self.cache.make_room(head["ContentLength"])
        with drafted(kept) as draft:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                flock(descriptor, LOCK_SH)  # else another process, short of room, may take it for nobody's
                self._parts(name, head["ETag"], head["ContentLength"], descriptor)
            finally:
                os.close(descriptor)
            check_digest(name, file_digest(draft), head["Metadata"].get(DIGEST))
            draft.replace(kept)

    def _parts(self, name: str, etag: str, size: int, descriptor: int) -> None:
        fetching = ThreadPoolExecutor(TRANSFERS)
        try:
            for part in [
                fetching.submit(
                    again, partial(self._part, name, etag, slice(at, min(at + PART_BYTES, size)), descriptor)
                )
                for at in range(0, size, PART_BYTES)
            ]:
                part.result()
        finally:
            fetching.shutdown(cancel_futures=True)

    def _part(self, name: str, etag: str, part: slice, descriptor: int) -> None:
        with self._faults(name), _races(name):
            answer = self.bucket.client.get_object(
                **self._at(name), Range=f"bytes={part.start}-{part.stop - 1}", IfMatch=etag
            )
        with closing(answer["Body"]) as body, _whole(name):
            if answer["ContentLength"] != part.stop - part.start:
                raise _damaged(name)
            at = part.start
            while piece := body.read(PIECE_BYTES):
                _write_at(descriptor, piece, at)
                at += len(piece)
        # A name that is there after a loss of power is not looked into again; meanwhile other parts travel.
        os.fdatasync(descriptor)


@contextmanager
def _whole(name: str) -> Iterator[None]:
    """Tell a body that is not what the server's checksum says from one that breaks off."""
    try:
        yield
    except FlexibleChecksumError:
        raise _damaged(name) from None
    except (BotoCoreError, HTTPError) as error:
        raise Unreachable(
            f"the way of {name} from S3 breaks off ({type(error).__name__}): check the network and the server"
        ) from None


@contextmanager
def _races(name: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if status_of(error) in LOST_RACE:
            raise Damaged(f"{name} was changed by another run meanwhile: run it again") from None
        raise


def _damaged(name: str) -> Damaged:
    return Damaged(f"{name} does not come from S3 as it was stored: check the network and the server")


def _write_at(descriptor: int, piece: bytes, at: int) -> None:
    left = memoryview(piece)
    while left:
        count = os.pwrite(descriptor, left, at)
        left, at = left[count:], at + count
