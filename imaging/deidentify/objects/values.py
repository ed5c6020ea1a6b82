"""Owns what becomes of one value: the bytes that are written in its place, or None where it is not legal."""

import re
from collections.abc import Callable, Mapping

from imaging.deidentify.identity.dates import cap_age, shift_da, shift_dt
from imaging.deidentify.objects.closed import CLOSED
from imaging.deidentify.objects.context import Case, Place
from imaging.deidentify.objects.dummies import dummy
from imaging.deidentify.objects.rules import BULK, How, Rule
from imaging.dicom.attributes import decode_numbers

WIDTHS = {
    **{"AT": 4, "FD": 8, "FL": 4, "SL": 4, "SS": 2, "SV": 8, "UL": 4, "US": 2, "UV": 8},
    **{"OB": 1, "OD": 8, "OF": 4, "OL": 4, "OV": 8, "OW": 2},
}
"""Bytes of one number (PS3.5 6.2): what is no whole count of them is no number."""
FORMS = {
    "TM": re.compile(rb"(\d\d(:?\d\d(:?\d\d(\.\d{1,6})?)?)?[ \0]*(\\|$))*"),
    "UI": re.compile(rb"[0-9.\\]*[ \0]*"),
}
TIME_ZONE, ZONE = 0x00080201, re.compile(rb"[+-]\d{4} ?")
LONG_NUMBER = re.compile(rb"(?<![0-9.])[0-9]{6,}(?![0-9.])")
"""Shorter numbers mean too many things to be somebody's."""
SEARCHED_BYTES = 2**20
SHORTEST_WORD, LONGEST_WORD = 8, 1024
"""Bytes of binary numbers that are looked at as if they were text."""
Treat = Callable[[Case, Place, int, str, bytes], bytes | None]


def treated(case: Case, place: Place, tag: int, vr: str, rule: Rule, raw: bytes | None) -> bytes | None:
    """Return the bytes to write for a value, None where the element goes; `raw` is None where it is of a wrong VR."""
    if raw == b"" and rule.how != "patient":
        return raw
    found = (
        None if raw is None or _too_many(vr, rule, raw) else TREATMENTS[rule.how](case, place, tag, vr, raw)
    )
    if found is not None:
        return found
    instead = TREATMENTS.get(rule.how if rule.how == "patient" else rule.otherwise)
    return instead(case, place, tag, vr, raw or b"") if instead else None


def _too_many(vr: str, rule: Rule, raw: bytes) -> bool:
    width = WIDTHS.get(vr)
    if width is None:
        return False
    count, rest = divmod(len(raw), width)
    return rule.how == "keep" and (
        rest > 0 or (vr not in BULK and rule.most is not None and count > rule.most)
    )


def _keep(case: Case, place: Place, tag: int, vr: str, raw: bytes) -> bytes | None:
    if vr in FORMS:
        return raw if FORMS[vr].fullmatch(raw) else None
    # Long numbers might be letters; those of images are too many to mean something by chance.
    is_word = vr not in BULK and SHORTEST_WORD < len(raw) <= LONGEST_WORD
    return None if is_word and case.cleaner.found_in(raw.decode("latin-1")) else raw


def _clean(case: Case, place: Place, tag: int, vr: str, raw: bytes) -> bytes | None:
    if vr in ("DS", "IS"):
        return _number(case, raw)
    if (place.masked and vr != "CS") or (tag == TIME_ZONE and not ZONE.fullmatch(raw)):
        return None
    # Only text is written in the Specific Character Set (PS3.5 6.1.2.3).
    text = place.decode(raw) if vr not in ("CS", "AE") or raw.isascii() else None
    return None if text is None else _without_identifiers(case, tag, raw, text)


def _without_identifiers(case: Case, tag: int, raw: bytes, text: str) -> bytes | None:
    if tag in CLOSED:
        return _words(case, text.split("\\"), CLOSED[tag])
    if case.cleaner.found_in(text):
        return case.traces.encode(case.cleaner.clean(text).strip()) or None
    return raw if raw.isascii() and b"\x1b" not in raw else case.traces.encode(text)


def _words(case: Case, words: list[str], closed: frozenset[str]) -> bytes:
    """Keep the words that everybody uses, clean the others one by one so that their places stay."""
    kept = (word if word.strip() in closed else case.cleaner.clean(word).strip() for word in words)
    return case.traces.encode("\\".join(kept))


def _number(case: Case, raw: bytes) -> bytes | None:
    """Keep decimal numbers as they are, unless one is a number of the patient's."""
    if not decode_numbers(raw, "DS"):
        return None
    found = (match.group().decode() for match in LONG_NUMBER.finditer(raw))
    return None if any(case.cleaner.found_in(number) for number in found) else raw


def _search(case: Case, place: Place, tag: int, vr: str, raw: bytes) -> bytes | None:
    if len(raw) > SEARCHED_BYTES or case.cleaner.found_in(raw.decode("latin-1")):
        return None
    return raw


def _shift(case: Case, place: Place, tag: int, vr: str, raw: bytes) -> bytes | None:
    shift = shift_da if vr == "DA" else shift_dt
    case.traces.personal = True
    moved = [shift(part.strip(" \0"), case.days) if part.strip(" \0") else "" for part in _parts(raw)]
    return "\\".join(part for part in moved if part is not None).encode() if None not in moved else None


def _age(case: Case, place: Place, tag: int, vr: str, raw: bytes) -> bytes | None:
    age = cap_age(raw.decode("latin-1").strip(" \0"))
    return None if age is None else age.encode()


def _uid(case: Case, place: Place, tag: int, vr: str, raw: bytes) -> bytes:
    return "\\".join(case.pseudonyms.uid(part) for part in _parts(raw)).encode()


def _patient(case: Case, place: Place, tag: int, vr: str, raw: bytes) -> bytes:
    case.traces.personal = True
    return place.patient.encode()


def _parts(raw: bytes) -> list[str]:
    return raw.decode("latin-1").split("\\")


TREATMENTS: Mapping[How, Treat] = {
    "empty": lambda *_: b"",
    "dummy": lambda case, place, tag, vr, raw: dummy(tag, vr),
    "patient": _patient,
    "uid": _uid,
    "shift": _shift,
    "age": _age,
    "clean": _clean,
    "keep": _keep,
    "search": _search,
}
