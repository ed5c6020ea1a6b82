"""What an ingest must read: a listing compared with the version that is there, and what becomes of its rows."""

from pathlib import Path

import pytest

from imaging.dataset.ingest.chunk import prepare_chunk
from imaging.dataset.ingest.diff import IngestPlan, KnownRows, current_rows, plan_ingest, with_finished_chunks
from imaging.dataset.ingest.listing import list_files
from imaging.dataset.ingest.resolve_conflicts import resolve_conflicts
from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.dataset.version.publish import build_version
from imaging.errors import DataFault, UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import Pseudonyms
from imaging.sources.protocol import SourceFile
from imaging.store.folder_store import FolderStore
from tests.synthetic import GREY, MemorySource, instance, plain_image, recipe, refusal, refusals

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
    *,
    finished: KnownRows | None = None,
    drops_studies: bool = False,
) -> IngestPlan:
    listing = list_files(source.scan(), names)
    scan = plan_ingest(listing, previous, spec.digest, names, base=previous, drops_studies=drops_studies)
    if not finished:
        return scan
    rows, _ = current_rows([finished], scan.to_read, spec.digest)
    return with_finished_chunks(scan, rows)


def read(
    store: FolderStore, source: MemorySource, scan: IngestPlan, spec: PreprocessSpec = GREY
) -> KnownRows:
    """Read what a plan asks for; `source.read_names` lists what was read for it."""
    source.read_names.clear()
    made = prepare_chunk(source, list(scan.to_read), spec, NAMES, store, source.run(spec))
    return KnownRows(examples=LazyRows.of(made.examples), refusals=made.refusals)


def night(
    store: FolderStore,
    source: MemorySource,
    previous: DatasetVersion | None = None,
    spec: PreprocessSpec = GREY,
    *,
    drops_studies: bool = False,
) -> DatasetVersion:
    """Take in what is new, as the ingest flow does."""
    first = planned(source, previous, spec, drops_studies=drops_studies)
    finished = read(store, source, first, spec)
    scan = planned(source, previous, spec, finished=finished, drops_studies=drops_studies)
    assert not scan.to_read
    resolved = resolve_conflicts(scan, drop_equal_pixels=True, drops_studies=drops_studies)
    made = recipe(spec=spec, key_fingerprint=NAMES.fingerprint)
    splits = previous.table("splits") if previous else None
    return build_version(store, made, resolved.examples, resolved.refusals, splits, resolved.tombstones)


def reasons(version: DatasetVersion) -> list[str]:
    values: list[str] = version.table("quarantine")["reason"].to_pylist()
    return values


def instances(version: DatasetVersion) -> set[str]:
    return set(version.table("examples")["instance_key"].to_pylist())


def test_the_first_night_reads_everything(store: FolderStore, source: MemorySource) -> None:
    night(store, source)
    assert source.read_names == list(source.files)


