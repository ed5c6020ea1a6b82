"""Masks of a version: what is read, what keeps its row, and what becomes of masks that are refused."""

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from imaging.annotations.masks.known_files import KnownFiles
from imaging.annotations.masks.mask import MaskClasses
from imaging.annotations.masks.mask_table import read_mask_table
from imaging.annotations.masks.read_mask import prepare_masks
from imaging.dataset.ingest.ingest_outcome import write_problems
from imaging.dataset.ingest.listing import list_files
from imaging.dataset.ingest.mask_reading import MaskInput, plan_masks, read_masks
from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.dataset.tables.mask_rows import MaskAnnotations, model_spacings
from imaging.dataset.tables.shard import map_shard, write_shard
from imaging.dataset.upkeep.garbage import Retention, find_garbage
from imaging.dataset.upkeep.integrity import find_flaws
from imaging.dataset.version.compare import compare
from imaging.dataset.version.dataset_version import DatasetVersion, EmptySplitError, check_trainable
from imaging.dataset.version.export import export
from imaging.dataset.version.publish import publish
from imaging.errors import UserFault
from imaging.preprocess.inverse import UNKNOWN
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import Pseudonyms
from imaging.sandbox.pool import Item
from imaging.sandbox.worker_process import Answer
from imaging.store.folder_store import FolderStore
from tests.mask_objects import FRAME_OF_REFERENCE, group, seg, slice_grid
from tests.synthetic import GREY, built, example, examples, recipe

KEY = Pseudonyms(b"k" * 32)
CLASSES = MaskClasses(names=("blood pool", "myocardium"))
COUNT = 12


def uid(number: int) -> str:
    return f"1.2.3.{number}"


def rows(shard: str, count: int = COUNT, **changes: Any) -> list[dict[str, Any]]:
    """Return examples of 8 x 8 pixels, each of a patient of its own."""
    return [
        example(n, object_key=KEY.key("instance", uid(n)), shard=shard, rows=8, columns=8, **changes)
        for n in range(count)
    ]


