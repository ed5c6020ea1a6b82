"""Dataset versions: how one is opened, which of its rows may be read, and whether a model can be trained on it."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.dataset.split.shares import SPLITS
from imaging.dataset.split.test_lock import LOCKED, record_read
from imaging.dataset.tables.annotation_rows import class_rows, finding_array
from imaging.dataset.tables.mask_rows import SPACING_COLUMNS, class_presence, model_spacings, rows_of_masks
from imaging.dataset.tables.schemas import TABLES
from imaging.dataset.tables.table_files import READERS, read_part, read_parts
from imaging.dataset.version.example_set import COLUMNS, ExampleMasks, ExampleSet
from imaging.dataset.version.head import COUNTED, Counts, VersionHead, count_rows, head_name, pointer_name
from imaging.errors import UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.quantities import quantity
from imaging.store.protocol import Damaged, Store


@dataclass(frozen=True)
class DatasetVersion:
    """One immutable version of a dataset in a store."""

    store: Store
    head: VersionHead

    @property
    def digest(self) -> str:
        """The name of this version: the digest of its content."""
        return self.head.digest

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in their order; of two, the second is the positive one."""
        return self.head.classes

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings, of which an image may have several; a version has them or classes."""
        return self.head.findings

    @property
    def mask_classes(self) -> tuple[str, ...]:
        """The classes of the masks, of which the first is number 1; a version has them, findings or classes."""
        return self.head.mask_classes

    @property
    def spec(self) -> PreprocessSpec:
        """How the images were prepared."""
        return self.head.spec

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return one of `imaging.dataset.tables.schemas.TABLES`, or some columns of it."""
        # A table that came after the version was made is empty.
        return read_parts(self.store, self.head.parts.get(name, ()), TABLES[name], columns)

    def annotations(self) -> pa.Table:
        """Return all that is known of the images as rows of the table `annotations`, their labels too.

        Labels are stored with the examples, in the versions of every release: they are the kind CLASS.
        """
        labels = class_rows(self.table("examples", ["instance_key", "label"]))
        return pa.concat_tables([labels, self.table("annotations")])

    def findings_of(self, instance_keys: pa.ChunkedArray) -> NDArray[np.int8]:
        """Return the findings of images (n, findings): 1 present, 0 absent, -1 unknown; raise Missing or Damaged."""
        if not self.findings:
            return np.empty((len(instance_keys), 0), np.int8)
        columns = ["instance_key", "target", "kind", "value"]
        with ThreadPoolExecutor(READERS) as readers:
            parts = readers.map(
                lambda name: read_part(self.store, name, TABLES["annotations"], columns),
                self.head.parts.get("annotations", ()),
            )
            return finding_array(instance_keys, parts, self.findings)

    def mask_rows(self) -> pa.Table:
        """Return the rows of the table `annotations` that are about masks, the refused ones too."""
        if not self.mask_classes:
            return TABLES["annotations"].empty_table()
        return rows_of_masks(self.table("annotations"))

    def splits(self) -> dict[str, str]:
        """Return the split of each patient for whom one was ever drawn; where the source fixes them, of none."""
        table = self.table("splits")
        return dict(zip(table["patient_key"].to_pylist(), table["split"].to_pylist(), strict=True))

    def examples(self, split: str) -> ExampleSet:
        """Return the labelled examples of a split; raise UserFault for the locked one."""
        if split == LOCKED:
            raise UserFault(
                f"the patients of split {LOCKED!r} are locked away for the verdict, and nothing is trained on them: "
                "take 'train' or 'val'"
            )
        return self._split(split)

    def test_examples(self, reader: str) -> ExampleSet:
        """Return the labelled examples of the test patients; that `reader` read them is recorded and counted."""
        examples = self._split(LOCKED)
        record_read(self.store, self.head.dataset, self.digest, reader, len(examples))
        return examples

    def examples_of(self, instance_keys: Sequence[str] | NDArray[np.str_]) -> ExampleSet:
        """Return the examples of these instances, in their order, whatever their split.

        Raises UserFault if this version does not have them all.
        """
        wanted = pa.array(instance_keys, pa.string())
        table = self.table("examples", self._columns)
        at = pc.index_in(wanted, value_set=table["instance_key"])
        if at.null_count:
            raise UserFault(
                f"{at.null_count} of {len(wanted)} test images cannot be prepared with specification "
                f"{self.spec.digest}: compare models of one preprocessing, or start another with --name"
            )
        return self._example_set(table.take(at))

    def unit_numbers(self, examples: ExampleSet, over: str) -> NDArray[np.int64]:
        """Return the number of the series, study or patient of each example (n,), in the order of their first ones.

        Images of two patients are never of one unit, whatever UIDs their files have: intervals draw whole patients.
        """
        _, patients = np.unique(examples.patient_keys, return_inverse=True)
        units = patients
        if over != "patient":
            table = self.table("examples", ["instance_key", f"{over}_key"])
            at = pc.index_in(pa.array(examples.instance_keys, pa.string()), value_set=table["instance_key"])
            keys = table[f"{over}_key"].take(at).combine_chunks().dictionary_encode().indices
            units = keys.to_numpy().astype(np.int64) * (patients.max(initial=0) + 1) + patients
        _, first, numbers = np.unique(units, return_index=True, return_inverse=True)
        return np.asarray(np.argsort(np.argsort(first))[numbers], np.int64)

    def _split(self, split: str) -> ExampleSet:
        table = self.table("examples", [*self._columns, "split", "label_fault"])
        return self._example_set(
            table.filter(pc.and_(pc.equal(table["split"], split), pc.is_null(table["label_fault"])))
        )

    def _example_set(self, table: pa.Table) -> ExampleSet:
        findings = self.findings_of(table["instance_key"])
        examples = ExampleSet.of(self.store, table, self.classes, self.digest, findings)
        if not self.mask_classes:
            return examples
        rows = self.mask_rows()
        masks = ExampleMasks.of(self.store, table["instance_key"], rows, self.spec.shape)
        known = class_presence(table["instance_key"], rows, len(self.mask_classes))
        return replace(
            examples,
            drawn=masks,
            unknown_classes=known < 0,
            spacings_mm=model_spacings(table, self.spec),
        )

    @property
    def _columns(self) -> list[str]:
        return [*COLUMNS, *(SPACING_COLUMNS if self.mask_classes else ())]

    @cached_property
    def counts(self) -> Counts:
        """How many rows it has, as its head says; where the head does not, the tables are read."""
        return self.head.counts or self.count()

    def count(self) -> Counts:
        """Return the counts of the tables' rows."""
        rows = self.table("examples", ["instance_key", *COUNTED])
        refusals = self.table("quarantine", ["reason"])
        if self.mask_classes:
            known = class_presence(rows["instance_key"], self.mask_rows(), len(self.mask_classes))
            return count_rows(rows, refusals, known, self.mask_classes)
        return count_rows(rows, refusals, self.findings_of(rows["instance_key"]), self.findings)

    def refusals_by_reason(self) -> Mapping[str, int]:
        """Return how many files each reason refused, the most first."""
        return dict(sorted(self.counts.refusals.items(), key=lambda item: -item[1]))


