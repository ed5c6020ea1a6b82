"""Treatment of one value: the bytes that are written instead of it, or None where the element is removed."""

import re
from collections.abc import Callable, Mapping

from imaging.deidentify.identity.dates import cap_age, shift_da, shift_dt
from imaging.deidentify.objects.context import CODE_SCHEME, ObjectContext, Scope
from imaging.deidentify.objects.icc_profile import without_texts
from imaging.deidentify.objects.raw_elements import WIDTHS
from imaging.deidentify.objects.rules import BULK, PIXELS, Rule, Treatment
from imaging.dicom.attributes import decode_numbers

FORMS = {
    "TM": re.compile(rb"(\d\d(:?\d\d(:?\d\d(\.\d{1,6})?)?)?[ \0]*(\\|$))*"),
    "UI": re.compile(rb"[0-9.\\]*[ \0]*"),
}
TIME_ZONE, ZONE = 0x00080201, re.compile(rb"[+-]\d{4} ?")
LONG_NUMBER = re.compile(rb"(?<![0-9.])[0-9]{6,}(?![0-9.])")
"""Digits of a number that may identify somebody; shorter ones mean too many things."""
SEARCHED_BYTES = 2**20
PRINTED = re.compile(rb"[ -~]{10,}")
"""Bytes of bulk data that may be a text; there are fifty in a megabyte of random numbers."""
ICC_PROFILE = 0x00282000
SHORTEST_WORD, LONGEST_WORD = 8, 1024
"""Lengths between which binary numbers are searched as if they were text."""
IMAGE_TYPES = frozenset(
    {"ORIGINAL", "DERIVED", "MIXED", "PRIMARY", "SECONDARY", "AXIAL", "LOCALIZER", "VOLUME", "NONE"}
)
VALUE_TYPES = frozenset(
    {"TEXT", "NUM", "CODE", "DATETIME", "DATE", "TIME", "UIDREF", "PNAME", "COMPOSITE", "IMAGE", "WAVEFORM"}
    | {"SCOORD", "SCOORD3D", "TCOORD", "CONTAINER", "TABLE"}
)
RELATIONSHIPS = frozenset(
    {"CONTAINS", "HAS PROPERTIES", "HAS OBS CONTEXT", "HAS ACQ CONTEXT", "INFERRED FROM", "SELECTED FROM"}
    | {"HAS CONCEPT MOD"}
)
PHOTOMETRIC = frozenset(
    {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
)
POSITIONS = frozenset(
    {"HFS", "HFP", "FFS", "FFP", "HFDR", "HFDL", "FFDR", "FFDL", "LFP", "LFS", "RFP", "RFS"}
)
SHAPES = frozenset(
    {"POINT", "MULTIPOINT", "POLYLINE", "CIRCLE", "ELLIPSE", "POLYGON", "ELLIPSOID", "OPEN_PLANAR"}
    | {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "OPEN_NONPLANAR"}
)

KEPT_TERMS: Mapping[int, frozenset[str]] = {
    0x00080008: IMAGE_TYPES,
    0x00185100: POSITIONS,
    0x00280004: PHOTOMETRIC,
    0x00281056: frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"}),
    0x0040A010: RELATIONSHIPS,
    0x0040A040: VALUE_TYPES,
    0x0040A050: frozenset({"SEPARATE", "CONTINUOUS"}),
    0x00620001: frozenset({"BINARY", "FRACTIONAL", "LABELMAP"}),
    0x00620008: frozenset({"AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"}),
    0x00700023: SHAPES,
    0x30060042: SHAPES,
}
"""Terms without which an object cannot be interpreted (PS3.3): they stay even where a patient has such a name."""

DUMMIES: Mapping[str, bytes] = {
    **dict.fromkeys(("LO", "LT", "SH", "ST", "UC", "UT"), b"Anonymized"),
    **dict.fromkeys(("AE", "CS"), b"ANONYMIZED"),
    **dict.fromkeys(("DS", "IS"), b"0"),
    **dict.fromkeys(("OB", "OW", "SS", "US"), bytes(2)),
    **dict.fromkeys(("AT", "FL", "OF", "OL", "SL", "UL"), bytes(4)),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), bytes(8)),
    **{"DA": b"19000101", "DT": b"19000101000000", "TM": b"000000"},
    **{"AS": b"000Y", "PN": b"Anonymous", "UR": b"urn:anonymized"},
}
"""Legal values by VR for code D, where the original must not stay (PS3.15 E.1, PS3.5 6.2); UIDs are mapped instead."""

DUMMY_SCHEMES: Mapping[int, bytes] = {CODE_SCHEME: b"99RADLOOP"}
"""Dummy of a coding scheme: private ones begin with 99 (PS3.16 8)."""

TreatFunction = Callable[[ObjectContext, Scope, int, str, bytes], bytes | None]


def dummy(tag: int, vr: str) -> bytes | None:
    """Return a legal value without information, or None where there is none (UN, UI).

    >>> dummy(0x00080020, "DA")
    b'19000101'
    """
    return DUMMY_SCHEMES.get(tag) or DUMMIES.get(vr)


