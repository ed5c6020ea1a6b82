"""Pool of chunks: results come in order, here or on Ray, and a lost worker costs its chunk alone."""

import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from imaging.cores import available_cores
from imaging.errors import EnvironmentFault, UserFault
from services.ray.chunk_pool import (
    CHUNK_ITEMS,
    OPENED,
    _cut,
    _do_chunk,
    _worker,
    one_behind,
    run_chunks,
)
from services.ray.room import FIRST_LINE_S

DOUBLE = "tests.test_chunk_pool:doubling"
FAILING = "tests.test_chunk_pool:failing"
STAYING = "tests.test_chunk_pool:staying"


@contextmanager
def doubling(order: Mapping[str, Any]) -> Iterator[Callable[[Sequence[int]], Any]]:
    """Leave a note of who works, in a folder; then double."""

    def do(chunk: Sequence[int]) -> Any:
        note = Path(order["folder"]) / f"{chunk[0]:04d}-{os.getpid()}-{time.monotonic_ns()}"
        note.write_text(str(order["cores"]))
        time.sleep(order.get("sleep_s", 0))
        return [2 * item for item in chunk]

    yield do


@contextmanager
def failing(order: Mapping[str, Any]) -> Iterator[Callable[[Sequence[int]], Any]]:
    """Fail in the way that the order asks for."""

    def do(chunk: Sequence[int]) -> Any:
        if order["how"] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        raise {"user": UserFault("no such place"), "bug": ValueError("MUSTERMANN^ERIKA")}[order["how"]]

    yield do


@contextmanager
def staying(order: Mapping[str, Any]) -> Iterator[Callable[[Sequence[int]], Any]]:
    """Leave a note as long as it is open; what it does is to list all such notes."""
    note = Path(order["folder"]) / f"{order['number']}-{time.monotonic_ns()}"
    note.touch()
    yield lambda _: [path.name for path in note.parent.iterdir()]
    note.unlink()


@pytest.fixture
def order(tmp_path: Path, environment: None) -> dict[str, Any]:
    return {"folder": str(tmp_path)}


