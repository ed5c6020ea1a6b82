"""Chunk of an ingest: files become one shard and rows, and a bad file becomes a row too."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from imaging.dataset.ingest import chunk as module
from imaging.dataset.ingest.chunk import ChunkResult, prepare_chunk
from imaging.dataset.ingest.prepare_files import FUNCTION
from imaging.dataset.split.fingerprint import fingerprints
from imaging.dataset.tables.schemas import EXAMPLES, REFUSALS
from imaging.dataset.tables.shard import map_shard
from imaging.errors import DataFault, EnvironmentFault
from imaging.image.image import Image
from imaging.image.instance import Instance
from imaging.image.window import Window
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import NO_KEY, Pseudonyms
from imaging.refusal_reasons import REASONS
from imaging.sandbox.pool import Item, Pool
from imaging.sources.dispatch import Outcome, Run
from imaging.sources.folder_source import FolderSource
from imaging.sources.protocol import Payload, SourceFile
from imaging.store.folder_store import FolderStore
from tests.synthetic import GREY, MemorySource, instance, plain_image, write_dicom

NAMES = Pseudonyms(b"k" * 32)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def chunk(
    store: FolderStore, files: dict[str, list[Instance] | DataFault], spec: PreprocessSpec = GREY
) -> ChunkResult:
    source = MemorySource(files)
    return prepare_chunk(source, list(source.scan()), spec, NAMES, store, source.run(spec))


def examples(*arguments: Any) -> list[dict[str, Any]]:
    """Return the rows of a chunk's examples."""
    return chunk(*arguments).examples.to_pylist()


def refusals(made: ChunkResult) -> list[tuple[str, str]]:
    return [(row["reason"], row["detail"]) for row in made.refusals.to_pylist()]


def image_of(store: FolderStore, row: dict[str, Any]) -> Any:
    return map_shard(store, row["shard"])[row["row"]]


def test_each_image_is_in_the_shard_at_its_row(store: FolderStore) -> None:
    rows = examples(store, {"a": [instance(7)], "b": [instance(9), instance(11)]})
    assert [int(image_of(store, row).mean()) for row in rows] == [7, 9, 11]
    assert len({row["shard"] for row in rows}) == 1


def test_tables_have_the_columns_of_rows_even_where_they_are_empty(store: FolderStore) -> None:
    for made in (chunk(store, {"a": [instance(7)], "b": DataFault("truncated")}), chunk(store, {})):
        assert made.examples.schema.equals(EXAMPLES, check_metadata=True)
        assert made.refusals.schema.equals(REFUSALS, check_metadata=True)


def test_what_must_be_there_is_there(store: FolderStore) -> None:
    made = chunk(store, {"a": [instance(7, label=None, attributes={})], "b": DataFault("truncated")})
    for table in (made.examples, made.refusals):
        assert [f.name for f in table.schema if not f.nullable and table[f.name].null_count] == []


def test_rows_carry_pseudonyms_of_every_level(store: FolderStore) -> None:
    (row,) = examples(store, {"a": [instance(7, institution="Harbour Hospital")]})
    assert row["patient_key"] == NAMES.key("patient", "P7")
    assert row["patient_variant"] == NAMES.variant_key("P7")
    assert row["study_key"] == NAMES.key("study", "1.7")
    assert row["series_key"] == NAMES.key("series", "2.7")
    assert row["instance_key"] == row["object_key"] == NAMES.key("instance", "3.7")
    assert row["source_key"] == NAMES.key("file", "a")
    assert row["site_key"] == NAMES.key("site", "Harbour Hospital")


def test_a_volume_has_the_keys_of_its_slices(store: FolderStore) -> None:
    (row,) = examples(store, {"a": [instance(7, slice_uids=("1.1", "", "1.2", "1.2"))]})
    keys = [NAMES.key("instance", uid) if uid else NO_KEY for uid in ("1.1", "", "1.2", "1.2")]
    assert row["slice_keys"] == "".join(keys)


def test_an_image_of_no_institution_has_no_site(store: FolderStore) -> None:
    assert [row["site_key"] for row in examples(store, {"a": [instance(7)]})] == [""]


def test_rows_repeat_size_time_and_tag_of_the_listing(store: FolderStore) -> None:
    class Tagged(MemorySource):
        def scan(self) -> Iterator[SourceFile]:
            for number, name in enumerate(self.files):
                yield SourceFile(name=name, size_bytes=10 + number, mtime_ns=20 + number, tag=f"t{number}")

    source = Tagged({"a": [instance(7), instance(8)], "b": DataFault("truncated")})
    made = prepare_chunk(source, list(source.scan()), GREY, NAMES, store, source.run())
    names = ["source_size", "source_mtime_ns", "source_tag"]
    assert made.examples.select(names).to_pylist() == [dict(zip(names, (10, 20, "t0"), strict=True))] * 2
    assert made.refusals.select(names).to_pylist() == [dict(zip(names, (11, 21, "t1"), strict=True))]


