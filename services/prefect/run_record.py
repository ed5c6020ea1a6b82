"""Record of a flow run of a command, HOME/runs/ID.json: by it who comes later sees that its process is gone."""

import json
import os
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from imaging.errors import EnvironmentFault
from services.prefect.server_record import SAME_START_S, began

FOLDER = "runs"

Outcome = Literal["CRASHED", "CANCELLED"]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A flow run and its process; `outcome` is the state of the run if the process ends without its own word.

    Where it was stopped and only the states of its last tasks may still be on their way, it is `ended`.
    For `since_boot_s` see `HomeServer`. A home may be shared, and pids mean nothing on another host.
    """

    flow_run: str
    flow: str
    host: str
    pid: int
    since_boot_s: float
    outcome: Outcome = "CRASHED"
    ended: bool = False

    @property
    def abandoned(self) -> bool:
        """Whether its process was one of this host, and has ended."""
        return self.host == socket.gethostname() and abs(began(self.pid) - self.since_boot_s) >= SAME_START_S


def record_of(flow_run: str, flow: str) -> RunRecord:
    """Return the record of a flow run of this process."""
    pid = os.getpid()
    return RunRecord(
        flow_run=flow_run, flow=flow, host=socket.gethostname(), pid=pid, since_boot_s=began(pid)
    )


def check_home(home: Path) -> None:
    """Raise EnvironmentFault where the home cannot be written any more; nothing has begun yet."""
    if not os.access(home, os.W_OK):
        raise EnvironmentFault(
            f"{home} cannot be written: is its disk mounted read-only? Mend that, or give --home another folder"
        )


def write_record(home: Path, record: RunRecord) -> None:
    """Write the record, whole or not at all; raise EnvironmentFault where the home cannot be written."""
    path = _path(home, record)
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        temporary.write_text(json.dumps(asdict(record), indent=1))
        temporary.replace(path)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot write {path.parent} ({error.strerror}): give --home a folder that can be written, on a disk "
            "with space"
        ) from error


def remove_record(home: Path, record: RunRecord) -> None:
    """Remove the record of a flow run that has an end."""
    with suppress(OSError):
        _path(home, record).unlink(missing_ok=True)


def abandoned_runs(home: Path) -> list[RunRecord]:
    """Return the records of processes that have ended."""
    records = []
    for path in sorted(home.joinpath(FOLDER).glob("*.json")):
        # What is no record says nothing of a run.
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(path.read_text())
            records.append(RunRecord(**{one.name: content[one.name] for one in fields(RunRecord)}))
    return [record for record in records if record.abandoned]


def _path(home: Path, record: RunRecord) -> Path:
    return home / FOLDER / f"{record.flow_run}.json"
