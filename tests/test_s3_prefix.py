"""Objects below a prefix of a bucket as a source, against a real S3 server."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from imaging.errors import DataFault, EnvironmentFault, UserFault
from imaging.sources.protocol import SourceFile
from imaging.sources.s3_prefix import S3Prefix
from imaging.store import s3_client
from tests.servers import Server, odd_server, s3_server

BUCKET, PATIENT = "scans", "MUSTERMANN"
slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let boto3 find nothing of this machine's, and repeat quickly."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    quick = s3_client.Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1})
    monkeypatch.setattr(s3_client, "CLIENT", quick)
    monkeypatch.setattr(s3_client, "PATIENCE_S", 0.1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name, value in running.aws.items():
        monkeypatch.setenv(name, value)
    client = boto3.session.Session().client("s3")
    if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
        for key in ("ct/a/IM1", "ct/IM2", "ct/", "ct2/IM3", "other", "ct/Ä #%+?.dcm"):
            client.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
    return running


def at(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "word-of-tests")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def content(source: S3Prefix, name: str) -> bytes:
    (data,) = source.fetch(SourceFile(name=name, size_bytes=0, mtime_ns=0)).contents
    assert isinstance(data, bytes)
    return data


@slow
def test_what_is_below_the_prefix_is_listed_by_relative_names(server: Server) -> None:
    assert sorted(file.name for file in S3Prefix("s3://scans/ct").scan()) == ["IM2", "a/IM1", "Ä #%+?.dcm"]


@slow
def test_the_tag_of_an_object_changes_with_its_content(server: Server) -> None:
    tags = {file.name: file.tag for file in S3Prefix("s3://scans/ct").scan()}
    assert tags["IM2"] == hashlib.md5(b"ct/IM2").hexdigest()
    assert len(set(tags.values())) == len(tags)


@slow
def test_a_prefix_is_a_folder_and_not_a_beginning(server: Server) -> None:
    assert [file.name for file in S3Prefix("s3://scans/ct2/").scan()] == ["IM3"]


@slow
def test_a_bucket_alone_is_listed_whole(server: Server) -> None:
    assert len(list(S3Prefix("s3://scans").scan())) == 5


@slow
def test_objects_come_as_they_were_put(server: Server) -> None:
    source = S3Prefix("s3://scans/ct")
    assert {file.name: content(source, file.name) for file in source.scan()} == {
        name: f"ct/{name}".encode() for name in ("IM2", "a/IM1", "Ä #%+?.dcm")
    }


@slow
def test_an_object_is_listed_with_size_and_time(server: Server) -> None:
    (file,) = S3Prefix("s3://scans/ct2").scan()
    kept = boto3.session.Session().client("s3").head_object(Bucket=BUCKET, Key="ct2/IM3")
    assert (file.size_bytes, file.mtime_ns // 10**9) == (7, int(kept["LastModified"].timestamp()))


@slow
def test_a_listing_of_several_pages_is_whole(server: Server) -> None:
    client = boto3.session.Session().client("s3")
    for number in range(1005):
        client.put_object(Bucket=BUCKET, Key=f"many/{number:04}", Body=b"x")
    names = [file.name for file in S3Prefix("s3://scans/many").scan()]
    assert names == [f"{number:04}" for number in range(1005)]


@slow
def test_a_missing_bucket_is_the_users_matter(server: Server) -> None:
    with pytest.raises(UserFault, match="no bucket nothing-here"):
        list(S3Prefix("s3://nothing-here/ct").scan())


@slow
def test_an_empty_prefix_lists_nothing(server: Server) -> None:
    assert list(S3Prefix("s3://scans/nothing").scan()) == []


@slow
@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials_are_reported_without_them(
    server: Server, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "wrong-and-secret")
    with pytest.raises(EnvironmentFault, match="refuses access to the bucket scans") as caught:
        list(S3Prefix("s3://scans/ct").scan())
    assert "wrong-and-secret" not in str(caught.value)


@slow
def test_an_object_that_is_gone_is_no_bad_file(server: Server) -> None:
    with pytest.raises(EnvironmentFault, match="is gone: run it again") as caught:
        content(S3Prefix("s3://scans/ct"), PATIENT)
    assert PATIENT not in str(caught.value)


@slow
def test_an_object_over_the_limit_is_not_read(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging.sources.s3_prefix.FETCHED_LIMIT_BYTES", 3)
    with pytest.raises(DataFault) as caught:
        content(S3Prefix("s3://scans/ct"), "IM2")
    assert caught.value.reason == "too-large"


def test_without_credentials_the_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(EnvironmentFault, match="set AWS_ACCESS_KEY_ID"):
        list(S3Prefix("s3://scans/ct").scan())


def test_a_server_that_does_not_answer_is_a_fault_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at(monkeypatch, "http://127.0.0.1:1")
    with pytest.raises(EnvironmentFault, match="check the network and AWS_ENDPOINT_URL_S3"):
        list(S3Prefix("s3://scans/ct").scan())


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Length": "100"}, bytes(50)),
        ({"Content-Length": "50", "x-amz-checksum-crc32": "AAAAAA=="}, b"x" * 50),
    ],
    ids=["short", "changed"],
)
def test_a_body_that_is_not_what_was_stored_is_no_bad_file(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], body: bytes
) -> None:
    with odd_server(lambda _: (200, headers, body)) as address:
        at(monkeypatch, address)
        with pytest.raises(EnvironmentFault, match="did not answer as it must"):
            content(S3Prefix("s3://scans/ct"), "IM1")


def test_a_server_in_trouble_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    answers: list[Any] = [(503, {"Content-Length": "0"}, b""), (200, {"Content-Length": "1"}, b"x")]
    with odd_server(lambda _: answers.pop(0)) as address:
        at(monkeypatch, address)
        assert content(S3Prefix("s3://scans/ct"), "IM1") == b"x"


@pytest.mark.parametrize("address", ["s3://", "s3:///a", "s3://UPPER/a", "s3://a"])
def test_an_address_without_a_bucket_is_refused(address: str) -> None:
    with pytest.raises(UserFault, match="write s3://BUCKET/PREFIX"):
        S3Prefix(address)


def test_opening_asks_nobody() -> None:
    assert S3Prefix("s3://scans/ct").kind == "s3"