def notes(order: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Return (first item, process) of each beginning of a chunk, in time."""
    names = sorted(
        (path.name.split("-") for path in Path(order["folder"]).iterdir()), key=lambda name: name[2]
    )
    return [(int(first), int(process)) for first, process, _ in names]


def flat(results: Iterator[tuple[Sequence[int], Any]]) -> tuple[list[int], list[int]]:
    both = list(results)
    return [item for chunk, _ in both for item in chunk], [item for _, done in both for item in done]


def test_no_items_open_no_worker(order: dict[str, Any]) -> None:
    assert list(run_chunks("tests.test_chunk_pool:none_such", order, [])) == []


def test_few_items_are_worked_on_in_this_process_with_all_its_cores(order: dict[str, Any]) -> None:
    assert flat(run_chunks(DOUBLE, order, range(100))) == ([*range(100)], [*range(0, 200, 2)])
    assert {process for _, process in notes(order)} == {os.getpid()}
    assert {path.read_text() for path in Path(order["folder"]).iterdir()} == {str(available_cores())}


def test_what_is_here_already_is_in_the_order_of_what_is_done_here(order: dict[str, Any]) -> None:
    here = {"folder": Path(order.pop("folder"))}
    assert flat(run_chunks(DOUBLE, order, range(3), here=here))[1] == [0, 2, 4]


def test_few_items_are_yielded_chunk_by_chunk(order: dict[str, Any]) -> None:
    assert [len(chunk) for chunk, _ in run_chunks(DOUBLE, order, range(CHUNK_ITEMS))] == [32] * 8


def test_more_items_than_a_chunk_has_are_worked_on_here_chunk_by_chunk(order: dict[str, Any]) -> None:
    chunks = [chunk for chunk, _ in run_chunks(DOUBLE, order, range(600), ray_from=1000)]
    assert [len(chunk) for chunk in chunks] == [256, 256, 88]


def test_an_error_here_is_what_was_raised(order: dict[str, Any]) -> None:
    with pytest.raises(UserFault, match="no such place"):
        list(run_chunks(FAILING, {"how": "user"}, [1]))


def test_a_chunk_is_cut_where_cores_would_wait_for_each_other() -> None:
    sizes = {
        (items, workers): [len(chunk) for chunk in _cut(range(items), CHUNK_ITEMS, workers)]
        for items, workers in ((600, 2), (8192, 2), (300, 64))
    }
    assert sizes == {(600, 2): [37] * 16 + [8], (8192, 2): [256] * 32, (300, 64): [32] * 9 + [12]}


def test_one_behind_keeps_the_order_and_does_one_at_a_time() -> None:
    busy: list[int] = []

    def double(item: int) -> tuple[int, int]:
        busy.append(item)
        time.sleep(0.005)
        at_once = len(busy)
        busy.remove(item)
        return 2 * item, at_once

    assert list(one_behind(double, range(10))) == [(2 * item, 1) for item in range(10)]


def test_one_behind_works_while_the_next_item_is_on_its_way() -> None:
    begun = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        assert begun.wait(10), "nothing was done with the first item"
        yield 2

    assert list(one_behind(lambda item: begun.set() or item, items())) == [1, 2]


def test_one_behind_has_done_what_came_before_an_error() -> None:
    done: list[int] = []

    def items() -> Iterator[int]:
        yield 1
        raise UserFault("no such place")

    with pytest.raises(UserFault, match="no such place"):
        list(one_behind(done.append, items()))
    assert done == [1]


def test_an_error_one_behind_stops_the_rest() -> None:
    taken: list[int] = []

    def fail(item: int) -> None:
        raise UserFault("no room")

    with pytest.raises(UserFault, match="no room"):
        list(one_behind(fail, (taken.append(item) or item for item in range(9))))
    assert taken == [0, 1]


def test_a_process_keeps_open_only_what_its_order_needs(order: dict[str, Any]) -> None:
    first, second = (json.dumps({**order, "number": number}) for number in range(2))
    try:
        (one,), (same,), (other,) = (_do_chunk(STAYING, text, [1]) for text in (first, first, second))
        assert (one == same, one[0], other[0]) == (True, "0", "1")
    finally:
        _worker.cache_clear()
        OPENED.close()


@pytest.mark.slow
def test_ray_is_started_for_the_time_of_the_work_alone(order: dict[str, Any]) -> None:
    import ray

    before = {process.pid for process in psutil.Process().children(recursive=True)}
    assert flat(run_chunks(DOUBLE, order, range(20), 10))[1] == [*range(0, 40, 2)]
    assert not ray.is_initialized()
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before


@pytest.fixture
def lost_node() -> Iterator[psutil.Process]:
    """Start Ray with two nodes of a core each, and return the second one's raylet, for the test to kill."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    try:
        ray.init(cluster.address, log_to_driver=False)
        yield psutil.Process(node.all_processes["raylet"][0].process.pid)
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
def test_a_killed_node_costs_its_chunk_alone(order: dict[str, Any], lost_node: psutil.Process) -> None:
    killed: list[int] = []

    def kill_node() -> None:
        workers: set[int] = set()
        while not workers & {process for _, process in notes(order)}:
            time.sleep(0.02)
            workers = {child.pid for child in lost_node.children()}
        killed.extend(workers)
        for process in (*workers, lost_node.pid):
            os.kill(process, signal.SIGKILL)

    killer = threading.Thread(target=kill_node)
    killer.start()
    results = flat(run_chunks(DOUBLE, {**order, "sleep_s": 0.5}, range(100), 10))
    killer.join()
    assert results == ([*range(100)], [*range(0, 200, 2)])
    begun = Counter(first for first, _ in notes(order))
    assert sorted(begun.values()) == [*[1] * (len(begun) - 1), 2]
    assert set(killed) & {process for _, process in notes(order)}


@pytest.fixture(scope="module")
def shared_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start Ray once for these tests; that it is started and ended where there is none has a test of its own."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def occupied_processors(for_s: float) -> Iterator[None]:
    """Hold both processors of Ray for so long, or until the block ends."""
    import ray

    group = ray.util.placement_group([{"CPU": 1}] * 2)
    assert group.wait(20)
    timer = threading.Timer(for_s, ray.util.remove_placement_group, [group])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        ray.util.remove_placement_group(group)


@pytest.mark.slow
@pytest.mark.usefixtures("shared_ray")
class TestOnRay:
    def test_many_items_come_back_in_their_order(self, order: dict[str, Any]) -> None:
        assert flat(run_chunks(DOUBLE, order, range(100), 10)) == ([*range(100)], [*range(0, 200, 2)])

    def test_many_items_are_worked_on_elsewhere(self, order: dict[str, Any]) -> None:
        flat(run_chunks(DOUBLE, order, range(100), 10))
        assert os.getpid() not in {process for _, process in notes(order)}

    def test_no_more_is_begun_than_keeps_the_workers_busy(self, order: dict[str, Any]) -> None:
        results = run_chunks(DOUBLE, order, range(100), 10)
        next(results)
        time.sleep(1.0)
        assert len(notes(order)) <= 5
        results.close()  # type: ignore[attr-defined]

    def test_a_killed_worker_costs_its_chunk_alone(self, order: dict[str, Any]) -> None:
        victims: list[int] = []

        def kill_one() -> None:
            while not (seen := notes(order)):
                time.sleep(0.02)
            victims.append(seen[-1][1])
            os.kill(seen[-1][1], signal.SIGKILL)

        killer = threading.Thread(target=kill_one)
        killer.start()
        results = flat(run_chunks(DOUBLE, {**order, "sleep_s": 0.3}, range(60), 10))
        killer.join()
        begun = [first for first, _ in notes(order)]
        assert results == ([*range(60)], [*range(0, 120, 2)])
        chunks = len({first for first, _ in notes(order)})
        assert chunks < len(begun) <= chunks + 2
        assert not psutil.pid_exists(victims[0])

    def test_chunks_wait_for_a_processor_that_is_occupied(
        self, order: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with occupied_processors(for_s=FIRST_LINE_S + 2):
            assert flat(run_chunks(DOUBLE, order, range(20), 10))[1] == [*range(0, 40, 2)]
        first, last = capsys.readouterr().out.splitlines()
        assert re.fullmatch(
            r"waiting for 1 CPU on the Ray cluster \S+ \(2 CPUs in all, 2 held, 0 free\); ends after 60 min .*",
            first,
        )
        assert re.fullmatch(r"room on the Ray cluster \S+ after \d+ s", last)

    def test_chunks_do_not_wait_longer_than_the_limit(self, order: dict[str, Any]) -> None:
        os.environ["RADLOOP_RAY_WAIT_MIN"] = "0.02"
        with (
            occupied_processors(for_s=60),
            pytest.raises(EnvironmentFault, match=r"no room for 1 CPU within 0\.02 min"),
        ):
            list(run_chunks(DOUBLE, order, range(20), 10))
        assert notes(order) == []

    def test_a_chunk_that_kills_every_worker_is_an_environment_fault(self, order: dict[str, Any]) -> None:
        with pytest.raises(EnvironmentFault, match=r"lost its worker 4 times.*memory"):
            list(run_chunks(FAILING, {"how": "die"}, range(20), 10))

    def test_an_error_for_a_person_arrives_as_it_was_raised(self, order: dict[str, Any]) -> None:
        with pytest.raises(UserFault, match=r"^no such place$"):
            list(run_chunks(FAILING, {"how": "user"}, range(20), 10))

    def test_any_other_error_is_reported_without_what_it_quotes(self, order: dict[str, Any]) -> None:
        with pytest.raises(EnvironmentFault, match="ValueError in do, line") as caught:
            list(run_chunks(FAILING, {"how": "bug"}, range(20), 10))
        assert "MUSTERMANN" not in str(caught.value)
