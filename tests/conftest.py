"""Fixtures that many test modules share."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest
from xdist.scheduler.loadfile import LoadFileScheduling  # type: ignore[import-untyped, unused-ignore]

from infra.stack.processes import OwnedProcess, end, start
from infra.stack.record import Stack, read_stack
from infra.stack.servers import answer_of
from services.settings import Settings, activate
from tests.public_images import write_slices
from tests.requirements import image_sets
from tests.synthetic import write_archive

# How long an example takes says nothing on a machine that others use too.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")

# Torch's threads wait for each other by spinning, which on such a machine makes a training take ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SLEEP = (sys.executable, "-c", "import time; time.sleep(300)")
FAILING = (sys.executable, "-c", "import sys; print('no such door'); sys.exit(1)")
"""Commands that replace servers in tests."""
MARK = ("RADLOOP_STACK", "mark-of-this-test")
PORTS = dict.fromkeys(("prefect", "mlflow", "ray"))

REPOSITORY = Path(__file__).parent.parent
KEPT = ("RADLOOP_DATA", "RADLOOP_SCREENSHOTS")
OURS = ("RADLOOP_", "MLFLOW_", "PREFECT_", "RAY_", "DO_NOT_TRACK", "NO_PROXY", "no_proxy")
Seen = TypeVar("Seen")
STACK_USERS: set[str] = set()
"""Tests that need the stack and have not run."""
STACK_END = ExitStack()
FLOWS = ("ingest", "train", "tune", "evaluate", "nightly", "reevaluate", "features", "deidentify")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of the larger real image sets; tests that need it are left out where it is missing."""
    return image_sets()


@pytest.fixture(scope="session")
def made_up_slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of a phantom's CT slices, which are made here."""
    return write_slices(tmp_path_factory.mktemp("slices"))


@pytest.fixture(scope="session", params=["packages", "ct-contrast"])
def ct_slices(request: pytest.FixtureRequest, made_up_slices: Path) -> Path:
    """Return a folder of CT slices, once those that packages carry and once the larger real set."""
    return made_up_slices if request.param == "packages" else image_sets() / "ct-contrast"


@pytest.fixture(scope="session")
def cardiac_mr() -> Path:
    """Return the folder of real cine MR slices with their masks."""
    return image_sets() / "cardiac-mr"


@contextmanager
def fresh_environment() -> Iterator[None]:
    """Begin without the variables that choose servers and folders, and undo what the block sets."""
    before = dict(os.environ)
    for name in [name for name in before if name.startswith(OURS) and name not in KEPT]:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(autouse=True)
def fresh_reader() -> None:
    """Begin without the headers that other tests have read, under other limits maybe."""
    if reader := sys.modules.get("imaging.formats.dicom"):
        reader._header_cache.cache_clear()
        reader._cached_meaning.cache_clear()


@pytest.fixture
def environment() -> Iterator[None]:
    """Begin without the variables that choose servers and folders, and undo what the test sets."""
    with fresh_environment():
        yield


@pytest.fixture
def settings(tmp_path: Path, environment: None) -> Settings:
    """Return the embedded default in a home of its own."""
    os.environ["RADLOOP_HOME"] = str(tmp_path / "home")
    return Settings()


@pytest.fixture(scope="session")
def registry_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one home for the tests that need MLflow: making its database takes seconds."""
    return tmp_path_factory.mktemp("registry")


@pytest.fixture
def tracked(registry_home: Path, environment: None) -> Settings:
    """Return settings with a real MLflow on SQLite, shared by tests; each takes a name of its own."""
    os.environ["RADLOOP_HOME"] = str(registry_home)
    return Settings()


@pytest.fixture
def plain_flows(monkeypatch: pytest.MonkeyPatch, environment: None) -> list[dict[str, Any]]:
    """Take Prefect's decorators off the flows and their tasks; return the artifacts that they leave."""
    from prefect import Flow, Task

    left: list[dict[str, Any]] = []
    # All are loaded before one is changed: a flow that is loaded later would keep what it imports from a changed one.
    for module in [import_module(f"flows.{name}") for name in FLOWS]:
        for name, value in vars(module).copy().items():
            if isinstance(value, Flow | Task):
                monkeypatch.setattr(module, name, value.fn)
        monkeypatch.setattr(module, "create_markdown_artifact", lambda *_, **values: left.append(values))
    monkeypatch.setattr(
        "services.prefect.progress.create_progress_artifact", lambda *_, **values: left.append(values)
    )
    monkeypatch.setattr(
        "services.prefect.progress.update_progress_artifact", lambda *_, **values: left.append(values)
    )
    monkeypatch.setattr("cli.flow_run.quiet_logs", lambda: None)
    monkeypatch.setattr("cli.flow_run.claim_server", lambda log: None)
    return left