def picture(mask: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def drawn(number: int) -> NDArray[np.uint8]:
    """Return a mask whose blood pool has a row more with each number; each second has a myocardium."""
    mask = np.zeros((8, 8), np.uint8)
    mask[: 1 + number % 4] = 1
    mask[6:] = 2 * (number % 2)
    return mask


def write_masks(folder: Path, count: int = COUNT, **others: bytes) -> Path:
    """Write masks and their table; `others` are contents of masks by the name of the file without its suffix."""
    folder.mkdir(exist_ok=True)
    lines = ["SOPInstanceUID,mask,myocardium_drawn"]
    for number in range(count):
        content = others.get(f"m{number}", picture(drawn(number)))
        (folder / f"m{number}.png").write_bytes(content)
        lines.append(f"{uid(number)},m{number}.png,{'yes' if number % 2 else 'no'}")
    (folder / "masks.csv").write_text("\n".join(lines))
    return folder / "masks.csv"


def mask_input(path: Path, classes: MaskClasses = CLASSES) -> MaskInput:
    known = KnownFiles(None, KEY)
    return MaskInput(table=read_mask_table(path, KEY, classes), classes=classes, pseudonyms=KEY, known=known)


def run(items: Iterable[Item], spec: PreprocessSpec = GREY) -> Iterator[Answer]:
    """Read masks in this process, without the sandbox."""
    setup = {"spec": spec.model_dump_json(), "classes": CLASSES.to_json()}
    for item in items:
        value, blobs = prepare_masks(setup, item.value, item.blobs)
        yield Answer(value, tuple(memoryview(blob).cast("B") for blob in blobs))


def never(items: Iterable[Item]) -> Iterator[Answer]:
    assert not list(items), "nothing is to be read"
    return iter(())


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def shard(store: FolderStore) -> str:
    return write_shard(store, np.zeros((COUNT, 16, 16), np.uint8))


def read(
    store: FolderStore,
    made: list[dict[str, Any]],
    path: Path,
    previous: DatasetVersion | None = None,
    by: Any = run,
    classes: MaskClasses = CLASSES,
) -> MaskAnnotations:
    masks = mask_input(path, classes)
    plan = plan_masks(masks, LazyRows.of(examples(*made)), GREY, previous)
    return read_masks(masks, plan, GREY, store, by)


def version_with(
    store: FolderStore,
    made: list[dict[str, Any]],
    masks: MaskAnnotations,
    before: DatasetVersion | None = None,
) -> DatasetVersion:
    splits = before.splits() if before else {}
    version = built(store, made, splits=splits, by=recipe(masks=masks))
    assert publish(version, before.digest if before else None)
    return version


@pytest.fixture
def version(store: FolderStore, shard: str, tmp_path: Path) -> DatasetVersion:
    return version_with(store, rows(shard), read(store, rows(shard), write_masks(tmp_path / "m")))


def faults(version: DatasetVersion) -> dict[str, str]:
    table = version.table("examples", ["instance_key", "label_fault"]).to_pylist()
    return {row["instance_key"]: row["label_fault"] for row in table if row["label_fault"]}


def test_examples_have_their_masks_on_the_models_grid(version: DatasetVersion) -> None:
    train = version.examples("train")
    masks = train.masks(np.arange(len(train)))
    # The grid of 16 px is twice as fine.
    wanted = [np.kron(drawn(int(key[1:])), np.ones((2, 2), np.uint8)) for key in train.instance_keys]
    assert np.array_equal(masks, wanted)


def test_a_class_that_nobody_drew_is_unknown(version: DatasetVersion) -> None:
    train = version.examples("train")
    assert train.unknown_classes.tolist() == [[False, not int(key[1:]) % 2] for key in train.instance_keys]


def test_spacings_are_of_the_models_grid(version: DatasetVersion) -> None:
    spacings = version.examples("train").spacings_mm
    # 8 pixels of 0.5 mm become 16 of 0.25; how thick a slice is its row does not say.
    assert np.isnan(spacings[:, 0]).all()
    assert (spacings[:, 1:] == 0.25).all()


def test_spacings_that_are_only_a_ratio_are_unknown(shard: str) -> None:
    assert np.isnan(model_spacings(examples(*rows(shard, 1, spacing_mm=None)), GREY)).all()


def test_splits_are_drawn_for_images_with_masks_alone(store: FolderStore, shard: str, tmp_path: Path) -> None:
    made = rows(shard)
    version = version_with(store, made, read(store, made, write_masks(tmp_path / "m", COUNT - 2)))
    assert faults(version) == {"i10": "no-mask", "i11": "no-mask"}
    assert len(version.splits()) == COUNT - 2


def test_counts_are_by_class_and_the_head_repeats_them(version: DatasetVersion) -> None:
    assert version.counts == version.count()
    whole = [part["myocardium"] for part in version.counts.findings.values()]
    assert sum(one["present"] for one in whole) == sum(one["unknown"] for one in whole) == COUNT // 2


def test_masks_that_are_unchanged_are_not_read_again(
    version: DatasetVersion, store: FolderStore, shard: str, tmp_path: Path
) -> None:
    again = read(store, rows(shard), tmp_path / "m" / "masks.csv", version, never)
    assert version_with(store, rows(shard), again, version).digest == version.digest


@pytest.mark.parametrize("changed", ["file", "grid", "drawn", "classes"])
def test_what_a_mask_follows_from_is_read_again_where_it_changes(
    version: DatasetVersion, store: FolderStore, shard: str, tmp_path: Path, changed: str
) -> None:
    made, classes, table = rows(shard), CLASSES, tmp_path / "m" / "masks.csv"
    if changed == "file":
        (table.parent / "m3.png").write_bytes(picture(drawn(1)))
    elif changed == "grid":
        made[3] |= {"row_spacing": 0.7}
    elif changed == "drawn":
        table.write_text(table.read_text().replace("m3.png,yes", "m3.png,no"))
    else:
        classes = replace(CLASSES, names=("blood pool", "wall"))
        table.write_text(table.read_text().replace("myocardium", "wall"))
    plan = plan_masks(mask_input(table, classes), LazyRows.of(examples(*made)), GREY, version)
    assert [one.example["instance_key"] for one in plan.to_read] == (
        ["i3"] if changed != "classes" else sorted(f"i{n}" for n in range(COUNT))
    )


def test_a_removed_line_takes_its_mask_away(
    version: DatasetVersion, store: FolderStore, shard: str, tmp_path: Path
) -> None:
    path = write_masks(tmp_path / "m", COUNT - 1)
    later = version_with(store, rows(shard), read(store, rows(shard), path, version, never), version)
    assert faults(later) == {"i11": "no-mask"}
    assert compare(version, later, 5).relabelled.first == ("i11",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (picture(np.zeros((9, 8), np.uint8)), "mask-grid"),
        (picture(np.full((8, 8), 7, np.uint8)), "mask-values"),
        (picture(drawn(1))[:60], "truncated"),
        (b"no picture at all", "unreadable"),
    ],
)
def test_a_refused_mask_leaves_its_image_unlabelled(
    store: FolderStore, shard: str, tmp_path: Path, content: bytes, reason: str
) -> None:
    path = write_masks(tmp_path / "m", m3=content)
    version = version_with(store, rows(shard), read(store, rows(shard), path))
    assert faults(version) == {"i3": reason}
    assert version.counts.examples == COUNT
    # It is known to be bad: the next night does not read it again.
    assert read(store, rows(shard), path, version, never).rows.num_rows == COUNT


