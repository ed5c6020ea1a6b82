"""Owns the keyed pseudonyms that stand for identifiers everywhere beyond ingest."""

import hashlib
import hmac
import os
import secrets
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from imaging.errors import EnvironmentFault

Level = Literal["patient", "study", "series", "instance", "file"]

KEY_BYTES = 32
DIGITS = 32
"""Hex digits of a pseudonym: 128 bits, so that 10 million instances do not collide."""


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """HMAC-SHA-256 under one secret key: the same identifier maps to the same pseudonym on every night."""

    secret: bytes = field(repr=False)

    def key(self, level: Level, identifier: str) -> str:
        """Return the pseudonym of an identifier; levels never share pseudonyms.

        >>> Pseudonyms(b"k").key("patient", "P1") == Pseudonyms(b"k").key("study", "P1")
        False
        """
        # File names need not be UTF-8: what os.fsdecode could not read comes as surrogates.
        message = f"{level}\0{identifier.strip()}".encode(errors="surrogateescape")
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()[:DIGITS]

    @property
    def fingerprint(self) -> str:
        """Names the key without giving it away, so that a dataset knows which key it was made with."""
        return self.key("file", "fingerprint of the key")[:16]


def load_pseudonyms(path: Path) -> Pseudonyms:
    """Read the key file, or make it once; refuse a key that others on the machine can read."""
    if not path.exists():
        _create(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise EnvironmentFault(
            f"{path} has mode {mode:04o} and may be read by others; the limit is 0600: chmod 600 {path}"
        )
    secret = path.read_bytes()
    if len(secret) != KEY_BYTES:
        raise EnvironmentFault(
            f"{path} holds {len(secret)} bytes and must hold {KEY_BYTES}: restore it from your backup; "
            "a new key would turn every known patient into a new one"
        )
    return Pseudonyms(secret)


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Readable by its owner alone from the first moment.
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".draft-")
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    # A link, unlike a rename, never replaces the key that another process made meanwhile.
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        Path(draft).unlink()
