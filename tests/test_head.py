"""Head of a version: its counts are those of its tables, and older heads without counts can still be read."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imaging.dataset.tables.shard import write_shard
from imaging.dataset.upkeep.integrity import find_flaws
from imaging.dataset.version.dataset_version import DatasetVersion, open_version
from imaging.dataset.version.head import Counts, VersionHead, head_name
from imaging.store.folder_store import FolderStore
from tests.synthetic import built, example, refusal

COUNTS = Counts(
    examples=4,
    patients=3,
    labelled={"train": {"a": {"examples": 2, "patients": 1}}, "val": {"b": {"examples": 1, "patients": 1}}},
    refusals={"no-pixels": 1, "truncated": 2},
)


@pytest.fixture
def version(tmp_path: Path) -> DatasetVersion:
    store = FolderStore(tmp_path)
    shard = write_shard(store, np.zeros((4, 16, 16), np.uint8))
    rows = [
        example(0, shard=shard, patient_key="p", source_label="a", source_split="train"),
        example(1, shard=shard, patient_key="p", source_label="a", source_split="train"),
        example(2, shard=shard, patient_key="q", source_label="b", source_split="val"),
        example(3, shard=shard, patient_key="r"),
    ]
    return built(store, rows, [refusal(1, "no-pixels"), refusal(2), refusal(3)])


def rewritten(version: DatasetVersion, counts: Counts | None) -> DatasetVersion:
    """Give the head of a version other counts."""
    head = replace(version.head, counts=counts)
    version.store.write(head_name("d", version.digest), head.to_json().encode())
    return open_version(version.store, "d", version.digest)


def test_rows_are_counted(version: DatasetVersion) -> None:
    assert version.count() == COUNTS


def test_a_head_keeps_its_counts(version: DatasetVersion) -> None:
    assert rewritten(version, COUNTS).head.counts == COUNTS


def test_a_head_from_before_has_none_and_the_tables_are_read(version: DatasetVersion) -> None:
    old = rewritten(version, None)
    assert "counts" not in json.loads(old.head.to_json())
    assert (old.head.counts, old.counts) == (None, COUNTS)


def test_without_lines_of_others_a_head_is_what_it_was(version: DatasetVersion) -> None:
    # Release 0.1.0 has no such field, and the digest covers all that is written.
    assert "lines_of_others" not in json.loads(version.head.to_json())
    assert open_version(version.store, "d", version.digest).head.lines_of_others == ()


def test_lines_of_others_are_kept_and_change_the_digest(version: DatasetVersion) -> None:
    head = replace(version.head, lines_of_others=(3, 9)).named()
    assert head.digest != version.digest
    assert VersionHead.from_json(head.to_json()).lines_of_others == (3, 9)


def test_counts_are_no_part_of_the_digest(version: DatasetVersion) -> None:
    assert [find_flaws(rewritten(version, counts)) for counts in (None, COUNTS)] == [[], []]


def test_counts_that_differ_from_the_tables_are_a_flaw(version: DatasetVersion) -> None:
    (flaw,) = find_flaws(rewritten(version, replace(COUNTS, patients=2)))
    assert flaw.name == head_name("d", version.digest)


def test_with_counts_no_table_is_read(version: DatasetVersion) -> None:
    counted = rewritten(version, COUNTS)
    for names in counted.head.parts.values():
        for name in names:
            counted.store.remove(name)
    assert (counted.counts.labelled["val"], list(counted.refusals_by_reason())) == (
        COUNTS.labelled["val"],
        ["truncated", "no-pixels"],
    )


def test_a_head_that_cannot_count_is_refused(version: DatasetVersion) -> None:
    plain = json.loads(rewritten(version, COUNTS).head.to_json())
    with pytest.raises(TypeError):
        VersionHead.from_json(json.dumps(plain | {"counts": {"images": 4}}))
