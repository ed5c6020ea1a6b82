"""Search of de-identified outputs for the values of their originals, in a worker of the sandbox.

Several objects go together, because they share most of their values, and making a search costs as much as searching.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.proof.contents import Content, object_contents
from imaging.deidentify.proof.pattern_search import Searcher
from imaging.deidentify.proof.patterns import Pattern, patterns
from imaging.deidentify.proof.search_targets import SearchTargets, search_targets
from imaging.dicom.limits import LIMITS
from imaging.dicom.parse import parse
from imaging.errors import DataFault
from imaging.file_io import process_buffer
from imaging.pseudonyms import Pseudonyms

FUNCTION = "imaging.deidentify.proof.output_search:search_outputs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One original value that was found: its place and its kind, never the value itself.

    `tag` is its element in the original, `offset` where it begins in the searched content, in bytes.
    """

    output: str
    kind: str
    tag: int
    encoding: str
    where: str
    offset: int


def search_outputs(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[bytes]]:
    """Search outputs for the values of their originals; a `Function` of the sandbox.

    `setup` has `options` (JSON) and `secret` (hex); `value["objects"]` has the name of each object's output, "" where
    it has none; `blobs` has its original and then its output. The answer has the `hits` and the `digests` of the
    outputs, the `faults` of objects, and `identifiers`: kind, value and tag of each.
    """
    options = DeidentifyOptions.model_validate_json(setup["options"])
    pseudonyms = Pseudonyms(bytes.fromhex(setup["secret"]))
    names = [str(name) for name in value["objects"]]
    remaining = iter(blobs)
    pairs = [(next(remaining), next(remaining) if name else None) for name in names]
    faults: dict[str, str] = {}
    originals: dict[int, SearchTargets] = {}
    for owner, (original, _) in enumerate(pairs):
        try:
            originals[owner] = search_targets(parse(_bytes(original)), options, pseudonyms)
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
            hits += [asdict(hit) for hit in find_hits(name, object_contents(data), searcher, owner)]
        except DataFault as fault:
            faults[str(owner)] = fault.reason
    identifiers = {
        (one.kind, one.value, one.tag): None for target in originals.values() for one in target.identifiers
    }
    return {"hits": hits, "digests": digests, "faults": faults, "identifiers": list(identifiers)}, ()


def all_patterns(originals: Mapping[int, SearchTargets]) -> Iterator[Pattern]:
    """Yield the patterns of all originals; those that hold for every object only once for each identifier."""
    seen: set[tuple[str, str]] = set()
    for owner, targets in originals.items():
        for identifier in targets.identifiers:
            known = (identifier.kind, identifier.value) in seen
            seen.add((identifier.kind, identifier.value))
            for pattern in patterns(identifier, targets.charsets, owner):
                if pattern.owner is not None or not known:
                    yield pattern


def find_hits(
    name: str, contents: Iterable[Content], searcher: Searcher, owner: int | None = None
) -> Iterator[Hit]:
    """Yield each identifier once for each encoding in which it was found."""
    seen: set[tuple[object, ...]] = set()
    for content in contents:
        for pattern, offset in searcher.search(content.data, content.level, owner):
            key = (pattern.kind, pattern.tag, pattern.encoding)
            if key not in seen:
                seen.add(key)
                yield Hit(
                    output=name,
                    kind=pattern.kind,
                    tag=pattern.tag,
                    encoding=pattern.encoding,
                    where=content.where,
                    offset=offset,
                )


def _bytes(content: bytes | Path) -> bytes:
    return bytes(process_buffer().load(content, LIMITS.file_bytes))