def test_rows_name_the_spec(store: FolderStore) -> None:
    made = chunk(store, {"a": [instance(7)], "b": DataFault("truncated")})
    assert {*made.examples["spec"].to_pylist(), *made.refusals["spec"].to_pylist()} == {GREY.digest}


def test_a_fingerprint_is_that_of_the_prepared_image(store: FolderStore) -> None:
    busy = np.random.default_rng(3).integers(0, 256, (16, 16), np.uint8)
    files = {"a": [instance(7), instance(9, image=Image(stored=busy))], "b": [instance(11)]}
    rows = examples(store, files)
    wanted = fingerprints(np.stack([image_of(store, row) for row in rows]))
    assert [row["fingerprint"] for row in rows] == [one.tobytes() for one in wanted]


def test_each_frame_is_an_example_of_its_own_and_of_one_object(store: FolderStore) -> None:
    frames = [instance(7, frame=number, image=plain_image(number)) for number in (1, 2)]
    made = examples(store, {"a": frames})
    assert [(row["frame"], row["object_key"]) for row in made] == [
        (1, NAMES.key("instance", "3.7")),
        (2, NAMES.key("instance", "3.7")),
    ]
    assert len({row["instance_key"] for row in made} | {made[0]["object_key"]}) == 3


def test_findings_of_a_volume_come_along(store: FolderStore) -> None:
    (row,) = examples(store, {"a": [instance(7, findings=("gap", "tilt"))]})
    assert row["findings"] == "gap tilt"


def test_a_volume_is_prepared_as_one_example(store: FolderStore) -> None:
    spec = GREY.model_copy(update={"kind": "volume", "slices": 4})
    volume = instance(7, image=Image(stored=np.full((4, 16, 16), 9, np.uint8)))
    (row,) = examples(store, {"a": [volume]}, spec)
    assert image_of(store, row).shape == (4, 16, 16)
    assert (row["rows"], row["columns"]) == (16, 16)


def test_no_row_contains_an_identifier_or_a_file_name(store: FolderStore) -> None:
    made = chunk(
        store,
        {
            "MUSTERMANN": [instance(7, patient_id="P-SECRET", institution="HARBOUR")],
            "SCHMIDT": DataFault("truncated"),
        },
    )
    text = repr(made.examples.to_pylist() + made.refusals.to_pylist())
    assert not re.search("MUSTERMANN|SCHMIDT|SECRET|HARBOUR|'[123]\\.7'", text)


def test_what_the_source_knows_comes_along(store: FolderStore) -> None:
    attributes = {
        "modality": "CT",
        "manufacturer": "ACME",
        "spacing_mm": 0.5,
        "model": "M1",
        "body_part": "HEAD",
    }
    (row,) = examples(store, {"a": [instance(7, split="test", attributes=attributes | {"kvp": 120.0})]})
    assert (row["source_label"], row["source_split"]) == ("odd", "test")
    assert {name: row[name] for name in attributes} == attributes
    assert (row["rows"], row["columns"], row["kvp"]) == (16, 16, 120.0)


def test_what_a_file_lacks_is_empty(store: FolderStore) -> None:
    (row,) = examples(store, {"a": [instance(7, label=None, attributes={})]})
    assert [row[name] for name in ("modality", "manufacturer", "model", "body_part")] == [""] * 4
    assert [row[name] for name in ("spacing_mm", "kvp", "source_label", "source_split")] == [None] * 4


def test_a_bad_file_is_a_refusal_and_the_others_go_on(store: FolderStore) -> None:
    made = chunk(store, {"a": [instance(7)], "b": DataFault("truncated", "5 bytes"), "c": [instance(9)]})
    assert made.examples.num_rows == 2
    assert refusals(made) == [("truncated", "5 bytes")]


def test_a_file_is_all_examples_or_one_refusal(store: FolderStore) -> None:
    class Late(MemorySource):
        def _read(self, payload: Payload, modality: str) -> Iterator[Instance]:
            yield from super()._read(payload, modality)
            raise DataFault("undecodable", "frame 3")

    source = Late({"a": [instance(7), instance(9)]})
    made = prepare_chunk(source, list(source.scan()), GREY, NAMES, store, source.run())
    assert (made.examples.num_rows, refusals(made)) == (0, [("undecodable", "frame 3")])


