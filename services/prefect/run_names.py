"""Names of flow runs: the flow, the dataset and the date; Prefect is not loaded."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

TWO_NOUNS = re.compile("[a-z]+-[a-z]+")
"""Prefect's server makes such names up ("astute-woodpecker")."""
GREEK = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho|sigma|tau|upsilon|phi|chi|psi"
    "|omega"
)
STAR = re.compile(rf"({GREEK})\d*-[a-z-]+")
"""The form on Prefect's page is filled in with such a name ("gamma4-lyrae")."""
KEY_OF_SCHEDULE = re.compile(r"scheduled .* (\d{4}-\d\d-\d\d) \d\d:\d\d:\d\d(\.\d+)?[+-]\d\d:\d\d")


def date_of(expected: datetime, key: str | None) -> str:
    """Return the date of a run: that of its schedule's time zone, or for other runs that of this machine's.

    `key` is the run's idempotency key: for scheduled runs the time in the time zone of the schedule ends it.

    >>> date_of(datetime.fromisoformat("2026-11-30T23:30Z"), "scheduled 1 2 2026-12-01 00:30:00+01:00")
    '2026-12-01'
    """
    match = KEY_OF_SCHEDULE.fullmatch(key or "")
    return match[1] if match else f"{expected.astimezone():%Y-%m-%d}"


def standard_name(flow: str, dataset: str, date: str) -> str:
    """Return the name of a run that nobody has named.

    >>> standard_name("nightly", "chest", "2026-11-30")
    'nightly chest 2026-11-30'
    """
    return " ".join(part for part in (flow, dataset, date) if part)


def planned_name(flow: str, run: Mapping[str, Any]) -> str:
    """Return the name that a run, as Prefect's API lists it, has or will have once it begins."""
    if run["state_type"] not in ("SCHEDULED", "PENDING") or not (
        TWO_NOUNS.fullmatch(run["name"]) or STAR.fullmatch(run["name"])
    ):
        return str(run["name"])
    request = run["parameters"].get("request") or {}
    expected = datetime.fromisoformat(run["expected_start_time"])
    return standard_name(flow, request.get("dataset", ""), date_of(expected, run["idempotency_key"]))
