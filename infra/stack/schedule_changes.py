"""Changes of a person to schedules on Prefect's page: `up` keeps them, unless it is asked for others.

What radloop deployed last is remembered in the home: where the server has something else, a person has changed it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Fields = Mapping[str, Any]
"""Rule (of cron, an interval or an rrule), time zone and state of a schedule: a person may change each."""
EVERY_NIGHT = "every-night"
"""Slug of the schedule of the night."""
RESET = "--reset-schedules brings back radloop's"


@dataclass(frozen=True, kw_only=True)
class NewerWish:
    """What a person asks of `up` now, which is newer than what was done on the page.

    `night` is whether the time of the night is given, `time_zone` whether that of all schedules is.
    """

    night: bool = False
    time_zone: bool = False
    reset: bool = False

    def fields(self, slug: str | None) -> frozenset[str]:
        """Return the fields of a schedule that are asked for."""
        night = {"rule"} if self.night and slug == EVERY_NIGHT else set()
        return frozenset(night | ({"zone"} if self.time_zone else set()))


@dataclass(kw_only=True)
class Reconciliation:
    """Requests to Prefect's API that reconcile deployments, what to say of them, and which of them stay paused."""

    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    paused: set[str] = field(default_factory=set)


def reconcile(
    wanted: Sequence[Mapping[str, Any]],
    last: Sequence[Mapping[str, Any]],
    current: Sequence[Mapping[str, Any]],
    wish: NewerWish,
) -> Reconciliation:
    """Return what makes the current deployments the wanted ones without undoing what a person has changed.

    `wanted` and `last` are deployments of prefect.yaml, `current` is what Prefect's server has.
    """
    result = Reconciliation()
    before = {one["name"]: one for one in last}
    have = {one["name"]: one for one in current}
    for deployment in wanted:
        name = deployment["name"]
        if name in have:
            _pause(have[name], wish, result)
            _schedules(deployment, before.get(name, deployment), have[name], wish, result)
    return result


def _pause(current: Mapping[str, Any], wish: NewerWish, result: Reconciliation) -> None:
    if not current["paused"]:
        return
    if wish.reset:
        result.requests.append(("PATCH", current["id"], {"paused": False}))
        result.lines.append(f"{current['name']} was paused on Prefect's page: it is not any more")
    else:
        result.paused.add(current["name"])
        result.lines.append(
            f"{current['name']} was paused on Prefect's page: kept, its schedules start nothing; "
            "--reset-schedules ends that"
        )


def _schedules(
    wanted: Mapping[str, Any],
    last: Mapping[str, Any],
    current: Mapping[str, Any],
    wish: NewerWish,
    result: Reconciliation,
) -> None:
    ours, before = _by_slug(wanted), _by_slug(last)
    place = f"{current['id']}/schedules"
    have = dict[str, Mapping[str, Any]]()
    for schedule in current["schedules"]:
        slug = schedule["slug"]
        if slug in ours:
            have[slug] = schedule
        # What only radloop had deployed, and does not deploy any more, is no change of a person.
        elif slug in before:
            result.requests.append(("DELETE", f"{place}/{schedule['id']}", None))
        else:
            line = f"a schedule of {current['name']} was added on Prefect's page ({_text(_fields_of(schedule))}): "
            result.lines.append(line + ("removed" if wish.reset else f"kept; {RESET}"))
            if wish.reset:
                result.requests.append(("DELETE", f"{place}/{schedule['id']}", None))
    for slug, own in ours.items():
        title, newer = f"the schedule {slug} of {current['name']}", wish.fields(slug)
        if slug in have:
            theirs = _fields_of(have[slug])
            final = _merged(own, before.get(slug, own), theirs, wish, newer)
            if final != theirs:
                result.requests.append(("PATCH", f"{place}/{have[slug]['id']}", _body(final)))
            result.lines += _changes(title, own, before.get(slug, own), theirs, final)
        elif slug in before and not wish.reset and "rule" not in newer:
            result.lines.append(f"{title} was removed on Prefect's page: kept so; {RESET}")
        else:
            result.requests.append(("POST", place, [{**_body(own), "slug": slug}]))
            if slug in before:
                result.lines.append(f"{title} was removed on Prefect's page: it is there again, {_text(own)}")


def _merged(own: Fields, before: Fields, theirs: Fields, wish: NewerWish, newer: frozenset[str]) -> Fields:
    """Return each field as a person changed it on the page, or else as radloop deploys it."""

    def kept(name: str) -> bool:
        return theirs[name] != before[name] and not wish.reset and name not in newer

    return {name: theirs[name] if kept(name) else own[name] for name in own}


def _changes(title: str, own: Fields, before: Fields, theirs: Fields, final: Fields) -> Iterator[str]:
    changed = f"{title} was changed on Prefect's page"
    if final != own:
        yield f"{changed}: kept, {_text(final)} instead of {_text(own)}; {RESET}"
    elif theirs not in (before, own):
        yield f"{changed} to {_text(theirs)}: it is {_text(own)} now"


def _by_slug(deployment: Mapping[str, Any]) -> dict[str | None, Fields]:
    return {
        one.get("slug"): _fields({"cron": one["cron"]}, one.get("timezone"), one.get("active", True))
        for one in deployment.get("schedules", ())
    }


def _fields_of(schedule: Mapping[str, Any]) -> Fields:
    # `day_or` is what Prefect adds to a cron.
    timing = {
        name: value for name, value in schedule["schedule"].items() if (name, value) != ("day_or", True)
    }
    return _fields(timing, timing.pop("timezone", None), schedule["active"])


def _fields(rule: Mapping[str, Any], zone: str | None, active: bool) -> Fields:
    return {"rule": rule, "zone": zone or "UTC", "active": active}


def _body(fields: Fields) -> Mapping[str, Any]:
    return {"active": fields["active"], "schedule": {**fields["rule"], "timezone": fields["zone"]}}


def _text(fields: Fields) -> str:
    rule = fields["rule"]
    timing = f"every {rule['interval']:g} s" if "interval" in rule else rule.get("cron") or rule.get("rrule")
    return f"{' '.join(str(timing).split())} {fields['zone']}{'' if fields['active'] else ', off'}"
