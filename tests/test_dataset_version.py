"""Dataset versions: what is in one, how it is opened, and how its examples are read by split."""

import json
from pathlib import Path

import numpy as np
import pytest

from imaging import release_compatibility
from imaging.dataset.split.test_lock import count_reads
from imaging.dataset.tables.schemas import EXAMPLES
from imaging.dataset.version.dataset_version import (
    DatasetVersion,
    EmptySplitError,
    check_trainable,
    newest_version,
    open_version,
)
from imaging.dataset.version.head import VersionHead, head_name
from imaging.errors import UserFault
from imaging.release_compatibility import RELEASE
from imaging.store.folder_store import FolderStore
from tests.synthetic import (
    built,
    example,
    examples,
    finding_tables,
    findings_version,
    recipe,
    refusal,
    refusals,
    version_of,
)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    return version_of(FolderStore(tmp_path_factory.mktemp("store")))


def labelled(folder: Path, labels: list[str | None], **split: str) -> DatasetVersion:
    rows = [example(n, source_label=label, **split) for n, label in enumerate(labels)]
    return built(FolderStore(folder), rows)


def test_a_head_survives_json(version: DatasetVersion) -> None:
    assert VersionHead.from_json(version.head.to_json()) == version.head


def test_a_version_is_opened_by_its_digest(version: DatasetVersion) -> None:
    opened = open_version(version.store, "d", version.digest)
    assert (opened.head, opened.table("examples").equals(version.table("examples"))) == (version.head, True)


def test_an_unknown_version_is_refused_with_the_remedy(version: DatasetVersion) -> None:
    with pytest.raises(UserFault, match=r"'d' has no version 123: `radloop dataset list`"):
        open_version(version.store, "d", "123")


def test_a_dataset_without_version_has_no_newest(tmp_path: Path) -> None:
    assert newest_version(FolderStore(tmp_path), "d") is None


def test_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    rows = [example(0, source_label="yes"), example(1, spacing_mm=None)]
    made = built(FolderStore(tmp_path), rows, [refusal(2)])
    assert made.table("examples", EXAMPLES.names).equals(examples(*rows))
    assert made.table("quarantine").equals(refusals(refusal(2)))


def test_the_splits_share_no_patient(version: DatasetVersion) -> None:
    patients = [set(version.examples(split).patient_keys) for split in ("train", "val")] + [
        set(version.test_examples("t").patient_keys)
    ]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 30


def test_labels_are_numbers_of_the_classes(version: DatasetVersion) -> None:
    rows = version.examples("train")
    levels = rows.gather(np.arange(len(rows)))[:, 0, 0]
    assert version.classes == ("dark", "bright")
    assert np.array_equal(rows.labels, (levels == 190).astype(int))


def test_rows_are_gathered_in_the_order_that_is_asked_for(version: DatasetVersion) -> None:
    rows = version.examples("train")
    order = np.array([3, 0, 3])
    assert np.array_equal(rows.gather(order), rows.gather(np.arange(len(rows)))[order])


def test_unlabelled_images_are_in_no_split(tmp_path: Path) -> None:
    assert len(labelled(tmp_path, ["a", None], source_split="test").table("examples")) == 2
    assert labelled(tmp_path, ["a", None], source_split="test").counts.labelled == {
        "test": {"a": {"examples": 1, "patients": 1}}
    }


def test_patients_are_counted_once(tmp_path: Path) -> None:
    made = labelled(tmp_path, ["a", "a", "b"], source_split="train", patient_key="p")
    assert made.counts.labelled["train"]["a"] == {"examples": 2, "patients": 1}


def test_instances_are_selected_whatever_their_split(version: DatasetVersion) -> None:
    keys = np.concatenate(
        [version.test_examples("t").instance_keys[:2], version.examples("train").instance_keys[:2]]
    )
    assert np.array_equal(version.examples_of(keys[::-1]).instance_keys, keys[::-1])


def test_instances_that_are_missing_are_counted(version: DatasetVersion) -> None:
    with pytest.raises(UserFault, match="1 of 2 test images cannot be prepared"):
        version.examples_of(np.array([version.examples("val").instance_keys[0], "unknown"]))


def test_reasons_are_counted_most_frequent_first(tmp_path: Path) -> None:
    refused = [refusal(1, "no-pixels"), refusal(2), refusal(3)]
    made = built(FolderStore(tmp_path), [example(0)], refused)
    assert list(made.refusals_by_reason().items()) == [("truncated", 2), ("no-pixels", 1)]


def test_a_dataset_of_two_classes_in_every_split_is_trainable(version: DatasetVersion) -> None:
    check_trainable(version)


def test_one_class_is_not_trainable(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="'d' has only 'a' on its images and training needs two classes"):
        check_trainable(labelled(tmp_path, ["a"] * 9))


def test_no_label_is_not_trainable(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="no label at all"):
        check_trainable(labelled(tmp_path, [None] * 9))


def test_a_class_that_misses_a_split_is_not_trainable(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="class 'b' has 1 patient and none in 'val'"):
        check_trainable(labelled(tmp_path, ["a"] * 9 + ["b"]))


