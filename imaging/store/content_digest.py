"""Content digests in the names of objects: the BLAKE3 digest of an object's bytes is part of its name."""

import hashlib
import re
from pathlib import Path

from blake3 import blake3

from imaging.store.protocol import Damaged

NAMED = re.compile(r"(?:.*/)?(?P<head>[0-9a-f]{2})/(?P<digest>(?P=head)[0-9a-f]{62})\.[a-z0-9]+")


def digest_name(folder: str, digest: str, suffix: str) -> str:
    """Return the name of an object of this digest, in one of 256 folders.

    >>> digest_name("shards", 64 * "a", ".npy")[:14]
    'shards/aa/aaaa'
    """
    return f"{folder}/{digest[:2]}/{digest}{suffix}"


def digest_of(name: str) -> str | None:
    """Return the digest in a name, 64 hex digits; None where the name has none.

    >>> digest_of("shards/aa/" + 64 * "a" + ".npy") == 64 * "a"
    True
    >>> digest_of("datasets/ct/newest")
    """
    match = NAMED.fullmatch(name)
    return match["digest"] if match else None


def bytes_digest(content: bytes | memoryview) -> str:
    """Return the BLAKE3 digest of bytes as hex digits."""
    return blake3(content).hexdigest()


def file_digest(path: Path) -> str:
    """Return the BLAKE3 digest of a file as hex digits, read piece by piece."""
    # A mapped file would count as memory of this process.
    with path.open("rb", buffering=0) as file:
        # The stub of blake3 lacks `block_size`, which hashlib does not use.
        return hashlib.file_digest(file, blake3).hexdigest()  # type: ignore[arg-type]


def check_digest(name: str, digest: str, recorded: str | None = None) -> None:
    """Raise Damaged unless a digest is the one in the name, or else the one that is recorded with the object."""
    if digest != (digest_of(name) or recorded or digest):
        raise Damaged(
            f"{name} is not what was stored (its BLAKE3 is {digest}): restore it from a copy, or check disk and network"
        )
