"""Schedules of `radloop up`: the request of the night that they repeat, and the deployments."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import ValidationError

from cli.flow_run import checked_request
from imaging.errors import UserFault
from imaging.release_compatibility import canonical
from infra.stack.deployments import TEMPLATE, fill
from services.flow_requests import REQUESTS, NightlyRequest, Request, absolute_place
from services.settings import Settings
from services.start_weights import with_absolute_weights

REMEMBERED = "nightly.json"
"""Parameters of the night: written by `radloop run` when it succeeds, and here."""


def remember(settings: Settings, request: NightlyRequest) -> None:
    """Keep a night that went well for the schedule, whose runs start in another folder."""
    keep(settings, canonical(_with_absolute_places(request)))


def keep(settings: Settings, nightly: Mapping[str, Any]) -> None:
    """Write the parameters of the night."""
    (settings.folder / REMEMBERED).write_text(json.dumps(nightly, indent=1))


def nightly_request(settings: Settings, config: Path | None, options: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters of the night: options over the last successful run's; empty where nothing is known."""
    remembered = settings.folder / REMEMBERED
    if config or options:
        request = checked_request("nightly", config, options)
    elif remembered.exists():
        try:
            request = NightlyRequest.model_validate_json(remembered.read_text())
        except ValidationError as error:
            raise UserFault(
                f"{remembered} is not of this version of radloop: `radloop run` writes it anew"
            ) from error
    else:
        return {}
    # A schedule shall not train in vain.
    return canonical(_with_absolute_places(request).model_copy(update={"again": False}))


def cron_at(time: str) -> str:
    """Return the cron of every day at a time.

    >>> cron_at("22:30")
    '30 22 * * *'
    """
    match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", time.strip())
    if match is None:
        raise UserFault(f"--at {time!r} is no time of a day: give hours and minutes, such as 02:00 or 22:30")
    return f"{int(match[2])} {int(match[1])} * * *"


def deployments(nightly: Mapping[str, Any], time_zone: str | None, cron: str | None = None) -> str:
    """Return prefect.yaml, filled in for a nightly request; schedules are on only where there is one."""
    if time_zone:
        try:
            ZoneInfo(time_zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise UserFault(
                f"--time-zone {time_zone!r} is unknown: give a name such as Europe/Berlin"
            ) from error
    parameters = {
        name: form_values(kind(**{key: value for key, value in nightly.items() if key in kind.model_fields}))
        for name, kind in REQUESTS.items()
        if name != "deidentify"  # Its form asks for everything.
    }
    return fill(TEMPLATE.read_text(), parameters, scheduled=bool(nightly), time_zone=time_zone, cron=cron)


def form_values(request: Request) -> dict[str, Any]:
    """Return what a form begins with: without what is left out, which it shows as a blank field."""
    values = request.model_dump(mode="json", exclude_none=True)
    return {name: value for name, value in values.items() if value or name not in request.required_in_form}


def _with_absolute_places(request: NightlyRequest) -> NightlyRequest:
    places = {
        name: absolute_place(place)
        for name in ("source", "labels", "masks")
        if (place := getattr(request, name))
    }
    return request.model_copy(
        update={
            **places,
            "more_labels": tuple(map(absolute_place, request.more_labels)),
            "training": with_absolute_weights(request.training),
        }
    )
