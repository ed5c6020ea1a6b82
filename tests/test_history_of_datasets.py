"""Listing of datasets and versions, the newest first, and opening what a person names."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.dataset.version.head import head_name
from imaging.dataset.version.history import list_versions, listed_counts, open_by_name, open_by_name_or_digest
from imaging.dataset.version.publish import publish
from imaging.errors import UserFault
from imaging.store.folder_store import FolderStore
from tests.synthetic import built, example, recipe


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def night(store: FolderStore, number: int, name: str = "ct", patients: int = 1) -> DatasetVersion:
    """Publish a version that was made so many seconds after 1970."""
    rows = [example(n, patient_key=f"p{n % patients}", model=str(number)) for n in range(3)]
    version = built(store, rows, by=recipe(dataset=name))
    publish(version, store.pointer(f"datasets/{name}/current"))
    head = store.path(head_name(name, version.digest))
    os.utime(head, (number, number))
    return version


def test_versions_are_listed_by_dataset_and_the_newest_first(store: FolderStore) -> None:
    made = [night(store, 2, "mr"), night(store, 3), night(store, 5), night(store, 4)]
    assert [one.digest for one in list_versions(store)] == [made[at].digest for at in (2, 3, 1, 0)]


def test_the_version_that_is_pointed_at_is_current(store: FolderStore) -> None:
    night(store, 1)
    night(store, 3)
    last = night(store, 2)
    assert [one.digest for one in list_versions(store, "ct") if one.current] == [last.digest]


def test_a_version_has_the_time_when_it_was_made(store: FolderStore) -> None:
    night(store, 86400)
    assert list_versions(store)[0].as_json()["time"] == "1970-01-02T00:00:00+00:00"


def test_a_dataset_is_not_its_neighbour(store: FolderStore) -> None:
    night(store, 1, "ct--abc")
    assert list_versions(store, "ct") == []


def test_what_else_is_in_the_folder_is_no_version(store: FolderStore) -> None:
    night(store, 1).test_examples("somebody")
    assert len(list_versions(store)) == 1


def test_examples_and_patients_are_counted(store: FolderStore) -> None:
    night(store, 1, patients=2)
    counted = listed_counts(store, list_versions(store)[0])
    assert (counted.examples, counted.patients, counted.trouble) == (3, 2, "")


def counting_nothing(store: FolderStore) -> DatasetVersion:
    """Publish a version whose head is as they were before they had counts."""
    version = night(store, 1, patients=2)
    head = replace(version.head, counts=None)
    store.write(head_name("ct", version.digest), head.to_json().encode())
    return open_by_name(store, "ct")


def test_where_the_head_does_not_count_the_tables_are_read(store: FolderStore) -> None:
    counting_nothing(store)
    counted = listed_counts(store, list_versions(store)[0])
    assert (counted.examples, counted.patients, counted.trouble) == (3, 2, "")


def test_a_damaged_version_whose_tables_must_be_read_is_listed_with_its_trouble(store: FolderStore) -> None:
    store.path(counting_nothing(store).head.parts["examples"][0]).write_bytes(b"")
    assert "is damaged" in listed_counts(store, list_versions(store)[0]).trouble


def test_the_current_version_is_opened_by_the_name_alone(store: FolderStore) -> None:
    night(store, 2)
    newest = night(store, 1)
    assert open_by_name(store, "ct").digest == newest.digest


@pytest.mark.parametrize("form", ["two", "at", "alone"])
def test_a_version_is_opened_by_its_first_digits(store: FolderStore, form: str) -> None:
    wanted = night(store, 1).digest
    night(store, 2)
    version = {
        "two": lambda: open_by_name(store, "ct", wanted[:8]),
        "at": lambda: open_by_name_or_digest(store, f"ct@{wanted[:8]}"),
        "alone": lambda: open_by_name_or_digest(store, wanted[:8]),
    }[form]()
    assert version.digest == wanted


def test_a_dataset_goes_before_a_version_that_begins_like_it(store: FolderStore) -> None:
    digits = night(store, 1).digest[:8]
    named = night(store, 2, digits)
    assert open_by_name_or_digest(store, digits).digest == named.digest


def test_an_unknown_dataset_is_refused_with_the_known_ones(store: FolderStore) -> None:
    night(store, 1)
    night(store, 1, "mr")
    with pytest.raises(UserFault, match="there is no dataset 'pet': there are 'ct', 'mr'"):
        open_by_name(store, "pet")


def test_a_store_without_datasets_names_the_command_that_makes_one(store: FolderStore) -> None:
    with pytest.raises(UserFault, match="there is none yet: run `radloop ingest` first"):
        open_by_name(store, "ct")


def test_an_unknown_version_is_refused_with_the_known_ones(store: FolderStore) -> None:
    known = night(store, 1).digest
    with pytest.raises(UserFault, match=f"0 versions that begin with 'xxxx': name one of {known[:12]}"):
        open_by_name(store, "ct", "xxxx")


def test_digits_that_could_be_any_version_are_refused(store: FolderStore) -> None:
    digest = night(store, 1).digest
    with pytest.raises(UserFault, match=f"too few digits in '{digest[:3]}'"):
        open_by_name(store, "ct", digest[:3])


def test_a_dataset_that_was_never_published_has_no_current_version(store: FolderStore) -> None:
    digest = built(store, [example(0)]).digest
    with pytest.raises(UserFault, match=f"has no current version: name one of {digest[:12]}"):
        open_by_name(store, "d")


def test_who_lists_reads_heads_alone_where_they_count(store: FolderStore) -> None:
    version = night(store, 1, patients=2)
    before = listed_counts(store, list_versions(store)[0])
    for names in version.head.parts.values():
        for name in names:
            store.remove(name)
    assert listed_counts(store, list_versions(store)[0]) == before


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 2}', b'{"format": 2, "counts": {"a": 1}}'])
def test_a_head_that_is_damaged_is_listed_with_its_trouble(store: FolderStore, content: bytes) -> None:
    store.write(head_name("ct", night(store, 1).digest), content)
    assert "is damaged" in listed_counts(store, list_versions(store)[0]).trouble
