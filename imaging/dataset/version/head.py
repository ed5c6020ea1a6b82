"""Head of a dataset version: what is true of all its rows, the names of its tables, its counts, and its digest."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3
from numpy.typing import NDArray

from imaging.annotations.finding_table import SIDES
from imaging.annotations.label_join import LabelReport
from imaging.dataset.tables.schemas import TABLES
from imaging.errors import UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import VariantPolicy
from imaging.release_compatibility import canonical, check_release, log_once, log_unknown, newer, read_config

FORMAT = 2
"""Number of the layout that docs/datasets.md describes; an older one is upgraded when it is read, see UPGRADES."""
LATER = ("counts", "findings", "lines_of_others", "mask_classes", "needs")
"""Fields that came after format 2: not written where they are empty."""
Labelled = dict[str, dict[str, dict[str, int]]]
"""By split and class, how many `examples` and `patients`."""
COUNTED = ("patient_key", "split", "label", "label_fault")
"""Columns of examples that `count_rows` needs; of refusals it is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many examples of how many patients a version has, how many are labelled, and refused files by reason.

    `labelled` counts by split and class ("" where there are findings or masks instead), `findings` by split and
    finding, or class of masks, how many examples and patients have it and have it not, and of how many examples it is
    unknown.
    """

    examples: int
    patients: int
    labelled: Labelled
    refusals: Mapping[str, int]
    findings: Labelled = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the counts as plain values; what came after release 0.1.0 is left out where there is none."""
        return {name: value for name, value in asdict(self).items() if value or name != "findings"}


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionHead:
    """What is true of all rows of a version; `parts` are names in the store by table, `contents` digests of their rows.

    `counts` repeat what the tables say, so that a listing need not read them; None in a version that was made before
    they were kept. `findings` are names that may be present together, where there are no `classes`; `mask_classes` are
    those of masks, of which the first is number 1, where there are neither. `lines_of_others` are lines of the label
    table that contradict the image which they name. `needs` is the oldest release that reads the version rightly, ""
    where each one does. `unknown` are fields that a newer release has added, which change nothing where `needs` is met.
    """

    dataset: str
    digest: str
    spec: PreprocessSpec
    classes: tuple[str, ...]
    key_fingerprint: str
    label_report: LabelReport
    label_level: str
    findings: tuple[str, ...] = ()
    mask_classes: tuple[str, ...] = ()
    lines_of_others: tuple[int, ...] = ()
    patient_variants: VariantPolicy = "report"
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    contents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    counts: Counts | None = None
    format: int = FORMAT
    needs: str = ""
    unknown: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the head as JSON."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        plain |= {"spec": canonical(self.spec), "label_report": asdict(self.label_report)}
        plain |= {"parts": dict(self.parts), "contents": dict(self.contents)}
        plain["counts"] = self.counts and self.counts.as_json()
        unknown = plain.pop("unknown")
        # What came later is left out where there is none: the digest of a head that was made before stays what it is.
        written = {name: value for name, value in plain.items() if value or name not in LATER}
        return json.dumps(written | unknown, indent=1, sort_keys=True)

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
        """Return the head of a JSON text; raise UserFault, with the release to install, for one of a newer release."""
        plain: dict[str, Any] = {"format": 1, **json.loads(text)}
        what, needs = f"dataset {plain['dataset']!r}", plain.get("needs", "")
        if plain["format"] > FORMAT:
            raise UserFault(newer(what, f"is of format {plain['format']}", needs))
        check_release(what, needs)
        for number in range(plain["format"], FORMAT):
            plain = UPGRADES[number](plain)
        unknown = {name: plain.pop(name) for name in plain.keys() - cls.__dataclass_fields__.keys()}
        if unknown:
            log_unknown(what, ", ".join(sorted(unknown)))
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
            "findings": tuple(plain.get("findings", ())),
            "mask_classes": tuple(plain.get("mask_classes", ())),
            "lines_of_others": tuple(plain.get("lines_of_others", ())),
            "counts": counts,
            "spec": read_config(PreprocessSpec, plain["spec"], what, needs=needs),
            "unknown": unknown,
        }
        return cls(**plain)


def _from_format_1(plain: dict[str, Any]) -> dict[str, Any]:
    """Return a head that keeps the split of every patient and nothing else: the next ingest prepares the images again.

    Format 1 (until 2026-11-22) had tables of its own for each version; its rows lack what later nights compare by.
    """
    log_once(
        f"dataset {plain['dataset']!r} is of format 1: the next ingest prepares its images again, and every patient "
        "keeps its split"
    )
    splits = f"datasets/{plain['dataset']}/versions/{plain['digest']}/splits.parquet"
    return plain | {"parts": dict.fromkeys(TABLES, ()) | {"splits": (splits,)}, "label_report": {}}


UPGRADES: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_format_1}
"""For each older format, the function that makes a head of it one of the next format."""


def pointer_name(dataset: str) -> str:
    """Return the name of the pointer to a dataset's newest version."""
    return f"datasets/{dataset}/current"


def head_name(dataset: str, digest: str) -> str:
    """Return the name in the store of the head of a version."""
    return f"datasets/{dataset}/versions/{digest}.json"


def count_rows(
    examples: pa.Table, refusals: pa.Table, findings: NDArray[np.int8], names: Sequence[str]
) -> Counts:
    """Return the counts of a version's rows; `findings` (examples, names) are theirs, or classes of masks."""
    return Counts(
        examples=examples.num_rows,
        patients=pc.count_distinct(examples["patient_key"]).as_py(),
        labelled=_labelled(examples),
        refusals={item["values"]: item["counts"] for item in refusals["reason"].value_counts().to_pylist()},
        findings=_counted_findings(examples, findings, names) if names else {},
    )


def _labelled(examples: pa.Table) -> Labelled:
    rows = examples.select(COUNTED)
    rows = rows.filter(pc.and_(pc.is_valid(rows["split"]), pc.is_null(rows["label_fault"])))
    rows = rows.set_column(2, "label", pc.fill_null(rows["label"], ""))
    counted = rows.group_by(["split", "label"]).aggregate(
        [("patient_key", "count"), ("patient_key", "count_distinct")]
    )
    out: Labelled = {}
    for row in counted.sort_by([("split", "ascending"), ("label", "ascending")]).to_pylist():
        numbers = {"examples": row["patient_key_count"], "patients": row["patient_key_count_distinct"]}
        out.setdefault(row["split"], {})[row["label"]] = numbers
    return out


def _counted_findings(examples: pa.Table, findings: NDArray[np.int8], names: Sequence[str]) -> Labelled:
    splits = examples["split"].combine_chunks().dictionary_encode()
    patients = np.asarray(examples["patient_key"].combine_chunks().dictionary_encode().indices)
    split_of = np.asarray(splits.indices.fill_null(-1))
    labelled = np.asarray(pc.is_null(examples["label_fault"]), np.bool_)
    out: Labelled = {}
    for number, split in sorted(enumerate(splits.dictionary.to_pylist()), key=lambda one: one[1]):
        rows = np.flatnonzero((split_of == number) & labelled)
        here, owners = findings[rows], patients[rows]
        for name, column in zip(names, here.T, strict=True):
            counts = {side: int((column == value).sum()) for side, value in SIDES.items()}
            for side in ("present", "absent"):
                counts[f"patients_{side}"] = len(np.unique(owners[column == SIDES[side]]))
            out.setdefault(split, {})[name] = counts
    return out
