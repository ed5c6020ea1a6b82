"""Datasets on S3: versions are listed, checked by what the server has, tidied and exported."""

import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest

from imaging.dataset.tables.shard import shard_name, write_shard
from imaging.dataset.upkeep.garbage import Retention, find_garbage, remove_garbage
from imaging.dataset.upkeep.integrity import find_flaws
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.dataset.version.export import export
from imaging.dataset.version.history import list_versions, listed_counts, open_by_name
from imaging.dataset.version.publish import publish
from imaging.dataset.version.summary import summarize
from imaging.store import s3_client
from imaging.store.open_store import open_store
from imaging.store.s3_store import S3Store
from tests.servers import Server, begin_at, make_bucket, s3_server
from tests.synthetic import built, example, recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with s3_server(tmp_path_factory.mktemp("weed")) as running:
        yield running


@pytest.fixture
def store(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> S3Store:
    begin_at(monkeypatch, server, tmp_path)
    monkeypatch.setattr(s3_client, "PAUSE_S", 0.01)
    make_bucket("bucket")
    opened = open_store(f"s3://bucket/{request.node.name[:40]}", tmp_path / "cache")
    assert isinstance(opened, S3Store)
    return opened


def night(store: S3Store, number: int) -> DatasetVersion:
    shard = write_shard(store, np.full((2, 16, 16), number, np.uint8))
    rows = [example(at, shard=shard, row=at, source_label="a", source_split="val") for at in (0, 1)]
    version = built(store, rows, by=recipe(dataset="ct"))
    assert publish(version, store.pointer("datasets/ct/current"))
    return version


def test_versions_are_listed_counted_and_exported(store: S3Store, tmp_path: Path) -> None:
    night(store, 1)
    # The server's times are of whole seconds.
    time.sleep(1.1)
    newest = night(store, 2)
    past = list_versions(store)
    assert ([one.current for one in past], listed_counts(store, past[0]).examples) == ([True, False], 2)
    assert summarize(open_by_name(store, "ct")).shard_bytes == 2 * 16 * 16 + 128
    export(newest, tmp_path / "out", ["val"], "t")
    assert np.load(tmp_path / "out" / "val.npy")[:, 0, 0].tolist() == [2, 2]


def test_damage_on_the_server_is_detected_though_the_cache_is_whole(store: S3Store) -> None:
    version = night(store, 1)
    name = shard_name(version.table("examples")["shard"][0].as_py())
    store.local(name)
    assert find_flaws(version) == []
    client = boto3.session.Session().client("s3")
    client.put_object(Bucket="bucket", Key=store.bucket.prefix + name, Body=b"other")
    assert [(flaw.name, flaw.what) for flaw in find_flaws(version)] == [(name, "is not what was stored")]
    store.remove(name)
    assert [(flaw.name, flaw.what) for flaw in find_flaws(version)] == [(name, "is gone")]


def test_what_nobody_needs_goes(store: S3Store) -> None:
    gone = shard_name(night(store, 1).table("examples")["shard"][0].as_py())
    time.sleep(1.1)
    newest = night(store, 2)
    garbage = find_garbage(store, Retention(oldest_ns=time.time_ns() + 10**12, keep=1))
    remove_garbage(store, garbage)
    assert [one.digest for one in list_versions(store)] == [newest.digest]
    assert not store.exists(gone)
    assert find_flaws(newest) == []
