"""HTTP proxy before a real server that spoils the replies a test names."""

import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import urlsplit

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}


@dataclass
class Reply:
    """Reply of the server before it is passed on; a fault changes it."""

    status: int
    headers: dict[str, str]
    body: bytes
    sent: int | None = None
    """Bytes of the body that are passed on before the connection breaks; None: all, and it does not break."""
    lost: bool = False


Fault = Callable[[Reply], None]


def break_off(reply: Reply) -> None:
    """Break the connection in the middle of the body."""
    reply.sent = len(reply.body) // 2


def shorten(reply: Reply) -> None:
    """Pass on half of the body as if it was all, with status 200 and without a checksum."""
    reply.body = reply.body[: len(reply.body) // 2]
    _without_checksum(reply)


def flip(reply: Reply) -> None:
    """Change one bit of the body, and pass on no checksum."""
    reply.body = bytes([reply.body[0] ^ 1]) + reply.body[1:]
    _without_checksum(reply)


def flip_with_checksum(reply: Reply) -> None:
    """Change one bit of the body; the checksum of the server is passed on."""
    reply.body = bytes([reply.body[0] ^ 1]) + reply.body[1:]


def lose(reply: Reply) -> None:
    """Break the connection after the server did the request, before its reply."""
    reply.lost = True


def refuse(status: int, code: str) -> Fault:
    """Return the fault of a reply with an error, whatever the server did."""

    def fault(reply: Reply) -> None:
        reply.status, reply.headers = status, {}
        reply.body = f"<Error><Code>{code}</Code></Error>".encode()

    return fault


def _without_checksum(reply: Reply) -> None:
    reply.headers = {
        name: value for name, value in reply.headers.items() if not name.lower().startswith("x-amz-checksum")
    }


@dataclass
class Seen:
    """One request that passed."""

    method: str
    path: str
    headers: dict[str, str]


def _matches(plan: tuple[str, str, Fault], request: Seen) -> bool:
    return plan[0] == request.method and plan[1] in request.path


@dataclass
class FaultProxy:
    """The proxy's address, the requests that passed, and the faults that are planned."""

    address: str = ""
    seen: list[Seen] = field(default_factory=list)
    _planned: list[tuple[str, str, Fault]] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def spoil(self, method: str, within: str, *faults: Fault) -> None:
        """Spoil the next replies to requests of a method whose path contains a text, one fault each."""
        with self._lock:
            self._planned += [(method, within, fault) for fault in faults]

    def pass_on(self, request: Seen, reply: Reply) -> None:
        """Record a request, and spoil its reply where a fault is planned for it."""
        with self._lock:
            self.seen.append(request)
            turn = next((plan for plan in self._planned if _matches(plan, request)), None)
            if turn:
                self._planned.remove(turn)
        if turn:
            # A fault may send requests itself.
            turn[2](reply)

    @property
    def left(self) -> int:
        """Number of planned faults that no request has met yet."""
        return len(self._planned)


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """Run a proxy before the server at an address; signatures stay valid, since the name of the host is passed on."""
    proxy, server_name = FaultProxy(), urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            given = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            line = http.client.HTTPConnection(server_name, timeout=60)
            try:
                line.request(self.command, self.path, given or None, headers)
                answer = line.getresponse()
                reply = Reply(answer.status, dict(answer.getheaders()), answer.read())
            finally:
                line.close()
            length = answer.headers.get("Content-Length", "0")
            proxy.pass_on(Seen(self.command, self.path, headers), reply)
            self._answer(reply, int(length) if self.command == "HEAD" else len(reply.body))

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass  # noqa: N815

        def _answer(self, reply: Reply, length: int) -> None:
            self.close_connection = reply.lost or reply.sent is not None
            if reply.lost:
                return
            self.send_response_only(reply.status)
            for name, value in reply.headers.items():
                if name.lower() not in HOP_BY_HOP | {"content-length"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            # A client that does not want the rest of a reply closes the connection.
            with suppress(ConnectionError):
                self.wfile.write(reply.body[: reply.sent])

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        # A client keeps its connection open: do not wait for it.
        server.block_on_close = False
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            proxy.address = f"http://127.0.0.1:{server.server_port}"
            yield proxy
        finally:
            server.shutdown()
            thread.join()
