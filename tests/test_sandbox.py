"""Sandbox pool: a file that harms its worker costs that file alone; outcomes keep their order and limits."""

import math
import os
import stat
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imaging.dicom.limits import LIMITS
from imaging.errors import DataFault, EnvironmentFault
from imaging.sandbox.pool import AHEAD, DEPTH, Item
from imaging.sandbox.worker_loop import LARGEST_FILE_BYTES
from imaging.sandbox.worker_process import Answer, WorkerLimits
from tests.sandbox_pools import MakePool, act, numbers, outcomes, pools, shortened, workers_of

pytestmark = pytest.mark.slow


@pytest.fixture
def make() -> Iterator[MakePool]:
    with pools() as make:
        yield make


def test_the_function_gets_the_setup_of_the_pool(make: MakePool) -> None:
    assert outcomes(make(), act("setup_of_pool")) == [{"colour": "blue"}]


def test_workers_that_were_started_ahead_do_the_work(make: MakePool) -> None:
    pool = make(workers=2)
    pool.start()
    ahead = {worker.pid for worker in workers_of(os.getpid())}
    assert outcomes(pool, *numbers(8))
    assert (len(ahead), {worker.pid for worker in workers_of(os.getpid())}) == (2, ahead)


def test_a_pool_that_was_ended_starts_others(make: MakePool) -> None:
    pool = make()
    pool.start()
    pool.end()
    assert not workers_of(os.getpid())
    assert outcomes(pool, act("setup_of_pool")) == [{"colour": "blue"}]


def test_pydicom_loads_no_client_of_the_web(make: MakePool) -> None:
    assert outcomes(make(), act("load_pydicom")) == [["pydicom", False]]


def test_bytes_and_paths_stay_what_they_are(make: MakePool, tmp_path: Path) -> None:
    item = Item({"act": "types"}, (b"bytes", tmp_path))
    assert outcomes(make(), item) == [["bytes", "PosixPath"]]


def test_a_file_that_is_larger_than_the_memory_of_a_worker_is_mapped(make: MakePool, tmp_path: Path) -> None:
    with (tmp_path / "slide").open("wb") as file:
        file.truncate(2**31)
    assert outcomes(make(), Item({"act": "map_file"}, (tmp_path / "slide",))) == [2**31]


def test_the_largest_file_of_a_worker_is_that_of_the_limits() -> None:
    assert LIMITS.file_bytes == LARGEST_FILE_BYTES


def test_a_worker_opens_a_file_whose_name_is_not_utf_8(make: MakePool, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"M\xfcller.dcm")
    path.write_bytes(b"seen")
    (answer,) = make().map([Item({"act": "read_paths", "name": path.name}, (path,))])
    assert isinstance(answer, Answer)
    assert [bytes(blob) for blob in answer.blobs] == [b"seen"]


def test_what_is_made_of_an_item_goes_into_a_file_for_its_owner_alone(make: MakePool, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"M\xfcller")
    (answer,) = make().map([Item({"colour": "red"}, (b"one", b"two"), path)])
    assert answer == Answer({"colour": "red"}, ())
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"onetwo", 0o600)


def test_a_file_of_another_try_is_written_anew(make: MakePool, tmp_path: Path) -> None:
    (tmp_path / "made").write_bytes(b"longer, and only half of it")
    outcomes(make(), Item({}, (b"whole",), tmp_path / "made"))
    assert (tmp_path / "made").read_bytes() == b"whole"


def test_where_nothing_is_made_there_is_no_file(make: MakePool, tmp_path: Path) -> None:
    outcomes(
        make(),
        Item({"act": "setup_of_pool"}, (), tmp_path / "made"),
        Item({"act": "refuse"}, (), tmp_path / "made"),
    )
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_no_fault_of_the_item(make: MakePool, tmp_path: Path) -> None:
    with pytest.raises(
        EnvironmentFault, match=r"^a worker cannot write \(No such file or directory\): make room"
    ):
        outcomes(make(), Item({}, (b"one",), tmp_path / "gone" / "made"))


def test_a_worker_answers_with_numbers_that_json_does_not_know(make: MakePool) -> None:
    (value,) = outcomes(make(), Item({"spacing_mm": math.nan}))
    assert math.isnan(value["spacing_mm"])


def test_outcomes_come_in_the_order_of_the_items(make: MakePool) -> None:
    items = [Item({"wait_s": 0.2 if number == 0 else 0.0, "number": number}) for number in range(40)]
    assert [value["number"] for value in outcomes(make(workers=2), *items)] == list(range(40))


def test_quick_items_are_done_beside_a_slow_one(make: MakePool) -> None:
    pool = make(workers=2)
    outcomes(pool, *numbers(2 * DEPTH))
    items = iter([Item({"wait_s": 0.5}), *numbers(100)])
    next(answers := pool.map(items))
    assert len(list(items)) == 0
    answers.close()


def test_items_are_taken_as_they_are_needed(make: MakePool) -> None:
    pool = make(workers=2)
    outcomes(pool, *numbers(2 * DEPTH))
    items = iter([Item({"wait_s": 0.7}), *numbers(10 * AHEAD)])
    next(answers := pool.map(items))
    assert 8 * AHEAD <= len(list(items)) < 9 * AHEAD
    answers.close()


def test_no_more_bytes_are_taken_than_allowed(make: MakePool) -> None:
    taken = []

    def items() -> Iterator[Item]:
        for number in range(8):
            taken.append(number)
            yield Item({"number": number, "wait_s": 0.3}, (bytes(1 << 20),))

    next(answers := make(bytes_ahead=2 << 20).map(items()))
    assert len(taken) <= 3
    answers.close()


