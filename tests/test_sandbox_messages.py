"""Messages of the sandbox: each arrives unchanged, and what is no message is refused before it costs memory."""

import json
import math
import os
import socket
import tracemalloc
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imaging.errors import DataFault
from imaging.sandbox.messages import (
    HEAD_LIMIT,
    PREFIX,
    BadMessage,
    Inbox,
    Message,
    pack,
    read_message,
    send_some,
    write_message,
)

LIMIT = 1 << 20
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two ends of a connection: the first blocks, as the worker's does, the second does not."""
    worker, parent = socket.socketpair()
    parent.setblocking(False)
    with worker, parent:
        yield worker, parent


def through(pair: Pair, message: Message) -> Message:
    """Send from the parent to the worker."""
    outbox = deque(pack(message, LIMIT))
    while outbox:
        send_some(pair[1], outbox)
    return read_message(pair[0])


def raw(
    head: Any, blobs: bytes = b"", head_bytes: int | None = None, blobs_bytes: int | None = None
) -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    sizes = (
        len(text) if head_bytes is None else head_bytes,
        len(blobs) if blobs_bytes is None else blobs_bytes,
    )
    return PREFIX.pack(*sizes) + text + blobs


@pytest.mark.parametrize("value", [None, {"a": [1, 2.5, True]}, "Müller^Jörg", 0.1 + 0.2, math.inf, 2**80])
def test_a_value_comes_out_as_it_went_in(pair: Pair, value: Any) -> None:
    assert through(pair, Message("item", value)).value == value


def test_not_a_number_stays_not_a_number(pair: Pair) -> None:
    assert math.isnan(through(pair, Message("item", math.nan)).value)


def test_blobs_come_out_as_bytes_in_their_order(pair: Pair) -> None:
    assert through(pair, Message("item", None, (b"one", b"", b"three"))).blobs == (b"one", b"", b"three")


def test_a_path_that_is_not_utf_8_stays_the_same_path(pair: Pair) -> None:
    path = Path(os.fsdecode(b"/scans/M\xfcller\xff.dcm"))
    assert through(pair, Message("item", str(path), (path,))) == Message("item", str(path), (path,))


def test_an_answer_arrives_in_pieces(pair: Pair) -> None:
    worker, parent = pair
    inbox, data = Inbox(LIMIT), b"".join(pack(Message("answer", 1, (b"ab", b"", b"c")), LIMIT))
    seen = []
    for start in range(len(data)):
        worker.sendall(data[start : start + 1])
        seen.append(inbox.receive(parent))
    assert seen[:-1] == [None] * (len(data) - 1)
    assert seen[-1] is not None
    assert [bytes(blob) for blob in seen[-1].blobs] == [b"ab", b"", b"c"]


def test_two_answers_at_once_are_two_messages(pair: Pair) -> None:
    worker, parent = pair
    for number in (1, 2):
        write_message(worker, Message("answer", number), LIMIT)
    inbox = Inbox(LIMIT)
    assert [inbox.receive(parent), inbox.receive(parent), inbox.receive(parent)] == [
        Message("answer", 1),
        Message("answer", 2),
        None,
    ]


def test_blobs_over_the_limit_are_not_sent() -> None:
    with pytest.raises(DataFault) as caught:
        pack(Message("item", None, (bytes(LIMIT), b"1")), LIMIT)
    assert (caught.value.reason, caught.value.detail) == (
        "too-large",
        f"a message of {LIMIT + 1} bytes, at most {LIMIT} are allowed",
    )


def test_a_head_over_the_limit_is_not_sent() -> None:
    with pytest.raises(DataFault, match=f"at most {HEAD_LIMIT}"):
        pack(Message("item", "x" * HEAD_LIMIT), LIMIT)


@pytest.mark.parametrize(
    "sizes", [{"blobs_bytes": 1 << 60}, {"head_bytes": (1 << 32) - 1}, {"head_bytes": 0}]
)
def test_a_size_beyond_its_limit_is_refused_without_memory(pair: Pair, sizes: dict[str, Any]) -> None:
    pair[0].sendall(raw(["answer", None, []], **sizes))
    tracemalloc.start()
    try:
        with pytest.raises(BadMessage):
            Inbox(LIMIT).receive(pair[1])
        assert tracemalloc.get_traced_memory()[1] < LIMIT
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        raw(b"\xff\xfe"),
        raw(b"{"),
        raw(b"7"),
        raw(b"9" * 5000),
        raw(b"[" * 100_000),
        raw(["answer", None]),
        raw([7, None, []]),
        raw(["answer", None, "12"]),
        raw(["answer", None, [-1, 1]]),
        raw(["answer", None, [True]], b"1"),
        raw(["answer", None, [2]], b"1"),
        raw(["answer", None, [1]], b"12"),
        raw(["answer", None, ["/etc/hostname"]]),
    ],
    ids=lambda data: repr(data[12:40]),
)
def test_what_is_no_message_is_refused(pair: Pair, data: bytes) -> None:
    pair[0].sendall(data)
    with pytest.raises(BadMessage):
        Inbox(LIMIT).receive(pair[1])


def test_a_message_that_stops_is_the_end(pair: Pair) -> None:
    worker, parent = pair
    worker.sendall(raw(["answer", None, [9]], b"12", blobs_bytes=9))
    worker.close()
    with pytest.raises(EOFError):
        Inbox(LIMIT).receive(parent)


def test_an_order_that_stops_is_the_end_for_the_worker(pair: Pair) -> None:
    worker, parent = pair
    parent.send(raw(["item", None, []])[:-1])
    parent.close()
    with pytest.raises(EOFError):
        read_message(worker)
