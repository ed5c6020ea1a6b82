"""Owns what a worker of the sandbox proves of some originals and their outputs: no value of the ones is in the others.

Several objects go together, because they share most of their values, and making a search costs as much as searching.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from imaging.buffer import FileBuffer
from imaging.deidentify.identity.identifiers import Identifier
from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.proof.object_pieces import object_pieces
from imaging.deidentify.proof.patterns import Pattern, patterns
from imaging.deidentify.proof.pieces import Piece
from imaging.deidentify.proof.search import Searcher
from imaging.deidentify.proof.sought import Sought, sought
from imaging.dicom.limits import LIMITS
from imaging.dicom.parse import parse
from imaging.errors import DataFault
from imaging.pseudonyms import Pseudonyms

FUNCTION = "imaging.deidentify.proof.originals:prove_parcel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One original value that was found: where and of which kind, never the value itself.

    `tag` is where it stood in the original, `offset` where it begins in what was searched, in bytes.
    """

    output: str
    kind: str
    tag: int
    encoding: str
    where: str
    offset: int


def prove_parcel(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[bytes]]:
    """Search outputs for the values of their originals; a `Function` of the sandbox.

    `setup` has `options` (JSON) and `secret` (hex); `value["objects"]` has for each object the names of its output,
    or "" where it has none; `blobs` has its original and then its output. The answer has the `hits` and the `digests`
    of the outputs, the `faults` of objects, and `sought`: kind, value and tag of each identifier.
    """
    options = DeidentifyOptions.model_validate_json(setup["options"])
    pseudonyms = Pseudonyms(bytes.fromhex(setup["secret"]))
    names = [str(name) for name in value["objects"]]
    left = iter(blobs)
    pairs = [(next(left), next(left) if name else None) for name in names]
    faults: dict[str, str] = {}
    originals: dict[int, Sought] = {}
    for owner, (original, _) in enumerate(pairs):
        try:
            originals[owner] = sought(parse(_bytes(original)), options, pseudonyms)
        except DataFault as fault:
            faults[str(owner)] = fault.reason
    searcher = Searcher(all_patterns(originals) if any(names) else ())
    hits, digests = [], []
    for owner, name in enumerate(names):
        output = pairs[owner][1]
        if output is None or owner not in originals:
            continue
        data = _bytes(output)
        digests.append([name, blake3(data).hexdigest()])
        try:
            hits += [asdict(hit) for hit in find(name, object_pieces(data), searcher, owner)]
        except DataFault as fault:
            faults[str(owner)] = fault.reason
    told = {(one.kind, one.value, one.tag): None for found in originals.values() for one in found.identifiers}
    return {"hits": hits, "digests": digests, "faults": faults, "sought": list(told)}, ()


def all_patterns(originals: Mapping[int, Sought]) -> Iterator[Pattern]:
    """Yield the patterns of all originals; of an identifier that several have, only once what is not one's own."""
    seen: set[tuple[str, str]] = set()
    for owner, found in originals.items():
        for identifier in found.identifiers:
            known = (identifier.kind, identifier.value) in seen
            seen.add((identifier.kind, identifier.value))
            for pattern in patterns(identifier, found.charsets, owner):
                if pattern.owner is not None or not known:
                    yield pattern


def find(name: str, among: Iterable[Piece], searcher: Searcher, owner: int | None = None) -> Iterator[Hit]:
    """Yield each identifier once for each encoding in which it was found."""
    seen: set[tuple[object, ...]] = set()
    for piece in among:
        for found in searcher.search(piece.data, piece.level, owner):
            told = (found.pattern.kind, found.pattern.tag, found.pattern.encoding)
            if told not in seen:
                seen.add(told)
                yield Hit(
                    output=name,
                    kind=found.pattern.kind,
                    tag=found.pattern.tag,
                    encoding=found.pattern.encoding,
                    where=piece.where,
                    offset=found.offset,
                )


def kinds(identifiers: Iterable[Identifier]) -> Counter[str]:
    """Count identifiers by kind."""
    return Counter(identifier.kind for identifier in identifiers)


def _bytes(content: bytes | Path) -> bytes:
    if isinstance(content, bytes):
        return content
    return bytes(FileBuffer().load(content, LIMITS.file_bytes))
