"""Spellings of names, numbers, dates and places: from one value all usual ways in which people write it."""

import re
from collections.abc import Iterator
from datetime import date

from imaging.deidentify.identity.text_folding import LAST_ALPHABET, accent_variants, fold, is_distinctive

JOINTS = ("^", " ", ", ", ",", "", "_", "-", ".")
TITLES = frozenset(
    {
        *("dr", "prof", "mr", "mrs", "ms", "miss", "herr", "frau", "med", "dent", "phd", "jun", "sen"),
        *("von", "van", "der", "den", "del", "dos", "los", "las", "the", "and", "und"),
    }
)
"""Parts of names that many people share and that occur in many texts."""
WORD_SEPARATORS = re.compile(r"[\s,.\-_'’`/]+")
LINE_SEPARATORS = re.compile(r"[\r\n;,^]+")
LINE_LETTERS = 5
"""Letters below which a line of an address is no more than the number of a house."""
DATE_DIGITS = re.compile(r"([0-9]{4})\.?([0-9]{2})\.?([0-9]{2})")
NUMERIC = (
    *("{y}{m:02}{d:02}", "{y}-{m:02}-{d:02}", "{y}/{m:02}/{d:02}", "{y}.{m:02}.{d:02}", "{y} {m:02} {d:02}"),
    *("{d:02}.{m:02}.{y}", "{d:02}/{m:02}/{y}", "{d:02}-{m:02}-{y}", "{d:02} {m:02} {y}", "{d:02}{m:02}{y}"),
    *("{m:02}/{d:02}/{y}", "{m:02}-{d:02}-{y}", "{m:02}.{d:02}.{y}", "{m:02} {d:02} {y}", "{m:02}{d:02}{y}"),
    *("{d}.{m}.{y}", "{d}. {m}. {y}", "{d}/{m}/{y}", "{d}-{m}-{y}", "{m}/{d}/{y}", "{m}-{d}-{y}"),
    *("{y}-{m}-{d}", "{d:02}.{m:02}.{s}", "{d:02}/{m:02}/{s}", "{m:02}/{d:02}/{s}", "{d:02}-{m:02}-{s}"),
    *("{m:02}-{d:02}-{s}", "{d}.{m}.{s}", "{d}/{m}/{s}", "{m}/{d}/{s}", "{s}-{m:02}-{d:02}"),
)
"""Year, month, day, and the year's last two digits `s`: those only between separators, as any number has six digits."""
WITH_MONTH_NAME = (
    *("{d} {n} {y}", "{d}. {n} {y}", "{d:02} {n} {y}", "{d}-{n}-{y}", "{d:02}-{n}-{y}", "{d}{n}{y}"),
    *("{d:02}{n}{y}", "{n} {d} {y}", "{n} {d}, {y}", "{n} {d:02} {y}", "{n} {d:02}, {y}", "{y} {n} {d}"),
)
FORMS = tuple(dict.fromkeys(re.sub(r"(?<=})[^{}]+(?={)", "-", form) for form in (*NUMERIC, *WITH_MONTH_NAME)))
"""One of all forms that differ only in what separates their parts."""
MONTHS = (
    *(("Jan", "January", "Januar"), ("Feb", "February", "Februar"), ("Mar", "March", "März", "Mrz")),
    *(("Apr", "April"), ("May", "Mai"), ("Jun", "June", "Juni"), ("Jul", "July", "Juli"), ("Aug", "August")),
    *(("Sep", "September", "Sept"), ("Oct", "October", "Okt", "Oktober"), ("Nov", "November")),
    ("Dec", "December", "Dez", "Dezember"),
)


