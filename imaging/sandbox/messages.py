"""Messages between a sandbox worker and its parent: a JSON head and raw bytes, never a pickle."""

import json
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from imaging.errors import DataFault

Blob = bytes | bytearray | memoryview

PREFIX = struct.Struct(">IQ")
"""In front of a message: how many bytes its head has, and how many its blobs have together."""
HEAD_LIMIT = 8 << 20
"""Bytes. A head consists of attributes, and parsing one takes many times its size; pixels travel as blobs."""
BUFFERS_A_CALL = 64


class BadMessage(Exception):
    """Received bytes that are no message; nothing more is read from that sender."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its kind, a JSON value, and blobs.

    Numbers come out as they went in, NaN and infinities too, and so do names of files that are not UTF-8.
    A path stays a path: the receiver opens the file.
    """

    kind: str
    value: Any
    blobs: Sequence[Blob | Path] = ()


def pack(message: Message, limit_bytes: int) -> list[memoryview]:
    """Return the buffers to send; DataFault "too-large" where the blobs or the head pass their limit."""
    views = [None if isinstance(blob, Path) else memoryview(blob) for blob in message.blobs]
    places = [
        view.nbytes if view is not None else os.fsencode(str(blob)).decode("latin-1")
        for blob, view in zip(message.blobs, views, strict=True)
    ]
    head = json.dumps([message.kind, message.value, places]).encode("ascii")
    raw = [view.cast("B") for view in views if view is not None and view.nbytes]
    total = sum(view.nbytes for view in raw)
    if over := oversize(len(head), total, limit_bytes):
        raise DataFault("too-large", over)
    return [memoryview(PREFIX.pack(len(head), total) + head), *raw]


def oversize(head_bytes: int, blobs_bytes: int, limit_bytes: int) -> str:
    """Return which limit a message of this size exceeds; an empty text if none."""
    if blobs_bytes > limit_bytes:
        return f"a message of {blobs_bytes} bytes, at most {limit_bytes} are allowed"
    if head_bytes > HEAD_LIMIT:
        return f"a message with a head of {head_bytes} bytes, at most {HEAD_LIMIT} are allowed"
    return ""


def unpack_head(head: bytes) -> tuple[str, Any, list[int | str]]:
    """Return the kind, the value, and for each blob its size in bytes or the path of its file."""
    try:
        kind, value, places = json.loads(str(head, "ascii"))
    except (ValueError, TypeError, RecursionError):
        raise BadMessage from None
    good = isinstance(kind, str) and isinstance(places, list)
    if not good or any(type(place) is not str and (type(place) is not int or place < 0) for place in places):
        raise BadMessage
    return kind, value, places


def send_some(connection: socket.socket, outbox: deque[memoryview]) -> int:
    """Send what the connection takes, remove it from `outbox`, and return the number of bytes."""
    sent = left = connection.sendmsg(list(islice(outbox, BUFFERS_A_CALL)))
    while left:
        first = outbox.popleft()
        if left < first.nbytes:
            outbox.appendleft(first[left:])
            break
        left -= first.nbytes
    return sent


def write_message(connection: socket.socket, message: Message, limit_bytes: int) -> None:
    """Send a message whole through a connection that blocks."""
    outbox = deque(pack(message, limit_bytes))
    while outbox:
        send_some(connection, outbox)


def read_message(connection: socket.socket) -> Message:
    """Return the next message from a trusted sender, waiting for it; raise EOFError where there will be none."""
    head_bytes, _ = PREFIX.unpack(_exactly(connection, PREFIX.size))
    kind, value, places = unpack_head(_exactly(connection, head_bytes))
    blobs = [
        Path(os.fsdecode(place.encode("latin-1"))) if isinstance(place, str) else _exactly(connection, place)
        for place in places
    ]
    return Message(kind, value, tuple(blobs))


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = connection.recv(size, socket.MSG_WAITALL) if size else b""
    if len(data) < size:
        raise EOFError
    return data


class Inbox:
    """Receiver of messages from an untrusted sender, over a connection that does not block.

    A declared size is accepted only up to its limit; then its bytes are received straight into their buffer.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._begin(PREFIX.size, head_bytes=0)

    def _begin(self, size: int, head_bytes: int) -> None:
        self._buffer, self._filled, self._head_bytes = bytearray(size), 0, head_bytes

    def receive(self, connection: socket.socket) -> Message | None:
        """Return a whole message, None where it has not arrived yet; raise EOFError at the end, or BadMessage."""
        while True:
            try:
                count = connection.recv_into(memoryview(self._buffer)[self._filled :])
            except BlockingIOError:
                return None
            except ConnectionError:
                raise EOFError from None
            if not count:
                raise EOFError
            self._filled += count
            if self._filled == len(self._buffer):
                if self._head_bytes:
                    return self._whole()
                self._expect()

    def _expect(self) -> None:
        head_bytes, blobs_bytes = PREFIX.unpack(self._buffer)
        if not head_bytes or oversize(head_bytes, blobs_bytes, self._limit_bytes):
            raise BadMessage
        self._begin(head_bytes + blobs_bytes, head_bytes)

    def _whole(self) -> Message:
        body = memoryview(self._buffer).toreadonly()
        kind, value, places = unpack_head(bytes(body[: self._head_bytes]))
        blobs, start = [], self._head_bytes
        for place in places:
            # A path would make the parent open a file of the worker's choice.
            if isinstance(place, str):
                raise BadMessage
            blobs.append(body[start : start + place])
            start += place
        if start != len(body):
            raise BadMessage
        self._begin(PREFIX.size, head_bytes=0)
        return Message(kind, value, tuple(blobs))
