"""Deployments of the flows to Prefect: prefect.yaml with the parameters and schedules of this home."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from infra.stack.processes import StackError, tail

TEMPLATE = Path(__file__).parents[2] / "prefect.yaml"
DEPLOY_TIMEOUT_S = 300
EVERY_NIGHT = "every-night"
"""Slug of the schedule of the night."""


def fill(
    template: str,
    requests: Mapping[str, Mapping[str, Any]],
    scheduled: bool,
    time_zone: str | None = None,
    cron: str | None = None,
) -> str:
    """Return the content of prefect.yaml with a request for each deployment, and the schedules on or paused.

    `cron` is that of the schedule of every night.

    >>> print(fill("deployments: [{name: nightly, schedules: [{cron: 0 2 * * *}]}]", {"nightly": {"a": 1}}, False))
    deployments:
    - name: nightly
      schedules:
      - cron: 0 2 * * *
        active: false
      parameters:
        request:
          a: 1
    <BLANKLINE>
    """
    content = yaml.safe_load(template)
    for deployment in content["deployments"]:
        for schedule in deployment.get("schedules", []):
            schedule["active"] = scheduled
            schedule.update({"timezone": time_zone} if time_zone else {})
            schedule.update({"cron": cron} if cron and schedule.get("slug") == EVERY_NIGHT else {})
        # A deployment without a request is started by hand, and its form asks for the parameters.
        if deployment["name"] in requests:
            deployment["parameters"] = {"request": dict(requests[deployment["name"]])}
    return yaml.safe_dump(content, sort_keys=False)


def deploy(content: str, home: Path, environment: Mapping[str, str]) -> None:
    """Deploy the content of prefect.yaml and keep it in HOME/prefect.yaml; raise StackError where Prefect refuses."""
    path, log = home / "prefect.yaml", home / "logs" / "deploy.log"
    temporary = path.with_suffix(".draft.yaml")
    temporary.write_text(content)
    command = [
        sys.executable,
        "-m",
        "prefect",
        "--no-prompt",
        "deploy",
        "--all",
        "--prefect-file",
        str(temporary),
    ]
    with log.open("w") as output:
        code = subprocess.run(
            command,
            env=dict(environment),
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=DEPLOY_TIMEOUT_S,
            check=False,
        ).returncode
    if code:
        raise StackError(f"Prefect refused the deployments, see {log}:\n{tail(log)}")
    temporary.rename(path)


def deployed(home: Path) -> str:
    """Return the prefect.yaml that was deployed last, or an empty text."""
    path = home / "prefect.yaml"
    return path.read_text() if path.exists() else ""


def deployed_time_zone(home: Path) -> str | None:
    """Return the time zone of the schedules that were deployed last; None where there were none."""
    return next((schedule.get("timezone") for schedule in _schedules(home)), None)


def deployed_cron(home: Path) -> str | None:
    """Return the cron of every night that was deployed last; None where there was none."""
    nights = (schedule["cron"] for schedule in _schedules(home) if schedule.get("slug") == EVERY_NIGHT)
    return next(nights, None)


def _schedules(home: Path) -> Iterator[Mapping[str, Any]]:
    for deployment in (yaml.safe_load(deployed(home)) or {}).get("deployments", []):
        yield from deployment.get("schedules", [])
