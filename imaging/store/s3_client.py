"""Owns what all that talks to S3 share: the client, the form of an address, and boto3's errors as ours."""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from http import HTTPStatus
from random import uniform
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from imaging.errors import EnvironmentFault, RadloopError, UserFault
from imaging.store.protocol import Damaged, Missing

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef, ObjectTypeDef

T = TypeVar("T")

ADDRESS = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")
"""A bucket's name as S3 allows it, and what stands behind it."""

TRANSFERS = 8
"""Requests for parts of one object at a time."""

CLIENT = Config(
    connect_timeout=10,
    read_timeout=60,
    tcp_keepalive=True,
    max_pool_connections=2 * TRANSFERS,
    retries={"mode": "standard", "total_max_attempts": 4},
)
"""Boto3's own repetitions last for half a second in all; for a server that restarts there is `again`."""

PATIENCE_S, PAUSE_S, LONGEST_PAUSE_S = 60.0, 0.5, 5.0
"""So long `again` waits for a server; its first pause, which doubles, and the longest."""
TRIES = 5
"""How often `again` takes what comes damaged."""

REFUSED = (401, 403)
CHANGED = ("BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch")
"""What a server says of a body that is not what its sender took the checksum of."""


class Unreachable(EnvironmentFault):
    """A server did not answer, or said that it cannot: it may in a while."""


@dataclass(frozen=True)
class Bucket:
    """A bucket and a prefix in it ("" or with a slash at its end), and a client for them.

    Endpoint, region and credentials are found by boto3 where it always looks: AWS_ENDPOINT_URL,
    AWS_ACCESS_KEY_ID, AWS_PROFILE and so on. None of them is kept here, nor travels to another process.
    """

    name: str
    prefix: str

    @classmethod
    def at(cls, address: str) -> "Bucket":
        """Return what s3://BUCKET/PREFIX names; raise UserFault where it names no bucket."""
        match = ADDRESS.fullmatch(address)
        if match is None:
            raise UserFault(f"{address!r} names no bucket: write s3://BUCKET/PREFIX")
        prefix = (match["prefix"] or "").strip("/")
        return cls(match["bucket"], f"{prefix}/" if prefix else "")

    def __reduce__(self) -> tuple[type["Bucket"], tuple[str, str]]:
        return Bucket, (self.name, self.prefix)

    @cached_property
    def client(self) -> "S3Client":
        """The client, which threads may share; use it within `faults`."""
        # At its level DEBUG botocore writes whole requests, with the token of a session in them.
        logging.getLogger("botocore").setLevel(logging.INFO)
        return boto3.session.Session().client("s3", config=CLIENT)

    def listed(self, beginning: str = "") -> Iterator[tuple[str, "ObjectTypeDef"]]:
        """Yield name (below the prefix) and description of each object, by key, a thousand a request."""
        token: dict[str, str] = {}
        while True:
            page = again(partial(self._page, beginning, token))
            for found in page.get("Contents", ()):
                # Consoles make folders as empty objects.
                if not found["Key"].endswith("/"):
                    yield found["Key"].removeprefix(self.prefix), found
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
        except (NoCredentialsError, PartialCredentialsError):
            raise EnvironmentFault(
                "no credentials for S3 were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            ) from None
        except (BotoCoreError, OSError, ValueError) as error:
            raise Unreachable(
                f"S3 did not answer as it must for the bucket {self.name} ({type(error).__name__}): "
                "check the network and AWS_ENDPOINT_URL_S3, and run it again"
            ) from None

    def _refusal(self, what: str, error: ClientError) -> RadloopError:
        code, status = code_of(error), status_of(error)
        if code == "NoSuchBucket":
            return UserFault(f"there is no bucket {self.name}: correct s3://BUCKET/PREFIX")
        if code in CHANGED:
            return Damaged(f"{what} came to the bucket {self.name} changed ({code}): check the network")
        if status in REFUSED:
            return EnvironmentFault(
                f"S3 refuses access to the bucket {self.name} ({code}): check AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, and that they may list, read and, for a store, write it"
            )
        if code in ("NoSuchKey", "404"):
            return Missing(f"{what} is gone: run it again, or restore it from a copy")
        passing = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS
        return (Unreachable if passing else EnvironmentFault)(
            f"S3 cannot serve the bucket {self.name} ({code}, status {status}): run it again"
        )


def again(work: Callable[[], T]) -> T:
    """Repeat what the network or a server spoiled, after growing pauses; in the end its fault is raised."""
    until, damages, pause_s = time.monotonic() + PATIENCE_S, 0, PAUSE_S
    while True:
        try:
            return work()
        except Damaged:
            damages += 1
            if damages == TRIES:
                raise
        except Unreachable:
            if time.monotonic() > until:
                raise
        # Not all who wait come back at the same moment.
        time.sleep(pause_s * uniform(0.5, 1.0))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def status_of(error: ClientError) -> int:
    """Return the status that a server answered with, 0 where it had none."""
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def code_of(error: ClientError) -> str:
    """Return what a server calls the error; its status, where it did not say."""
    return error.response.get("Error", {}).get("Code", "")


def nanoseconds(moment: datetime) -> int:
    """Return the time of an object as file systems count it; S3 knows milliseconds at most.

    >>> from datetime import timezone
    >>> nanoseconds(datetime(1970, 1, 1, 0, 0, 1, 5000, timezone.utc))
    1005000000
    """
    return round(moment.timestamp() * 1000) * 1_000_000
