"""Owns the proof of a de-identified folder: every original identifying value is looked for in every byte of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imaging.deidentify.pseudonyms import Pseudonyms
from imaging.sources.protocol import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One original value that was found: where and of which kind, never the value itself."""

    output: str
    kind: str
    tag: int
    encoding: str
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was searched for what, with what outcome; `signature` is an HMAC over the rest by the key.

    `unproven` are outputs whose original is gone or can no longer be read, so that nothing is known of them.
    """

    outputs: int
    originals: int
    searched: Mapping[str, int]
    encodings: tuple[str, ...]
    hits: tuple[Hit, ...]
    unproven: tuple[str, ...]
    seconds: float = field(compare=False)
    edition: str
    profile_sha256: str
    key_fingerprint: str
    options: str
    outputs_sha256: str
    signature: str = ""

    @property
    def clean(self) -> bool:
        """Whether nothing was found and nothing was left out."""
        return not self.hits and not self.unproven and self.outputs > 0


def verify(
    destination: Path, source: Source, pseudonyms: Pseudonyms, workers: int | None = None
) -> Verification:
    """Search the outputs below `destination` for the identifiers of their originals in `source`.

    Raises UserFault where the destination was made with another key or holds no record of a de-identification.
    """
    raise NotImplementedError
