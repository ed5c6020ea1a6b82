"""Context of the elements of one object while they are treated, and scope of those of one item."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from imaging.deidentify.identity.text_cleaner import TextCleaner
from imaging.deidentify.objects.charsets import Decode, decoder, terms_of
from imaging.deidentify.objects.raw_elements import make_raw, raw_bytes
from imaging.deidentify.objects.rules import PATIENT_ID, RuleOf
from imaging.deidentify.options import DeidentifyOptions
from imaging.pseudonyms import Pseudonyms, canonical_patient_id

CHARACTER_SET, CODE_SCHEME = 0x00080005, 0x00080102
PATIENTS = 64
CODE_VALUES = frozenset({0x00080100, 0x00080119, 0x00080120})
STANDARD_SCHEMES = frozenset(
    {"DCM", "SCT", "SRT", "SNM3", "99SDM", "LN", "UCUM", "FMA", "RADLEX", "NCIt", "UMLS", "MSH", "I9C", "I10"}
    | {"BI", "ISO3166_1", "RFC3066", "RFC5646", "ITIS_TSN", "PUBCHEM_CID", "NEU", "C4", "C5", "ACR", "IBSI"}
    | {"ICDO3"}
)
"""Coding schemes whose codes mean the same everywhere (PS3.16 8), so that they identify nobody."""


class TreatmentNotes:
    """Notes on treated elements: whether UTF-8 is needed, and whether the result depends on the patient."""

    def __init__(self) -> None:
        self.needs_utf8 = False
        self.is_patient_specific = False

    def encode(self, text: str) -> bytes:
        """Return the bytes of a text."""
        self.needs_utf8 = self.needs_utf8 or not text.isascii()
        return text.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectContext:
    """Options, keys, cleaner and encoding, which all elements of one object share."""

    options: DeidentifyOptions
    pseudonyms: Pseudonyms
    rule_of: RuleOf
    cleaner: TextCleaner
    days: int
    implicit: bool
    little: bool
    notes: TreatmentNotes = field(default_factory=TreatmentNotes)

    def patient_id(self, original: str) -> str:
        """Return the new PatientID, the same one for all variants where they are to be joined."""
        return _patient_id(self.pseudonyms, canonical(original, self.options))

    def element(self, tag: int, vr: str, value: bytes) -> RawDataElement:
        """Return an element of the output."""
        return make_raw(tag, vr, value, implicit=self.implicit, little=self.little)


# Files of one patient come together, and each keyed hash takes as long as some ten elements.
_patient_id = lru_cache(PATIENTS)(Pseudonyms.patient_id)
shift_days = lru_cache(PATIENTS)(Pseudonyms.shift_days)


def canonical(original: str, options: DeidentifyOptions) -> str:
    """Return the form of a PatientID by which patients are distinguished."""
    return canonical_patient_id(original) if options.patient_variants == "join" else original


ASCII = decoder(())
Masked = Literal["", "all", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """New PatientID, character set, depth and masking that apply to the elements of a data set or an item.

    `masked` tells which free text becomes a dummy: all, or all but the codes of standard schemes.
    """

    patient: str
    terms: tuple[str, ...] = ()
    decode: Decode = ASCII
    depth: int = 0
    masked: Masked = ""

    def inside(self, item: Dataset, context: ObjectContext, *, masks: bool) -> "Scope":
        """Return the scope of an item of a sequence."""
        inner = replace(self.reading(item), depth=self.depth + 1)
        own = inner.text(item, PATIENT_ID)
        masked: Masked = "all" if masks else "text" if self.masked else ""
        if masked == "text" and inner.text(item, CODE_SCHEME) in STANDARD_SCHEMES:
            masked = ""
        return replace(inner, patient=context.patient_id(own) if own else self.patient, masked=masked)

    def reading(self, dataset: Dataset) -> "Scope":
        """Return this scope with the character set of a data set, where it names one."""
        raw = raw_bytes(dataset.get_item(CHARACTER_SET))
        if not raw:
            return self
        terms = terms_of(raw)
        return replace(self, terms=terms, decode=decoder(terms))

    def text(self, dataset: Dataset, tag: int) -> str:
        """Return an element's text; bytes that cannot be decoded become surrogates, so that two texts still differ."""
        raw = raw_bytes(dataset.get_item(tag), self.terms)
        text = self.decode(raw)
        return (raw.decode(errors="surrogateescape") if text is None else text).strip(" \0")
