"""Changes of a person to schedules on Prefect's page: kept and named, until `up` is asked for others."""

from collections.abc import Mapping
from typing import Any

import pytest

from infra.stack.schedule_changes import NewerWish, Reconciliation, reconcile

TWO = {"cron": "0 2 * * *", "timezone": "UTC", "slug": "every-night", "active": True}
TEN = TWO | {"cron": "0 22 * * *"}
KEPT = "--reset-schedules brings back radloop's"


def served(slug: str | None = "every-night", active: bool = True, **schedule: Any) -> dict[str, Any]:
    """Return a schedule as Prefect's server lists it."""
    cron = {"cron": "0 2 * * *", "timezone": "UTC", "day_or": True}
    return {"id": f"id-{slug}", "slug": slug, "active": active, "schedule": schedule or cron}


def cron(rule: str, zone: str = "UTC") -> dict[str, Any]:
    return {"cron": rule, "timezone": zone, "day_or": True}


def reconciled(
    *current: Mapping[str, Any],
    wanted: Mapping[str, Any] = TWO,
    last: Mapping[str, Any] | None = TWO,
    paused: bool = False,
    **wish: bool,
) -> Reconciliation:
    """Return what is done with a deployment that has these schedules on the server."""
    return reconcile(
        [{"name": "nightly", "schedules": [wanted]}],
        [] if last is None else [{"name": "nightly", "schedules": [last]}],
        [{"name": "nightly", "id": "d", "paused": paused, "schedules": list(current)}],
        NewerWish(**wish),
    )


def patched(rule: Mapping[str, Any], zone: str = "UTC", active: bool = True) -> tuple[str, str, Any]:
    body = {"active": active, "schedule": {**rule, "timezone": zone}}
    return ("PATCH", "d/schedules/id-every-night", body)


def test_what_nobody_changed_is_left_alone() -> None:
    assert reconciled(served()) == Reconciliation()


def test_what_radloop_changes_reaches_the_server_without_a_word() -> None:
    result = reconciled(served(), wanted=TEN)
    assert (result.requests, result.lines) == ([patched({"cron": "0 22 * * *"})], [])


def test_a_deployment_that_is_new_is_left_to_its_file() -> None:
    nothing = reconcile([{"name": "nightly", "schedules": [TWO]}], [], [], NewerWish())
    assert nothing == Reconciliation()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (served(**cron("30 3 * * *")), "30 3 * * * UTC"),
        (served(**cron("0 2 * * *", "Asia/Tokyo")), "0 2 * * * Asia/Tokyo"),
        (served(active=False), "0 2 * * * UTC, off"),
        (served(interval=7200.0, anchor_date="2026-01-01T00:00:00Z", timezone="UTC"), "every 7200 s UTC"),
        (
            served(rrule="DTSTART:20200101T000000\nFREQ=DAILY", timezone="UTC"),
            "DTSTART:20200101T000000 FREQ=DAILY UTC",
        ),
        (served(cron="0 2 1 * 1", timezone="UTC", day_or=False), "0 2 1 * 1 UTC"),
    ],
)
@pytest.mark.parametrize("last", [TWO, None], ids=["remembered", "forgotten"])
def test_a_change_of_a_person_is_kept_and_named(
    change: dict[str, Any], text: str, last: dict[str, Any] | None
) -> None:
    result = reconciled(change, last=last)
    assert result.requests == []
    (line,) = result.lines
    assert line.startswith("the schedule every-night of nightly was changed on Prefect's page: kept, ")
    assert line.endswith(f"kept, {text} instead of 0 2 * * * UTC; {KEPT}")


def test_another_field_of_a_schedule_that_a_person_changed_is_still_radloops() -> None:
    """Schedules are off until a night is known, and a person may have moved one before."""
    result = reconciled(served(active=False, **cron("30 3 * * *")), last=TWO | {"active": False})
    assert result.requests == [patched({"cron": "30 3 * * *"})]


def test_reset_brings_all_back() -> None:
    moved = served(active=False, **cron("30 3 * * *"))
    result = reconciled(moved, served("mine", **cron("0 9 * * *")), paused=True, reset=True)
    assert result.requests == [
        ("PATCH", "d", {"paused": False}),
        ("DELETE", "d/schedules/id-mine", None),
        patched({"cron": "0 2 * * *"}),
    ]
    assert [line.rpartition(": ")[2] for line in result.lines] == [
        "it is not any more",
        "removed",
        "it is 0 2 * * * UTC now",
    ]
    assert result.paused == set()


def test_reset_of_what_nobody_changed_does_nothing() -> None:
    assert reconciled(served(), reset=True) == Reconciliation()


def test_a_pause_is_kept() -> None:
    result = reconciled(served(), wanted=TEN, paused=True)
    assert result.paused == {"nightly"}
    assert result.requests == [patched({"cron": "0 22 * * *"})]
    (line,) = result.lines
    assert line.startswith("nightly was paused on Prefect's page: kept")


def test_a_time_that_is_given_now_is_newer_than_the_page() -> None:
    result = reconciled(served(**cron("30 3 * * *", "Asia/Tokyo")), wanted=TEN, night=True)
    assert result.requests == [patched({"cron": "0 22 * * *"}, "Asia/Tokyo")]
    both = reconciled(served(**cron("30 3 * * *", "Asia/Tokyo")), wanted=TEN, night=True, time_zone=True)
    assert both.requests == [patched({"cron": "0 22 * * *"})]
    assert both.lines == [
        "the schedule every-night of nightly was changed on Prefect's page to 30 3 * * * Asia/Tokyo: it is "
        "0 22 * * * UTC now"
    ]


def test_the_time_of_the_night_is_not_that_of_another_schedule() -> None:
    week = TWO | {"slug": "every-sunday"}
    moved = served("every-sunday", **cron("30 3 * * *"))
    assert reconciled(moved, wanted=week, last=week, night=True).requests == []


def test_a_schedule_that_was_added_is_kept() -> None:
    result = reconciled(served(), served(None, **cron("0 12 * * *")))
    assert result.requests == []
    assert result.lines == [
        f"a schedule of nightly was added on Prefect's page (0 12 * * * UTC): kept; {KEPT}"
    ]


@pytest.mark.parametrize("wish", [{"reset": True}, {"night": True}])
def test_a_schedule_that_was_removed_comes_back_when_asked_for(wish: dict[str, bool]) -> None:
    assert reconciled().requests == []
    assert reconciled().lines == [
        f"the schedule every-night of nightly was removed on Prefect's page: kept so; {KEPT}"
    ]
    ((method, path, (body,)),) = reconciled(**wish).requests
    assert (method, path, body["slug"], body["schedule"]["cron"]) == (
        "POST",
        "d/schedules",
        "every-night",
        "0 2 * * *",
    )


def test_a_schedule_of_an_older_release_is_replaced() -> None:
    """It had no slug."""
    old = {name: value for name, value in TWO.items() if name != "slug"}
    result = reconciled(served(None), last=old)
    assert [method for method, _, _ in result.requests] == ["DELETE", "POST"]
    assert result.lines == []
