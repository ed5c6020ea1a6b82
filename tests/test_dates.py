"""Dates move by whole days and keep their intervals; what is no legal value becomes none."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.deidentify.identity.dates import cap_age, shift_da, shift_dt
from imaging.pseudonyms import FARTHEST_DAYS, NEAREST_DAYS

DAYS = st.integers(-FARTHEST_DAYS, -NEAREST_DAYS)
DATES = st.dates(min_value=date(1850, 1, 1))


def as_da(day: date) -> str:
    return f"{day.year:04}{day.month:02}{day.day:02}"


def as_date(text: str | None) -> date:
    assert text is not None
    return date(int(text[:4]), int(text[4:6]), int(text[6:8]))


@given(DATES, DATES, DAYS)
def test_the_interval_between_two_dates_is_kept_to_the_day(first: date, second: date, days: int) -> None:
    moved = [as_date(shift_da(as_da(day), days)) for day in (first, second)]
    assert moved[1] - moved[0] == second - first


@given(DATES, DATES, DAYS, st.sampled_from(["", "10", "1015", "101530", "101530.123456", "101530.1+0100"]))
def test_a_date_with_time_moves_as_a_date_does(first: date, second: date, days: int, rest: str) -> None:
    moved = shift_dt(as_da(second) + rest, days)
    assert moved is not None
    assert moved[8:] == rest
    assert as_date(moved) - as_date(shift_da(as_da(first), days)) == second - first


@pytest.mark.parametrize(
    ("text", "days", "moved"),
    [
        ("20240229", -366, "20230228"),
        ("20240301", -1, "20240229"),
        ("20230301", -1, "20230228"),
        ("20000301", -1, "20000229"),
        ("19000301", -1, "19000228"),
        ("20240101", -31, "20231201"),
        ("2024.01.31", -31, "20231231"),
        ("20240131 ", -31, "20231231"),
        ("09990101", -1, "09981231"),
    ],
)
def test_a_date_moves_over_leap_days_and_years(text: str, days: int, moved: str) -> None:
    assert shift_da(text, days) == moved


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "2024",
            "202401",
            "20240230",
            "20230229",
            "20241301",
            "00000101",
            "00010101",
            "2024-01-31",
        ),
        *("2024.0131", "20240131-20240201", "202401311", "２０２４０１３１", "DOE^JOHN", "20240131\n"),
    ],
)
def test_what_is_no_date_or_leaves_the_calendar_becomes_none(text: str) -> None:
    assert shift_da(text, -31) is None


@pytest.mark.parametrize(
    ("text", "days", "moved"),
    [
        ("2024", -366, "2023"),
        ("2024", -31, "2024"),
        ("202402", -31, "202401"),
        ("2024+0100", -366, "2023+0100"),
        ("20240101000000-1200", -1, "20231231000000-1200"),
        ("20161231235960", -1, "20161230235960"),
        ("20240301101530.5+0545 ", -1, "20240229101530.5+0545"),
    ],
)
def test_precision_fraction_and_zone_stay(text: str, days: int, moved: str) -> None:
    assert shift_dt(text, days) == moved


@given(st.dates(min_value=date(1850, 1, 1)), DAYS)
def test_a_month_errs_by_half_of_itself_and_of_the_other_at_most(day: date, days: int) -> None:
    month = shift_dt(as_da(day)[:6], days)
    assert month is not None
    off = as_date(month + "15") - (day + timedelta(days))
    assert abs(off.days) <= 32


@pytest.mark.parametrize(
    "text",
    [
        *("", "24", "20240230101530", "2024013110153", "2024013124", "20240131106000", "20240131101561"),
        *("20240131101530.", "20240131101530.1234567", "20240131+2500", "20240131+01", "2024.01.31", "0001"),
    ],
)
def test_what_is_no_date_with_time_becomes_none(text: str) -> None:
    assert shift_dt(text, -366) is None


@pytest.mark.parametrize(
    ("text", "capped"),
    [
        *(("089Y", "089Y"), ("090Y", "090Y"), ("091Y", "090Y"), ("999Y", "090Y"), ("999M", "999M")),
        *(("012D", "012D"), ("064Y ", "064Y"), ("64Y", None), ("", None), ("064X", None), ("JOHN", None)),
    ],
)
def test_ages_over_89_become_one(text: str, capped: str | None) -> None:
    assert cap_age(text) == capped
