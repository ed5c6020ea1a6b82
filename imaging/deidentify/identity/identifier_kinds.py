"""Kinds of identifiers: which element of a data set identifies somebody, by its VR, the profile's rows and its name."""

import re
from functools import cache
from typing import Literal

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag

from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.profile.profile import load_profile

Kind = Literal["name", "id", "uid", "date", "place", "device", "text"]

BY_VR: dict[str, Kind] = {"PN": "name", "UI": "uid", "DA": "date", "DT": "date"}
"""Kinds by VR, whatever the attribute. Not TM: a shifted date keeps its time of day, which identifies nobody."""
STRINGS = frozenset({"LO", "SH", "ST", "LT", "UC", "UT", "UR", "AE"})
"""VRs of free strings. Not CS, AS and numbers: many patients share their values."""
BY_KEYWORD: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("text", re.compile(r"Description$|Comments$|Label$|^Reason|^TreatmentSites?$")),
    (
        "device",
        re.compile(
            r"SerialNumber$|Station|MachineName$|DeviceI|Device.*Identifier$|DeviceLabel$|AETitle|AE$"
            r"|^(Detector|Gantry|Generator|Plate|Cassette|XRayDetector|XRaySource|Network)ID$"
        ),
    ),
    (
        "place",
        re.compile(
            r"Institution|Address|Location|Organization|Residence|Department|^RequestingService$|^Issuer|Issuer$"
            r"|^ClinicalTrial(CoordinatingCenter|Site|Sponsor|ProtocolEthicsCommittee)Name$"
        ),
    ),
    ("name", re.compile(r"^(CameraOwnerName|TopicAuthor)$")),
    (
        "id",
        re.compile(
            r"IDs?$|Identifier$|Identification$|Numbers?$|Number[A-Z]|Telecom|Telephone|Phone|Locator$"
        ),
    ),
)
"""Kinds by keyword, for attributes with a row in the profile; the first pattern that fits decides."""
SHARED_UIDS = re.compile(
    r"SOPClass|TransferSyntax|CodingScheme|^Context|^MappingResource|^Implementation|CreatorUID$"
)
"""UIDs of kinds of things: of classes, codes and products, the same in the files of all patients."""
META: dict[int, Kind] = {0x00020016: "device", 0x00020017: "device", 0x00020018: "device"}
"""Titles of application entities in the file meta information, where the profile has no rows."""
SECRET_CODES: dict[int, Kind] = {0x00401101: "name", 0x00080082: "place"}
"""Sequences whose codes name a person or an institution: each of their strings identifies."""

_BASIC = DeidentifyOptions()


@cache
def kind_of(tag: int, vr: str) -> Kind | None:
    """Return of which kind the values of an element are; None where they identify nobody.

    Private and unknown elements may hold anything and are text.

    >>> kind_of(0x00100010, "PN"), kind_of(0x00080080, "LO"), kind_of(0x00280010, "US"), kind_of(0x00091001, "UN")
    ('name', 'place', None, 'text')
    """
    keyword = keyword_for_tag(tag)
    listed = load_profile().action(tag, _BASIC) not in (None, "K")
    if vr in BY_VR:
        return None if vr == "UI" and not listed and SHARED_UIDS.search(keyword) else BY_VR[vr]
    if tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF:
        return None  # the product that reserved a block of private elements (PS3.5 7.8.1)
    if not in_dictionary(tag):
        return "text" if vr in STRINGS or vr in ("UN", "OB") else None
    if vr not in STRINGS or not listed:
        return META.get(tag)
    return next((kind for kind, pattern in BY_KEYWORD if pattern.search(keyword)), "text")


@cache
def vr_of(tag: int) -> str:
    """Return the VR of the dictionary; UN for a private or unknown attribute.

    >>> vr_of(0x00100010), vr_of(0x00091001)
    ('PN', 'UN')
    """
    return dictionary_VR(tag) if in_dictionary(tag) else "UN"


def in_dictionary(tag: int) -> bool:
    """Tell whether the standard's dictionary has the attribute."""
    return not tag >> 16 & 1 and dictionary_has_tag(tag)