def test_an_unchanged_source_is_not_read(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    second = night(store, source, first)
    assert (source.read_names, second.digest) == ([], first.digest)


def test_a_refused_file_is_not_read_again(store: FolderStore, source: MemorySource) -> None:
    second = night(store, source, night(store, source))
    assert reasons(second) == ["truncated"]


def test_a_file_without_an_image_is_refused_and_not_read_again(
    store: FolderStore, source: MemorySource
) -> None:
    source.files["empty"] = []
    second = night(store, source, night(store, source))
    assert (sorted(reasons(second)), source.read_names) == (["no-pixels", "truncated"], [])


def test_only_new_files_are_read(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    source.files["f9"] = [instance(9)]
    second = night(store, source, first)
    assert (source.read_names, second.table("examples").num_rows) == (["f9"], 7)


def test_a_changed_file_is_read_again(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    source.files["f3"], source.mtimes["f3"] = [instance(33)], 2
    second = night(store, source, first)
    assert source.read_names == ["f3"]
    assert NAMES.key("instance", "3.33") in instances(second)
    assert NAMES.key("instance", "3.3") not in instances(second)


def test_a_file_of_another_size_is_read_again(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    grown = [SourceFile(name=name, size_bytes=2, mtime_ns=1) for name in source.files]
    scan = plan_ingest(list_files(grown, NAMES), first, GREY.digest, NAMES, base=first)
    assert len(scan.to_read) == len(source.files)


def test_a_mended_file_is_taken_in(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    source.files["broken"], source.mtimes["broken"] = [instance(8)], 2
    second = night(store, source, first)
    assert (reasons(second), second.table("examples").num_rows) == ([], 7)


def test_a_removed_file_takes_its_example_along(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    del source.files["f3"]
    assert planned(source, first).removed_files == 1
    assert night(store, source, first).table("examples").num_rows == 5
    assert source.read_names == []


def test_a_removed_bad_file_is_counted_too(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    del source.files["broken"]
    assert planned(source, first).removed_files == 1
    assert reasons(night(store, source, first)) == []


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
    assert reasons(second) == reasons(first)
    assert "duplicate-instance" in reasons(second)


def test_what_was_lost_with_its_study_is_not_read_again_while_the_bad_slice_stays(
    store: FolderStore, source: MemorySource
) -> None:
    first = lost_study(store, source)
    assert not planned(source, first, drops_studies=True).to_read


def lost_study(store: FolderStore, source: MemorySource) -> DatasetVersion:
    """Publish a study of three slices of which one is refused, and another study."""
    source.files = {f"f{n}": [instance(n, study_uid="1.4")] for n in (1, 2)} | {"f9": [instance(9)]}
    scan = planned(source, None)
    known = read(store, source, scan)
    key = NAMES.key("file", "bad")
    bad = refusals(refusal(0, source_key=key, study_key=NAMES.key("study", "1.4")))
    source.files["bad"] = DataFault("truncated")
    whole = planned(
        source, None, finished=KnownRows(examples=known.examples, refusals=bad), drops_studies=True
    )
    resolved = resolve_conflicts(whole, drop_equal_pixels=True, drops_studies=True)
    made = recipe(key_fingerprint=NAMES.fingerprint)
    return build_version(store, made, resolved.examples, resolved.refusals, None, resolved.tombstones)


def test_a_bad_slice_costs_its_study(store: FolderStore, source: MemorySource) -> None:
    first = lost_study(store, source)
    assert (sorted(reasons(first)), first.table("examples").num_rows) == (
        ["bad-study", "bad-study", "truncated"],
        1,
    )


def test_what_was_lost_with_its_study_is_read_again_when_the_bad_slice_changed(
    store: FolderStore, source: MemorySource
) -> None:
    first = lost_study(store, source)
    source.mtimes["bad"] = 2
    assert [file.name for file in planned(source, first, drops_studies=True).to_read] == ["f1", "f2", "bad"]


def test_what_was_lost_with_its_study_is_read_again_under_another_policy(
    store: FolderStore, source: MemorySource
) -> None:
    first = lost_study(store, source)
    assert [file.name for file in planned(source, first).to_read] == ["f1", "f2"]


@pytest.mark.parametrize("second", [instance(0), instance(99, image=instance(0).image)])
def test_a_copy_takes_the_place_of_a_first_that_is_gone(
    store: FolderStore, source: MemorySource, second: object
) -> None:
    source.files["twice"] = [second]  # type: ignore[list-item]
    first = night(store, source)
    assert first.table("examples").num_rows == 6
    del source.files["f0"]
    after = night(store, source, first)
    assert source.read_names == ["twice"]
    assert (after.table("examples").num_rows, reasons(after)) == (6, ["truncated"])


def test_a_copy_takes_the_place_of_a_first_that_changed(store: FolderStore, source: MemorySource) -> None:
    source.files["twice"] = [instance(0)]
    first = night(store, source)
    source.files["f0"], source.mtimes["f0"] = DataFault("truncated"), 2
    after = night(store, source, first)
    assert NAMES.key("instance", "3.0") in instances(after)


def test_a_file_of_several_images_is_known_as_one(store: FolderStore) -> None:
    source = MemorySource({"rows": [instance(1), instance(2)]})
    night(store, source, night(store, source))
    assert source.read_names == []


def test_a_plan_reads_nothing(source: MemorySource) -> None:
    planned(source, None)
    assert source.read_names == []


def test_the_same_instance_with_other_pixels_is_a_conflict_and_never_an_overwrite(
    store: FolderStore, source: MemorySource
) -> None:
    first = night(store, source)
    source.files["f3"], source.mtimes["f3"] = [instance(3, image=plain_image(77), pixel_blake3="other")], 2
    second = night(store, source, first)
    assert "conflicting-instance" in reasons(second)
    assert second.table("examples").equals(first.table("examples"))


def test_a_conflict_stands_while_nothing_changes(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    source.files["f3"], source.mtimes["f3"] = [instance(3, pixel_blake3="other")], 2
    second = night(store, source, first)
    third = night(store, source, second)
    assert (source.read_names, third.digest) == ([], second.digest)


def test_a_conflict_ends_with_the_file(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    source.files["f3"], source.mtimes["f3"] = [instance(3, pixel_blake3="other")], 2
    second = night(store, source, first)
    del source.files["f3"]
    assert NAMES.key("instance", "3.3") not in instances(night(store, source, second))


def test_a_file_that_was_sent_again_with_the_same_pixels_takes_its_new_header(
    store: FolderStore, source: MemorySource
) -> None:
    first = night(store, source)
    attributes = {"modality": "OT", "manufacturer": "OTHER", "spacing_mm": 0.5}
    source.files["f3"], source.mtimes["f3"] = [instance(3, attributes=attributes)], 2
    second = night(store, source, first)
    assert "OTHER" in second.table("examples")["manufacturer"].to_pylist()
    assert reasons(second) == ["truncated"]


def test_a_removed_example_leaves_a_tombstone(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    del source.files["f3"]
    second = night(store, source, first)
    assert second.table("tombstones")["instance_key"].to_pylist() == [NAMES.key("instance", "3.3")]


def test_a_tombstone_stays_until_the_image_comes_back(store: FolderStore, source: MemorySource) -> None:
    first = night(store, source)
    gone = source.files.pop("f3")
    third = night(store, source, night(store, source, first))
    assert third.table("tombstones").num_rows == 1
    source.files["elsewhere"] = gone
    assert night(store, source, third).table("tombstones").num_rows == 0


def test_what_a_crash_left_finished_is_not_read_again(store: FolderStore, source: MemorySource) -> None:
    scan = planned(source, None)
    made = prepare_chunk(source, list(scan.to_read)[:4], GREY, NAMES, store, source.run())
    finished = KnownRows(examples=LazyRows.of(made.examples), refusals=made.refusals)
    assert [file.name for file in planned(source, None, finished=finished).to_read] == ["f4", "f5", "broken"]


def finished(store: FolderStore, source: MemorySource) -> KnownRows:
    """Read all files of a source as one chunk."""
    return read(store, source, planned(source, None))


def test_an_earlier_state_of_a_file_does_not_hide_what_was_read_of_it(
    store: FolderStore, source: MemorySource
) -> None:
    stale = finished(store, source)
    source.files["f3"], source.mtimes["f3"] = [instance(33)], 2
    fresh, to_read = finished(store, source), planned(source, None).to_read
    for chunks in ([stale, fresh], [fresh, stale]):
        rows, _ = current_rows(chunks, to_read, GREY.digest)
        keys = rows.examples.select(["instance_key"])["instance_key"].to_pylist()
        assert sorted(keys) == sorted(NAMES.keys("instance", [f"3.{n}" for n in (0, 1, 2, 33, 4, 5)]))
        assert rows.refusals.num_rows == 1


def test_a_file_that_was_mended_is_no_longer_refused(store: FolderStore, source: MemorySource) -> None:
    stale = finished(store, source)
    source.files["broken"], source.mtimes["broken"] = [instance(8)], 2
    fresh = finished(store, source)
    rows, _ = current_rows([stale, fresh], planned(source, None).to_read, GREY.digest)
    assert (rows.examples.num_rows, rows.refusals.num_rows) == (7, 0)


def test_of_equal_states_the_first_chunk_counts(store: FolderStore, source: MemorySource) -> None:
    once, twice = finished(store, source), finished(store, source)
    rows, used = current_rows([once, twice], planned(source, None).to_read, GREY.digest)
    assert (rows.examples.num_rows, used.tolist()) == (6, [True, False])


def test_a_chunk_of_which_a_row_counts_is_of_use(store: FolderStore, source: MemorySource) -> None:
    stale = finished(store, source)
    for name in ("f0", "f1", "f2", "f3", "f4", "broken"):
        source.mtimes[name] = 2
    fresh = finished(store, source)
    assert current_rows([stale, fresh], planned(source, None).to_read, GREY.digest)[1].all()
    source.mtimes["f5"] = 2
    _, used = current_rows([stale, fresh], planned(source, None).to_read, GREY.digest)
    assert used.tolist() == [False, True]


def test_rows_that_are_in_a_version_are_of_no_more_use(store: FolderStore, source: MemorySource) -> None:
    chunk, version = finished(store, source), night(store, source)
    assert current_rows([chunk], planned(source, version).to_read, GREY.digest)[1].tolist() == [False]


def test_what_another_run_took_in_since_the_listing_is_not_gone(
    store: FolderStore, source: MemorySource
) -> None:
    first = night(store, source)
    listed = list_files(source.scan(), NAMES)
    source.files["f9"] = [instance(9)]
    theirs = night(store, source, first)
    scan = plan_ingest(listed, theirs, GREY.digest, NAMES, base=first)
    assert (scan.removed_files, scan.examples.num_rows, len(scan.to_read)) == (0, 7, 0)


def test_what_another_run_read_anew_since_the_listing_is_not_read_back(
    store: FolderStore, source: MemorySource
) -> None:
    first = night(store, source)
    listed = list_files(source.scan(), NAMES)
    source.files["f3"], source.mtimes["f3"] = [instance(33)], 2
    theirs = night(store, source, first)
    scan = plan_ingest(listed, theirs, GREY.digest, NAMES, base=first)
    assert not scan.to_read
    assert NAMES.key("instance", "3.33") in scan.examples.select(["instance_key"])["instance_key"].to_pylist()
