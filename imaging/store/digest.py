"""Owns names that say what they name: the BLAKE3 digest of an object's bytes stands in its name."""

import hashlib
import re
from pathlib import Path

from blake3 import blake3

from imaging.store.protocol import Damaged

NAMED = re.compile(r"(?:.*/)?(?P<head>[0-9a-f]{2})/(?P<digest>(?P=head)[0-9a-f]{62})\.[a-z0-9]+")


def digest_name(folder: str, digest: str, suffix: str) -> str:
    """Return where an object of this digest lives, in one of 256 folders.

    >>> digest_name("shards", 64 * "a", ".npy")[:14]
    'shards/aa/aaaa'
    """
    return f"{folder}/{digest[:2]}/{digest}{suffix}"


def digest_of(name: str) -> str | None:
    """Return the digest that a name says its content has, 64 hex digits; None where it says none.

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
    """Return the BLAKE3 digest of a file as hex digits; a piece of it is in memory at a time."""
    # A mapped file would count as memory of this process.
    with path.open("rb", buffering=0) as file:
        # What the stub of blake3 lacks (`block_size`), nobody asks for.
        return hashlib.file_digest(file, blake3).hexdigest()  # type: ignore[arg-type]


def check_digest(name: str, found: str, told: str | None = None) -> None:
    """Raise Damaged unless a digest is the one in the name, or else the one told beside the object."""
    if found != (digest_of(name) or told or found):
        raise Damaged(
            f"{name} is not what was stored (its BLAKE3 is {found}): restore it from a copy, or check disk and network"
        )
