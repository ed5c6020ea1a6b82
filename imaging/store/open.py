"""Owns which store an address is."""

import re
from pathlib import Path

from imaging.errors import UserFault
from imaging.store.cache import LIMIT_BYTES, Cache
from imaging.store.folder import FolderStore
from imaging.store.protocol import Store

# One slash: a Path makes one of two.
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:/", re.IGNORECASE)


def open_store(place: str | Path, cache: Path, cache_bytes: int = LIMIT_BYTES) -> Store:
    """Return the store in a folder or at s3://BUCKET/PREFIX; nobody is asked and nothing is made yet.

    What must be mapped and lies on S3 is kept below `cache`, at most `cache_bytes` of it. Raises UserFault for any
    other address.
    """
    address = str(place)
    if address.startswith("s3://"):
        # Loaded here: boto3 takes a fifth of a second, which commands over a folder need not wait for.
        from imaging.store.s3 import S3Store
        from imaging.store.s3_client import Bucket

        return S3Store(Bucket.at(address), Cache(cache, cache_bytes))
    if SCHEME.match(address):
        # An address with a scheme may carry credentials.
        shown = address.partition(":")[0]
        raise UserFault(f"a store at {shown}:... is of no known kind: give a folder, or s3://BUCKET/PREFIX")
    return FolderStore(Path(place).expanduser().resolve())
