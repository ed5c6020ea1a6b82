"""Retries: for input and output that may come back, never for what a person or a file did wrong."""

import errno
import pickle

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError
from prefect.client.schemas.objects import State, StateType

from imaging.errors import DataFault, EnvironmentFault, RadloopError, UserFault
from imaging.store.s3_client import Bucket
from tasks.ingest import open_job, read_new
from tasks.promotion import promote_candidate
from tasks.retry import RETRY_DELAYS_S, is_transient
from tasks.training import fit_model


def is_tried_again(error: Exception) -> bool:
    return is_transient(None, None, State(type=StateType.FAILED, data=error))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        OSError(errno.ESTALE, "stale handle"),
        OSError(errno.EIO, "disk"),
    ],
)
def test_what_may_come_back_is_tried_again(error: Exception) -> None:
    assert is_tried_again(error)


@pytest.mark.parametrize(
    "error",
    [
        UserFault("a wrong name"),
        EnvironmentFault("no decoder"),
        DataFault("truncated"),
        ValueError("a bug"),
        OSError(errno.ENOSPC, "full"),
        FileNotFoundError(errno.ENOENT, "gone"),
    ],
)
def test_what_will_not_change_is_not(error: Exception) -> None:
    assert not is_tried_again(error)


def of_s3(code: str, status: int) -> ClientError:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "GetObject")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cause", "again"),
    [
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), True),
        (ReadTimeoutError(endpoint_url="http://127.0.0.1:1"), True),
        (of_s3("SlowDown", 503), True),
        (of_s3("InternalError", 500), True),
        (of_s3("InvalidAccessKeyId", 403), False),
        (of_s3("SignatureDoesNotMatch", 403), False),
        (of_s3("NoSuchBucket", 404), False),
        (of_s3("NoSuchKey", 404), False),
        (NoCredentialsError(), False),
    ],
    ids=lambda one: getattr(one, "args", [str(one)])[0][:40],
)
@pytest.mark.parametrize("travels", [False, True], ids=["here", "from a worker"])
def test_of_s3_what_did_not_answer_is_tried_again_and_what_refuses_is_not(
    cause: Exception, again: bool, travels: bool
) -> None:
    with pytest.raises(RadloopError) as caught, Bucket("bucket", "").faults():
        raise cause
    error = pickle.loads(pickle.dumps(caught.value)) if travels else caught.value  # noqa: S301
    assert is_tried_again(error) == again


@pytest.mark.parametrize("task", [open_job, read_new])
def test_reading_is_retried_with_growing_patience(task: object) -> None:
    assert task.retries == len(RETRY_DELAYS_S)  # type: ignore[attr-defined]
    assert sorted(RETRY_DELAYS_S) == RETRY_DELAYS_S


@pytest.mark.parametrize("task", [fit_model, promote_candidate])
def test_training_and_promotion_are_not_retried_by_the_orchestrator(task: object) -> None:
    assert task.retries == 0  # type: ignore[attr-defined]
