"""Preview of a night: what it would read, train and compare, by listing and comparing alone; nothing is written."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc

from imaging.annotations.finding_join import finding_columns, join_findings
from imaging.annotations.finding_table import FindingTables
from imaging.annotations.label_join import join_labels, joined_columns
from imaging.dataset.ingest.diff import KnownRows
from imaging.dataset.ingest.mask_reading import plan_masks
from imaging.dataset.ingest.pending_files import ListedSource, find_pending, list_source
from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.dataset.tables.schemas import EXAMPLES
from imaging.dataset.version.dataset_version import DatasetVersion, newest_version
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import Pseudonyms
from services.flow_requests import NightlyRequest
from services.input_checks import check_input
from services.label_tables import read_label_tables
from services.mask_input import read_masks_of
from services.mlflow.registry_peek import peek_champions
from services.settings import Settings
from services.training_plan import trained_before

ANY_KEY = Pseudonyms(bytes(32))
"""Where there is no key yet there is no dataset either, and all files are new."""


@dataclass(frozen=True, kw_only=True)
class FileCounts:
    """Files of a source beside the newest version; `begun` were read by a run that has published nothing yet."""

    listed: int
    new: int
    changed: int
    gone: int
    begun: int

    @property
    def same(self) -> bool:
        """Whether nothing is to be read, and nothing gone."""
        return not (self.new or self.changed or self.gone or self.begun)


@dataclass(frozen=True, kw_only=True)
class NightPreview:
    """What a night would do; `champion` is None where there is none yet."""

    dataset: str
    version: str | None
    files: FileCounts
    trains: bool
    why: str
    champion: int | None
    compared: str


def preview_night(request: NightlyRequest, settings: Settings) -> NightPreview:
    """Return what a night would do now."""
    source = check_input(request)
    spec = request.preprocess or source.default_spec()
    key = replace(settings.known_pseudonyms() or ANY_KEY, patient_variants=request.patient_variants)
    store = settings.dataset_store
    version = newest_version(store, request.dataset)
    listed = list_source(source, spec, key, store, request.dataset, request.bad_slice)
    files = count_files(listed, version)
    trained, why = _training(request, settings, version, spec, key, files, listed)
    champion = next((one.version for one in peek_champions(settings) if one.name == request.dataset), None)
    return NightPreview(
        dataset=request.dataset,
        version=version.digest if version else None,
        files=files,
        trains=trained is None,
        why=why,
        champion=champion,
        compared=_compared(trained, champion),
    )


def count_files(listed: ListedSource, version: DatasetVersion | None) -> FileCounts:
    """Return how many files are new, changed and gone since a version."""
    pending = find_pending(listed)
    known = KnownRows.of(version)
    to_read = pending.version_plan.to_read.table["source_key"]
    read_before = [
        pc.sum(pc.is_in(to_read, value_set=pc.unique(table.select(["source_key"])["source_key"]))).as_py()
        or 0
        for table in (known.examples, known.refusals)
    ]
    return FileCounts(
        listed=len(listed.listing),
        new=len(to_read) - sum(read_before),
        changed=sum(read_before),
        gone=pending.version_plan.removed_files,
        begun=len(to_read) - len(pending.plan.to_read),
    )


def _training(
    request: NightlyRequest,
    settings: Settings,
    version: DatasetVersion | None,
    spec: PreprocessSpec,
    key: Pseudonyms,
    files: FileCounts,
    listed: ListedSource,
) -> tuple[int | None, str]:
    """Return the model version that is taken instead of a training, or None, and the reason."""
    if version is None:
        return None, "there is no version of the dataset yet"
    if not files.same:
        return None, "files are new, changed or gone"
    if _labels_changed(request, settings, version, spec, key, listed):
        return None, f"{'masks' if request.masks else 'labels'} have changed"
    if request.again:
        return None, "it is asked for (--again)"
    trained = trained_before(request.dataset, request.training, settings, version)
    if not trained:
        return None, "no model was trained on this data with this configuration"
    return trained[-1], f"version {trained[-1]} was trained on this data with this configuration"


def _labels_changed(
    request: NightlyRequest,
    settings: Settings,
    version: DatasetVersion,
    spec: PreprocessSpec,
    key: Pseudonyms,
    listed: ListedSource,
) -> bool:
    if request.masks:
        return _masks_changed(request, settings, version, spec, key, listed)
    if not request.labels:
        return False
    table = read_label_tables(request, key, volumes=spec.kind == "volume")
    examples = KnownRows.of(version).examples
    if isinstance(table, FindingTables):
        now = join_findings(table, examples.select(finding_columns(table))).findings
        was = version.findings_of(examples.select(["instance_key"])["instance_key"])
        return table.names != version.findings or not np.array_equal(was, now)
    labels = join_labels(table, examples.select(joined_columns(table))).labels
    return bool(version.findings) or not labels.combine_chunks().equals(
        version.table("examples", ["label"])["label"].combine_chunks()
    )


def _masks_changed(
    request: NightlyRequest,
    settings: Settings,
    version: DatasetVersion,
    spec: PreprocessSpec,
    key: Pseudonyms,
    listed: ListedSource,
) -> bool:
    masks = read_masks_of(request, key, (file.name for file in listed.listing), settings.folder)
    if masks is None or masks.classes.names != version.mask_classes:
        return True
    plan = plan_masks(
        masks, LazyRows.stored(version.store, version.head.parts["examples"], EXAMPLES), spec, version
    )
    return bool(plan.to_read) or not plan.kept.sort_by("instance_key").equals(
        version.mask_rows().sort_by("instance_key")
    )


def _compared(trained: int | None, champion: int | None) -> str:
    if champion is None:
        return "no champion yet: the gate's floor alone decides"
    if trained == champion:
        return f"version {champion} is the champion already: nothing to compare"
    return f"champion version {champion}"
