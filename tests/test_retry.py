"""Retries: for input and output that may come back, never for what a person or a file did wrong."""

import errno

import pytest
from prefect.client.schemas.objects import State, StateType

from imaging.errors import DataFault, EnvironmentFault, UserFault
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


@pytest.mark.parametrize("task", [open_job, read_new])
def test_reading_is_retried_with_growing_patience(task: object) -> None:
    assert task.retries == len(RETRY_DELAYS_S)  # type: ignore[attr-defined]
    assert sorted(RETRY_DELAYS_S) == RETRY_DELAYS_S


@pytest.mark.parametrize("task", [fit_model, promote_candidate])
def test_training_and_promotion_are_not_retried_by_the_orchestrator(task: object) -> None:
    assert task.retries == 0  # type: ignore[attr-defined]