def open_version(store: Store, dataset: str, digest: str) -> DatasetVersion:
    """Open a version by its digest."""
    # The second one is that of format 1.
    names = (head_name(dataset, digest), f"datasets/{dataset}/versions/{digest}/version.json")
    name = next(filter(store.exists, names), "")
    if not name:
        raise UserFault(
            f"dataset {dataset!r} has no version {digest}: `radloop dataset list` shows which it has"
        )
    try:
        return DatasetVersion(store, VersionHead.from_json(store.read(name).decode()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(
            f"{name} of the store is damaged ({type(error).__name__}): restore it from a copy, or ingest into a new "
            "dataset with another --name"
        ) from None


def newest_version(store: Store, dataset: str) -> DatasetVersion | None:
    """Open the newest version of a dataset, or return None where there is none yet."""
    digest = store.pointer(pointer_name(dataset))
    return open_version(store, dataset, digest) if digest else None


class EmptySplitError(UserFault):
    """A class without a patient in one of the splits: a version may stand so, and nothing can be trained on it."""


def check_trainable(version: DatasetVersion) -> None:
    """Raise UserFault for fewer than two classes, and EmptySplitError for a class without a patient in each split.

    Of a finding there must be patients who have it and patients who have it not, of a class of masks patients in whose
    masks it has a pixel.
    """
    if version.findings:
        _check_findings(version)
        return
    if version.mask_classes:
        _check_mask_classes(version)
        return
    counts = version.counts.labelled
    if len(version.classes) < 2:
        labels = f"only {version.classes[0]!r}" if version.classes else "no label at all"
        raise UserFault(
            f"dataset {version.head.dataset!r} has {labels} on its images and training needs two classes or more: "
            "check the label table and its label column, and which labels count as missing (--missing)"
        )
    for split in SPLITS:
        for name in version.classes:
            if name not in counts.get(split, {}):
                patients = sum(part.get(name, {}).get("patients", 0) for part in counts.values())
                raise EmptySplitError(
                    f"too few patients for the splits: class {name!r} has {quantity(patients, 'patients')} and none in "
                    f"{split!r}; it needs at least one in each of train, val and test: add labelled patients"
                )


def _check_findings(version: DatasetVersion) -> None:
    counts = version.counts.findings
    for name in version.findings:
        for side, who in (("present", "who has it"), ("absent", "who has it not")):
            patients = {
                split: part[name][f"patients_{side}"] for split, part in counts.items() if name in part
            }
            without = [split for split in SPLITS if not patients.get(split)]
            if without:
                total = quantity(sum(patients.values()), "patients")
                raise EmptySplitError(
                    f"too few patients for the splits: finding {name!r} is known as {side} of {total} and of none in "
                    f"{' and '.join(map(repr, without))}; a finding needs at least one patient {who} in each of "
                    "train, val and test, mostly 4 in all: add patients, or leave the finding out of --findings"
                )


def _check_mask_classes(version: DatasetVersion) -> None:
    counts = version.counts.findings
    for name in version.mask_classes:
        patients = {split: part[name]["patients_present"] for split, part in counts.items() if name in part}
        without = [split for split in SPLITS if not patients.get(split)]
        if without:
            raise EmptySplitError(
                f"too few patients for the splits: class {name!r} is in the masks of "
                f"{quantity(sum(patients.values()), 'patients')} and of none in "
                f"{' and '.join(map(repr, without))}; it needs at least one in each of train, val and test: add masks "
                "of more patients, or leave the class out of --mask-classes"
            )
