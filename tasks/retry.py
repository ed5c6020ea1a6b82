"""Retries of tasks: failures of input and output are tried again, never those of the user or the data."""

import errno
from typing import Any

from prefect.client.schemas.objects import State, TaskRun

from imaging.store.protocol import Unreachable

RETRY_DELAYS_S = [1, 5, 30]
PASSING = frozenset({errno.EAGAIN, errno.EIO, errno.ESTALE, errno.EBUSY, errno.EINTR})


def is_transient(_task: Any, _run: TaskRun, state: State) -> bool:
    """Return whether a failed task may succeed when it is simply run again."""
    error = state.data
    # A server that was waited for in vain may be back; what it refuses is a fault of another class.
    if isinstance(error, (ConnectionError, TimeoutError, Unreachable)):
        return True
    return isinstance(error, OSError) and error.errno in PASSING


INPUT_OUTPUT: dict[str, Any] = {
    "retries": len(RETRY_DELAYS_S),
    "retry_delay_seconds": RETRY_DELAYS_S,
    "retry_condition_fn": is_transient,
}
"""The failure policy of tasks that read and write: Prefect retries these, and Ray retries training."""
