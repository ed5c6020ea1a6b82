"""Owns the objects below a prefix of an S3 bucket as a source."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from imaging.errors import DataFault, EnvironmentFault, UserFault
from imaging.preprocess import PreprocessSpec
from imaging.sources.names import FETCHED_LIMIT_BYTES
from imaging.sources.patients import Patients
from imaging.sources.protocol import Parcel, SourceFile

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ADDRESS = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")
"""A bucket's name as S3 allows it, and what stands behind it."""

CLIENT = Config(connect_timeout=10, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 4})
"""Three repetitions with backoff; checksums that the server keeps are checked by default."""

REFUSED = (401, 403)


class S3Prefix:
    """Objects whose keys begin with a prefix, as if the prefix was a folder.

    Endpoint, region and credentials are found by boto3 where it always looks: AWS_ENDPOINT_URL,
    AWS_ACCESS_KEY_ID, AWS_PROFILE and so on.
    """

    kind = "s3"

    def __init__(self, address: str, patients: Patients = Patients()) -> None:  # noqa: B008 (frozen)
        match = ADDRESS.fullmatch(address)
        if match is None:
            raise UserFault(f"{address!r} names no bucket: write s3://BUCKET/PREFIX")
        self.bucket, prefix = match["bucket"], (match["prefix"] or "").strip("/")
        self.prefix = f"{prefix}/" if prefix else ""
        self.patients = patients

    def default_spec(self) -> PreprocessSpec:
        """Return the spec of CT in a soft-tissue window, or that of pictures where the table names pictures."""
        return self.patients.default_spec()

    def scan(self) -> Iterator[SourceFile]:
        """List the objects in the order of their keys, a thousand a request; names are relative to the prefix."""
        return self.patients.check(self._list())

    def fetch(self, file: SourceFile) -> Parcel:
        """Get one object, whole or not at all."""
        return self.patients.pack(file, lambda: self._get(file.name))

    @cached_property
    def _client(self) -> "S3Client":
        return boto3.session.Session().client("s3", config=CLIENT)

    def _list(self) -> Iterator[SourceFile]:
        with self._faults():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix
            )
            for page in pages:
                for found in page.get("Contents", ()):
                    # Consoles make folders as empty objects.
                    if not found["Key"].endswith("/"):
                        yield SourceFile(
                            name=found["Key"].removeprefix(self.prefix),
                            size_bytes=found["Size"],
                            mtime_ns=_nanoseconds(found["LastModified"]),
                        )

    def _get(self, name: str) -> bytes:
        with self._faults():
            answer = self._client.get_object(Bucket=self.bucket, Key=self.prefix + name)
            size = answer["ContentLength"]
            if size > FETCHED_LIMIT_BYTES:
                answer["Body"].close()
                raise DataFault(
                    "too-large", f"the object's size is {size} bytes, the limit is {FETCHED_LIMIT_BYTES}"
                )
            content = answer["Body"].read()
        if len(content) != size:
            raise EnvironmentFault(f"S3 sent {len(content)} of {size} bytes of an object: run it again")
        return content

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn boto3's errors into ours; their texts may quote keys, and keys may name patients."""
        try:
            yield
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            raise self._refusal(error.response.get("Error", {}).get("Code", ""), status) from None
        except (NoCredentialsError, PartialCredentialsError):
            raise EnvironmentFault(
                "no credentials for S3 were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            ) from None
        except (BotoCoreError, OSError, ValueError) as error:
            raise EnvironmentFault(
                f"S3 did not answer as it must for the bucket {self.bucket} ({type(error).__name__}): "
                "check the network and AWS_ENDPOINT_URL_S3, and run it again"
            ) from None

    def _refusal(self, code: str, status: int) -> EnvironmentFault | UserFault:
        if code == "NoSuchBucket":
            return UserFault(f"there is no bucket {self.bucket}: correct s3://BUCKET/PREFIX")
        if code == "NoSuchKey":
            return EnvironmentFault("an object that was listed is gone: run it again")
        if status in REFUSED:
            return EnvironmentFault(
                f"S3 refuses access to the bucket {self.bucket} ({code}): check AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, and that they may list and read it"
            )
        return EnvironmentFault(
            f"S3 cannot serve the bucket {self.bucket} ({code}, status {status}): run it again"
        )


def _nanoseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000) * 1_000_000
