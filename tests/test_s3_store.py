"""A store on a real S3 server that is reached through a proxy which spoils replies, and on one that dies."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

import boto3
import numpy as np
import pytest

from imaging.dataset.tables import compaction
from imaging.dataset.tables.shard import map_shard, write_shard
from imaging.errors import EnvironmentFault, UserFault
from imaging.store import s3_client
from imaging.store.content_digest import bytes_digest, digest_name
from imaging.store.open_store import open_store
from imaging.store.protocol import Damaged, Store, Unreachable
from tests.fault_proxy import (
    Fault,
    FaultProxy,
    break_off,
    fault_proxy,
    flip,
    flip_with_checksum,
    lose,
    refuse,
    shorten,
)
from tests.servers import WORD, Server, begin_at, choose_s3_ports, make_bucket, s3_server
from tests.synthetic import example, examples

pytestmark = pytest.mark.slow

BUCKET, TOKEN = "store", "token-of-a-session"
CONTENT = b"what was stored" * 100
NAME = digest_name("shards", bytes_digest(CONTENT), ".npy")
LARGE = bytes(range(256)) * 2**16
LARGE_NAME = digest_name("shards", bytes_digest(LARGE), ".npy")
SPOILS = {
    "broken": break_off,
    "short": shorten,
    "flipped": flip,
    "flipped, with checksum": flip_with_checksum,
    "lost": lose,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "PAUSE_S", 0.01)
    monkeypatch.setattr(s3_client, "LONGEST_PAUSE_S", 0.1)


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FaultProxy]:
    with fault_proxy(server.address) as proxy:
        begin_at(monkeypatch, server, tmp_path, AWS_ENDPOINT_URL_S3=proxy.address)
        make_bucket(BUCKET)
        yield proxy


@pytest.fixture
def store(proxy: FaultProxy, tmp_path: Path) -> Store:
    return open_store(f"s3://{BUCKET}/{tmp_path.name}", tmp_path / "cache")


@pytest.fixture
def sender(proxy: FaultProxy, tmp_path: Path) -> Store:
    """Return the same store as another machine has it, whose cache keeps what it sends."""
    return open_store(f"s3://{BUCKET}/{tmp_path.name}", tmp_path / "sender")


def put(store: Store, folder: Path, name: str, content: bytes) -> None:
    path = folder / "file"
    path.write_bytes(content)
    store.put(name, path)


@pytest.mark.parametrize("fault", SPOILS.values(), ids=SPOILS)
@pytest.mark.parametrize("name", [NAME, "free"], ids=["digest", "free"])
def test_a_spoiled_reply_is_asked_for_again(
    store: Store, sender: Store, proxy: FaultProxy, name: str, fault: Fault
) -> None:
    sender.write(name, CONTENT)
    proxy.spoil("GET", name, fault)
    assert (store.read(name), proxy.left) == (CONTENT, 0)
    proxy.spoil("GET", name, fault)
    assert (store.local(name).read_bytes(), proxy.left) == (CONTENT, 0)


@pytest.mark.parametrize("fault", SPOILS.values(), ids=SPOILS)
def test_a_spoiled_part_of_a_large_object_is_asked_for_again(
    store: Store, sender: Store, proxy: FaultProxy, tmp_path: Path, fault: Fault
) -> None:
    put(sender, tmp_path, LARGE_NAME, LARGE)
    proxy.spoil("GET", LARGE_NAME, fault)
    assert (store.local(LARGE_NAME).read_bytes(), proxy.left) == (LARGE, 0)


@pytest.mark.parametrize("fault", [break_off, shorten, flip])
def test_what_never_comes_whole_is_a_fault_and_leaves_nothing(
    store: Store,
    sender: Store,
    proxy: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
) -> None:
    sender.write(NAME, CONTENT)
    monkeypatch.setattr(s3_client, "PATIENCE_S", 0.5)
    proxy.spoil("GET", NAME, *[fault] * 500)
    for get in (store.read, store.local):
        with pytest.raises((Damaged, Unreachable), match=r"check .* network"):
            get(NAME)
    assert not list((tmp_path / "cache").rglob("*.npy"))
    assert not list((tmp_path / "cache").rglob(".draft-*"))


def test_a_large_object_travels_in_parts(
    store: Store, sender: Store, proxy: FaultProxy, tmp_path: Path
) -> None:
    put(sender, tmp_path, LARGE_NAME, LARGE)
    store.local(LARGE_NAME)
    sent = [seen for seen in proxy.seen if seen.method == "PUT" and "partNumber" in seen.path]
    got = [seen.headers["Range"] for seen in proxy.seen if seen.method == "GET" and LARGE_NAME in seen.path]
    assert all("x-amz-checksum-sha256" in map(str.lower, seen.headers) for seen in sent)
    assert (len(sent), sorted(got)) == (2, ["bytes=0-8388607", "bytes=8388608-16777215"])


def fetched(proxy: FaultProxy, name: str) -> int:
    return len([seen for seen in proxy.seen if seen.method == "GET" and name in seen.path])


def test_an_object_named_by_its_content_is_fetched_once(
    store: Store, sender: Store, proxy: FaultProxy
) -> None:
    sender.write(NAME, CONTENT)
    for _ in range(3):
        store.local(NAME)
    assert fetched(proxy, NAME) == 1


def test_what_was_sent_from_here_is_not_fetched(store: Store, proxy: FaultProxy, tmp_path: Path) -> None:
    store.write(NAME, CONTENT)
    put(store, tmp_path, LARGE_NAME, LARGE)
    with store.open(NAME) as small, store.open(LARGE_NAME) as large:
        assert (small.read() == CONTENT, large.read() == LARGE) == (True, True)
    assert (fetched(proxy, NAME), fetched(proxy, LARGE_NAME)) == (0, 0)


def test_what_was_sent_wrong_is_no_copy(store: Store) -> None:
    store.write(NAME, b"something else")
    with pytest.raises(Damaged):
        store.local(NAME)


def test_small_shards_that_were_just_sent_are_packed_without_being_fetched(
    store: Store, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "SMALL_BYTES", 32)
    shards = [write_shard(store, np.full((1, 4, 4), level, np.uint8)) for level in (1, 2)]
    rows = [example(at, shard=shard, row=0) for at, shard in enumerate(shards)]
    (compacted,) = set(compaction.compact_shards(store, examples(*rows), (4, 4))["shard"].to_pylist())
    assert map_shard(store, compacted)[:, 0, 0].tolist() == [1, 2]
    assert fetched(proxy, "shards/") == 0


def test_the_cache_keeps_no_more_than_its_limit(sender: Store, tmp_path: Path) -> None:
    small = open_store(f"s3://{BUCKET}/{tmp_path.name}", tmp_path / "small", 40 * 10**6)
    names = []
    for turn in range(6):
        content = bytes([turn]) + LARGE
        names.append(digest_name("shards", bytes_digest(content), ".npy"))
        put(sender, tmp_path, names[-1], content)
        kept = small.local(names[-1])
        assert kept.read_bytes() == content
        os.utime(kept, (turn, turn))
    assert {path.name for path in (tmp_path / "small").rglob("*.npy")} == {Path(n).name for n in names[-2:]}


def test_of_many_that_ask_at_once_one_fetches(store: Store, sender: Store, proxy: FaultProxy) -> None:
    sender.write(NAME, CONTENT)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store.local, [NAME] * 8))
    assert fetched(proxy, NAME) == 1


def test_of_two_processes_that_ask_at_once_one_fetches(
    store: Store, sender: Store, proxy: FaultProxy
) -> None:
    sender.write(NAME, CONTENT)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        paths = list(pool.map(store.local, [NAME] * 2))
    assert [path.read_bytes() for path in paths] == [CONTENT] * 2
    assert fetched(proxy, NAME) == 1


def test_a_listing_comes_in_pages(store: Store, proxy: FaultProxy) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.write(f"many/{number:04}", b""), range(1001)))
    proxy.seen.clear()
    proxy.spoil("GET", "list-type=2", lose, break_off)
    assert len({entry.name for entry in store.names("many/")}) == 1001
    assert len({seen.path for seen in proxy.seen}) == 2


@pytest.mark.parametrize("times", [1, 2])
def test_a_commit_whose_reply_is_lost_is_no_lost_race(store: Store, proxy: FaultProxy, times: int) -> None:
    proxy.spoil("PUT", "/p", *[lose] * times)
    assert store.swap("p", None, "one")
    proxy.spoil("PUT", "/p", *[lose] * times)
    assert store.swap("p", "one", "two")
    assert (store.pointer("p"), proxy.left) == ("two", 0)


def test_a_race_that_was_lost_is_reported_though_the_winner_wrote_the_same(
    store: Store, proxy: FaultProxy
) -> None:
    def overtake(_: object) -> None:
        # The reply says "never set", and meanwhile somebody sets it.
        other = open_store(f"s3://{BUCKET}/{store.bucket.prefix}", Path("unused"))  # type: ignore[attr-defined]
        assert other.swap("p", None, "one")

    proxy.spoil("GET", "/p", overtake)
    assert not store.swap("p", None, "one")
    assert store.pointer("p") == "one"


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_an_upload_whose_reply_is_lost_is_whole(
    store: Store, proxy: FaultProxy, tmp_path: Path, method: str
) -> None:
    proxy.spoil(method, "uploadId" if method == "POST" else "partNumber=1", lose)
    put(store, tmp_path, LARGE_NAME, LARGE)
    assert (store.read(LARGE_NAME) == LARGE, proxy.left) == (True, 0)


def test_an_upload_that_the_server_has_ended_and_forgotten_is_whole(
    store: Store, proxy: FaultProxy, tmp_path: Path
) -> None:
    proxy.spoil("POST", "uploadId", refuse(404, "NoSuchUpload"))
    put(store, tmp_path, LARGE_NAME, LARGE)
    assert (store.read(LARGE_NAME) == LARGE, proxy.left) == (True, 0)


def test_a_write_that_fails_keeps_the_file(store: Store, proxy: FaultProxy, tmp_path: Path) -> None:
    proxy.spoil("PUT", "partNumber=2", refuse(403, "AccessDenied"))
    with pytest.raises(EnvironmentFault, match="refuses access"):
        put(store, tmp_path, LARGE_NAME, LARGE)
    assert (tmp_path / "file").read_bytes() == LARGE
    assert not store.exists(LARGE_NAME)


def test_a_server_in_trouble_is_asked_again(store: Store, proxy: FaultProxy) -> None:
    busy = refuse(503, "SlowDown")
    proxy.spoil("PUT", "/a", busy, busy)
    store.write("a", CONTENT)
    proxy.spoil("GET", "/a", busy)
    assert (store.read("a"), proxy.left) == (CONTENT, 0)


def test_uploads_that_nobody_ended_are_swept(store: Store) -> None:
    client = boto3.session.Session().client("s3")
    prefix = store.bucket.prefix  # type: ignore[attr-defined]
    client.create_multipart_upload(Bucket=BUCKET, Key=f"{prefix}shards/x")
    client.create_multipart_upload(Bucket=BUCKET, Key="of-others")
    assert (store.sweep(3600), store.sweep(-5), store.sweep(-5)) == (0, 1, 0)


def test_half_fetched_files_are_swept(store: Store, tmp_path: Path) -> None:
    (tmp_path / "cache/a").mkdir(parents=True)
    (tmp_path / "cache/a/.draft-1").write_bytes(b"half")
    assert (store.sweep(3600), store.sweep(0)) == (0, 1)


CALLS: dict[str, Callable[[Store], object]] = {
    "exists": lambda store: store.exists("a"),
    "read": lambda store: store.read("a"),
    "write": lambda store: store.write("a", b"x"),
    "local": lambda store: store.local("a"),
    "names": lambda store: list(store.names()),
    "remove": lambda store: store.remove("a"),
    "sweep": lambda store: store.sweep(0),
    "pointer": lambda store: store.pointer("a"),
    "swap": lambda store: store.swap("a", None, "b"),
}


@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_wrong_key_is_reported_without_it(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    call: Callable[[Store], object],
) -> None:
    monkeypatch.setenv(variable, "wrong-and-secret")
    with caplog.at_level(logging.DEBUG), pytest.raises(EnvironmentFault, match="refuses access") as caught:
        call(store)
    assert "wrong-and-secret" not in str(caught.value) + caplog.text


@pytest.mark.parametrize("call", ["read", "names", "pointer", "swap"])
def test_a_missing_bucket_is_the_users_matter(store: Store, tmp_path: Path, call: str) -> None:
    with pytest.raises(UserFault, match="no bucket nothing-here: correct s3://BUCKET/PREFIX"):
        CALLS[call](open_store("s3://nothing-here/data", tmp_path / "cache"))


def test_no_log_has_a_credential(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    with caplog.at_level(logging.DEBUG):
        for call in CALLS.values():
            try:
                call(store)
            except EnvironmentFault as fault:
                assert TOKEN not in str(fault)
    assert "Starting new HTTP connection" in caplog.text
    assert TOKEN not in caplog.text
    assert WORD not in caplog.text


def test_without_credentials_the_variables_are_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(EnvironmentFault, match="set AWS_ACCESS_KEY_ID"):
        store.read("a")


def test_a_dead_server_is_reported_after_a_while(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(s3_client, "PATIENCE_S", 0.2)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    for call in CALLS.values():
        with pytest.raises(EnvironmentFault, match="check the network and AWS_ENDPOINT_URL_S3"):
            call(store)


def test_a_server_that_is_killed_and_comes_back_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ports, folder = choose_s3_ports(), tmp_path / "s3"
    with ExitStack() as servers:
        first = servers.enter_context(s3_server(folder, ports))
        begin_at(monkeypatch, first, tmp_path)
        make_bucket(BUCKET)
        store = open_store(f"s3://{BUCKET}/killed", tmp_path / "cache")
        put(open_store(f"s3://{BUCKET}/killed", tmp_path / "sender"), tmp_path, LARGE_NAME, LARGE)
        assert store.swap("p", None, "one")
        os.kill(first.pid, signal.SIGKILL)
        with ThreadPoolExecutor(4) as pool:
            asked = [
                pool.submit(store.local, LARGE_NAME),
                pool.submit(store.write, "a", CONTENT),
                pool.submit(store.swap, "p", "one", "two"),
            ]
            time.sleep(2)
            assert not any(call.done() for call in asked)
            servers.enter_context(s3_server(folder, ports))
            path, _, swapped = [call.result() for call in asked]
        assert (path.read_bytes() == LARGE, swapped) == (True, True)  # type: ignore[union-attr]
        assert (store.read("a"), store.pointer("p")) == (CONTENT, "two")


def test_an_upload_goes_on_where_the_server_is_killed_in_the_middle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ports, folder = choose_s3_ports(), tmp_path / "s3"
    with ExitStack() as servers:
        first = servers.enter_context(s3_server(folder, ports))
        proxy = servers.enter_context(fault_proxy(first.address))
        begin_at(monkeypatch, first, tmp_path, AWS_ENDPOINT_URL_S3=proxy.address)
        make_bucket(BUCKET)

        def kill(reply: object) -> None:
            os.kill(first.pid, signal.SIGKILL)
            lose(reply)  # type: ignore[arg-type]

        proxy.spoil("PUT", "partNumber=1", kill)
        store = open_store(f"s3://{BUCKET}/killed", tmp_path / "cache")
        with ThreadPoolExecutor(1) as pool:
            upload = pool.submit(put, store, tmp_path, LARGE_NAME, LARGE)
            while proxy.left:
                time.sleep(0.1)
            servers.enter_context(s3_server(folder, ports))
            upload.result()
        assert store.read(LARGE_NAME) == LARGE
