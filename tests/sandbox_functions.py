"""Functions that sandbox workers call in tests, each named by its effect on the worker process."""

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imaging.errors import DataFault, EnvironmentFault, UserFault
from imaging.file_io import FileBuffer

Value = Mapping[str, Any]
Result = tuple[Any, Sequence[Any]]
KEPT: list[bytes] = []


def act(setup: Value, value: Value, blobs: Sequence[bytes | Path]) -> Result:
    """Call the function of ACTS that the item names."""
    return ACTS[value.get("act", "echo")](setup, value, blobs)


def echo(_: Value, value: Value, blobs: Sequence[bytes | Path]) -> Result:
    if wait_s := value.get("wait_s"):
        time.sleep(wait_s)
    return value, [blob for blob in blobs if isinstance(blob, bytes)]


def setup_of_pool(setup: Value, value: Value, blobs: Sequence[bytes | Path]) -> Result:
    return dict(setup), []


def types(_: Value, value: Value, blobs: Sequence[bytes | Path]) -> Result:
    return [type(blob).__name__ for blob in blobs], []


def read_paths(_: Value, value: Value, blobs: Sequence[bytes | Path]) -> Result:
    return None, [blob.read_bytes() for blob in blobs if isinstance(blob, Path)]


def process(_: Value, value: Value, blobs: Sequence[bytes | Path]) -> Result:
    import cv2

    return {
        "environment": dict(os.environ),
        "cv2_threads": cv2.getNumThreads(),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "oom_score_adj": Path("/proc/self/oom_score_adj").read_text().strip(),
        "streams": [str(Path(f"/proc/self/fd/{number}").readlink()) for number in range(3)],
    }, []


def load_pydicom(*_: Any) -> Result:
    import pydicom

    return [pydicom.__name__, sys.modules.get("requests") is not None], []


def crash(*_: Any) -> Result:
    ctypes.string_at(0)
    raise AssertionError


def crash_if_not_first(_: Value, value: Value, blobs: Sequence[bytes | Path]) -> Result:
    if KEPT:
        crash()
    KEPT.append(b"")
    return value, []


def spoil(*_: Any) -> Result:
    """Leave the process in a state in which the next item kills it."""
    KEPT.append(b"")
    return None, []


def killed(*_: Any) -> Result:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def stop(*_: Any) -> Result:
    os._exit(0)


def hang(_: Value, value: Value, blobs: Sequence[bytes | Path]) -> Result:
    time.sleep(1000)
    return value, []


def hang_for_good(_: Value, value: Value, blobs: Sequence[bytes | Path]) -> Result:
    """Hang, and switch off the worker's own alarm as a decoder could."""
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(1000)
    return value, []


def allocate(_: Value, value: Value, blobs: Sequence[bytes | Path]) -> Result:
    return int(np.ones(value["mib"] << 20, np.uint8).sum()), []


def map_file(_: Value, value: Value, blobs: Sequence[bytes | Path]) -> Result:
    return len(FileBuffer().load(blobs[0], 2**40)), []


def leak(_: Value, value: Value, blobs: Sequence[bytes | Path]) -> Result:
    KEPT.append(bytes(value["mib"] << 20))
    return os.getpid(), []


def answer_with_much(_: Value, value: Value, blobs: Sequence[bytes | Path]) -> Result:
    return None, [bytes(value["mib"] << 20)]


def recurse(*arguments: Any) -> Result:
    return recurse(*arguments)


def quote_a_patient(*_: Any) -> Result:
    print("Jane Doe")
    print("Jane Doe", file=sys.stderr)
    os.write(2, b"Jane Doe")
    raise ValueError("Jane Doe")


def refuse(*_: Any) -> Result:
    raise DataFault("no-pixels", "7 frames")


def miss_a_decoder(*_: Any) -> Result:
    raise EnvironmentFault("no decoder for JPEG: install imagecodecs")


def misuse(*_: Any) -> Result:
    raise UserFault("Jane Doe")


def answer_no_json(*_: Any) -> Result:
    return {1, 2}, []


def answer_with_a_path(*_: Any) -> Result:
    return None, [Path("/etc/hostname")]


def send_no_message(*_: Any) -> Result:
    """Write bytes that are no message to the parent's connection, as a hijacked decoder could."""
    os.write(int(sys.argv[1]), b"\xff" * 64)
    time.sleep(1000)
    raise AssertionError


ACTS: dict[str, Callable[..., Result]] = {
    function.__name__: function
    for function in (
        answer_no_json,
        answer_with_a_path,
        answer_with_much,
        allocate,
        crash,
        crash_if_not_first,
        echo,
        hang,
        hang_for_good,
        killed,
        leak,
        map_file,
        load_pydicom,
        miss_a_decoder,
        misuse,
        process,
        quote_a_patient,
        read_paths,
        recurse,
        refuse,
        send_no_message,
        setup_of_pool,
        spoil,
        stop,
        types,
    )
}