def test_the_list_of_problems_has_the_reason_of_a_refused_mask(
    store: FolderStore, shard: str, tmp_path: Path
) -> None:
    path = write_masks(tmp_path / "m", m3=picture(np.zeros((9, 8), np.uint8)))
    version = version_with(store, rows(shard), read(store, rows(shard), path))
    problems = write_problems(list_files([], KEY), version, tmp_path)
    assert problems is not None
    assert "mask-grid,the mask (1 x 9 x 8) lies on another grid than its image (1 x 8 x 8)" in (
        problems.read_text().replace('"', "")
    )


@pytest.mark.parametrize(
    ("own", "fault"), [(FRAME_OF_REFERENCE, {}), ("1.2.10", {"i0": "mask-frame-of-reference"})]
)
def test_frames_of_reference_are_compared_under_their_pseudonyms(
    store: FolderStore, tmp_path: Path, own: str, fault: dict[str, str]
) -> None:
    grid = slice_grid(0)
    assert grid.affine is not None
    shard = write_shard(store, np.zeros((1, 16, 16), np.uint8))
    made = rows(
        shard, 1, affine=grid.affine[:3].tobytes(), frame_of_reference_key=KEY.key("frame-of-reference", own)
    )
    made[0] |= {"rows": grid.shape[0], "columns": grid.shape[1], "row_spacing": 0.8}
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "one").write_bytes(seg(np.ones((1, *grid.shape), np.uint8), [group(0, 1)]))
    (tmp_path / "m" / "masks.csv").write_text(f"SOPInstanceUID,mask\n{uid(0)},one")
    version = version_with(store, made, read(store, made, tmp_path / "m" / "masks.csv"))
    assert faults(version) == fault


VOLUME = PreprocessSpec(kind="volume", slices=4, size_px=16)


def volume_rows(shard: str, count: int = 3) -> list[dict[str, Any]]:
    """Return volumes of four slices of 8 x 8 pixels; the slices of volume n have the UIDs from 4 n on."""
    keys = ["".join(KEY.key("instance", uid(4 * n + at)) for at in range(4)) for n in range(count)]
    more = {"slices": 4, "slice_spacing": 2.0, "rows": 8, "columns": 8, "spec": VOLUME.digest}
    return [example(n, shard=shard, slice_keys=keys[n], **more) for n in range(count)]


def read_volumes(
    store: FolderStore,
    made: list[dict[str, Any]],
    path: Path,
    previous: DatasetVersion | None = None,
    by: Any = None,
) -> MaskAnnotations:
    masks = mask_input(path)
    plan = plan_masks(masks, LazyRows.of(examples(*made)), VOLUME, previous)
    return read_masks(masks, plan, VOLUME, store, by or (lambda items: run(items, VOLUME)))


def test_masks_of_slices_become_that_of_their_volume(store: FolderStore, tmp_path: Path) -> None:
    shard = write_shard(store, np.zeros((3, 4, 16, 16), np.uint8))
    path = write_masks(tmp_path / "m")
    # Nobody drew in slice 2 of the first volume, nor in any of the last one.
    gone = {uid(2), *map(uid, range(8, 12))}
    path.write_text("\n".join(x for x in path.read_text().split("\n") if x.partition(",")[0] not in gone))
    made = volume_rows(shard)
    masks = read_volumes(store, made, path)
    version = built(store, made, by=recipe(masks=masks, spec=VOLUME))
    assert faults(version) == {"i2": "no-mask"}
    drawn_rows = masks.rows.to_pylist()
    first = map_shard(store, drawn_rows[0]["mask_shard"])[drawn_rows[0]["mask_row"]]
    # The grid of 16 px is twice as fine.
    wanted = np.stack([np.kron(drawn(n), np.ones((2, 2), np.uint8)) for n in range(4)])
    wanted[2] = UNKNOWN
    assert np.array_equal(first, wanted)
    # In slices of even numbers nobody drew the myocardium: where it is in the volume is not known.
    assert [json.loads(row["value"])["unknown"] for row in drawn_rows] == [[2], [2]]