def test_a_file_that_cannot_be_fetched_is_a_refusal(store: FolderStore) -> None:
    class Closed(MemorySource):
        def fetch(self, file: SourceFile) -> Payload:
            if file.name == "a":
                raise DataFault("archive-link")
            return super().fetch(file)

    source = Closed({"a": [instance(7)], "b": [instance(9)]})
    made = prepare_chunk(source, list(source.scan()), GREY, NAMES, store, source.run())
    assert refusals(made) == [("archive-link", "")]
    assert made.refusals["source_key"].to_pylist() == [NAMES.key("file", "a")]
    assert made.examples["source_key"].to_pylist() == [NAMES.key("file", "b")]


def deadly(run: Run, *names: str) -> Run:
    """Return a run of which an item ends its worker where it contains one of these files."""

    def guarded(items: Iterable[Item]) -> Iterator[Outcome]:
        for item in items:
            given = {name for _, name, _, _ in item.value["payloads"]}
            if given & {*names}:
                yield DataFault("decoder-crashed", "the worker ended with signal 11")
            else:
                yield from run([item])

    return guarded


def test_what_ends_a_worker_costs_one_file(store: FolderStore) -> None:
    source = MemorySource({f"f{number}": [instance(number)] for number in range(20)})
    run = deadly(source.run(), "f7")
    made = prepare_chunk(source, list(source.scan()), GREY, NAMES, store, run)
    assert made.refusals["source_key"].to_pylist() == [NAMES.key("file", "f7")]
    assert refusals(made) == [("decoder-crashed", "the worker ended with signal 11")]
    levels = {row["source_key"]: int(image_of(store, row).mean()) for row in made.examples.to_pylist()}
    assert levels == {NAMES.key("file", f"f{number}"): number for number in range(20) if number != 7}


