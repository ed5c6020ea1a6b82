"""Summary of a version: every row is counted where it belongs, and no column is read that is not shown."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from imaging.dataset.tables.shard import write_shard
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.dataset.version.summary import BINS, Count, Histogram, _histogram, summarize
from imaging.store.folder_store import FolderStore
from tests.synthetic import GREY, built, example, findings_version, refusal, version_of

ROWS = [
    example(0, patient_key="p", source_label="a", source_split="train", site_key="s1", spacing_mm=0.5),
    example(1, patient_key="p", source_label="a", source_split="train", site_key="s1", spacing_mm=0.5),
    example(2, patient_key="q", source_label="b", source_split="test", modality="MR", kvp=120.0),
    example(3, patient_key="r", source_label=None, spacing_mm=None, manufacturer=""),
]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    store = FolderStore(tmp_path_factory.mktemp("store"))
    shard = write_shard(store, np.zeros((4, 16, 16), np.uint8))
    refused = [refusal(10), refusal(11), refusal(12, "conflicting-instance")]
    return built(store, [{**row, "shard": shard, "row": at} for at, row in enumerate(ROWS)], refused)


def test_labels_splits_modalities_and_sites_are_counted(version: DatasetVersion) -> None:
    one, two = Count(examples=1, patients=1), Count(examples=2, patients=1)
    assert summarize(version).counts == {
        "label": {"a": two, "b": one, "": one},
        "split": {"train": two, "test": one, "": one},
        "modality": {"CT": Count(examples=3, patients=2), "MR": one},
        "site": {"s1": two, "": Count(examples=2, patients=2)},
    }


def test_labels_are_counted_by_split(version: DatasetVersion) -> None:
    by_split = summarize(version).label_by_split
    assert by_split["a"] == {"train": Count(examples=2, patients=1)}
    assert by_split[""] == {"": Count(examples=1, patients=1)}


def test_what_has_no_label_is_counted_by_the_cause(version: DatasetVersion) -> None:
    assert summarize(version).unlabelled == {"no-label": 1}


def test_refusals_and_conflicts_are_counted(version: DatasetVersion) -> None:
    summary = summarize(version)
    assert (summary.refusals, summary.conflicts) == ({"truncated": 2, "conflicting-instance": 1}, 1)


def test_a_label_called_none_is_not_a_missing_one(tmp_path: Path) -> None:
    rows = [example(0, source_label="none"), example(1)]
    assert set(summarize(built(FolderStore(tmp_path), rows)).counts["label"]) == {"none", ""}


def test_tombstones_and_reads_of_the_test_patients_are_counted(tmp_path: Path) -> None:
    version = version_of(FolderStore(tmp_path))
    version.test_examples("somebody")
    summary = summarize(version)
    assert (summary.tombstones, summary.test_reads) == (0, 1)


def test_the_size_is_that_of_its_own_objects(version: DatasetVersion) -> None:
    write_shard(version.store, np.ones((9, 16, 16), np.uint8))
    summary = summarize(version)
    parts = [name for names in version.head.parts.values() for name in names]
    expected = sum(Path(version.store.local(name)).stat().st_size for name in parts)
    assert (summary.shards, summary.shard_bytes, summary.part_bytes) == (1, 4 * 16 * 16 + 128, expected)


def test_the_spec_is_in_the_summary(version: DatasetVersion) -> None:
    summary = summarize(version)
    assert (summary.spec["size_px"], summary.spec_digest) == (16, GREY.digest)


def test_acquisition_is_summarized_in_histograms(version: DatasetVersion) -> None:
    summary = summarize(version)
    assert summary.values["manufacturer"] == {"ACME": 3, "": 1}
    assert summary.numbers["spacing_mm"] == Histogram(bins=((0.5, 0.5, 3),), missing=1)
    assert summary.numbers["kvp"] == Histogram(bins=((120.0, 120.0, 1),), missing=3)


def test_every_number_is_in_one_bin() -> None:
    values = np.random.default_rng(0).lognormal(size=5000)
    histogram = _histogram(pa.chunked_array([values]))
    assert (len(histogram.bins), sum(count for _, _, count in histogram.bins)) == (BINS, 5000)
    assert (histogram.bins[0][0], histogram.bins[-1][1]) == (values.min(), values.max())


def test_a_far_value_does_not_hide_the_others() -> None:
    histogram = _histogram(pa.chunked_array([[*np.linspace(0, 1, 1000), 1e6]]))
    assert max(count for _, _, count in histogram.bins) < 150


def test_one_value_and_some_rare_ones_make_a_histogram() -> None:
    histogram = _histogram(pa.chunked_array([[1.0] * 10_000 + list(range(2, 20))]))
    assert sum(count for _, _, count in histogram.bins) == 10_018


def test_an_empty_version_has_a_summary(tmp_path: Path) -> None:
    summary = summarize(built(FolderStore(tmp_path), []))
    assert (summary.examples, summary.patients, summary.counts["label"]) == (0, 0, {})


def test_findings_are_counted_by_split_in_the_place_of_labels(tmp_path: Path) -> None:
    summary = summarize(findings_version(FolderStore(tmp_path)))
    assert "label" not in summary.counts and summary.label_by_split == {}
    known = [part["left"] for part in summary.findings.values()]
    assert sum(one["present"] for one in known) == sum(one["patients_absent"] for one in known) == 20