def name_spellings(value: str) -> frozenset[str]:
    """Return the spellings of a name (VR PN, PS3.5 6.2.1): orders, joints, initials, accents, and parts by themselves.

    >>> {"Doe, John", "John Doe", "J. Doe", "john"} <= {*name_spellings("Doe^John^^Dr"), *name_spellings("doe^john")}
    True
    >>> "Li" in name_spellings("Li^Wu"), "Wu Li" in name_spellings("Li^Wu")
    (False, True)
    """
    names = {value}
    for group in value.split("="):
        names.update(one for plain in _plain_names(group.strip(" ^")) for one in accent_variants(plain))
    return _distinctive(names)


def number_spellings(value: str) -> frozenset[str]:
    """Return the spellings of an identifier: with and without what separates its digits, and zeros before them.

    >>> sorted(number_spellings("00-123"))
    ['-123', '00-123', '00123', '123']
    """
    squeezed = "".join(one for one in value if one.isalnum())
    return _distinctive({value, squeezed, value.lstrip("0"), squeezed.lstrip("0")})


def date_spellings(value: str, forms: tuple[str, ...] = (*NUMERIC, *WITH_MONTH_NAME)) -> frozenset[str]:
    """Return the spellings of a date (VR DA or DT) in English and German; of a partial one none but itself.

    >>> {"31.01.2024", "01/31/2024", "Jan 31 2024", "31. Januar 2024"} <= date_spellings("20240131101530")
    True
    """
    parts = DATE_DIGITS.match(value)
    try:
        day = date(*map(int, parts.groups())) if parts else None
    except ValueError:
        day = None
    return frozenset({value, *_dates(day, forms)}) if day else _distinctive({value})


def place_spellings(value: str) -> frozenset[str]:
    """Return the spellings of an institution or address: whole, and each of its lines.

    >>> sorted(place_spellings("Waldklinik, Seestr. 5, 7"))
    ['Seestr. 5', 'Waldklinik', 'Waldklinik, Seestr. 5, 7']
    """
    lines = {line.strip() for line in LINE_SEPARATORS.split(value)}
    whole = {value, *(line for line in lines if len(fold(line)) >= LINE_LETTERS)}
    return _distinctive({one for plain in whole for one in (plain, *accent_variants(plain))})


def only_itself(value: str) -> frozenset[str]:
    """Return the value alone: it is written in one way only."""
    return frozenset({value})


def _distinctive(texts: set[str]) -> frozenset[str]:
    return frozenset(text for text in texts if is_distinctive(fold(text)))


def _plain_names(group: str) -> Iterator[str]:
    components = [component.strip() for component in group.split("^")]
    yield " ".join(component for component in components if component)
    yield group
    family, given = components[0], " ".join(component for component in components[1:3] if component)
    if not given:
        # A name without components: its last word, or what stands before a comma, may be the family's.
        family, _, given = group.partition("," if "," in group else " ")
    yield from _joined(family.strip(), given.strip())
    for name in (family, given):
        distinctive = [word for word in WORD_SEPARATORS.split(name) if is_distinctive(fold(word))]
        yield from (word for word in (name.strip(), *distinctive) if word.lower() not in TITLES)


def _joined(family: str, given: str) -> Iterator[str]:
    if not family or not given:
        return
    first = given.split(maxsplit=1)[0]
    for name in {given, first}:
        yield from (f"{a}{joint}{b}" for joint in JOINTS for a, b in ((family, name), (name, family)))
    if len(fold(family)) >= 3 and first[0] <= LAST_ALPHABET:
        forms = ("{f} {i}", "{f}, {i}", "{f}{i}", "{f}^{i}", "{i} {f}", "{i}. {f}", "{i}{f}", "{i}.{f}")
        yield from (form.format(f=family, i=first[0]) for form in forms)


def _dates(day: date, forms: tuple[str, ...]) -> Iterator[str]:
    numbers = {"y": f"{day.year:04}", "m": day.month, "d": day.day, "s": f"{day.year % 100:02}"}
    named = [{**numbers, "n": name} for name in MONTHS[day.month - 1]]
    for form in forms:
        yield from (form.format_map(one) for one in (named if "{n}" in form else named[:1]))
