"""Client of S3 for the store and the source: the form of an address, boto3's errors as ours, and retries."""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from random import uniform
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from imaging.errors import RadloopError, UserFault
from imaging.store.protocol import Damaged, Missing, Unreachable
from imaging.store.s3_faults import fault_of_answer, fault_of_exception, fault_of_silence

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef, ObjectTypeDef

T = TypeVar("T")

ADDRESS = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")
"""A bucket's name as S3 allows it, and a prefix."""

TRANSFERS = 8
"""Requests for parts of one object at a time."""

CLIENT = Config(
    connect_timeout=10,
    read_timeout=60,
    tcp_keepalive=True,
    max_pool_connections=2 * TRANSFERS,
    retries={"mode": "standard", "total_max_attempts": 4},
)
"""boto3's own retries last for half a second in all; for a server that restarts there is `with_retries`."""

PATIENCE_S, PAUSE_S, LONGEST_PAUSE_S = 60.0, 0.5, 5.0
"""Limits of `with_retries`: time in all, the first pause, which doubles, and the longest pause."""
TRIES = 5
"""Attempts of `with_retries` where the bytes come damaged."""

NO_REASON = ("301", "400", "403")
"""Codes of an error whose answer has no body."""
CHANGED = ("BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch")
"""Error codes of a server for a body that does not match the checksum of its sender."""


@dataclass(frozen=True)
class Bucket:
    """A bucket and a prefix in it ("" or with a slash at its end), and a client for them.

    boto3 takes endpoint, region and credentials from where it always does: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
    AWS_PROFILE and so on. None of them is stored here, nor travels to another process.
    """

    name: str
    prefix: str

    @classmethod
    def at(cls, address: str) -> "Bucket":
        """Return the bucket of s3://BUCKET/PREFIX; raise UserFault where the address names none."""
        match = ADDRESS.fullmatch(address)
        if match is None:
            raise UserFault(f"{address!r} names no bucket: write s3://BUCKET/PREFIX")
        prefix = (match["prefix"] or "").strip("/")
        return cls(match["bucket"], f"{prefix}/" if prefix else "")

    def __reduce__(self) -> tuple[type["Bucket"], tuple[str, str]]:
        return Bucket, (self.name, self.prefix)

    @cached_property
    def client(self) -> "S3Client":
        """Client that threads may share; use it within `faults`."""
        # At its level DEBUG botocore writes whole requests, with the token of a session in them.
        logging.getLogger("botocore").setLevel(logging.INFO)
        return boto3.session.Session().client("s3", config=CLIENT)

    def listed(self, beginning: str = "") -> Iterator[tuple[str, "ObjectTypeDef"]]:
        """Yield name (below the prefix) and description of each object, by key, a thousand a request."""
        token: dict[str, str] = {}
        while True:
            page = with_retries(partial(self._page, beginning, token))
            for entry in page.get("Contents", ()):
                # Consoles make folders as empty objects.
                if not entry["Key"].endswith("/"):
                    yield entry["Key"].removeprefix(self.prefix), entry
            if not page["IsTruncated"]:
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _page(self, beginning: str, token: Mapping[str, Any]) -> "ListObjectsV2OutputTypeDef":
        with self.faults():
            return self.client.list_objects_v2(Bucket=self.name, Prefix=self.prefix + beginning, **token)

    @contextmanager
    def faults(self, what: str = "an object that was listed") -> Iterator[None]:
        """Turn boto3's errors into ours; their texts may quote keys, and keys may name patients."""
        try:
            yield
        except ClientError as error:
            raise self._refusal(what, error) from None
        except RecursionError:
            # boto3 asks for the bucket's region, and follows a server that redirects that question, too, for ever.
            raise fault_of_answer("PermanentRedirect", 301, self._place, {}) from None
        except (BotoCoreError, OSError, ValueError) as error:
            raise fault_of_exception(error, self._place) or fault_of_silence(error, self._place) from None

    def _refusal(self, what: str, error: ClientError) -> RadloopError:
        code = code_of(error)
        if code in CHANGED:
            return Damaged(f"{what} came to the bucket {self.name} changed ({code}): check the network")
        if code in ("NoSuchKey", "404"):
            return Missing(f"{what} is gone: run it again, or restore it from a copy")
        explained = self._with_reason(error) if code in NO_REASON else error
        return fault_of_answer(
            code_of(explained), status_of(explained), self._place, explained.response.get("Error", {})
        )

    def _with_reason(self, error: ClientError) -> ClientError:
        """Return the error of another request for one whose answer has no body, and so no reason: HEAD."""
        with suppress(BotoCoreError):
            try:
                self.client.list_objects_v2(Bucket=self.name, Prefix=self.prefix, MaxKeys=1)
            except ClientError as other:
                return other
        return error

    @property
    def _place(self) -> str:
        return f"bucket {self.name}"


def with_retries(request: Callable[[], T]) -> T:
    """Return the result of a request, repeated after growing pauses while it ends in Damaged or Unreachable."""
    until, damages, pause_s = time.monotonic() + PATIENCE_S, 0, PAUSE_S
    while True:
        try:
            return request()
        except Damaged:
            damages += 1
            if damages == TRIES:
                raise
        except Unreachable:
            if time.monotonic() > until:
                raise
        # Random, so that not all processes that wait come back at the same moment.
        time.sleep(pause_s * uniform(0.5, 1.0))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def status_of(error: ClientError) -> int:
    """Return the HTTP status of a server's answer, 0 where it has none."""
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def code_of(error: ClientError) -> str:
    """Return the error code of a server's answer, "" where it has none."""
    return error.response.get("Error", {}).get("Code", "")


def nanoseconds(moment: datetime) -> int:
    """Return the time of an object in nanoseconds since 1970; S3 has milliseconds at most.

    >>> from datetime import timezone
    >>> nanoseconds(datetime(1970, 1, 1, 0, 0, 1, 5000, timezone.utc))
    1005000000
    """
    return round(moment.timestamp() * 1000) * 1_000_000
