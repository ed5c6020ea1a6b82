"""Opening of a store by its address: a folder, or a prefix of an S3 bucket."""

import re
from pathlib import Path

from imaging.errors import UserFault
from imaging.store.cache import LIMIT_BYTES, Cache
from imaging.store.folder_store import FolderStore
from imaging.store.protocol import Store

# One slash: a Path makes one of two.
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:/", re.IGNORECASE)


def open_store(place: str | Path, cache: Path, cache_bytes: int = LIMIT_BYTES) -> Store:
    """Return the store in a folder or at s3://BUCKET/PREFIX, without a request and without making a folder.

    Local copies of objects on S3 are below `cache`, at most `cache_bytes` of them. Raises UserFault for any other
    address.
    """
    address = str(place)
    if address.startswith("s3://"):
        # Loaded here: boto3 takes a fifth of a second, which commands over a folder need not wait for.
        from imaging.store.s3_client import Bucket
        from imaging.store.s3_store import S3Store

        return S3Store(Bucket.at(address), Cache(cache, cache_bytes))
    if SCHEME.match(address):
        # An address with a scheme may carry credentials.
        shown = address.partition(":")[0]
        raise UserFault(f"a store at {shown}:... is of no known kind: give a folder, or s3://BUCKET/PREFIX")
    return FolderStore(Path(place).expanduser().resolve())
