"""Ray in this process: started for the time of a block, or the cluster's that started the process as a job."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
"""The workers' own lines are in Ray's log files; what a person reads comes from the steps."""


@contextmanager
def local_ray(processors: int, object_store_bytes: int | None = None) -> Iterator[None]:
    """Start Ray in this process for the time of the block; a Ray that is there is used and left alone."""
    # Loaded here: whoever may need Ray imports this module.
    import ray

    if ray.is_initialized():
        yield
        return
    ray.init(
        address="local",
        num_cpus=processors,
        object_store_memory=object_store_bytes,
        include_dashboard=False,
        **QUIET,
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def training_ray(workers: int) -> Iterator[None]:
    """Start Ray for a training by so many workers, as `local_ray` does."""
    # The trainer's module takes seconds to load, and so do Ray's processes: both at once.
    loading = threading.Thread(target=import_module, args=("ray.train.torch",))
    loading.start()
    with local_ray(max(workers, os.cpu_count() or 1)):
        loading.join()
        yield


def join_cluster() -> int:
    """Connect this process, which is a job's, to the cluster that started it; return its number of processors."""
    import ray

    ray.init(address="auto", **QUIET)
    return int(ray.cluster_resources().get("CPU", 0))