def test_the_test_patients_are_refused_to_whoever_trains(version: DatasetVersion) -> None:
    with pytest.raises(UserFault, match="the patients of split 'test' are locked away"):
        version.examples("test")


def test_every_read_of_the_test_patients_is_counted(tmp_path: Path) -> None:
    version = version_of(FolderStore(tmp_path))
    before = count_reads(version.store, "d")
    rows = [version.test_examples(f"reader {number}") for number in range(3)]
    assert (before, count_reads(version.store, "d"), len(rows[0])) == (0, 3, 6)


def test_a_read_of_the_test_patients_records_reader_and_version(tmp_path: Path) -> None:
    version = version_of(FolderStore(tmp_path))
    version.test_examples("evaluate d 3")
    (note,) = (tmp_path / "datasets" / "d" / "test-reads").iterdir()
    record = json.loads(note.read_text())
    assert (record["reader"], record["version"], record["rows"]) == ("evaluate d 3", version.digest, 6)


def test_a_version_of_a_newer_format_is_refused_with_the_remedy(tmp_path: Path) -> None:
    version = version_of(FolderStore(tmp_path))
    path = version.store.path(head_name("d", version.digest))  # type: ignore[attr-defined]
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(
        UserFault, match=f"dataset 'd' is of format 3; this is radloop {RELEASE}: install the release"
    ):
        newest_version(version.store, "d")


# Findings


def test_a_version_has_the_findings_of_its_images(tmp_path: Path) -> None:
    version = findings_version(FolderStore(tmp_path))
    train = version.examples("train")
    numbers = np.array([int(key[1:]) for key in train.instance_keys])
    expected = np.stack([numbers % 2, np.where(numbers % 7, numbers // 2 % 2, -1)], axis=1)
    assert np.array_equal(train.findings, expected)
    assert (version.classes, version.findings, set(train.labels.tolist())) == ((), ("left", "right"), {-1})


def test_a_version_of_labels_has_no_findings_and_they_are_its_annotations(version: DatasetVersion) -> None:
    assert version.examples("train").findings.shape == (len(version.examples("train")), 0)
    annotations = version.annotations()
    assert set(annotations["kind"].to_pylist()) == {"class"}
    assert annotations.num_rows == version.table("examples", ["row"]).num_rows
    assert "annotations" not in version.head.parts


def test_a_version_with_findings_has_the_counts_of_its_head(tmp_path: Path) -> None:
    version = findings_version(FolderStore(tmp_path))
    assert version.count() == version.counts
    assert sum(part["right"]["unknown"] for part in version.counts.findings.values()) == 6


def test_a_version_with_findings_needs_the_release_that_brought_them(
    tmp_path: Path, version: DatasetVersion
) -> None:
    assert (findings_version(FolderStore(tmp_path)).head.needs, version.head.needs) == ("0.2.0", "")


def test_the_release_before_refuses_a_version_with_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = findings_version(FolderStore(tmp_path))
    monkeypatch.setattr(release_compatibility, "RELEASE", "0.1.0")
    with pytest.raises(UserFault, match=r"needs release 0\.2\.0; this is radloop 0\.1\.0: install radloop 0"):
        newest_version(version.store, "f")


def test_an_image_of_which_nothing_is_known_is_in_no_split(tmp_path: Path) -> None:
    tables = finding_tables(("left",), {"o0": "1", "o2": "0"})
    version = built(FolderStore(tmp_path), [example(0), example(1), example(2)], by=recipe(findings=tables))
    assert version.table("examples", ["label_fault"])["label_fault"].to_pylist() == [None, "no-label", None]
    assert version.splits().keys() == {"p0", "p2"}


@pytest.mark.parametrize(
    ("patients", "unknown", "fault"),
    [
        (2, 99, r"finding 'left' is known as present of 1 patient and of none in .* mostly 4 in all"),
        (
            1,
            99,
            r"finding 'left' is known as present of 0 patients and of none in 'train' and 'val' and 'test'",
        ),
        (40, 1, r"finding 'right' is known as present of 0 patients"),
    ],
)
def test_a_finding_that_is_missing_in_a_split_is_not_trainable(
    tmp_path: Path, patients: int, unknown: int, fault: str
) -> None:
    version = findings_version(FolderStore(tmp_path), patients, unknown=unknown)
    with pytest.raises(EmptySplitError, match=fault):
        check_trainable(version)


def test_findings_in_every_split_are_trainable(tmp_path: Path) -> None:
    check_trainable(findings_version(FolderStore(tmp_path)))


def test_findings_may_come_to_a_dataset_of_labels_and_every_patient_keeps_its_split(
    tmp_path: Path,
) -> None:
    store = FolderStore(tmp_path)
    before = version_of(store)
    rows = before.table("examples", EXAMPLES.names).to_pylist()
    tables = finding_tables(("left",), {row["object_key"]: str(n % 2) for n, row in enumerate(rows)})
    after = built(store, rows, splits=before.splits(), by=recipe(findings=tables))
    assert after.splits() == before.splits()
    shards = ["instance_key", "shard", "row"]
    assert after.table("examples", shards) == before.table("examples", shards)