def treated(
    context: ObjectContext, scope: Scope, tag: int, vr: str, rule: Rule, raw: bytes | None
) -> bytes | None:
    """Return the bytes to write for a value, None where the element is removed; `raw` is None where its VR is wrong."""
    if raw == b"" and rule.treatment != "patient":
        return raw
    if raw is not None and not _too_many(vr, rule, raw):
        value = TREATMENTS[rule.treatment](context, scope, tag, vr, raw)
        if value is not None:
            return value
    instead = TREATMENTS.get(rule.treatment if rule.treatment == "patient" else rule.otherwise)
    return instead(context, scope, tag, vr, raw or b"") if instead else None


def _too_many(vr: str, rule: Rule, raw: bytes) -> bool:
    width = WIDTHS.get(vr)
    if width is None:
        return False
    count, rest = divmod(len(raw), width)
    return rule.treatment == "keep" and (
        rest > 0 or (vr not in BULK and rule.most is not None and count > rule.most)
    )


def _keep(context: ObjectContext, scope: Scope, tag: int, vr: str, raw: bytes) -> bytes | None:
    if vr in FORMS:
        return raw if FORMS[vr].fullmatch(raw) else None
    if vr in BULK:
        # All of it would match by chance.
        texts = () if tag in PIXELS else PRINTED.findall(raw)
        return None if any(context.cleaner.matches(text.decode("latin-1")) for text in texts) else raw
    # Long numbers may be letters.
    is_word = SHORTEST_WORD < len(raw) <= LONGEST_WORD
    return None if is_word and context.cleaner.matches(raw.decode("latin-1")) else raw


def _clean(context: ObjectContext, scope: Scope, tag: int, vr: str, raw: bytes) -> bytes | None:
    if vr in ("DS", "IS"):
        return _number(context, raw)
    if (scope.masked and vr != "CS") or (tag == TIME_ZONE and not ZONE.fullmatch(raw)):
        return None
    # Only text is written in the Specific Character Set (PS3.5 6.1.2.3).
    text = scope.decode(raw) if vr not in ("CS", "AE") or raw.isascii() else None
    return None if text is None else _without_identifiers(context, tag, raw, text)


def _without_identifiers(context: ObjectContext, tag: int, raw: bytes, text: str) -> bytes | None:
    if tag in KEPT_TERMS:
        # One by one, so that each term keeps its position.
        terms = text.split("\\")
        kept = (t if t.strip() in KEPT_TERMS[tag] else context.cleaner.clean(t).strip() for t in terms)
        return context.notes.encode("\\".join(kept))
    if context.cleaner.matches(text):
        return context.notes.encode(context.cleaner.clean(text).strip()) or None
    return raw if raw.isascii() and b"\x1b" not in raw else context.notes.encode(text)


def _number(context: ObjectContext, raw: bytes) -> bytes | None:
    """Return decimal numbers as they are, unless one is a number of the patient's."""
    if not decode_numbers(raw, "DS"):
        return None
    numbers = (match.group().decode() for match in LONG_NUMBER.finditer(raw))
    return None if any(map(context.cleaner.matches, numbers)) else raw


def _search(context: ObjectContext, scope: Scope, tag: int, vr: str, raw: bytes) -> bytes | None:
    if tag == ICC_PROFILE:
        profile = without_texts(raw)
        if profile is None:
            return None
        raw = profile
    if len(raw) > SEARCHED_BYTES or context.cleaner.matches(raw.decode("latin-1")):
        return None
    return raw


def _shift(context: ObjectContext, scope: Scope, tag: int, vr: str, raw: bytes) -> bytes | None:
    shift = shift_da if vr == "DA" else shift_dt
    context.notes.is_patient_specific = True
    moved = [shift(part.strip(" \0"), context.days) if part.strip(" \0") else "" for part in _parts(raw)]
    return "\\".join(part for part in moved if part is not None).encode() if None not in moved else None


def _age(context: ObjectContext, scope: Scope, tag: int, vr: str, raw: bytes) -> bytes | None:
    age = cap_age(raw.decode("latin-1").strip(" \0"))
    return None if age is None else age.encode()


def _uid(context: ObjectContext, scope: Scope, tag: int, vr: str, raw: bytes) -> bytes:
    return "\\".join(context.pseudonyms.uid(part) for part in _parts(raw)).encode()


def _patient(context: ObjectContext, scope: Scope, tag: int, vr: str, raw: bytes) -> bytes:
    context.notes.is_patient_specific = True
    return scope.patient.encode()


def _parts(raw: bytes) -> list[str]:
    return raw.decode("latin-1").split("\\")


TREATMENTS: Mapping[Treatment, TreatFunction] = {
    "empty": lambda *_: b"",
    "dummy": lambda context, scope, tag, vr, raw: dummy(tag, vr),
    "patient": _patient,
    "uid": _uid,
    "shift": _shift,
    "age": _age,
    "clean": _clean,
    "keep": _keep,
    "search": _search,
}
