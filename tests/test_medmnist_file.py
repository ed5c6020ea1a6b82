"""An NPZ file in MedMNIST's layout: ranges of rows are its files, rows its images."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from imaging.errors import UserFault
from imaging.image.instance import Instance
from imaging.pixel_digests import pixel_digest
from imaging.preprocess.slice import prepare
from imaging.sources.medmnist_file import ROWS_A_FILE, MedMnistFile
from imaging.sources.protocol import SourceFile
from tests.public_images import DIGIT_PARTS, write_digits
from tests.synthetic import read_file

COUNTS = {"train": 24, "val": 4, "test": 5}


def images(rows: int, side: int = 28) -> NDArray[np.uint8]:
    """Return images of which no two are equal."""
    made = np.zeros((rows, side, side), np.uint8)
    made[:, 0, 0], made[:, 0, 1] = np.arange(rows) % 256, np.arange(rows) // 256
    return made


def arrays(**counts: int) -> dict[str, Any]:
    """Return what a MedMNIST file with these parts holds."""
    contents: dict[str, Any] = {}
    for part, rows in counts.items():
        contents |= {f"{part}_images": images(rows), f"{part}_labels": np.arange(rows)[:, None] % 3}
    return contents


def written(folder: Path, **contents: Any) -> MedMnistFile:
    np.savez(folder / "some.npz", **contents)
    return MedMnistFile(folder / "some.npz")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> MedMnistFile:
    return MedMnistFile(write_digits(tmp_path_factory.mktemp("digits") / "digits.npz"))


def rows(source: MedMnistFile) -> list[Instance]:
    return [instance for file in source.scan() for instance in read_file(source, file)]


def parts(source: MedMnistFile) -> dict[str, int]:
    counted: dict[str, int] = {}
    for row in rows(source):
        counted[row.split or ""] = counted.get(row.split or "", 0) + 1
    return counted


def refused(folder: Path, **contents: Any) -> str:
    """Return the message for a file that is refused."""
    source = written(folder, **contents)
    with pytest.raises(UserFault) as caught:
        rows(source)
    return str(caught.value)


@pytest.fixture
def source(tmp_path: Path) -> MedMnistFile:
    return written(tmp_path, **arrays(**COUNTS))


def test_a_part_is_listed_in_ranges(tmp_path: Path) -> None:
    source = written(tmp_path, **arrays(train=ROWS_A_FILE + 1, val=1, test=1))
    assert [file.name for file in source.scan()] == [
        "train[0:512]",
        "train[512:513]",
        "val[0:1]",
        "test[0:1]",
    ]


def test_a_range_has_the_size_of_its_rows(source: MedMnistFile) -> None:
    assert next(source.scan()).size_bytes == 24 * 28 * 28


def test_a_range_has_the_time_of_the_file(source: MedMnistFile) -> None:
    assert next(source.scan()).mtime_ns == source.path.stat().st_mtime_ns


def test_every_row_of_every_part_is_read(source: MedMnistFile) -> None:
    assert parts(source) == COUNTS


def test_a_row_has_its_grey_levels(source: MedMnistFile) -> None:
    np.testing.assert_array_equal(rows(source)[7].image.stored, images(24)[7])


def test_a_row_is_single_precision(source: MedMnistFile) -> None:
    assert rows(source)[0].image.values.dtype == np.float32


def test_a_label_is_text(source: MedMnistFile) -> None:
    assert [row.label for row in rows(source)[:4]] == ["0", "1", "2", "0"]


def test_a_row_is_a_patient_of_its_own(source: MedMnistFile) -> None:
    instances = rows(source)
    assert len({row.patient_id for row in instances}) == len(instances) == sum(COUNTS.values())


def test_a_row_is_named_by_its_part_and_number(source: MedMnistFile) -> None:
    row = rows(source)[17]
    named = (row.patient_id, row.study_uid, row.series_uid, row.sop_instance_uid)
    assert named == ("train-17",) * 4


def test_a_row_is_named_by_its_bytes(source: MedMnistFile) -> None:
    row = rows(source)[3]
    assert row.content_blake3 == row.pixel_blake3 == pixel_digest(images(24)[3]).hex()


def test_the_modality_does_not_matter(source: MedMnistFile) -> None:
    file = next(source.scan())
    assert [row.label for row in read_file(source, file, "CT")] == [
        row.label for row in read_file(source, file, "OT")
    ]


def test_preparing_leaves_the_grey_levels_as_they_are(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 28, 28), np.uint8)
    source = written(tmp_path, **arrays(**COUNTS) | {"train_images": noise, "train_labels": np.zeros(1, int)})
    spec = source.default_spec()
    np.testing.assert_array_equal(prepare(rows(source)[0].image, spec), noise[0])


@pytest.mark.parametrize(("side", "size_px"), [(8, 16), (28, 28), (1100, 1024)])
def test_the_size_is_kept_where_a_model_takes_it(tmp_path: Path, side: int, size_px: int) -> None:
    contents = {part: images(1, side) for part in ("train_images", "test_images")}
    zeros = {part: np.zeros(1, int) for part in ("train_labels", "test_labels")}
    assert written(tmp_path, **contents, **zeros).default_spec().size_px == size_px


def test_labels_may_be_a_plain_list(tmp_path: Path) -> None:
    source = written(tmp_path, **arrays(**COUNTS) | {"val_labels": np.arange(4)})
    assert [row.label for row in rows(source) if row.split == "val"] == ["0", "1", "2", "3"]


def test_the_layout_of_keras_is_read(tmp_path: Path) -> None:
    contents = {"x_train": images(24), "y_train": np.arange(24), "x_test": images(5), "y_test": np.arange(5)}
    assert len(rows(written(tmp_path, **contents))) == 29


def test_without_val_a_twelfth_of_train_is_val(tmp_path: Path) -> None:
    assert parts(written(tmp_path, **arrays(train=240, test=5))) == {"train": 220, "val": 20, "test": 5}


def test_the_twelfth_is_the_same_each_time(tmp_path: Path) -> None:
    first = [row.split for row in rows(written(tmp_path, **arrays(train=240, test=5)))]
    assert first == [row.split for row in rows(MedMnistFile(tmp_path / "some.npz"))]


def test_the_twelfth_is_drawn_from_all_rows(tmp_path: Path) -> None:
    instances = rows(written(tmp_path, **arrays(train=240, test=5)))
    drawn = [int(row.sop_instance_uid.removeprefix("train-")) for row in instances if row.split == "val"]
    assert min(drawn) < 120 < max(drawn)


def test_a_file_with_val_keeps_its_train(source: MedMnistFile) -> None:
    assert parts(source)["train"] == 24


def test_many_ranges_are_read_with_one_load(source: MedMnistFile, monkeypatch: pytest.MonkeyPatch) -> None:
    files = list(source.scan())
    loaded: list[Path] = []
    load = np.load

    def note(path: Path, **options: Any) -> Any:
        loaded.append(path)
        return load(path, **options)

    monkeypatch.setattr(np, "load", note)
    assert sum(len(read_file(source, file)) for file in files) == sum(COUNTS.values())
    assert (len(files), loaded) == (3, [source.path])


def test_a_file_that_was_written_again_is_loaded_again(tmp_path: Path) -> None:
    before = rows(written(tmp_path, **arrays(**COUNTS)))[1].image.stored
    source = written(tmp_path, **arrays(**COUNTS) | {"train_images": images(24)[::-1]})
    os.utime(source.path, ns=(7, 7))
    assert not np.array_equal(rows(source)[1].image.stored, before)


def test_nothing_is_loaded_before_it_is_asked_for(tmp_path: Path) -> None:
    assert MedMnistFile(tmp_path / "missing.npz").kind == "medmnist"


@pytest.mark.parametrize("name", ["train", "train[0:25]", "pilot[0:4]", "train[0:4]x"])
def test_a_range_that_is_not_there_is_refused(source: MedMnistFile, name: str) -> None:
    with pytest.raises(UserFault, match="scan the file again"):
        read_file(source, SourceFile(name=name, size_bytes=1, mtime_ns=1))


def test_colour_is_refused_with_its_shape(tmp_path: Path) -> None:
    message = refused(tmp_path, **arrays(**COUNTS) | {"train_images": np.zeros((24, 28, 28, 3), np.uint8)})
    assert "(24, 28, 28, 3)" in message


def test_other_numbers_than_bytes_are_refused(tmp_path: Path) -> None:
    assert "float32" in refused(
        tmp_path, **arrays(**COUNTS) | {"val_images": np.zeros((4, 28, 28), np.float32)}
    )


def test_an_empty_part_is_refused(tmp_path: Path) -> None:
    assert "test_images" in refused(tmp_path, **arrays(train=24, val=4, test=0))


@pytest.mark.parametrize(
    "labels", [np.zeros(3, int), np.zeros((4, 2), int), np.zeros(4)], ids=["few", "many", "float"]
)
def test_labels_must_be_one_whole_number_an_image(tmp_path: Path, labels: NDArray[Any]) -> None:
    assert "val_labels" in refused(tmp_path, **arrays(**COUNTS) | {"val_labels": labels})


def test_a_missing_part_is_reported_with_what_is_there(tmp_path: Path) -> None:
    assert "some.npz holds val_images, val_labels; needed are train_images" in refused(
        tmp_path, **arrays(val=4)
    )


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    assert "plain arrays" in refused(tmp_path, train_images=np.array([{"a": 1}], dtype=object))


@pytest.mark.parametrize("kept", [0, 30, 2000])
def test_a_file_that_is_cut_is_refused(source: MedMnistFile, kept: int) -> None:
    source.path.write_bytes(source.path.read_bytes()[:kept])
    with pytest.raises(UserFault, match=r"no NPZ file"):
        rows(source)


def test_a_file_whose_bytes_changed_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "some.npz", **arrays(**COUNTS))
    data = bytearray((tmp_path / "some.npz").read_bytes())
    data[60:90] = b"\xff" * 30
    (tmp_path / "some.npz").write_bytes(data)
    with pytest.raises(UserFault, match=r"no NPZ file"):
        rows(MedMnistFile(tmp_path / "some.npz"))


def test_the_digits_have_their_parts(digits: MedMnistFile) -> None:
    assert {part: len(images) for part, images in digits.images.items()} == DIGIT_PARTS


def test_the_digits_have_ten_labels(digits: MedMnistFile) -> None:
    assert set(digits.labels["test"].tolist()) == set(range(10))


def test_a_file_of_the_digits_reads_as_its_rows(digits: MedMnistFile) -> None:
    read_rows = [row for file in digits.scan() for row in read_file(digits, file)]
    assert Counter(row.split for row in read_rows) == DIGIT_PARTS
    assert {row.label for row in read_rows} == {str(number) for number in range(10)}


def test_pneumoniamnist_has_its_official_parts(data_dir: Path) -> None:
    source = MedMnistFile(data_dir / "pneumoniamnist.npz")
    assert {part: len(rows) for part, rows in source.images.items()} == {
        "train": 4708,
        "val": 524,
        "test": 624,
    }


def test_pneumoniamnist_has_two_labels(data_dir: Path) -> None:
    assert set(MedMnistFile(data_dir / "pneumoniamnist.npz").labels["train"].tolist()) == {0, 1}


def test_mnist_has_ten_labels(data_dir: Path) -> None:
    assert set(MedMnistFile(data_dir / "mnist.npz").labels["test"].tolist()) == set(range(10))


def test_the_val_part_of_mnist_is_a_twelfth(data_dir: Path) -> None:
    source = MedMnistFile(data_dir / "mnist.npz")
    file = next(source.scan())
    drawn = sum(row.split == "val" for row in read_file(source, file))
    assert drawn / ROWS_A_FILE == pytest.approx(1 / 12, abs=0.04)
