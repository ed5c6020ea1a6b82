"""Faults of S3: each code of an answer and each exception of boto3 has its class and its remedy, also inside MLflow."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import botocore.exceptions as boto
import mlflow
import pytest
from mlflow import MlflowClient

from imaging.errors import EnvironmentFault, RadloopError, UserFault
from imaging.sources.open_source import open_source
from imaging.store import s3_client
from imaging.store.open_store import open_store
from imaging.store.protocol import Unreachable
from imaging.store.s3_faults import BY_EXCEPTION, fault_of_exception
from services.mlflow.runs import reachable
from services.settings import Settings
from tests.servers import Server, begin_at, odd_server

TIMES = "<RequestTime>20260101T000000Z</RequestTime><ServerTime>2026-01-01T02:00:00Z</ServerTime>"
ANSWERS: dict[str, tuple[int, str, type[RadloopError], str]] = {
    # Status of each code: Amazon S3 API Reference, "Error responses", table "List of error codes".
    "ExpiredToken": (400, "", EnvironmentFault, r"login at S3 has ended.*log in again.*AWS_SESSION_TOKEN"),
    "TokenRefreshRequired": (400, "", EnvironmentFault, r"login at S3 has ended.*log in again"),
    "InvalidToken": (400, "", EnvironmentFault, r"takes no AWS_SESSION_TOKEN.*unset it"),
    "RequestTimeTooSkewed": (
        403, TIMES, EnvironmentFault, r"clock is wrong by more than 15 min.*says 2026-01-01T02:00:00Z.*timedatectl"
    ),
    "AccessDenied": (403, "", EnvironmentFault, r"refuses access to the bucket data \(AccessDenied.*may list, read"),
    "InvalidAccessKeyId": (403, "", EnvironmentFault, r"refuses access.*check AWS_ACCESS_KEY_ID"),
    "SignatureDoesNotMatch": (403, "", EnvironmentFault, r"AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID"),
    "NoSuchBucket": (404, "", UserFault, r"there is no bucket data: correct s3://BUCKET/PREFIX"),
    "AuthorizationHeaderMalformed": (
        400, "<Region>eu-central-1</Region>", EnvironmentFault, r"its region is eu-central-1.*set AWS_DEFAULT_REGION"
    ),
    "PermanentRedirect": (
        301, "<Endpoint>s3.eu-west-1.amazonaws.com</Endpoint>", EnvironmentFault, r"is s3\.eu-west-1.*AWS_ENDPOINT"
    ),
    "AccountProblem": (403, "", EnvironmentFault, r"refuses access.*AccountProblem, status 403"),
    "SlowDown": (503, "", Unreachable, r"cannot serve the bucket data \(SlowDown\): run it again"),
    "InvalidRequest": (400, "", EnvironmentFault, r"cannot serve the bucket data \(InvalidRequest, status 400\)"),
}  # fmt: skip


@contextmanager
def answering(code: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[None]:
    """Let boto3 find a server that answers everything with one error."""
    status, more, *_ = ANSWERS[code]
    body = f"<Error><Code>{code}</Code><Message>of a test</Message>{more}</Error>".encode()
    headers = {"Content-Type": "application/xml", "Content-Length": str(len(body))}
    # S3's answers to a request for a bucket of another region have it, and boto3 tries once more there.
    headers |= {"x-amz-bucket-region": "eu-west-1"} if status == 301 else {}
    with odd_server(lambda _: (status, headers, body)) as address:
        begin_at(monkeypatch, Server(address=address), folder)
        monkeypatch.setattr(s3_client, "PATIENCE_S", 0.0)
        monkeypatch.setattr(s3_client, "PAUSE_S", 0.01)
        yield


@pytest.mark.parametrize("code", ANSWERS)
def test_each_refusal_of_a_store_has_its_remedy(
    code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    *_, kind, remedy = ANSWERS[code]
    with answering(code, monkeypatch, tmp_path), pytest.raises(kind, match=remedy):
        open_store("s3://data/x", tmp_path / "cache").read("a")


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestTimeTooSkewed", "PermanentRedirect"])
def test_a_refusal_whose_answer_has_no_body_has_it_too(
    code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    *_, kind, remedy = ANSWERS[code]
    with answering(code, monkeypatch, tmp_path), pytest.raises(kind, match=remedy):
        open_store("s3://data/x", tmp_path / "cache").exists("a")


def test_a_server_that_redirects_for_ever_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with odd_server(lambda _: (301, {"Content-Length": "0"}, b"")) as address:
        begin_at(monkeypatch, Server(address=address), tmp_path)
        with pytest.raises(EnvironmentFault, match="bucket data is elsewhere"):
            open_store("s3://data/x", tmp_path / "cache").read("a")


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestTimeTooSkewed", "NoSuchBucket"])
def test_a_source_on_s3_names_it_too(code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    *_, kind, remedy = ANSWERS[code]
    with answering(code, monkeypatch, tmp_path), pytest.raises(kind, match=remedy):
        next(open_source("s3://data/x").scan())


EXCEPTIONS = {
    "no keys": (boto.NoCredentialsError(), EnvironmentFault, "no credentials for S3"),
    "half of them": (boto.PartialCredentialsError(provider="x", cred_var="X"), EnvironmentFault, "no credentials"),
    "no profile": (boto.ProfileNotFound(profile="x"), EnvironmentFault, "AWS_PROFILE names no profile"),
    "no region": (boto.NoRegionError(), EnvironmentFault, "set AWS_DEFAULT_REGION"),
    "old login": (boto.UnauthorizedSSOTokenError(), EnvironmentFault, "log in again"),
    "login gone": (boto.SSOTokenLoadError(error_msg="x"), EnvironmentFault, "log in again"),
    "dead proxy": (boto.ProxyConnectionError(proxy_url="http://p", error="x"), Unreachable, "HTTPS_PROXY.*NO_PROXY"),
    "own certificate": (boto.SSLError(endpoint_url="https://s", error="x"), Unreachable, "AWS_CA_BUNDLE"),
    "dead server": (boto.EndpointConnectionError(endpoint_url="https://s"), Unreachable, "AWS_ENDPOINT_URL_S3"),
    "slow server": (boto.ReadTimeoutError(endpoint_url="https://s"), Unreachable, "check the network"),
}  # fmt: skip


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_each_exception_of_boto3_has_its_remedy(name: str) -> None:
    error, kind, remedy = EXCEPTIONS[name]
    with pytest.raises(kind, match=remedy), s3_client.Bucket("data", "").faults():
        raise error


def test_every_name_of_the_table_is_one_of_boto3() -> None:
    assert all(issubclass(getattr(boto, name), boto.BotoCoreError) for name in BY_EXCEPTION)


def test_what_has_nothing_to_do_with_s3_is_no_fault_of_it() -> None:
    assert fault_of_exception(ValueError("An error occurred"), "bucket data") is None


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestTimeTooSkewed", "NoSuchBucket", "AccessDenied"])
@pytest.mark.parametrize("call", ["write", "list", "fetch"])
def test_mlflows_files_on_s3_have_the_same_remedies(
    code: str, call: str, tracked: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    *_, kind, remedy = ANSWERS[code]
    remedy = remedy.replace("bucket data", r"bucket of MLflow's artifacts \(.*\)")
    with (
        answering(code, monkeypatch, tmp_path),
        pytest.raises(kind, match=remedy),
        reachable(tracked) as client,
    ):
        run_id = run_on_s3(client)
        monkeypatch.setenv(
            "MLFLOW_S3_ENDPOINT_URL", os.environ["AWS_ENDPOINT_URL_S3"]
        )  # of which MLflow keeps a client
        if call == "write":
            client.log_text(run_id, "text", "a.txt")
        elif call == "list":
            mlflow.artifacts.list_artifacts(artifact_uri="s3://data/x")
        else:
            mlflow.artifacts.download_artifacts(artifact_uri="s3://data/x/a.txt", dst_path=str(tmp_path))


def run_on_s3(client: MlflowClient) -> str:
    known = client.get_experiment_by_name("files-on-s3")
    made = (
        known.experiment_id
        if known
        else client.create_experiment("files-on-s3", artifact_location="s3://data/x")
    )
    return str(client.create_run(made).info.run_id)
