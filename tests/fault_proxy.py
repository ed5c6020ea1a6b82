"""Owns a proxy that stands before a real server of HTTP and spoils the replies that a test names."""

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
    """What the server said, before it is passed on; a fault changes it."""

    status: int
    headers: dict[str, str]
    body: bytes
    sent: int | None = None
    """How many bytes of the body are passed on before the line breaks; None: all, and it does not break."""
    lost: bool = False


Fault = Callable[[Reply], None]


def break_off(reply: Reply) -> None:
    """Let the body end in the middle of what was announced."""
    reply.sent = len(reply.body) // 2


def shorten(reply: Reply) -> None:
    """Pass on half of the body as if it was all, with status 200 and nothing that tells."""
    reply.body = reply.body[: len(reply.body) // 2]
    _untold(reply)


def flip(reply: Reply) -> None:
    """Change one bit of the body, with nothing that tells."""
    reply.body = bytes([reply.body[0] ^ 1]) + reply.body[1:]
    _untold(reply)


def flip_told(reply: Reply) -> None:
    """Change one bit of the body; the checksum that the server keeps is passed on."""
    reply.body = bytes([reply.body[0] ^ 1]) + reply.body[1:]


def lose(reply: Reply) -> None:
    """Break the line after the server did what it was asked, before it says so."""
    reply.lost = True


def refuse(status: int, code: str) -> Fault:
    """Return the fault of saying that it did not work, whatever the server did."""

    def fault(reply: Reply) -> None:
        reply.status, reply.headers = status, {}
        reply.body = f"<Error><Code>{code}</Code></Error>".encode()

    return fault


def _untold(reply: Reply) -> None:
    reply.headers = {
        name: value for name, value in reply.headers.items() if not name.lower().startswith("x-amz-checksum")
    }


@dataclass
class Seen:
    """One request that passed."""

    method: str
    path: str
    headers: dict[str, str]


def _meant(plan: tuple[str, str, Fault], request: Seen) -> bool:
    return plan[0] == request.method and plan[1] in request.path


@dataclass
class FaultProxy:
    """Where it answers, what passed, and what is spoiled next."""

    address: str = ""
    seen: list[Seen] = field(default_factory=list)
    _planned: list[tuple[str, str, Fault]] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def spoil(self, method: str, within: str, *faults: Fault) -> None:
        """Spoil the next replies to requests of a method whose path holds a text, one fault each."""
        with self._lock:
            self._planned += [(method, within, fault) for fault in faults]

    def pass_on(self, request: Seen, reply: Reply) -> None:
        """Note a request, and spoil its reply if that is its turn."""
        with self._lock:
            self.seen.append(request)
            turn = next((plan for plan in self._planned if _meant(plan, request)), None)
            if turn:
                self._planned.remove(turn)
        if turn:
            # A fault may ask the server something itself.
            turn[2](reply)

    @property
    def left(self) -> int:
        """Faults that nothing has met yet."""
        return len(self._planned)


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """Run a proxy before the server at an address; signatures hold, since the name of the host is passed on."""
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
            # Who does not want the rest of a reply ends the line.
            with suppress(ConnectionError):
                self.wfile.write(reply.body[: reply.sent])

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        # A client keeps its line open, and that is no reason to wait for it.
        server.block_on_close = False
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            proxy.address = f"http://127.0.0.1:{server.server_port}"
            yield proxy
        finally:
            server.shutdown()
            thread.join()