def test_no_more_answers_are_kept_than_allowed(make: MakePool) -> None:
    """While the first item is slow, the other worker's answers wait where they are."""
    pool = make(workers=2, bytes_ahead=8 << 20)
    outcomes(pool, *numbers(2 * DEPTH))
    tracemalloc.start()
    try:
        next(
            answers := pool.map([Item({"wait_s": 0.7}), *(act("answer_with_much", mib=8) for _ in range(8))])
        )
        assert tracemalloc.get_traced_memory()[1] < 18 << 20
        assert len(list(answers)) == 8
    finally:
        tracemalloc.stop()


def test_big_blobs_cross_in_both_directions(make: MakePool) -> None:
    blob = os.urandom(1 << 20) * 64
    items = [Item({}, (blob,)) for _ in range(4)]
    for answer in make(limits=WorkerLimits(timeout_s=30)).map(items):
        assert isinstance(answer, Answer)
        assert answer.blobs[0] == blob


def test_a_pool_takes_items_again_and_again_with_the_same_worker(make: MakePool) -> None:
    pool = make()
    first, second = (outcomes(pool, act("leak", mib=0)) for _ in range(2))
    assert first == second


def test_a_pool_refuses_two_calls_at_a_time(make: MakePool) -> None:
    pool = make()
    next(answers := pool.map(numbers(2)))
    with pytest.raises(RuntimeError, match="still busy"):
        next(pool.map(numbers(1)))
    answers.close()


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        (act("crash"), ("decoder-crashed", "the worker ended with signal 11")),
        (act("stop"), ("decoder-crashed", "the worker ended with status 0")),
        (act("killed"), ("out-of-memory", "the worker was ended with signal 9")),
        (act("hang"), ("decoder-hung", "no result within 1 s")),
        (act("allocate", mib=300), ("out-of-memory", "reading needs more memory than a worker may use")),
        (Item({}, (bytes(1 << 18),) * 1024), ("out-of-memory", "more than a worker's 256 MiB")),
        (act("recurse"), ("too-deep", "the structure is nested too deeply")),
        (act("quote_a_patient"), ("unreadable", "reading ended with ValueError")),
        (act("misuse"), ("unreadable", "reading ended with UserFault")),
        (act("answer_no_json"), ("unreadable", "reading ended with TypeError")),
        (act("refuse"), ("no-pixels", "7 frames")),
        (act("answer_with_a_path"), ("decoder-crashed", "the worker sent what is no message")),
        (act("send_no_message"), ("decoder-crashed", "the worker sent what is no message")),
        (
            Item({}, (bytes(1 << 18),) * 1024 + (b"1",)),
            ("too-large", f"a message of {(256 << 20) + 1} bytes, at most {256 << 20} are allowed"),
        ),
    ],
    ids=lambda value: value.value.get("act", "large") if isinstance(value, Item) else "",
)
def test_what_a_file_does_costs_that_file_alone(make: MakePool, item: Item, fault: tuple[str, str]) -> None:
    before, after = numbers(6)[:3], numbers(6)[3:]
    seen = outcomes(make(), *before, item, *after)
    assert seen == [*({"number": n} for n in range(3)), fault, *({"number": n} for n in range(3, 6))]


def test_many_crashes_cost_their_files_alone(make: MakePool) -> None:
    items = [act("crash") if number % 4 == 1 else Item({"number": number}) for number in range(12)]
    faults = [isinstance(outcome, DataFault) for outcome in make(workers=2).map(items)]
    assert faults == [number % 4 == 1 for number in range(12)]


def test_a_file_is_not_blamed_for_what_an_earlier_one_left(make: MakePool) -> None:
    assert outcomes(make(), act("spoil"), act("crash_if_not_first")) == [None, {"act": "crash_if_not_first"}]


def test_what_leaks_is_given_back_with_the_process(make: MakePool) -> None:
    seen = outcomes(make(), *(act("leak", mib=150) for _ in range(3)))
    assert len(set(seen)) == 3


def test_a_fault_of_the_environment_is_raised(make: MakePool) -> None:
    with pytest.raises(EnvironmentFault, match="install imagecodecs"):
        outcomes(make(), Item({}), act("miss_a_decoder"), act("hang"))


def test_an_answer_that_was_given_before_the_end_is_kept(make: MakePool) -> None:
    """A worker says something and dies while the parent looks elsewhere, and then is sent more."""

    def items() -> Iterator[Item]:
        yield from [*numbers(2), act("crash")]
        time.sleep(0.7)
        yield Item({"number": 2})

    pool = make()
    outcomes(pool, Item({}))
    crash = ("decoder-crashed", "the worker ended with signal 11")
    assert list(map(shortened, pool.map(items()))) == [{"number": 0}, {"number": 1}, crash, {"number": 2}]


def test_time_that_the_caller_takes_is_not_the_files(make: MakePool) -> None:
    """An answer that is too big to be buffered waits for the caller, while its worker's time must not run."""
    seen = []
    for outcome in make(limits=WorkerLimits(timeout_s=0.5)).map([Item({}, (bytes(8 << 20),))] * 3):
        seen.append(shortened(outcome))
        time.sleep(0.8)
    assert seen == [{}, {}, {}]


def test_the_overhead_of_an_item_is_printed(
    make: MakePool, record_property: Callable[[str, float], None]
) -> None:
    pool, count = make(), 5000
    outcomes(pool, *numbers(100))
    start = time.perf_counter()
    assert len(outcomes(pool, *numbers(count))) == count
    overhead_ms = (time.perf_counter() - start) / count * 1000
    record_property("overhead_ms", overhead_ms)
    print(f"{overhead_ms:.3f} ms an item")
