"""Stop of commands by signals, and what a killed one leaves: real processes, a terminal of their own, real servers."""

import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from cli.stop import LINE
from imaging.dataset.upkeep.integrity import find_flaws
from imaging.dataset.version.dataset_version import newest_version
from imaging.phantom.phantom_archive import write_phantom
from imaging.phantom.schedule import PhantomSpec
from imaging.store.folder_store import FolderStore
from infra.stack.servers import prefect_answer
from services.prefect import server as servers
from services.prefect.run_record import abandoned_runs
from tests.conftest import fresh_environment, until

DATE = re.compile(r" \d{4}-\d\d-\d\d\b")
STOP_LIMIT_S = 5.0
START_LIMIT_S = 240.0
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
ATTACHED = "import os, sys, fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
"""Makes the terminal on its input that of its session, and becomes the command."""
WAITING = "import time; from cli.stop import stoppable\nwith stoppable(): print('waiting', flush=True); time.sleep(60)"


@dataclass(kw_only=True)
class Terminal:
    """A command at a terminal of its own; `family` is what it had started when it was stopped."""

    process: subprocess.Popen[bytes]
    master: int
    output: str = ""
    family: list[psutil.Process] = field(default_factory=list)

    def read_until(self, text: str) -> None:
        """Read what it prints up to a text."""
        end = time.monotonic() + START_LIMIT_S
        while text not in self.output:
            assert time.monotonic() < end, self.output
            assert self._read() or self.process.poll() is None, self.output

    def stop(self, number: int) -> float:
        """Send a signal as the terminal does, and return the seconds to its end."""
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        begun = time.monotonic()
        if number == signal.SIGINT:
            os.write(self.master, b"\x03")
        elif number == signal.SIGHUP:
            os.close(self.master)
            self.master = -1
        else:
            os.kill(self.process.pid, number)
        while self.process.poll() is None and time.monotonic() < begun + 60:
            self._read()
        seconds = time.monotonic() - begun
        while self._read():
            pass
        return seconds

    def left(self, home: Path) -> list[psutil.Process]:
        """Return what is left of its processes, without the server of the home, which serves others too."""
        server = servers.running_server(home)
        return [
            one
            for one in self.family
            if one.is_running()
            and one.status() != psutil.STATUS_ZOMBIE
            and not (server and server.pid == one.pid)
        ]

    def _read(self) -> bool:
        try:
            if self.master < 0 or not select.select([self.master], [], [], 0.05)[0]:
                return False
            piece = os.read(self.master, 65536)
        except OSError:
            return False
        self.output += piece.decode(errors="replace")
        return bool(piece)


def at_terminal(command: Sequence[str]) -> Terminal:
    """Begin a command at a terminal, as its foreground process group."""
    master, slave = pty.openpty()
    with fresh_environment():
        environment = {**os.environ, "COLUMNS": "300"}
    process = subprocess.Popen(
        [sys.executable, "-c", ATTACHED, *command],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        start_new_session=True,
    )
    os.close(slave)
    return Terminal(process=process, master=master)


@dataclass(frozen=True, kw_only=True)
class House:
    """A home that the tests share, and the archive that it takes in."""

    home: Path
    night: tuple[str, ...]

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "cli.main", "--home", str(self.home), *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        with fresh_environment():
            return subprocess.run(
                self.command(*arguments), capture_output=True, text=True, timeout=300, check=False
            )

    def answer(self, kind: str) -> list[dict[str, str]]:
        server = servers.running_server(self.home)
        assert server is not None
        rows: list[dict[str, str]] = prefect_answer(f"{server.address}/api/{kind}/filter", {"limit": 200})
        return rows

    @property
    def states(self) -> dict[str, str]:
        """The latest state of the flow runs of each name, without the date that ends it."""
        rows = sorted(self.answer("flow_runs"), key=lambda row: row["created"])
        return {DATE.sub("", row["name"]): row["state_type"] for row in rows}

    @property
    def open_runs(self) -> list[str]:
        """Names of flow runs that seem to go on."""
        return [row["name"] for row in self.answer("flow_runs") if row["state_type"] not in FINAL]

    @property
    def open_tasks(self) -> list[str]:
        """Names of task runs that seem to go on."""
        return [row["name"] for row in self.answer("task_runs") if row["state_type"] not in FINAL]

    @property
    def trainings(self) -> list[str]:
        """States of the runs in MLflow, in their order."""
        with sqlite3.connect(self.home / "mlflow.db") as database:
            return [status for (status,) in database.execute("select status from runs order by start_time")]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("stopped")
    write_phantom(folder / "archive", PhantomSpec(patients=24), day=1)
    given = ("--source", str(folder / "archive/dicom"), "--labels", str(folder / "archive/labels.csv"))
    home = folder / "home"
    yield House(home=home, night=(*given, "--name", "d", "--positive", "lesion"))
    if server := servers.running_server(home):
        servers._end(server)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "place", "command", "epochs"),
    [
        (signal.SIGINT, "loading", "ingest", ()),
        (signal.SIGTERM, "listed", "ingest", ()),
        (signal.SIGINT, "to read", "run", ("--epochs", "3")),
        (signal.SIGHUP, "epoch 1/", "run", ("--epochs", "6")),
        (signal.SIGINT, "epoch 4/", "run", ("--epochs", "6")),
        (signal.SIGTERM, "epoch 6/6", "run", ("--epochs", "6")),
    ],
)
def test_a_command_is_stopped_within_seconds_and_leaves_nothing(
    house: House, number: int, place: str, command: str, epochs: tuple[str, ...]
) -> None:
    terminal = at_terminal(house.command(command, *house.night, *epochs))
    terminal.read_until(place)
    assert terminal.stop(number) <= STOP_LIMIT_S
    assert terminal.process.returncode == 128 + number
    if number != signal.SIGHUP:
        assert (terminal.output.count(LINE), "Traceback" in terminal.output) == (1, False)
    until(lambda: not terminal.left(house.home), "the end of its processes", 5)
    if place != "loading":
        assert house.open_runs == []
        assert house.states[f"{'ingest' if command == 'ingest' else 'nightly'} d"] == "CANCELLED"
    if "epoch" in place:
        assert set(house.trainings) == {"KILLED"}


