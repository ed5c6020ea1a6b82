"""Head of a dataset version: what is true of all its rows, the names of its tables, its counts, and its digest."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from imaging.annotations.label_table import LabelReport
from imaging.errors import UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import VariantPolicy

FORMAT = 2
"""Number of the layout that docs/datasets.md describes; no other one is read."""
Labelled = dict[str, dict[str, dict[str, int]]]
"""By split and class, how many `examples` and `patients`."""
COUNTED = ("patient_key", "split", "label")
"""Columns of examples that `count_rows` needs; of refusals it is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many examples of how many patients a version has, how many are labelled, and refused files by reason."""

    examples: int
    patients: int
    labelled: Labelled
    refusals: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionHead:
    """What is true of all rows of a version; `parts` are names in the store by table, `contents` digests of their rows.

    `counts` repeat what the tables say, so that a listing need not read them; None in a version that was made before
    they were kept.
    """

    dataset: str
    digest: str
    spec: PreprocessSpec
    classes: tuple[str, ...]
    key_fingerprint: str
    label_report: LabelReport
    label_level: str
    patient_variants: VariantPolicy = "report"
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    contents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    counts: Counts | None = None
    format: int = FORMAT

    def to_json(self) -> str:
        """Return the head as JSON."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        plain |= {"spec": self.spec.model_dump(mode="json"), "label_report": asdict(self.label_report)}
        # Left out where there are none: a digest is of a head without them, as it was before they were kept.
        del plain["counts"]
        plain |= {"counts": asdict(self.counts)} if self.counts else {}
        plain |= {"parts": dict(self.parts), "contents": dict(self.contents)}
        return json.dumps(plain, indent=1, sort_keys=True)

    def named(self) -> "VersionHead":
        """Return the head with the digest of its version, which covers all that the head says of the content."""
        unnamed = replace(self, digest="", parts={}, counts=None)
        return replace(self, digest=blake3(unnamed.to_json().encode()).hexdigest(length=16))

    def by_content(self) -> dict[str, str]:
        """Return the names of parts by the digests of their rows."""
        return {
            content: name
            for table, names in self.parts.items()
            for content, name in zip(self.contents.get(table, ()), names, strict=False)
        }

    @classmethod
    def from_json(cls, text: str) -> "VersionHead":
        """Return the head of a JSON text; raise UserFault for another format."""
        plain: dict[str, Any] = json.loads(text)
        if plain.get("format") != FORMAT:
            raise UserFault(
                f"the dataset is of format {plain.get('format', 1)} and this program reads format {FORMAT}: "
                "ingest into a new dataset with another --name"
            )
        report = LabelReport(**{name: tuple(values) for name, values in plain.pop("label_report").items()})
        parts, contents = (
            {name: tuple(names) for name, names in plain.pop(key, {}).items()}
            for key in ("parts", "contents")
        )
        counts = Counts(**plain.pop("counts")) if "counts" in plain else None
        plain |= {
            "label_report": report,
            "parts": parts,
            "contents": contents,
            "classes": tuple(plain["classes"]),
            "counts": counts,
        }
        return cls(**plain | {"spec": PreprocessSpec.model_validate(plain["spec"])})


def pointer_name(dataset: str) -> str:
    """Return the name of the pointer to a dataset's newest version."""
    return f"datasets/{dataset}/current"


def head_name(dataset: str, digest: str) -> str:
    """Return the name in the store of the head of a version."""
    return f"datasets/{dataset}/versions/{digest}.json"


def count_rows(examples: pa.Table, refusals: pa.Table) -> Counts:
    """Return the counts of a version's rows."""
    return Counts(
        examples=examples.num_rows,
        patients=pc.count_distinct(examples["patient_key"]).as_py(),
        labelled=_labelled(examples),
        refusals={item["values"]: item["counts"] for item in refusals["reason"].value_counts().to_pylist()},
    )


def _labelled(examples: pa.Table) -> Labelled:
    rows = examples.select(COUNTED)
    rows = rows.filter(pc.and_(pc.is_valid(rows["split"]), pc.is_valid(rows["label"])))
    counted = rows.group_by(["split", "label"]).aggregate(
        [("patient_key", "count"), ("patient_key", "count_distinct")]
    )
    out: Labelled = {}
    for row in counted.sort_by([("split", "ascending"), ("label", "ascending")]).to_pylist():
        numbers = {"examples": row["patient_key_count"], "patients": row["patient_key_count_distinct"]}
        out.setdefault(row["split"], {})[row["label"]] = numbers
    return out
