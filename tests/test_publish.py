"""Publishing of a version: it is visible whole or not at all, and its pointer moves only from where it was seen."""

from collections import Counter
from pathlib import Path

import pytest

from imaging.annotations.finding_table import FindingQuery, read_findings
from imaging.annotations.label_join import KEY_OF_LEVEL
from imaging.annotations.label_table import build_label_table
from imaging.dataset.ingest.ingest_outcome import write_problems
from imaging.dataset.ingest.listing import list_files
from imaging.dataset.tables.schemas import LATER_COLUMNS
from imaging.dataset.version.dataset_version import DatasetVersion, newest_version
from imaging.dataset.version.head import Counts, head_name, pointer_name
from imaging.dataset.version.publish import publish
from imaging.errors import UserFault
from imaging.pseudonyms import Pseudonyms
from imaging.store.folder_store import FolderStore
from tests.synthetic import GREY, built, example, recipe, refusal

ROWS = [example(number, source_label="ab"[number % 2]) for number in range(20)]


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def written(store: FolderStore) -> dict[str, int]:
    files = (path for path in store.root.rglob("*") if path.is_file())
    return {str(path): path.stat().st_mtime_ns for path in files}


def faults(version: DatasetVersion) -> dict[str, str]:
    """Return why images have no label, by their object."""
    table = version.table("examples", ["object_key", "label_fault"])
    faults = dict(zip(table["object_key"].to_pylist(), table["label_fault"].to_pylist(), strict=True))
    return {key: fault for key, fault in faults.items() if fault}


def splits_of(version: DatasetVersion) -> dict[str, str | None]:
    table = version.table("examples")
    return dict(zip(table["patient_key"].to_pylist(), table["split"].to_pylist(), strict=True))


def test_a_version_is_invisible_until_it_is_published(store: FolderStore) -> None:
    built(store, ROWS)
    assert newest_version(store, "d") is None


def test_a_published_version_is_the_newest(store: FolderStore) -> None:
    version = built(store, ROWS)
    assert publish(version, None)
    newest = newest_version(store, "d")
    assert newest is not None
    assert newest.digest == version.digest