def test_files_go_to_a_worker_some_at_a_time(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ITEM_FILES", 5)
    source = MemorySource({f"f{number}": [instance(number)] for number in range(43)})
    given = []

    def run(items: Iterable[Item]) -> Iterator[Outcome]:
        for item in items:
            given.append(len(item.value["payloads"]))
            yield from source.run()([item])

    made = prepare_chunk(source, list(source.scan()), GREY, NAMES, store, run)
    assert given == [5] * 8 + [3]
    assert made.examples["row"].to_pylist() == list(range(43))


def test_large_files_go_alone(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ITEM_BYTES", 1)
    source = MemorySource({f"f{number}": [instance(number)] for number in range(20)})
    given = []

    def run(items: Iterable[Item]) -> Iterator[Outcome]:
        for item in items:
            given.append(len(item.value["payloads"]))
            yield from source.run()([item])

    prepare_chunk(source, list(source.scan()), GREY, NAMES, store, run)
    assert given == [1] * 20


def test_many_images_become_several_shards(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_BYTES", 2 * 16 * 16)
    files: dict[str, list[Instance] | DataFault] = {f"f{number}": [instance(number)] for number in range(5)}
    rows = examples(store, files | {"bad": DataFault("truncated")})
    assert [int(image_of(store, row).mean()) for row in rows] == [0, 1, 2, 3, 4]
    assert [row["row"] for row in rows] == [0, 1, 0, 1, 0]
    assert len({row["shard"] for row in rows}) == 3


def test_a_slide_whose_pieces_hang_is_given_up(store: FolderStore) -> None:
    source = MemorySource({"a": [instance(7)]})
    (file,) = source.scan()
    given = []

    def hang(items: Iterable[Item]) -> Iterator[Outcome]:
        for item in items:
            given.append(item)
            yield DataFault("decoder-hung", "no result within 60 s")

    pieces = [replace(file, piece=f"{number}/9") for number in range(1, 10)]
    made = prepare_chunk(source, pieces, GREY, NAMES, store, hang)
    assert len(given) == module.HUNG_PIECES
    assert refusals(made) == [
        ("decoder-hung", "no result within 60 s, 3 times: further pieces of the slide are not read")
    ]


def test_only_bad_files_make_no_shard(store: FolderStore) -> None:
    made = chunk(store, {"a": DataFault("truncated")})
    assert (made.examples.num_rows, list(store.root.rglob("*"))) == (0, [])


def test_a_fault_of_the_environment_stops_the_chunk_and_writes_nothing(store: FolderStore) -> None:
    class Failing(MemorySource):
        def _read(self, payload: Payload, modality: str) -> Iterator[Instance]:
            yield from super()._read(payload, modality)
            raise EnvironmentFault("no decoder")

    source = Failing({"a": [instance(7)]})
    with pytest.raises(EnvironmentFault, match="no decoder"):
        prepare_chunk(source, list(source.scan()), GREY, NAMES, store, source.run())
    assert list(store.root.rglob("*")) == []


def test_a_file_without_the_window_it_should_bring_is_refused(store: FolderStore) -> None:
    own = PreprocessSpec(window="file", size_px=16)
    ((reason, _),) = refusals(chunk(store, {"a": [instance(7)]}, own))
    assert reason == "no-window"


def test_a_files_own_window_is_used_where_the_spec_asks_for_it(store: FolderStore) -> None:
    own = PreprocessSpec(window="file", size_px=16)
    bright = instance(7, image=plain_image(7, vois=(Window(center=0, width=2),)))
    (row,) = examples(store, {"a": [bright]}, own)
    assert image_of(store, row).min() == 255


def test_an_inverted_image_is_turned_over(store: FolderStore) -> None:
    (row,) = examples(store, {"a": [instance(7, image=plain_image(7, inverted=True))]})
    assert image_of(store, row).max() == 255 - 7


def test_digests_of_the_reader_are_kept(store: FolderStore) -> None:
    (row,) = examples(store, {"a": [instance(7, content_blake3="c" * 64, pixel_blake3="d" * 64)]})
    assert (row["content_blake3"], row["pixel_blake3"]) == ("c" * 64, "d" * 64)


def test_the_same_chunk_twice_writes_the_same_bytes(store: FolderStore) -> None:
    first = chunk(store, {"a": [instance(7)], "b": DataFault("truncated")})
    written = {path: path.read_bytes() for path in store.root.rglob("*.npy")}
    assert chunk(store, {"a": [instance(7)], "b": DataFault("truncated")}) == first
    assert {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()} == written


def test_rows_keep_no_memory_but_their_own(store: FolderStore) -> None:
    before = pa.total_allocated_bytes()
    made = chunk(store, {f"f{number}": [instance(number)] for number in range(100)})
    assert pa.total_allocated_bytes() - before < 4 * (made.examples.nbytes + made.refusals.nbytes) + 2**16


@pytest.mark.parametrize(("files", "items"), [(3, [1] * 3), (15, [2] * 7 + [1]), (125, [16] * 7 + [13])])
def test_few_files_are_given_in_parts_of_which_all_workers_have_as_many(
    store: FolderStore, files: int, items: list[int]
) -> None:
    source, given = MemorySource({f"f{number}": [instance(number)] for number in range(files)}), list[int]()

    def run(some: Iterable[Item]) -> Iterator[Outcome]:
        items = list(some)
        given.extend(len(item.value["payloads"]) for item in items)
        return iter(source.run()(items))

    prepare_chunk(source, list(source.scan()), GREY, NAMES, store, run)
    assert given == items


@pytest.mark.slow
def test_real_files_go_through_real_workers(store: FolderStore, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for number in range(40):
        level = np.full((64, 64), number * 5)
        write_dicom(files / f"IM{number:02}", level, PatientID=f"P{number}", SOPInstanceUID=f"1.2.{number}")
    (files / "IM07").write_bytes((files / "IM07").read_bytes()[:-100])
    (files / "IM08").write_bytes(b"no image")
    spec, source = PreprocessSpec(size_px=16), FolderSource(files)
    with Pool(FUNCTION, {"spec": spec.model_dump_json()}, workers=2) as pool:
        made = prepare_chunk(source, list(source.scan()), spec, NAMES, store, pool.map)
    assert [reason for reason, _ in refusals(made)] == ["truncated", "not-dicom"]
    assert made.examples.num_rows == 38
    levels = {row["patient_key"]: int(image_of(store, row).mean()) for row in made.examples.to_pylist()}
    assert levels[NAMES.key("patient", "P9")] == round((45 + 160) / 399 * 255)


def test_every_reason_has_a_meaning() -> None:
    assert all(meaning and name == name.lower() for name, meaning in REASONS.items())


def test_what_is_named_by_its_series_alone_is_that_object(store: FolderStore) -> None:
    one, other = chunk(
        store, {"a": [instance(7)], "b": [instance(8, sop_instance_uid="2.8")]}
    ).examples.to_pylist()
    assert one["object_key"] == one["instance_key"] != one["series_key"]
    assert other["object_key"] == other["series_key"] != other["instance_key"]


def test_frames_are_of_one_object(store: FolderStore) -> None:
    frames = [instance(7, frame=1), instance(7, frame=2)]
    one, two = chunk(store, {"a": frames}).examples.to_pylist()
    assert one["object_key"] == two["object_key"] == NAMES.key("instance", "3.7")
    assert len({one["instance_key"], two["instance_key"], one["object_key"]}) == 3
