"""Verification of a de-identified folder: what was searched with what outcome, line by line, signed by the key."""

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace

from imaging.deidentify.proof.output_search import Hit
from imaging.pseudonyms import Pseudonyms
from imaging.quantities import quantity

PURPOSE = b"signature of a verification\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The outcome of a search; `signature` is an HMAC of all other fields by the key.

    `outputs` are all files of the destination, `originals` the objects that were read. `searched` counts identifiers by
    kind, those of objects searched together once; `unproven` names outputs of which nothing is known, and why.
    """

    outputs: int
    originals: int
    searched: Mapping[str, int]
    encodings: tuple[str, ...]
    hits: tuple[Hit, ...]
    unproven: tuple[str, ...]
    seconds: float
    edition: str
    profile_sha256: str
    key_fingerprint: str
    options: str
    outputs_sha256: str
    signature: str = ""

    @property
    def clean(self) -> bool:
        """Tell whether nothing was found, nothing was left out, and there was something to search."""
        return not self.hits and not self.unproven and self.originals > 0


def outputs_digest(digests: Iterable[str]) -> str:
    """Return the digest of a set of files from the sorted digests of their bytes, whatever their names."""
    joined = hashlib.sha256()
    for number, digest in enumerate(digests):
        joined.update(f"\n{digest}".encode() if number else digest.encode())
    return joined.hexdigest()


def sign(verification: Verification, pseudonyms: Pseudonyms) -> Verification:
    """Return the verification with its signature: HMAC-SHA-256 of all other fields, which the key can check."""
    content = json.dumps(asdict(replace(verification, signature="")), sort_keys=True)
    digest = hmac.new(pseudonyms.secret, PURPOSE + content.encode(errors="surrogateescape"), hashlib.sha256)
    return replace(verification, signature=digest.hexdigest())


def table_rows(verification: Verification) -> list[tuple[str, str]]:
    """Return the rows of the signed-off table: subject and finding. No row holds an original value."""
    one = verification
    hits_by_kind = Counter(hit.kind for hit in one.hits)
    searched = [
        (f"{kind}s", f"{count:,} searched, {hits_by_kind[kind]} found")
        for kind, count in one.searched.items()
    ]
    options = {
        name: {False: "off", True: "on"}.get(value, value) for name, value in json.loads(one.options).items()
    }
    return [
        ("files of the destination", f"{one.outputs:,}"),
        ("originals read", f"{one.originals:,}"),
        *searched,
        ("written as", ", ".join(one.encodings)),
        ("hits", f"{len(one.hits)} in {quantity(len({hit.output for hit in one.hits}), 'files')}"),
        ("not proven", f"{len(one.unproven)}"),
        ("time", f"{one.seconds:.1f} s"),
        ("profile", f"PS3.15 {one.edition}, sha256 {one.profile_sha256}"),
        ("options", ", ".join(f"{name} {value}" for name, value in options.items())),
        ("key (its fingerprint)", one.key_fingerprint),
        ("sha256 of the sorted BLAKE3 digests of all files", one.outputs_sha256),
        ("verdict", "no original value was found" if one.clean else "NOT CLEAN"),
        ("signature (HMAC-SHA-256 by the key)", one.signature),
    ]
