"""Objects below a prefix of an S3 bucket as a source."""

from collections.abc import Iterator

from imaging.errors import DataFault, EnvironmentFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.sources.patients import Patients
from imaging.sources.protocol import FETCHED_LIMIT_BYTES, Payload, SourceFile
from imaging.store.s3_client import Bucket, nanoseconds


class S3Prefix:
    """Objects whose keys begin with a prefix, as if the prefix was a folder; see `Bucket` for its credentials."""

    kind = "s3"

    def __init__(self, address: str, patients: Patients = Patients()) -> None:  # noqa: B008 (frozen)
        self.bucket = Bucket.at(address)
        self.patients = patients

    def default_spec(self) -> PreprocessSpec:
        """Return the spec of CT in a soft-tissue window, or that of pictures where the table names pictures."""
        return self.patients.default_spec()

    def scan(self) -> Iterator[SourceFile]:
        """List the objects in the order of their keys, a thousand a request; names are relative to the prefix."""
        return self.patients.checked(self._list())

    def fetch(self, file: SourceFile) -> Payload:
        """Get one object, whole or not at all."""
        return self.patients.payload(file, lambda: self._get(file.name))

    def _list(self) -> Iterator[SourceFile]:
        for name, entry in self.bucket.listed():
            yield SourceFile(
                name=name,
                size_bytes=entry["Size"],
                mtime_ns=nanoseconds(entry["LastModified"]),
                tag=entry.get("ETag", "").strip('"'),
            )

    def _get(self, name: str) -> bytes:
        with self.bucket.faults():
            answer = self.bucket.client.get_object(Bucket=self.bucket.name, Key=self.bucket.prefix + name)
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