def until(seen: Callable[[], Seen], what: str, limit_s: float = 150) -> Seen:
    """Wait for something that servers do in their own time, and return it."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if result := seen():
            return result
        time.sleep(0.3)
    raise AssertionError(f"{what} did not happen within {limit_s} s")


def answered(url: str, body: Mapping[str, Any] | None = None) -> Any:
    """Return the answer of a server, and ask again while it is too busy to give one, as Prefect's client does."""
    return until(lambda: answer_of(url, body), f"an answer of {url}")


@dataclass(frozen=True, kw_only=True)
class Running:
    """A stack that is up, and the archive that its deployments are asked to take in."""

    record: Stack
    archive: Path
    labels: Path
    name: str


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """Keep the tests of a file in one process, and all files that need the stack in one too: it is started once."""
    return Scheduling(config, log)


class Scheduling(LoadFileScheduling):  # type: ignore[misc, unused-ignore]
    """Scheduling by files, of which those that need the stack count as one."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "stack" if needs_stack(file) else file


@cache
def needs_stack(file: str) -> bool:
    """Return whether a file has tests that need the stack."""
    return "stack: Running" in (REPOSITORY / file).read_text()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Remember which tests need the stack."""
    STACK_USERS.update(item.nodeid for item in items if "stack" in getattr(item, "fixturenames", ()))


def pytest_runtest_logfinish(nodeid: str) -> None:
    """End the stack after the last test that needs it: idle, it costs a sixth of a core."""
    STACK_USERS.discard(nodeid)
    if not STACK_USERS:
        STACK_END.close()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start the whole stack once for all the tests that need servers: that takes half a minute."""
    from cli import stack as stack_commands

    home = tmp_path_factory.mktemp("stack")
    archive, labels = write_archive(tmp_path_factory.mktemp("archive") / "dicom")
    name = "planned"
    config = home / "quick.yaml"
    config.write_text("training: {network: small_cnn, epochs: 2}")

    def down() -> None:
        with fresh_environment():
            os.environ["RADLOOP_HOME"] = str(home)
            stack_commands.down()

    with STACK_END:
        STACK_END.callback(down)
        with fresh_environment():
            os.environ["RADLOOP_HOME"] = str(home)
            stack_commands.up(
                source=str(archive), labels=str(labels), name=name, config=config, time_zone="Europe/Berlin"
            )
        record = read_stack(home)
        assert record is not None
        yield Running(record=record, archive=archive, labels=labels, name=name)


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of one Prefect server, for the tests that run commands as processes."""
    from services.prefect.server import claim_server, end_server

    home = tmp_path_factory.mktemp("prefect")
    with fresh_environment():
        os.environ["RADLOOP_HOME"] = str(home)
        claim = claim_server()
        assert claim is not None
        claim.wait()
    yield f"{claim.server.address}/api"
    os.close(claim.lock)
    end_server(home)


@pytest.fixture
def client(stack: Running, environment: None) -> Settings:
    """Return the settings of a command that runs while the stack is up."""
    return activate(home=stack.record.home)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., OwnedProcess]]:
    """Return a function that starts a command; whatever it started is gone after the test."""
    begun: list[OwnedProcess] = []

    def begin(command: tuple[str, ...], **environment: str) -> OwnedProcess:
        begun.append(start("it", command, environment, tmp_path / f"{len(begun)}.log"))
        return begun[-1]

    yield begin
    end(begun, MARK, grace_s=0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line for each reason why tests were left out."""
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", ()))
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{count} left out: {reason.removeprefix('Skipped: ')}")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that calls a figure's function and gives its axes instead of its file."""
    from matplotlib.figure import Figure

    from tasks.report import figures

    def axes_of(draw: Callable[..., str], *arguments: object) -> Any:
        axes = Figure().add_subplot()
        monkeypatch.setattr(figures, "draw", lambda paint, **_: paint(axes))
        draw(*arguments)
        return axes

    return axes_of
