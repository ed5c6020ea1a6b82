"""Room on a Ray cluster: what a job waits for is logged with what is held, and the wait ends by a limit."""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from imaging.errors import EnvironmentFault
from services.settings import Settings

BEAT_S = 1
FIRST_LINE_S = 3.0
"""A wait is logged after it: a group takes some milliseconds where there is room."""
NEXT_LINE_S = 60.0
RESOURCES = ("CPU", "GPU")
"""What our groups ask for."""

log_at_once = partial(print, flush=True)


class RoomWait:
    """Wait of this job for room: `look` at it while the job cannot go on.

    What waits are the placement groups of the job, of which Ray has a table with states and sizes: that a CPU is held
    does not say by whom, and a worker that is being started holds one, too.
    """

    def __init__(self, log: Callable[[str], None] = log_at_once, limit_s: float | None = None) -> None:
        self.log = log
        self.limit_s = Settings().ray_wait_min * 60 if limit_s is None else limit_s
        self._since: float | None = None
        self._next_line_s = FIRST_LINE_S

    def look(self) -> None:
        """Log what is waited for, and raise EnvironmentFault after the limit."""
        ray = _ray()

        states = _own_groups()
        if waiting := [group for group in states if group["state"] in ("PENDING", "RESCHEDULING")]:
            self._wait(_sum(bundle for group in waiting for bundle in group["bundles"].values()))
        elif any(group["state"] == "CREATED" for group in states) and self._since is not None:
            # A group that was given up is followed by another, which goes on waiting.
            if self._next_line_s > FIRST_LINE_S:
                self.log(
                    f"room on the Ray cluster {ray.get_runtime_context().gcs_address} after "
                    f"{time.monotonic() - self._since:.0f} s"
                )
            self._since, self._next_line_s = None, FIRST_LINE_S

    def _wait(self, asked: Mapping[str, float]) -> None:
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        waited_s = now - self._since
        what, where = _text(asked), _cluster(asked)
        if waited_s >= self.limit_s:
            raise EnvironmentFault(
                f"no room for {what} within {self.limit_s / 60:g} min on {where}: wait for its other jobs or stop "
                "them, add nodes, ask for fewer workers, or set RADLOOP_RAY_WAIT_MIN to more minutes"
            )
        if waited_s >= self._next_line_s:
            self.log(
                f"waiting for {what} on {where}; ends after {self.limit_s / 60:g} min (RADLOOP_RAY_WAIT_MIN)"
            )
            self._next_line_s = waited_s + NEXT_LINE_S


def await_processor(log: Callable[[str], None] = log_at_once) -> None:
    """Return when one CPU of the cluster is free for this job; the wait is logged.

    Raises EnvironmentFault where the cluster has none at all, or none is free before the limit.
    """
    ray = _ray()

    if ray.cluster_resources().get("CPU", 0) < 1:
        raise EnvironmentFault(
            f"{_cluster({'CPU': 1})}, and at least 1 is needed: add a node that gives CPUs to Ray (--num-cpus)"
        )
    group, wait = ray.util.placement_group([{"CPU": 1}]), RoomWait(log)
    try:
        while not group.wait(BEAT_S):
            wait.look()
        wait.look()
    finally:
        ray.util.remove_placement_group(group)


def _ray() -> Any:
    # Loaded here: the trainer imports this module, and most trainings have no Ray.
    import ray

    return ray


def _own_groups() -> list[Mapping[str, Any]]:
    ray = _ray()

    job = ray.get_runtime_context().get_job_id()
    # The id of a group ends with that of the job which made it.
    return [group for name, group in ray.util.placement_group_table().items() if name.endswith(job)]


def _sum(bundles: Iterable[Mapping[str, float]]) -> Mapping[str, float]:
    given = list(bundles)
    total = {name: sum(bundle.get(name, 0) for bundle in given) for name in RESOURCES}
    return {name: count for name, count in total.items() if count}


def _text(asked: Mapping[str, float]) -> str:
    return " and ".join(f"{count:g} {name}{'' if count == 1 else 's'}" for name, count in asked.items())


def _cluster(asked: Mapping[str, float]) -> str:
    """Return the cluster with its resources of these kinds, in all, held and free."""
    ray = _ray()

    total, free = ray.cluster_resources(), ray.available_resources()
    counts = "; ".join(
        f"{total.get(name, 0):g} {name}s in all, {total.get(name, 0) - free.get(name, 0):g} held, "
        f"{free.get(name, 0):g} free"
        for name in asked
    )
    return f"the Ray cluster {ray.get_runtime_context().gcs_address} ({counts})"
