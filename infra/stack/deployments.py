"""Deployments of the flows to Prefect: prefect.yaml with the parameters and schedules of this home."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from infra.stack.processes import StackError, tail
from infra.stack.schedule_changes import EVERY_NIGHT

TEMPLATE = Path(__file__).parents[2] / "prefect.yaml"
DEPLOY_TIMEOUT_S = 300


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


def deploy(
    content: str,
    home: Path,
    environment: Mapping[str, str],
    existing: Mapping[str, bool] = MappingProxyType({}),
) -> None:
    """Deploy the content of prefect.yaml and keep it in HOME/prefect.yaml; raise StackError where Prefect refuses.

    `existing` are the deployments that the server has, and whether each is paused: of these schedules and state stay.
    """
    path, log = home / "prefect.yaml", home / "logs" / "deploy.log"
    temporary, sent = path.with_suffix(".draft.yaml"), path.with_suffix(".sent.yaml")
    temporary.write_text(content)
    sent.write_text(_without_schedules(content, existing))
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(sent)]
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
    sent.unlink(missing_ok=True)
    if code:
        raise StackError(f"Prefect refused the deployments, see {log}:\n{tail(log)}")
    temporary.rename(path)


def _without_schedules(content: str, existing: Mapping[str, bool]) -> str:
    if not existing:
        return content
    made = yaml.safe_load(content)
    for deployment in made["deployments"]:
        if deployment["name"] in existing:
            # Prefect keeps the schedules of which it is not told, but resumes what is paused.
            deployment.pop("schedules", None)
            deployment["paused"] = existing[deployment["name"]]
    return yaml.safe_dump(made, sort_keys=False)


def deployed(home: Path) -> str:
    """Return the prefect.yaml that was deployed last, or an empty text."""
    path = home / "prefect.yaml"
    return path.read_text() if path.exists() else ""


def deployed_time_zone(home: Path) -> str | None:
    """Return the time zone of the schedules that were deployed last; None where there were none."""
    return next((schedule.get("timezone") for schedule in _schedules(deployed(home))), None)


def deployed_cron(home: Path) -> str | None:
    """Return the cron of every night that was deployed last; None where there was none."""
    nights = (
        schedule["cron"] for schedule in _schedules(deployed(home)) if schedule.get("slug") == EVERY_NIGHT
    )
    return next(nights, None)


def deployments_of(content: str) -> Sequence[Mapping[str, Any]]:
    """Return the deployments of the content of prefect.yaml."""
    made: Sequence[Mapping[str, Any]] = (yaml.safe_load(content) or {}).get("deployments", [])
    return made


def _schedules(content: str) -> Iterator[Mapping[str, Any]]:
    for deployment in deployments_of(content):
        yield from deployment.get("schedules", [])