def test_masks_of_slices_that_are_unchanged_are_not_read_again(store: FolderStore, tmp_path: Path) -> None:
    made = volume_rows(write_shard(store, np.zeros((3, 4, 16, 16), np.uint8)))
    path = write_masks(tmp_path / "m")
    version = built(store, made, by=recipe(masks=read_volumes(store, made, path), spec=VOLUME))
    assert publish(version, None)
    assert read_volumes(store, made, path, version, never).rows.equals(version.mask_rows())
    # A mask that is that of another slice now.
    lines = path.read_text().replace(f"{uid(0)},m0", f"{uid(0)},M").replace(f"{uid(1)},m1", f"{uid(1)},m0")
    path.write_text(lines.replace(",M.png", ",m1.png"))
    plan = plan_masks(mask_input(path), LazyRows.of(examples(*made)), VOLUME, version)
    assert [one.example["instance_key"] for one in plan.to_read] == ["i0"]


def test_one_refused_slice_costs_the_mask_of_its_volume(store: FolderStore, tmp_path: Path) -> None:
    made = volume_rows(write_shard(store, np.zeros((3, 4, 16, 16), np.uint8)))
    path = write_masks(tmp_path / "m", m5=picture(np.zeros((9, 8), np.uint8)))
    version = built(store, made, by=recipe(masks=read_volumes(store, made, path), spec=VOLUME))
    assert faults(version) == {"i1": "mask-grid"}


def test_volumes_whose_slices_are_not_known_by_name_are_not_joined_in_silence(
    store: FolderStore, tmp_path: Path
) -> None:
    made = [row | {"slice_keys": ""} for row in volume_rows("", 2)]
    with pytest.raises(UserFault, match="of 2 volumes the slices are not known by theirs"):
        read_volumes(store, made, write_masks(tmp_path / "m"))


def test_one_line_without_an_image_does_not_stop_volumes_of_which_some_have_no_slices(
    store: FolderStore, tmp_path: Path
) -> None:
    made = volume_rows(write_shard(store, np.zeros((3, 4, 16, 16), np.uint8)))
    made[2] = made[2] | {"slice_keys": ""}
    masks = read_volumes(store, made, write_masks(tmp_path / "m"))
    assert masks.lines_without_image


def test_a_file_that_is_not_there_is_reported(store: FolderStore, shard: str, tmp_path: Path) -> None:
    path = write_masks(tmp_path / "m")
    (tmp_path / "m" / "m3.png").unlink()
    assert faults(version_with(store, rows(shard), read(store, rows(shard), path))) == {"i3": "no-mask-file"}


def test_lines_that_contradict_each_other_are_reported(
    store: FolderStore, shard: str, tmp_path: Path
) -> None:
    path = write_masks(tmp_path / "m")
    path.write_text(f"{path.read_text()}\n{uid(3)},m5.png,yes")
    version = version_with(store, rows(shard), read(store, rows(shard), path))
    assert faults(version) == {"i3": "two-masks"}
    assert version.head.label_report.lines_in_conflict == (5, 14)


def test_a_folder_of_masks_that_is_not_mounted_is_no_removal_of_all(
    version: DatasetVersion, store: FolderStore, shard: str, tmp_path: Path
) -> None:
    for path in (tmp_path / "m").glob("*.png"):
        path.unlink()
    with pytest.raises(UserFault, match="is it mounted"):
        read(store, rows(shard), tmp_path / "m" / "masks.csv", version, never)


def test_a_class_that_a_split_lacks_cannot_be_trained_on(
    store: FolderStore, shard: str, tmp_path: Path
) -> None:
    path = write_masks(
        tmp_path / "m", **{f"m{n}": picture(np.zeros((8, 8), np.uint8)) for n in (1, 3, 5, 7, 9)}
    )
    version = version_with(store, rows(shard), read(store, rows(shard), path))
    with pytest.raises(
        EmptySplitError, match="class 'myocardium' is in the masks of 1 patient and of none in"
    ):
        check_trainable(version)


def test_a_version_of_masks_is_whole_and_keeps_its_shards(
    version: DatasetVersion, store: FolderStore
) -> None:
    check_trainable(version)
    assert find_flaws(version) == []
    assert find_garbage(store, Retention(keep=1, oldest_ns=2**62)).objects == ()


def test_a_damaged_shard_of_masks_is_a_flaw(version: DatasetVersion, store: FolderStore) -> None:
    name = version.mask_rows()["mask_shard"].to_pylist()[0]
    path = store.path(f"shards/{name[:2]}/{name}.npy")
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])
    assert [flaw.name for flaw in find_flaws(version)] == [f"shards/{name[:2]}/{name}.npy"]


def test_an_export_has_the_masks_beside_the_images(version: DatasetVersion, tmp_path: Path) -> None:
    export(version, tmp_path / "out", ["train"], "test")
    images, masks = (np.load(tmp_path / "out" / f"train{end}.npy") for end in ("", ".masks"))
    assert masks.shape == images.shape
    assert np.array_equal(masks, version.examples("train").masks(np.arange(len(masks))))
