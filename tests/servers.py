"""Real servers for the tests of sources and stores: SeaweedFS for S3, Orthanc for DICOMweb, on free ports."""

import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import boto3
import pytest

from infra.stack.ports import choose_ports
from infra.stack.processes import end, start, tail
from infra.stack.servers import DIRECT
from tests.requirements import leave_out, program

USER, WORD = "reader-of-tests", "word-of-tests"
WEED_PORTS = [
    f"{part}.port{kind}" for part in ("s3", "master", "volume", "filer", "admin") for kind in ("", ".grpc")
]
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
"""Path of the plugin in the package orthanc-dicomweb."""

START_LIMIT_S = 90


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server: its address, and the user and password that it accepts."""

    address: str
    user: str = USER
    word: str = WORD
    pid: int = 0

    @property
    def aws(self) -> dict[str, str]:
        """The environment in which boto3 finds it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.address,
            "AWS_ACCESS_KEY_ID": self.user,
            "AWS_SECRET_ACCESS_KEY": self.word,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def upload(self, content: bytes) -> int:
        """Give Orthanc a DICOM file through its own REST; return the status."""
        return _status(f"{self.address}/instances", self._login, content)

    @property
    def _login(self) -> Mapping[str, str]:
        return {"Authorization": "Basic " + b64encode(f"{self.user}:{self.word}".encode()).decode()}

    def _answers(self) -> bool:
        return 200 <= _status(f"{self.address}/system", self._login) < 500


def begin_at(monkeypatch: pytest.MonkeyPatch, server: Server, folder: Path, **changed: str) -> None:
    """Set the environment in which boto3 finds this server alone, with its credentials unless others are given."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    nothing = {name: str(folder / "none") for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")}
    for name, value in {**nothing, **server.aws, **changed}.items():
        monkeypatch.setenv(name, value)


def make_bucket(name: str) -> None:
    """Make a bucket on the server that boto3 finds, if it is not there."""
    client = boto3.session.Session().client("s3")
    if name not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=name)


def choose_s3_ports() -> dict[str, int]:
    """Return free ports for a server that is to come back where it was."""
    return choose_ports(dict.fromkeys(WEED_PORTS))


@contextmanager
def s3_server(folder: Path, ports: Mapping[str, int] | None = None) -> Iterator[Server]:
    """Run SeaweedFS; all that it writes is below `folder`, and what is there already it serves again."""
    ports = ports or choose_s3_ports()
    server = Server(address=f"http://127.0.0.1:{ports['s3.port']}")
    keys = [{"accessKey": server.user, "secretKey": server.word}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config, data = folder / "s3.json", folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps({"identities": [{"name": "t", "credentials": keys, "actions": actions}]}))
    options: dict[str, object] = {
        **ports,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "dir": data,
        "s3.config": config,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "filer.localSocket": folder / "filer.sock",
        "s3.localSocket": folder / "s3.sock",
        "webdav": "false",
        "admin.ui": "false",
        "master.telemetry": "false",
    }
    given = [f"-{name}={value}" for name, value in options.items()]
    weed = Path(sys.executable).parent / "weed"
    try:
        command = (str(weed), "mini", *given)
        with _running(command, folder, lambda: _status(server.address) in (200, 403)) as pid:
            yield replace(server, pid=pid)
    finally:
        # It makes these in /tmp whatever its options are, and leaves some behind.
        for name, port in ports.items():
            if name.endswith(".grpc"):
                part = name.partition(".")[0]
                Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock").unlink(missing_ok=True)


@contextmanager
def dicomweb_server(folder: Path) -> Iterator[Server]:
    """Run Orthanc with DICOMweb below /dicom-web; all that it writes is below `folder`."""
    orthanc = program("Orthanc", "orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not PLUGIN.is_file():
        leave_out("Orthanc has no DICOMweb: install Debian's package orthanc-dicomweb (infra/debian.sh)")
    (port,) = choose_ports({"http": None}).values()
    server = Server(address=f"http://127.0.0.1:{port}")
    options = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(PLUGIN)],
        "HttpPort": port,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {server.user: server.word},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(options))
    with _running((orthanc, str(folder / "orthanc.json")), folder, server._answers):
        yield server


@contextmanager
def odd_server(answer: Callable[[str], tuple[int, Mapping[str, str], bytes]]) -> Iterator[str]:
    """Run a server with the given answers, also wrong ones; it sends no Content-Length of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_PUT = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def _running(command: tuple[str, ...], folder: Path, answers: Callable[[], bool]) -> Iterator[int]:
    mark = ("RADLOOP_TEST_SERVER", uuid.uuid4().hex)
    log = folder / "server.log"
    owned = start(Path(command[0]).name, command, dict([mark]), log)
    try:
        limit = time.monotonic() + START_LIMIT_S
        while not answers():
            assert owned.process() is not None, f"{owned.name} ended at once:\n{tail(log)}"
            assert time.monotonic() < limit, (
                f"{owned.name} did not answer within {START_LIMIT_S} s:\n{tail(log)}"
            )
            time.sleep(0.2)
        yield owned.pid
    finally:
        end([owned], mark, grace_s=10)


def _status(url: str, headers: Mapping[str, str] | None = None, content: bytes | None = None) -> int:
    try:
        with DIRECT.open(urllib.request.Request(url, content, dict(headers or {})), timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as refusal:
        return refusal.code
    except OSError:
        return 0
