"""Record of the stack in HOME/stack.json: its processes, their addresses, and the environment of its clients."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import psutil

from infra.stack.processes import OwnedProcess, StackError, boot_id

FILE = "stack.json"
MARK = "RADLOOP_STACK"
"""Environment variable that only the stack's own processes have."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A stack that runs, or ran."""

    home: Path
    mark: str
    ports: Mapping[str, int]
    ray_temp: str
    processes: tuple[OwnedProcess, ...] = ()
    ready: bool = False
    addresses: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        addresses = {name: f"http://127.0.0.1:{self.ports[name]}" for name in ("prefect", "mlflow", "ray")}
        object.__setattr__(self, "addresses", addresses)

    @property
    def token_file(self) -> Path:
        """File with the token that Ray requires."""
        return self.home / "private" / "ray-token"

    @property
    def logs(self) -> Path:
        """Folder of the processes' logs."""
        return self.home / "logs"

    @property
    def temporary(self) -> Path:
        """Folder of the worker's temporary files, and of the flow runs that it starts."""
        return self.home / "tmp"

    @property
    def clients(self) -> tuple[dict[str, str], ...]:
        """Environment of the stack's clients, a group for each server.

        Where a person has set the first name of a group, the whole group is ignored.
        """
        return (
            {"PREFECT_API_URL": f"{self.addresses['prefect']}/api"},
            {"MLFLOW_TRACKING_URI": self.addresses["mlflow"]},
            {
                "RADLOOP_RAY_ADDRESS": self.addresses["ray"],
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            },
        )

    @property
    def up(self) -> bool:
        """Whether the stack was started completely, and every process still runs."""
        return self.ready and all(item.process() for item in self.processes)

    def with_processes(self, *processes: OwnedProcess) -> "Stack":
        """Return the stack with more processes, after its record is written."""
        return replace(self, processes=(*self.processes, *processes)).written()

    def written(self) -> "Stack":
        """Write the record, whole or not at all, and return it."""
        content = {
            "mark": self.mark,
            "ready": self.ready,
            "addresses": self.addresses,
            "clients": self.clients,
            "ports": self.ports,
            "ray_temp": self.ray_temp,
            "processes": [asdict(item) for item in self.processes],
        }
        temporary = self.home / f"{FILE}.draft"
        temporary.write_text(json.dumps(content, indent=1))
        temporary.rename(self.home / FILE)
        return self


def _upgraded(process: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the record of a process with the time since the start of the machine, which older records lack."""
    if "created" in process:
        return {**process, "boot": boot_id(), "since_boot_s": process["created"] - psutil.boot_time()}
    return process


def read_stack(home: Path) -> Stack | None:
    """Return the stack that the last `up` recorded; None without a record. Raises StackError on a damaged file."""
    path = home / FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        return Stack(
            home=home,
            # A newer release may have written more of each.
            processes=tuple(
                OwnedProcess(**{one.name: _upgraded(item)[one.name] for one in fields(OwnedProcess)})
                for item in content["processes"]
            ),
            **{name: content[name] for name in ("mark", "ready", "ports", "ray_temp")},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StackError(f"{path} is damaged ({error!r}): remove it; what it named may still run") from error
