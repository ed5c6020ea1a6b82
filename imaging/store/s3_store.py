"""Store below a prefix of an S3 bucket: bytes are verified from end to end, pointers move by conditional writes."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
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
from imaging.store.content_digest import bytes_digest, check_digest, digest_of, file_digest
from imaging.store.durable_file import temporary_beside
from imaging.store.protocol import Damaged, Missing, Stored, Unreachable
from imaging.store.s3_client import (
    TRANSFERS,
    Bucket,
    code_of,
    nanoseconds,
    status_of,
    with_retries,
)

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

PART_BYTES = 8 * 2**20
"""Bytes of a large object in one request; eight requests run at a time."""
PIECE_BYTES = 2**20
"""Bytes of a part that a thread has in memory before it writes them to the disk."""
UPLOAD = TransferConfig(
    multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_request_concurrency=TRANSFERS
)
DIGEST, WRITER = "blake3", "writer"
"""Keys of our metadata on an object: its digest, where its name has none; the writer that moved a pointer."""
CHECKSUM: dict[str, Any] = {"ChecksumAlgorithm": "SHA256"}
"""The server compares the received bytes with this checksum, for each part of a large object alone."""
LOST_RACE = (409, 412)


@dataclass(frozen=True)
class S3Store:
    """A store (`imaging.store.protocol.Store`) below a prefix of a bucket.

    `cache` has the objects that `local` fetched and those that this machine sent, which need not be fetched. A call
    repeats requests that fail, for about a minute: that is enough for a server that restarts.
    """

    bucket: Bucket
    cache: Cache

    def exists(self, name: str) -> bool:
        """Return whether a whole object of this name is there."""
        try:
            with_retries(lambda: self._head(name))
        except Missing:
            return False
        return True

    def read(self, name: str) -> bytes:
        """Return the bytes of an object."""
        return with_retries(lambda: self._get(name)[0])

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Write an object whole, or leave what was visible before."""
        whole = bytes(content)
        with_retries(lambda: self._send(name, whole))
        if digest_of(name) == bytes_digest(whole):
            self.cache.add_bytes(self._copy(name), whole)

    def put(self, name: str, path: Path) -> None:
        """Upload a file, large ones in parts; it becomes the copy in the cache where its name has its digest."""
        path.stat()  # a missing file is no fault of the server, to be retried
        digest = digest_of(name) or file_digest(path)
        with_retries(lambda: self._upload(name, path, digest))
        if digest_of(name):
            self.cache.add_file(self._copy(name), path)
        else:
            path.unlink()

    def local(self, name: str) -> Path:
        """Return a copy in the cache: an object whose name has its digest is fetched once, any other each time."""
        copy = self._copy(name)
        fixed = digest_of(name) is not None
        if not (fixed and self.cache.has(copy)):
            with self.cache.faults(copy), self.cache.fetch_lock(copy):
                if not (fixed and self.cache.has(copy)):
                    with_retries(lambda: self._fetch(name, copy))
        return copy

    def open(self, name: str) -> BinaryIO:
        """Open a copy in the cache; it stays there while it is open."""
        while True:
            # Other processes may remove the copy between fetching and opening.
            if file := self.cache.open(self.local(name)):
                return file

    def names(self, prefix: str = "") -> Iterator[Stored]:
        """List the objects whose names begin with a prefix, a thousand a request."""
        for name, entry in self.bucket.listed(prefix):
            yield Stored(name, entry["Size"], nanoseconds(entry["LastModified"]))

    def remove(self, name: str) -> None:
        """Remove an object, and its copy in this machine's cache."""
        with_retries(lambda: self._delete(name))
        self._copy(name).unlink(missing_ok=True)

    def sweep(self, age_s: float) -> int:
        """Abort multipart uploads and remove unfinished downloads older than `age_s`; return their number."""
        latest = datetime.now(UTC) - timedelta(seconds=age_s)
        return self.cache.sweep(age_s) + with_retries(lambda: self._abort_uploads(latest))

    def pointer(self, name: str) -> str | None:
        """Return the value of a pointer, or None where it was never set."""
        return with_retries(lambda: self._pointer(name))[0]

    def swap(self, name: str, expected: str | None, new: str) -> bool:
        """Move a pointer from `expected` to `new`; False if somebody else moved it first.

        A reply may be lost and the request repeated, which then fails because of its own success: each swap writes
        a random mark of its own into the metadata, and so recognises its own write. Where another swap followed
        before that check, the return value is False too.
        """
        mark = token_hex(16)

        def attempt() -> bool:
            current, etag, writer = self._pointer(name)
            if writer == mark or current != expected:
                return writer == mark
            self._send(
                name, f"{new}\n".encode(), mark, **({"IfMatch": etag} if etag else {"IfNoneMatch": "*"})
            )
            return True

        return with_retries(attempt)

    def _copy(self, name: str) -> Path:
        return self.cache.folder / self.bucket.name / self.bucket.prefix / name

    def _at(self, name: str) -> dict[str, Any]:
        return {"Bucket": self.bucket.name, "Key": self.bucket.prefix + name}

    def _head(self, name: str) -> "HeadObjectOutputTypeDef":
        with self.bucket.faults(name):
            return self.bucket.client.head_object(**self._at(name))

    def _get(self, name: str) -> tuple[bytes, str, str]:
        """Return content, ETag and writer of an object."""
        with self.bucket.faults(name):
            answer = self.bucket.client.get_object(**self._at(name))
        with _body_faults(name):
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
        metadata = {DIGEST: bytes_digest(content), WRITER: writer}
        with self.bucket.faults(name), _lost_races(name):
            self.bucket.client.put_object(
                **self._at(name), Body=content, Metadata=metadata, **CHECKSUM, **condition
            )

    def _delete(self, name: str) -> None:
        with self.bucket.faults(name):
            self.bucket.client.delete_object(**self._at(name))

    def _abort_uploads(self, latest: datetime) -> int:
        bucket, count = self.bucket.name, 0
        with self.bucket.faults():
            client = self.bucket.client
            pages = client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=bucket, Prefix=self.bucket.prefix):
                for upload in page.get("Uploads", ()):
                    if upload["Initiated"] <= latest:
                        client.abort_multipart_upload(
                            Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
                        count += 1
        return count

    def _upload(self, name: str, path: Path, digest: str) -> None:
        bucket, key = self.bucket.name, self.bucket.prefix + name
        extra = {**CHECKSUM, "Metadata": {DIGEST: digest}}
        with self.bucket.faults(name), _lost_races(name):
            try:
                with TransferManager(self.bucket.client, UPLOAD) as transfers:
                    transfers.upload(str(path), bucket, key, extra_args=extra).result()
            except ClientError as error:
                # Some servers forget a completed upload: where that reply was lost, completing cannot be repeated.
                if code_of(error) != "NoSuchUpload" or self._head(name)["Metadata"].get(DIGEST) != digest:
                    raise

    def _fetch(self, name: str, copy: Path) -> None:
        """Fetch an object into a temporary file, by several requests at a time; rename it once it is verified."""
        head = self._head(name)
        self.cache.make_room(head["ContentLength"])
        with temporary_beside(copy) as temporary:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                flock(
                    descriptor, LOCK_SH
                )  # otherwise another process, short of room, may remove it as unused
                self._fetch_parts(name, head["ETag"], head["ContentLength"], descriptor)
            finally:
                os.close(descriptor)
            check_digest(name, file_digest(temporary), head["Metadata"].get(DIGEST))
            temporary.replace(copy)

    def _fetch_parts(self, name: str, etag: str, size: int, descriptor: int) -> None:
        ranges = [slice(start, min(start + PART_BYTES, size)) for start in range(0, size, PART_BYTES)]
        requests = [partial(self._fetch_part, name, etag, one, descriptor) for one in ranges]
        # Where one fails for good, those that have not begun are left out.
        with ThreadPoolExecutor(TRANSFERS) as threads:
            list(threads.map(with_retries, requests))

    def _fetch_part(self, name: str, etag: str, part: slice, descriptor: int) -> None:
        with self.bucket.faults(name), _lost_races(name):
            answer = self.bucket.client.get_object(
                **self._at(name), Range=f"bytes={part.start}-{part.stop - 1}", IfMatch=etag
            )
        with closing(answer["Body"]) as body, _body_faults(name):
            if answer["ContentLength"] != part.stop - part.start:
                raise _damaged(name)
            offset = part.start
            while piece := body.read(PIECE_BYTES):
                _write_at(descriptor, piece, offset)
                offset += len(piece)
        # A copy under its name is not verified again, also after a loss of power; meanwhile other parts are fetched.
        os.fdatasync(descriptor)


@contextmanager
def _body_faults(name: str) -> Iterator[None]:
    """Turn the errors of reading a body into ours: Damaged for a wrong checksum, Unreachable for a lost connection."""
    try:
        yield
    except FlexibleChecksumError:
        raise _damaged(name) from None
    except (BotoCoreError, HTTPError) as error:
        raise Unreachable(
            f"the way of {name} from S3 breaks off ({type(error).__name__}): check the network and the server"
        ) from None


@contextmanager
def _lost_races(name: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if status_of(error) in LOST_RACE:
            raise Damaged(f"{name} was changed by another run meanwhile: run it again") from None
        raise


def _damaged(name: str) -> Damaged:
    return Damaged(f"{name} does not come from S3 as it was stored: check the network and the server")


def _write_at(descriptor: int, piece: bytes, offset: int) -> None:
    left = memoryview(piece)
    while left:
        count = os.pwrite(descriptor, left, offset)
        left, offset = left[count:], offset + count
