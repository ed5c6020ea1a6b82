"""One chunk of ingest: files in, one shard and rows out, and a bad file is a row too."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from imaging.dataset.chunk import ChunkResult, prepare_chunk
from imaging.dataset.quarantine import REASONS
from imaging.dataset.shard import map_shard
from imaging.deidentify.pseudonyms import Pseudonyms
from imaging.errors import DataFault, EnvironmentFault
from imaging.image import Image
from imaging.instance import Instance
from imaging.preprocess import PreprocessSpec
from imaging.sources.protocol import Parcel, SourceFile
from imaging.store.folder import FolderStore
from imaging.window import Window
from tests.synthetic import GREY, MemorySource, instance, plain_image

NAMES = Pseudonyms(b"k" * 32)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def chunk(
    store: FolderStore, files: dict[str, list[Instance] | DataFault], spec: PreprocessSpec = GREY
) -> ChunkResult:
    source = MemorySource(files)
    return prepare_chunk(source, list(source.scan()), spec, NAMES, store, source.run(spec))


def test_each_image_is_in_the_shard_at_its_row(store: FolderStore) -> None:
    made = chunk(store, {"a": [instance(7)], "b": [instance(9), instance(11)]})
    shard = map_shard(store, made.examples[0].shard)
    assert [int(shard[example.row].mean()) for example in made.examples] == [7, 9, 11]


def test_rows_carry_pseudonyms_of_every_level(store: FolderStore) -> None:
    (row,) = chunk(store, {"a": [instance(7)]}).examples
    assert row.patient_key == NAMES.key("patient", "P7")
    assert row.study_key == NAMES.key("study", "1.7")
    assert row.series_key == NAMES.key("series", "2.7")
    assert row.instance_key == NAMES.key("instance", "3.7")
    assert row.object_key == row.instance_key
    assert row.source_key == NAMES.key("file", "a")


def test_each_frame_is_an_example_of_its_own_and_of_one_object(store: FolderStore) -> None:
    frames = [instance(7, frame=number, image=plain_image(number)) for number in (1, 2)]
    made = chunk(store, {"a": frames}).examples
    assert [(row.frame, row.object_key) for row in made] == [
        (1, NAMES.key("instance", "3.7")),
        (2, NAMES.key("instance", "3.7")),
    ]
    assert len({row.instance_key for row in made} | {made[0].object_key}) == 3


def test_findings_of_a_volume_come_along(store: FolderStore) -> None:
    (row,) = chunk(store, {"a": [instance(7, findings=("gap", "tilt"))]}).examples
    assert row.findings == "gap tilt"


def test_a_volume_is_prepared_as_one_example(store: FolderStore) -> None:
    spec = GREY.model_copy(update={"kind": "volume", "slices": 4})
    volume = instance(7, image=Image(stored=np.full((4, 16, 16), 9, np.uint8)))
    (row,) = chunk(store, {"a": [volume]}, spec).examples
    assert map_shard(store, row.shard)[row.row].shape == (4, 16, 16)
    assert (row.rows, row.columns) == (16, 16)


def test_no_row_holds_an_identifier_or_a_file_name(store: FolderStore) -> None:
    made = chunk(
        store, {"MUSTERMANN": [instance(7, patient_id="P-SECRET")], "SCHMIDT": DataFault("truncated")}
    )
    assert not re.search("MUSTERMANN|SCHMIDT|SECRET|'3\\.7'", repr(made))


def test_what_the_source_knows_comes_along(store: FolderStore) -> None:
    (row,) = chunk(store, {"a": [instance(7, split="test")]}).examples
    assert (row.source_label, row.source_split) == ("odd", "test")
    assert (row.modality, row.manufacturer, row.spacing_mm) == ("OT", "ACME", 0.5)
    assert (row.rows, row.columns) == (16, 16)


def test_a_bad_file_is_a_refusal_and_the_others_go_on(store: FolderStore) -> None:
    made = chunk(store, {"a": [instance(7)], "b": DataFault("truncated", "5 bytes"), "c": [instance(9)]})
    assert len(made.examples) == 2
    assert [(row.reason, row.detail) for row in made.refusals] == [("truncated", "5 bytes")]


def test_a_file_is_all_examples_or_one_refusal(store: FolderStore) -> None:
    class Late(MemorySource):
        def _read(self, parcel: Parcel, modality: str) -> Iterator[Instance]:
            yield from super()._read(parcel, modality)
            raise DataFault("undecodable", "frame 3")

    source = Late({"a": [instance(7), instance(9)]})
    made = prepare_chunk(source, list(source.scan()), GREY, NAMES, store, source.run())
    assert (made.examples, [row.reason for row in made.refusals]) == ((), ["undecodable"])


def test_a_file_that_cannot_be_fetched_is_a_refusal(store: FolderStore) -> None:
    class Closed(MemorySource):
        def fetch(self, file: SourceFile) -> Parcel:
            if file.name == "a":
                raise DataFault("archive-link")
            return super().fetch(file)

    source = Closed({"a": [instance(7)], "b": [instance(9)]})
    made = prepare_chunk(source, list(source.scan()), GREY, NAMES, store, source.run())
    assert [(row.source_key, row.reason) for row in made.refusals] == [
        (NAMES.key("file", "a"), "archive-link")
    ]
    assert [row.source_key for row in made.examples] == [NAMES.key("file", "b")]


def test_only_bad_files_make_no_shard(store: FolderStore) -> None:
    made = chunk(store, {"a": DataFault("truncated")})
    assert (made.examples, list(store.root.rglob("*"))) == ((), [])


def test_a_fault_of_the_environment_stops_the_chunk_and_writes_nothing(store: FolderStore) -> None:
    class Failing(MemorySource):
        def _read(self, parcel: Parcel, modality: str) -> Iterator[Instance]:
            yield from super()._read(parcel, modality)
            raise EnvironmentFault("no decoder")

    source = Failing({"a": [instance(7)]})
    with pytest.raises(EnvironmentFault, match="no decoder"):
        prepare_chunk(source, list(source.scan()), GREY, NAMES, store, source.run())
    assert list(store.root.rglob("*")) == []


def test_a_file_without_the_window_it_should_bring_is_refused(store: FolderStore) -> None:
    own = PreprocessSpec(window="file", size_px=16)
    (row,) = chunk(store, {"a": [instance(7)]}, own).refusals
    assert row.reason == "no-window"


def test_a_files_own_window_is_used_where_the_spec_says_so(store: FolderStore) -> None:
    own = PreprocessSpec(window="file", size_px=16)
    bright = instance(7, image=plain_image(7, vois=(Window(center=0, width=2),)))
    (row,) = chunk(store, {"a": [bright]}, own).examples
    assert map_shard(store, row.shard).min() == 255


def test_an_inverted_image_is_turned_over(store: FolderStore) -> None:
    (row,) = chunk(store, {"a": [instance(7, image=plain_image(7, inverted=True))]}).examples
    assert map_shard(store, row.shard).max() == 255 - 7


def test_equal_pixels_have_equal_digests_whoever_they_belong_to(store: FolderStore) -> None:
    made = chunk(store, {"a": [instance(7, image=plain_image(5))], "b": [instance(9, image=plain_image(5))]})
    assert made.examples[0].pixel_sha256 == made.examples[1].pixel_sha256


def test_pixel_digests_are_those_of_the_values_before_preparation(store: FolderStore) -> None:
    large, small = PreprocessSpec.grey_levels(32), GREY
    made = [chunk(store, {"a": [instance(7)]}, spec).examples[0] for spec in (large, small)]
    assert made[0].pixel_sha256 == made[1].pixel_sha256
    assert made[0].shard != made[1].shard


def test_the_same_chunk_twice_writes_the_same_bytes_once(store: FolderStore) -> None:
    first = chunk(store, {"a": [instance(7)], "b": DataFault("truncated")})
    written = {path: path.stat().st_mtime_ns for path in store.root.rglob("*.npy")}
    assert chunk(store, {"a": [instance(7)], "b": DataFault("truncated")}) == first
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*.npy")} == written


def test_rows_are_frozen(store: FolderStore) -> None:
    (row,) = chunk(store, {"a": [instance(7)]}).examples
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.patient_key = "other"  # type: ignore[misc]


def test_every_reason_says_what_it_means() -> None:
    assert all(meaning and name == name.lower() for name, meaning in REASONS.items())