@pytest.mark.slow
def test_the_same_command_goes_on_with_the_training(house: House) -> None:
    done = house.run("run", *house.night, "--epochs", "6")
    assert done.returncode == 0, done.stderr
    assert (
        "Goes on with the training of 'd' that was stopped: 6 of 6 epochs are done"
        in done.stdout + done.stderr
    )
    assert house.trainings == ["FINISHED"]
    assert (house.open_tasks, abandoned_runs(house.home)) == ([], [])
    version = newest_version(FolderStore(house.home / "store"), "d")
    assert version is not None
    assert find_flaws(version) == []


@pytest.mark.slow
def test_a_stop_after_the_training_is_one_too(house: House) -> None:
    terminal = at_terminal(house.command("run", *house.night, "--epochs", "6"))
    terminal.read_until("not trained again")
    assert terminal.stop(signal.SIGINT) <= STOP_LIMIT_S
    assert terminal.process.returncode == 128 + signal.SIGINT
    assert (house.open_runs, house.states["nightly d"]) == ([], "CANCELLED")


@pytest.mark.slow
def test_the_server_ends_the_runs_of_a_killed_command(house: House) -> None:
    terminal = at_terminal(house.command("run", *house.night, "--epochs", "50"))
    terminal.read_until("epoch 1/")
    terminal.stop(signal.SIGKILL)
    until(lambda: not house.open_runs and not abandoned_runs(house.home), "the end of its runs", 90)
    assert (house.states["nightly d"], house.states["train d"]) == ("CRASHED", "CRASHED")
    assert "KILLED" in house.trainings


@pytest.mark.slow
def test_status_ends_the_runs_of_a_killed_command(house: House) -> None:
    terminal = at_terminal(house.command("ingest", *house.night))
    terminal.read_until("listed")
    os.kill(terminal.process.pid, signal.SIGSTOP)
    terminal.stop(signal.SIGKILL)
    seen = house.run("status")
    assert (seen.returncode, house.states["ingest d"]) == (0, "CRASHED")
    assert (
        "ended before its time; what was done is kept, and on Prefect ingest d counts as crashed"
        in DATE.sub("", seen.stderr)
    )


@pytest.mark.slow
def test_a_silent_server_does_not_delay_the_stop_and_the_next_command_cancels(house: House) -> None:
    server = servers.running_server(house.home)
    assert server is not None
    terminal = at_terminal(house.command("ingest", *house.night))
    terminal.read_until("listed")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        assert terminal.stop(signal.SIGINT) <= STOP_LIMIT_S
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert terminal.output.count(LINE) == 1
    assert [record.outcome for record in abandoned_runs(house.home)] == ["CANCELLED"]
    assert house.run("ingest", *house.night).returncode == 0
    assert (house.open_runs, abandoned_runs(house.home)) == ([], [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_without_a_flow_is_stopped_too(number: int) -> None:
    terminal = at_terminal([sys.executable, "-c", WAITING])
    terminal.read_until("waiting")
    assert terminal.stop(number) <= STOP_LIMIT_S
    assert (terminal.process.returncode, terminal.output.count(LINE)) == (128 + number, 1)
    assert "Traceback" not in terminal.output


def test_what_was_started_under_nohup_survives_its_terminal() -> None:
    begun = subprocess.Popen(
        ["nohup", sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert begun.stdout is not None
    assert begun.stdout.readline() == "waiting\n"
    begun.send_signal(signal.SIGHUP)
    begun.send_signal(signal.SIGTERM)
    assert begun.wait(30) == 128 + signal.SIGTERM