def test_a_crash_before_the_head_leaves_no_version(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FolderStore.write

    def crash(self: FolderStore, name: str, content: bytes) -> None:
        if "/versions/" in name:
            raise KeyboardInterrupt
        whole(self, name, content)

    monkeypatch.setattr(FolderStore, "write", crash)
    with pytest.raises(KeyboardInterrupt):
        built(store, ROWS)
    assert not [name for name in written(store) if "/versions/" in name]


def test_a_version_that_was_cut_short_is_made_again(store: FolderStore) -> None:
    version = built(store, ROWS)
    head = store.path(head_name("d", version.digest))
    head.unlink()
    built(store, ROWS)
    assert head.exists()


def test_the_same_work_twice_writes_nothing(store: FolderStore) -> None:
    first = built(store, ROWS, [refusal(90)], {})
    publish(first, None)
    before = written(store)
    second = built(store, ROWS, [refusal(90)], first.splits())
    assert publish(second, first.digest)
    assert (second.digest, written(store)) == (first.digest, before)


def test_the_order_of_rows_does_not_matter(store: FolderStore) -> None:
    first = built(store, ROWS, [refusal(90), refusal(91)], {})
    assert built(store, ROWS[::-1], [refusal(91), refusal(90)], {}).digest == first.digest


@pytest.mark.parametrize(
    "changes",
    [{"spec": GREY.model_copy(update={"size_px": 32})}, {"key_fingerprint": "other"}, {"positive": "a"}],
)
def test_what_a_version_is_made_by_is_part_of_its_name(
    store: FolderStore, changes: dict[str, object]
) -> None:
    first = built(store, ROWS)
    assert built(store, ROWS, by=recipe(**changes)).digest != first.digest


def test_a_pointer_that_somebody_moved_is_left_alone(store: FolderStore) -> None:
    mine, theirs = (built(store, ROWS[:count]) for count in (10, 20))
    publish(theirs, None)
    assert not publish(mine, None)
    assert store.pointer(pointer_name("d")) == theirs.digest


def test_examples_and_pointers_of_datasets_do_not_meet(store: FolderStore) -> None:
    publish(built(store, ROWS, by=recipe(dataset="one")), None)
    assert newest_version(store, "two") is None


def test_a_patients_images_are_all_on_one_side(store: FolderStore) -> None:
    rows = [example(n, patient_key=f"p{n // 3}", source_label="ab"[n % 2]) for n in range(60)]
    table = built(store, rows).table("examples")
    pairs = set(zip(table["patient_key"].to_pylist(), table["split"].to_pylist(), strict=True))
    assert len(pairs) == 20


def test_splits_that_the_source_fixes_are_kept(store: FolderStore) -> None:
    rows = [example(n, source_label="a", source_split="test") for n in range(5)]
    version = built(store, rows)
    assert set(splits_of(version).values()) == {"test"}


def test_patients_keep_their_sides_when_others_come(store: FolderStore) -> None:
    first = built(store, ROWS[:9])
    second = built(store, ROWS, [], first.splits())
    assert {patient: splits_of(second)[patient] for patient in splits_of(first)} == splits_of(first)


def test_patients_who_went_away_come_back_to_their_side(store: FolderStore) -> None:
    first = built(store, ROWS)
    without = built(store, ROWS[-3:], [], first.splits())
    back = built(store, ROWS, [], without.splits())
    assert splits_of(back) == splits_of(first)


def test_a_patient_without_label_has_no_side_yet(store: FolderStore) -> None:
    version = built(store, [*ROWS, example(99)])
    assert splits_of(version)["p99"] is None
    assert "p99" not in version.splits()


def test_a_patient_whose_label_went_keeps_the_side(store: FolderStore) -> None:
    first = built(store, ROWS)
    unlabelled = built(store, [example(0), *ROWS[1:]], [], first.splits())
    assert splits_of(unlabelled)["p0"] == splits_of(first)["p0"]


@pytest.mark.parametrize("level", KEY_OF_LEVEL)
def test_labels_are_joined_at_every_level(store: FolderStore, level: str) -> None:
    names = Pseudonyms(b"k" * 32)
    keyed = example(0, **{KEY_OF_LEVEL[level]: names.key(level, "X")})  # type: ignore[arg-type]
    table = build_label_table(level, [(2, "X", "yes"), (3, "Y", "no")], names)  # type: ignore[arg-type]
    version = built(store, [keyed], by=recipe(labels=table))
    assert version.table("examples")["label"].to_pylist() == ["yes"]
    assert (version.head.label_level, version.head.label_report.lines_without_image) == (level, (3,))


def test_a_line_of_another_patient_is_in_the_head_and_labels_nothing(store: FolderStore) -> None:
    names = Pseudonyms(b"k" * 32)
    keyed = [
        example(n, object_key=names.key("instance", f"1.{n}"), patient_key=names.key("patient", "P"))
        for n in (1, 2)
    ]
    lines = [(2, "1.1", "yes", "P"), (3, "1.2", "yes", "Q")]
    table = build_label_table("instance", lines, names, parents=("patient",))
    version = built(store, keyed, by=recipe(labels=table))
    assert Counter(version.table("examples")["label"].to_pylist()) == {"yes": 1, None: 1}
    assert version.head.lines_of_others == (3,)


def test_images_that_the_source_did_not_label_are_reported(store: FolderStore) -> None:
    version = built(store, [ROWS[0], example(99)])
    assert faults(version) == {"o99": "no-label"}


def test_a_class_to_look_for_that_is_not_there_is_refused(store: FolderStore) -> None:
    with pytest.raises(UserFault, match="'tumour' is not among the labels"):
        built(store, ROWS, by=recipe(positive="tumour"))
    assert written(store) == {}


def test_a_label_of_an_object_reaches_all_its_frames(store: FolderStore) -> None:
    names = Pseudonyms(b"k" * 32)
    frames = [example(n, object_key=names.key("instance", "1.2.3"), frame=n) for n in (1, 2, 3)]
    table = build_label_table("instance", [(2, "1.2.3", "yes")], names)
    version = built(store, [*frames, example(9)], by=recipe(labels=table))
    assert Counter(version.table("examples")["label"].to_pylist()) == {"yes": 3, None: 1}
    assert faults(version) == {"o9": "no-label"}


def test_the_head_counts_examples_and_refusals(store: FolderStore) -> None:
    made = built(store, [example(0, source_label="a", source_split="val")], [refusal(1)])
    assert made.head.counts == Counts(
        examples=1,
        patients=1,
        labelled={"val": {"a": {"examples": 1, "patients": 1}}},
        refusals={"truncated": 1},
    )


def test_the_list_of_problems_names_both_lines_of_a_contradiction(store: FolderStore, tmp_path: Path) -> None:
    names = Pseudonyms(b"k" * 32)
    lines = [(2, "p0", "a"), (3, "p1", "b"), (4, "p0", "a"), (9, "p0", "b")]
    table = build_label_table("patient", lines, names)
    rows = [example(n, patient_key=names.key("patient", f"p{n}"), source_label=None) for n in range(2)]
    version = built(store, rows, by=recipe(labels=table))
    path = write_problems(list_files(iter(()), names), version, tmp_path / "private", table)
    assert path is not None
    assert "label line,2,two-labels,line 9 has another" in path.read_text().splitlines()


def test_a_version_of_labels_has_the_digest_that_release_0_1_0_gave_it(store: FolderStore) -> None:
    """As commit 775df0d, before there were annotations, has computed it."""
    rows = [example(n, source_label="ab"[n % 2], site_key=str(n % 3), **LATER_COLUMNS) for n in range(40)]
    assert built(store, rows).digest == "0ee253689d7e810d8a3b59f10f33961f"


def test_the_list_of_problems_names_the_table_of_a_line(store: FolderStore, tmp_path: Path) -> None:
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    paths[0].write_text("PatientID,mass\nA,1\nB,0\n")
    paths[1].write_text("PatientID,oedema\nA,1\nC,1\nA,0\n")
    key = Pseudonyms(b"k" * 32)
    tables = read_findings(paths, key, FindingQuery(names=("mass", "oedema")))
    rows = [example(n, patient_key=key.key("patient", name)) for n, name in enumerate("AB")]
    version = built(store, rows, by=recipe(findings=tables))
    path = write_problems(list_files(iter(()), key), version, tmp_path / "private", tables)
    assert path is not None
    lines = path.read_text()
    assert "label line,3 of b.csv,names-no-image," in lines
    assert "label line,2 of b.csv,two-labels,line 4 of b.csv has another" in lines
