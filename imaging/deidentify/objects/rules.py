"""Rules for attributes: the profile's table first, then the data dictionary for attributes that it does not list.

An attribute that neither knows is removed.
"""

from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Literal, NamedTuple

from pydicom.datadict import get_entry

from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.profile.profile import Action, load_profile

Treatment = Literal[
    "remove",
    "empty",
    "dummy",
    "patient",
    "uid",
    "shift",
    "age",
    "clean",
    "keep",
    "search",
    "items",
    "masked items",
]
"""Treatment of a value. "clean": identifiers are cut out of text; "search": bytes that hold one are removed; "items",
"masked items": the items of a sequence are treated, in the latter free text becomes a dummy."""

TEXT = frozenset({"SH", "LO", "ST", "LT", "UC", "UT"})
"""VRs of text in the Specific Character Set without a form of its own (PS3.5 6.2)."""
CODES = frozenset({"CS", "AE", "DS", "IS"})
DATES = frozenset({"DA", "DT"})
TIMES = DATES | {"TM"}
NEVER = frozenset({"PN", "UR", "AE", "UN", "NONE"})
"""VRs of people, hosts and unknown values: without a row in the table such attributes are removed."""
BULK = frozenset({"OB", "OW", "OF", "OD", "OL", "OV"})
CONCRETE = {
    "US or SS": ("US", "SS"),
    "OB or OW": ("OW", "OB"),
    "US or OW": ("OW", "US"),
    "US or SS or OW": ("OW", "US", "SS"),
}
"""VRs that a file may have where the dictionary leaves the choice; the first is written where the file has none."""

FIRST_GROUP = 0x0008
"""First group of a data set: those below belong to commands, the file meta group and directories."""
DRAWN = (0x50, 0x60)
"""Groups of curves and overlays: bitmaps cannot be cleaned, and the rest of such a group is of no use alone."""
PATIENT_ID, PATIENT_NAME = 0x00100020, 0x00100010
PIXELS = frozenset({0x7FE00010, 0x7FE00008, 0x7FE00009})
NAMING = frozenset(
    {"PatientBirthDateInAlternativeCalendar", "PatientDeathDateInAlternativeCalendar", "ContactDisplayName"}
    | {"LocalNamespaceEntityID", "UniversalEntityID", "HL7InstanceIdentifier", "DocumentTitle", "OwnerID"}
    | {"EvaluatorSequence", "ComponentWelderIDs", "HangingProtocolCreator", "HangingProtocolUserGroupName"}
    | {"CodingSchemeResponsibleOrganization", "BreedRegistrationNumber", "RecordKey", "PriorRecordKey"}
    | {"RadiationMachineName", "PrinterName", "StorageMediaFileSetID", "NTPSourceAddress", "ErrorComment"}
    | {"ItineraryID", "BoardingPassID", "CarrierID", "AuthorizationEquipmentCertificationNumber"}
    | {"EncryptedAttributesSequence", "EncryptedContent", "MACParametersSequence", "Signature"}
    | {"HPGLDocument", "ThreatROIBitmap"}
)
"""Attributes without a row in the table that name people, places or devices, or that cannot be read."""


class Rule(NamedTuple):
    """Treatment of an attribute, and `otherwise` the one where a value is not legal or nothing is left of it.

    `vrs` are those that a file may have, the first is written where it has none; `most` is the limit on values.
    """

    treatment: Treatment
    vrs: tuple[str, ...] = ()
    otherwise: Treatment = "remove"
    most: int | None = None


REMOVE = Rule("remove")
RuleOf = Callable[[int], Rule]


@cache
def rules_for(options: DeidentifyOptions) -> RuleOf:
    """Return the function that looks up the rule of a tag; its answers are kept for the life of the process.

    >>> rules_for(DeidentifyOptions())(0x00080000).treatment
    'remove'
    """
    # Bounded, because files choose the tags.
    return lru_cache(2**15)(partial(_rule, options=options))


def _rule(tag: int, options: DeidentifyOptions) -> Rule:
    # Private elements have a table of their own, and group lengths are long retired (PS3.5 7.2).
    if tag >> 16 & 1 or not tag & 0xFFFF or tag >> 16 < FIRST_GROUP or tag >> 24 in DRAWN:
        return REMOVE
    try:
        name, multiplicity, _, retired, keyword = get_entry(tag)
    except KeyError:
        return REMOVE
    vrs = CONCRETE.get(name, (name,))
    if tag in (PATIENT_ID, PATIENT_NAME):
        return Rule("patient", vrs)
    action = load_profile().action(tag, options)
    if action is None and keyword in NAMING:
        return REMOVE
    if action is None:
        treatment, otherwise = _unlisted(tag, vrs[0], bool(retired), options)
    else:
        treatment = _listed(action, vrs[0])
        basic = load_profile().action(tag, DeidentifyOptions(dates="remove"))
        otherwise = "remove" if basic in (None, "K", "C") else _listed(basic, vrs[0])
    return Rule(treatment, vrs, otherwise, _most(multiplicity))


def _most(multiplicity: str) -> int | None:
    """Return the most values that a multiplicity allows (PS3.5 6.4).

    >>> _most("1-3"), _most("2-2n"), _most("1")
    (3, None, 1)
    """
    last = multiplicity.rpartition("-")[2]
    return int(last) if last.isdigit() else None


def _listed(action: Action, vr: str) -> Treatment:
    """Return the treatment of a VR by an action of the table."""
    match action:
        case "X":
            return "remove"
        case "Z":
            return "empty"
        case "D":
            return "masked items" if vr == "SQ" else "uid" if vr == "UI" else "dummy"
        case "U":
            return "items" if vr == "SQ" else "uid"
        case "K":
            return "keep" if vr == "UI" else keeping(vr)
        case "C":
            # Bitmaps of overlays cannot be cleaned.
            return (
                "shift" if vr in DATES else "uid" if vr == "UI" else "remove" if vr in BULK else keeping(vr)
            )


def keeping(vr: str) -> Treatment:
    """Return the treatment of a value that may stay: text without identifiers."""
    if vr in TEXT or vr in CODES or vr in ("PN", "UR"):
        return "clean"
    if vr == "SQ":
        return "items"
    if vr == "AS":
        return "age"
    return "search" if vr == "OB" else "keep"


def _unlisted(tag: int, vr: str, retired: bool, options: DeidentifyOptions) -> tuple[Treatment, Treatment]:
    """Return the treatments of an attribute that the table does not list: of a legal value, and of another."""
    illegal: Treatment = "dummy" if vr in TEXT or vr == "CS" else "empty"
    if tag in PIXELS:
        return "keep", "remove"
    if vr in NEVER or (retired and (vr in TEXT or vr in TIMES or vr in BULK)):
        return "remove", "remove"
    if vr == "UI":
        return ("keep" if options.uids else "uid"), "empty"
    if vr in TIMES:
        return ("remove" if options.dates == "remove" else "keep" if vr == "TM" else "shift"), "remove"
    return keeping(vr), illegal
