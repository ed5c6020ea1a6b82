"""Digests in the names of objects, and the store of an address."""

from pathlib import Path

import pytest

from imaging.errors import UserFault
from imaging.store.content_digest import bytes_digest, check_digest, digest_name, digest_of, file_digest
from imaging.store.folder_store import FolderStore
from imaging.store.open_store import open_store
from imaging.store.protocol import Damaged
from imaging.store.s3_store import S3Store

DIGEST = bytes_digest(b"x")


def test_a_name_contains_its_digest() -> None:
    assert digest_of(digest_name("manifests", DIGEST, ".parquet")) == DIGEST


@pytest.mark.parametrize(
    "name",
    [
        f"shards/{DIGEST}.npy",
        f"shards/00/{DIGEST}.npy",
        f"shards/{DIGEST[:2]}/{DIGEST}",
        f"shards/{DIGEST[:2]}/{DIGEST}0.npy",
        f"shards/{DIGEST[:2]}/{DIGEST}/a.npy",
        f"shards/{DIGEST[:2]}/{DIGEST.upper()}.npy",
    ],
)
def test_other_names_have_no_digest(name: str) -> None:
    assert digest_of(name) is None


@pytest.mark.parametrize("content", [b"", b"x", bytes(10**6)])
def test_a_file_has_the_digest_of_its_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == bytes_digest(content)


def test_a_name_counts_more_than_what_is_recorded() -> None:
    name, other = digest_name("shards", DIGEST, ".npy"), bytes_digest(b"y")
    check_digest(name, DIGEST, recorded=other)
    with pytest.raises(Damaged, match="is not what was stored"):
        check_digest(name, other, recorded=other)


def test_without_a_digest_in_the_name_the_recorded_one_counts() -> None:
    check_digest("a", DIGEST, recorded=DIGEST)
    check_digest("a", DIGEST)
    with pytest.raises(Damaged):
        check_digest("a", DIGEST, recorded=bytes_digest(b"y"))


def test_a_folder_is_a_store(tmp_path: Path) -> None:
    assert open_store(tmp_path / "a" / ".." / "b", tmp_path) == FolderStore(tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_bucket_is_a_store(tmp_path: Path) -> None:
    store = open_store("s3://bucket/some/prefix/", tmp_path)
    assert isinstance(store, S3Store)
    assert (store.bucket.name, store.bucket.prefix) == ("bucket", "some/prefix/")


@pytest.mark.parametrize("place", ["gs://bucket/a", "https://someone:secret@host/a", Path("s3://bucket/a")])
def test_another_address_is_refused_without_its_credentials(tmp_path: Path, place: str | Path) -> None:
    with pytest.raises(UserFault, match="give a folder, or s3://BUCKET/PREFIX") as caught:
        open_store(place, tmp_path)
    assert "secret" not in str(caught.value)


def test_a_bucket_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="names no bucket"):
        open_store("s3://", tmp_path)
