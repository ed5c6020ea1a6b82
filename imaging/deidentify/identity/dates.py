"""Shifted dates and capped ages: pure functions of the text of one DICOM value."""

import re
from datetime import date, timedelta

DA = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})|([0-9]{4})\.([0-9]{2})\.([0-9]{2})")
"""PS3.5 6.2, and the form with points that was legal before 1993."""
DT = re.compile(
    r"(?P<year>[0-9]{4})(?:(?P<month>[0-9]{2})(?:(?P<day>[0-9]{2})"
    r"(?P<time>(?:[01][0-9]|2[0-3])(?:[0-5][0-9](?:(?:[0-5][0-9]|60)(?:\.[0-9]{1,6})?)?)?)?)?)?"
    r"(?P<zone>[+-](?:0[0-9]|1[0-4])[0-5][0-9])?"
)
AS = re.compile(r"[0-9]{3}[DWMY]")
PADDING = " \0"
OLDEST = "090Y"
"""Ages over 89 become one, as the HIPAA Safe Harbor asks (45 CFR 164.514(b)(2)(i)(C))."""


def shift_da(text: str, days: int) -> str | None:
    """Move a date (VR DA, PS3.5 6.2) by days; None where it is no legal date, or leaves the years 1 to 9999.

    >>> shift_da("20240301", -1), shift_da("2024.03.01", -1), shift_da("20240230", -1)
    ('20240229', '20240229', None)
    """
    parts = DA.fullmatch(text.strip(PADDING))
    return _shifted([part for part in parts.groups() if part is not None], days) if parts else None


def shift_dt(text: str, days: int) -> str | None:
    """Move a date with time (VR DT, PS3.5 6.2) by days; precision, time, fraction and zone stay; None as `shift_da`.

    A year or month without a day becomes the one in which its middle comes to lie.

    >>> shift_dt("20240301101530.5+0100", -1), shift_dt("202403", -31), shift_dt("2024", -366)
    ('20240229101530.5+0100', '202402', '2023')
    """
    parts = DT.fullmatch(text.strip(PADDING))
    if parts is None:
        return None
    year, month, day, time, zone = parts.group("year", "month", "day", "time", "zone")
    moved = _shifted([year, month or "07", day or ("15" if month else "02")], days)
    precision = 8 if day else 6 if month else 4
    return f"{moved[:precision]}{time or ''}{zone or ''}" if moved else None


def cap_age(text: str) -> str | None:
    """Return an age (VR AS, PS3.5 6.2) with all above 89 years as 90; None where it is no legal age.

    >>> cap_age("091Y"), cap_age("064Y"), cap_age("64")
    ('090Y', '064Y', None)
    """
    plain = text.strip(PADDING)
    if AS.fullmatch(plain) is None:
        return None
    # No count of days, weeks or months with three digits reaches 90 years.
    return min(plain, OLDEST) if plain.endswith("Y") else plain


def _shifted(parts: list[str], days: int) -> str | None:
    year, month, day = map(int, parts)
    try:
        moved = date(year, month, day) + timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    return f"{moved.year:04}{moved.month:02}{moved.day:02}"
