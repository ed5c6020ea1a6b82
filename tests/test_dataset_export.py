"""Export of a version as a plain folder, which numpy and pyarrow read row for row; test patients only on request."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from imaging.dataset.split.test_lock import count_reads
from imaging.dataset.tables.shard import write_shard
from imaging.dataset.version import export as module
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.dataset.version.export import export
from imaging.errors import EnvironmentFault, UserFault
from imaging.store.folder_store import FolderStore
from tests.synthetic import built, example, findings_version, recipe

ROWS = 40


@pytest.fixture
def version(tmp_path: Path) -> DatasetVersion:
    """Make a version of images that are numbered by their first pixel, in two shards and another order."""
    store = FolderStore(tmp_path / "store")
    images = np.zeros((ROWS, 16, 16), np.uint8)
    images[:, 0, 0] = np.arange(ROWS)
    shards = [write_shard(store, images[: ROWS // 2]), write_shard(store, images[ROWS // 2 :])]
    rows = [
        example(
            n,
            shard=shards[n // (ROWS // 2)],
            row=n % (ROWS // 2),
            source_label=None if n == 5 else "ab"[n % 2],
            source_split=("train", "val", "test")[n % 3],
            columns=n,
        )
        for n in reversed(range(ROWS))
    ]
    return built(store, rows, by=recipe(dataset="ct", positive="a"))


def test_images_and_rows_are_in_one_order(version: DatasetVersion, tmp_path: Path) -> None:
    counts = export(version, tmp_path / "out", ["train", "val"], "t")
    for split, count in counts.items():
        images = np.load(tmp_path / "out" / f"{split}.npy")
        rows = pq.read_table(tmp_path / "out" / f"{split}.parquet")
        assert images[:, 0, 0].tolist() == rows["columns"].to_pylist()
        assert len(images) == count > 10
        assert set(rows["split"].to_pylist()) == {split}


def test_what_has_no_label_is_left_out(version: DatasetVersion, tmp_path: Path) -> None:
    export(version, tmp_path / "out", ["test"], "t")
    rows = pq.read_table(tmp_path / "out" / "test.parquet")
    assert (rows["label"].null_count, 5 in rows["columns"].to_pylist(), rows.num_rows) == (0, False, 12)


def test_a_row_has_all_columns_but_its_place_in_the_store(version: DatasetVersion, tmp_path: Path) -> None:
    export(version, tmp_path / "out", ["val"], "t")
    names = pq.read_table(tmp_path / "out" / "val.parquet").column_names
    assert set(version.table("examples").column_names) - set(names) == {"shard", "row", "fingerprint"}


def test_the_classes_and_the_preparation_are_in_the_head(version: DatasetVersion, tmp_path: Path) -> None:
    export(version, tmp_path / "out", ["val"], "t")
    head = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert (head["dataset"], head["digest"], head["classes"]) == ("ct", version.digest, ["b", "a"])
    assert head["spec"] == version.spec.model_dump(mode="json")


def test_the_test_patients_are_counted_as_read(version: DatasetVersion, tmp_path: Path) -> None:
    export(version, tmp_path / "one", ["train", "val"], "t")
    before = count_reads(version.store, "ct")
    export(version, tmp_path / "two", ["train", "val", "test"], "t")
    assert (before, count_reads(version.store, "ct")) == (0, 1)


def test_a_split_without_images_is_an_empty_array(tmp_path: Path) -> None:
    export(built(FolderStore(tmp_path / "store"), []), tmp_path / "out", ["val"], "t")
    assert np.load(tmp_path / "out" / "val.npy").shape == (0, 16, 16)
    assert pq.read_table(tmp_path / "out" / "val.parquet").num_rows == 0


@pytest.mark.parametrize("there", ["a file", "a folder with something"])
def test_nothing_is_written_over(version: DatasetVersion, tmp_path: Path, there: str) -> None:
    kept = tmp_path / "out" if there == "a file" else tmp_path / "out" / "kept"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("x")
    with pytest.raises(UserFault, match=r"out is not empty: give a new folder"):
        export(version, tmp_path / "out", ["val", "test"], "t")
    assert (kept.read_text(), count_reads(version.store, "ct")) == ("x", 0)


def test_an_empty_folder_is_taken(version: DatasetVersion, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert export(version, tmp_path / "out", ["val"], "t") == {"val": 13}


def test_a_folder_is_the_owners_alone(version: DatasetVersion, tmp_path: Path) -> None:
    export(version, tmp_path / "above" / "out", ["val"], "t")
    assert (tmp_path / "above" / "out").stat().st_mode & 0o777 == 0o700


def test_nothing_is_left_of_what_was_not_finished(
    version: DatasetVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(EnvironmentFault, match=r"cannot write out below .*: No space left on device"):
        export(version, tmp_path / "out", ["val"], "t")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_many_images_are_written_some_at_a_time(
    version: DatasetVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 5)
    progress: list[tuple[int, int]] = []
    export(version, tmp_path / "out", ["train", "val"], "t", lambda *one: progress.append(one))
    assert [done for done, _ in progress] == [5, 10, 14, 19, 24, 27]
    assert {total for _, total in progress} == {27}
    images = np.load(tmp_path / "out" / "train.npy")
    rows = pq.read_table(tmp_path / "out" / "train.parquet")
    assert images[:, 0, 0].tolist() == rows["columns"].to_pylist()


def test_volumes_keep_their_shape(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    spec = recipe().spec.model_copy(update={"kind": "volume", "slices": 3})
    shard = write_shard(store, np.full((1, 3, 16, 16), 7, np.uint8))
    row = example(0, shard=shard, row=0, source_label="a", source_split="val", spec=spec.digest)
    export(built(store, [row], by=recipe(spec=spec)), tmp_path / "out", ["val"], "t")
    assert np.load(tmp_path / "out" / "val.npy").shape == (1, 3, 16, 16)


def test_findings_are_columns_of_their_own_and_null_where_unknown(tmp_path: Path) -> None:
    version = findings_version(FolderStore(tmp_path / "store"))
    export(version, tmp_path / "out", ["train"], "test")
    rows = pq.read_table(tmp_path / "out" / "train.parquet")
    number = np.array([int(key[1:]) for key in rows["instance_key"].to_pylist()])
    assert rows["finding.left"].to_pylist() == (number % 2).tolist()
    assert rows["finding.right"].null_count == int((number % 7 == 0).sum()) > 0
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["findings"] == ["left", "right"]
