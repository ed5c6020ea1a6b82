"""Options of de-identification that a person may choose: those of PS3.15 E.3, and what happens in doubt."""

from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from imaging.release_compatibility import config_digest


class DeidentifyOptions(BaseModel):
    """Options on top of the Basic Application Level Confidentiality Profile, PS3.15 Annex E."""

    # The command line reads the fields alone: nothing is validated before the command runs.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    dates: Literal["shift", "remove"] = Field(
        "shift",
        title="Dates",
        description="Shift all dates of a patient by the same days, so that intervals stay (113107), or remove them.",
    )
    patient_characteristics: bool = Field(
        False,
        title="Retain patient characteristics",
        description="Keep age, sex, size, weight and the like (113108); ages over 89 become 90.",
    )
    device_identity: bool = Field(
        False,
        title="Retain device identity",
        description="Keep serial numbers, station names and calibration of the device (113109).",
    )
    uids: bool = Field(
        False,
        title="Retain UIDs",
        description="Keep unique identifiers as they are (113110): they lead back to the archive.",
    )
    safe_private: bool = Field(
        False,
        title="Retain safe private",
        description="Keep the private elements that PS3.15 table E.3.10-1 calls safe (113111).",
    )
    descriptors: bool = Field(
        False,
        title="Clean descriptors",
        description="Keep descriptions and comments, rid of every identifier of the object (113105).",
    )
    graphics: bool = Field(
        False,
        title="Clean graphics",
        description="Keep graphic annotations, rid of every identifier; overlays and curves always go (113103).",
    )
    structured: bool = Field(
        False,
        title="Clean structured content",
        description="Keep content of structured reports and contexts, rid of every identifier (113104).",
    )
    burned_in: Literal["quarantine", "blank"] = Field(
        "quarantine",
        title="Burned-in text",
        description="Keep out an object with text in its pixels, or blank the regions of text (113101).",
    )
    documents: Literal["quarantine", "clean"] = Field(
        "quarantine",
        title="Documents",
        description="Keep out structured reports, PDF and other encapsulated documents, or clean them.",
    )
    faces: Literal["quarantine", "keep"] = Field(
        "quarantine",
        title="Faces",
        description="Keep out volumes of the head and whatever shows recognizable features, or let them pass.",
    )
    patient_variants: Literal["report", "join"] = Field(
        "report",
        title="Spellings of a patient's number",
        description="Count numbers such as '00123' and '123' as two patients and report them, or join them as one.",
    )

    def digest(self) -> str:
        """Return the name of these options: 16 hex digits of a hash of their JSON.

        >>> DeidentifyOptions().digest() == DeidentifyOptions(dates="shift").digest()
        True
        """
        return config_digest(self)


def method_codes(options: DeidentifyOptions) -> tuple[tuple[str, str], ...]:
    """Return value and meaning of each code (scheme DCM, CID 7050) for DeidentificationMethodCodeSequence.

    >>> method_codes(DeidentifyOptions(dates="remove"))
    (('113100', 'Basic Application Confidentiality Profile'),)
    """
    return tuple((code, meaning) for code, (meaning, applies) in METHODS.items() if applies(options))


METHODS: Mapping[str, tuple[str, Callable[[DeidentifyOptions], bool]]] = {
    "113100": ("Basic Application Confidentiality Profile", lambda _: True),
    "113101": ("Clean Pixel Data Option", lambda options: options.burned_in == "blank"),
    "113103": ("Clean Graphics Option", lambda options: options.graphics),
    "113104": ("Clean Structured Content Option", lambda options: options.structured),
    "113105": ("Clean Descriptors Option", lambda options: options.descriptors),
    "113107": (
        "Retain Longitudinal Temporal Information Modified Dates Option",
        lambda options: options.dates == "shift",
    ),
    "113108": ("Retain Patient Characteristics Option", lambda options: options.patient_characteristics),
    "113109": ("Retain Device Identity Option", lambda options: options.device_identity),
    "113110": ("Retain UIDs Option", lambda options: options.uids),
    "113111": ("Retain Safe Private Option", lambda options: options.safe_private),
}
"""Codes of CID 7050 (PS3.16) for the methods that can be applied here, with their meanings and when they are."""
