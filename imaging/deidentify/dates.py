"""Owns how a DICOM date moves by days and an age is capped: pure, on the text of one value."""


def shift_da(text: str, days: int) -> str | None:
    """Move a date (VR DA, PS3.5 6.2) by days; None where it is no legal date, or moves out of the years 1 to 9999."""
    raise NotImplementedError


def shift_dt(text: str, days: int) -> str | None:
    """Move a date with time (VR DT, PS3.5 6.2) by days; precision, fraction and zone stay; None as for `shift_da`."""
    raise NotImplementedError


def cap_age(text: str) -> str | None:
    """Return an age (VR AS) that is at most 90 years; None where it is no legal age."""
    raise NotImplementedError
