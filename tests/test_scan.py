"""What is new: the listing of a source held against the version that is there."""

from pathlib import Path

import pytest

from imaging.dataset.chunk import prepare_chunk
from imaging.dataset.manifest import drop_studies, merge
from imaging.dataset.publish import build_version
from imaging.dataset.scan import CHUNK_FILES, ScanPlan, plan
from imaging.dataset.version import DatasetVersion
from imaging.deidentify.pseudonyms import Pseudonyms
from imaging.errors import DataFault, UserFault
from imaging.preprocess import PreprocessSpec
from imaging.sources.protocol import SourceFile
from imaging.store.folder import FolderStore
from tests.synthetic import GREY, MemorySource, instance, recipe, refusal

NAMES = Pseudonyms(b"k" * 32)
LARGER = PreprocessSpec.grey_levels(32)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


@pytest.fixture
def source() -> MemorySource:
    files = {f"f{number}": [instance(number)] for number in range(6)}
    return MemorySource(files | {"broken": DataFault("truncated")})


def planned(
    source: MemorySource,
    previous: DatasetVersion | None,
    spec: PreprocessSpec = GREY,
    names: Pseudonyms = NAMES,
) -> ScanPlan:
    return plan(list(source.scan()), previous, spec, names)


def night(
    store: FolderStore,
    source: MemorySource,
    previous: DatasetVersion | None = None,
    spec: PreprocessSpec = GREY,
) -> DatasetVersion:
    """Take in what is new, as the ingest flow does; `source.read_names` tells what was read for it."""
    source.read_names.clear()
    scan = planned(source, previous, spec)
    chunks = [prepare_chunk(source, files, spec, NAMES, store, source.run(spec)) for files in scan.chunks()]
    new = [row for chunk in chunks for row in chunk.examples]
    refused = [row for chunk in chunks for row in chunk.refusals]
    standing, repeats = merge(scan.examples, new, drop_equal_pixels=True)
    made = recipe(spec=spec, key_fingerprint=NAMES.fingerprint)
    refusals = [*scan.refusals, *refused, *repeats]
    return build_version(store, made, standing, refusals, previous.splits() if previous else {})


def test_the_first_night_reads_everything(store: FolderStore, source: MemorySource) -> None:
    night(store, source)
    assert source.read_names == list(source.files)


def test_an_unchanged_source_is_not_read(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    second = night(store, source, first)
    assert (source.read_names, second.digest) == ([], first.digest)


def test_a_refused_file_is_not_read_again(store: FolderStore, source: MemorySource) -> None:
    second = night(store, source, night(store, source))
    assert [row.reason for row in second.refusals()] == ["truncated"]


def test_only_new_files_are_read(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    source.files["f9"] = [instance(9)]
    second = night(store, source, first)
    assert (source.read_names, second.manifest.num_rows) == (["f9"], 7)


def test_a_changed_file_is_read_again(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    source.files["f3"], source.mtimes["f3"] = [instance(33)], 2
    second = night(store, source, first)
    assert source.read_names == ["f3"]
    keys = {row.instance_key for row in second.examples()}
    assert NAMES.key("instance", "3.33") in keys
    assert NAMES.key("instance", "3.3") not in keys


def test_a_file_of_another_size_is_read_again(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    grown = [SourceFile(name=name, size_bytes=2, mtime_ns=1) for name in source.files]
    assert len(plan(grown, first, GREY, NAMES).to_read) == len(source.files)


def test_a_mended_file_is_taken_in(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    source.files["broken"], source.mtimes["broken"] = [instance(8)], 2
    second = night(store, source, first)
    assert (second.refusals(), second.manifest.num_rows) == ([], 7)


def test_a_removed_file_takes_its_example_along(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    del source.files["f3"]
    assert planned(source, first).removed == 1
    assert night(store, source, first).manifest.num_rows == 5
    assert source.read_names == []


def test_a_removed_bad_file_is_counted_too(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    del source.files["broken"]
    assert planned(source, first).removed == 1
    assert night(store, source, first).refusals() == []


def test_another_spec_reads_everything_again(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    night(store, source, first, LARGER)
    assert source.read_names == list(source.files)


def test_another_spec_leaves_patients_on_their_sides(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    source.files = {f"a{number}": [instance(number)] for number in range(50, 90)} | source.files
    second = night(store, source, first, LARGER)
    assert {patient: second.splits()[patient] for patient in first.splits()} == first.splits()


def test_another_key_is_refused_with_the_remedy(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    with pytest.raises(UserFault, match=r"'d' was made with the key .*: restore the key file"):
        planned(source, first, names=Pseudonyms(b"j" * 32))


def test_a_repeated_instance_is_not_read_again_while_nothing_changes(
    store: FolderStore, source: MemorySource
) -> None:
    source.files["twice"] = [instance(0)]
    first = night(store, source)
    second = night(store, source, first)
    assert source.read_names == []
    assert [row.reason for row in second.refusals()] == [row.reason for row in first.refusals()]
    assert "duplicate-instance" in [row.reason for row in second.refusals()]


def test_what_was_lost_with_its_study_is_read_again(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    bad = refusal(0, study_key=NAMES.key("study", "1.4"))
    kept, lost = drop_studies(first.examples(), [bad])
    made = recipe(key_fingerprint=NAMES.fingerprint)
    dropped = build_version(store, made, kept, [*first.refusals(), *lost], {})
    assert [file.name for file in planned(source, dropped).to_read] == ["f4"]


@pytest.mark.parametrize("second", [instance(0), instance(99, image=instance(0).image)])
def test_a_copy_takes_the_place_of_a_first_that_is_gone(
    store: FolderStore, source: MemorySource, second: object
) -> None:
    source.files["twice"] = [second]  # type: ignore[list-item]
    first = night(store, source)
    assert first.manifest.num_rows == 6
    del source.files["f0"]
    after = night(store, source, first)
    assert source.read_names == ["twice"]
    assert (after.manifest.num_rows, len(after.refusals())) == (6, 1)


def test_a_copy_takes_the_place_of_a_first_that_changed(store: FolderStore, source: MemorySource) -> None:
    source.files["twice"] = [instance(0)]
    first = night(store, source)
    source.files["f0"], source.mtimes["f0"] = DataFault("truncated"), 2
    after = night(store, source, first)
    assert NAMES.key("instance", "3.0") in {row.instance_key for row in after.examples()}


def test_a_file_of_several_images_is_known_as_one(store: FolderStore) -> None:
    source = MemorySource({"rows": [instance(1), instance(2)]})
    night(store, source, night(store, source))
    assert source.read_names == []


def test_chunks_hold_some_hundreds_of_files_and_all_of_them() -> None:
    source = MemorySource({f"{number:04d}": [] for number in range(CHUNK_FILES + 1)})
    sizes = [len(files) for files in planned(source, None).chunks()]
    assert sizes == [CHUNK_FILES, 1]


def test_a_plan_reads_nothing(source: MemorySource) -> None:
    planned(source, None)
    assert source.read_names == []
