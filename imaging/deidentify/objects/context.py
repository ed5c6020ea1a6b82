"""Owns what the elements of one object share while they are treated, and what those of one item share."""

from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from pydicom.dataset import Dataset

from imaging.deidentify.objects.charsets import Decode, decoder, terms_of
from imaging.deidentify.objects.raw import raw_bytes
from imaging.deidentify.objects.rules import PATIENT_ID, RuleOf
from imaging.deidentify.options import DeidentifyOptions
from imaging.pseudonyms import Pseudonyms, canonical_patient_id

CHARACTER_SET, CODE_SCHEME = 0x00080005, 0x00080102
CODE_VALUES = frozenset({0x00080100, 0x00080119, 0x00080120})
STANDARD_SCHEMES = frozenset(
    {"DCM", "SCT", "SRT", "SNM3", "99SDM", "LN", "UCUM", "FMA", "RADLEX", "NCIt", "UMLS", "MSH", "I9C", "I10"}
    | {
        "BI",
        "ISO3166_1",
        "RFC3066",
        "RFC5646",
        "ITIS_TSN",
        "PUBCHEM_CID",
        "NEU",
        "C4",
        "C5",
        "ACR",
        "IBSI",
        "ICDO3",
    }
)
"""Coding schemes whose codes mean the same everywhere (PS3.16 8), so that they name nobody."""


class Traces:
    """What was seen while elements were treated: whether UTF-8 is needed, and whether the outcome is the patient's."""

    def __init__(self) -> None:
        self.beyond_ascii = False
        self.personal = False

    def encode(self, text: str) -> bytes:
        """Return the bytes of a text."""
        self.beyond_ascii = self.beyond_ascii or not text.isascii()
        return text.encode()


class Cleaner(Protocol):
    """What finds the identifiers of an object in text, as `TextCleaner` does."""

    def found_in(self, text: str) -> bool:
        """Tell whether the text names somebody."""

    def clean(self, text: str) -> str:
        """Return the text without what names somebody; the same text where nothing does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One object on its way: the options, the keys, what to look for, and how the output is encoded."""

    options: DeidentifyOptions
    pseudonyms: Pseudonyms
    rule_of: RuleOf
    cleaner: Cleaner
    days: int
    implicit: bool
    little: bool
    traces: Traces = field(default_factory=Traces)

    def patient_id(self, original: str) -> str:
        """Return the new PatientID, the same one for all variants where they are to be joined."""
        return self.pseudonyms.patient_id(canonical(original, self.options))


def canonical(original: str, options: DeidentifyOptions) -> str:
    """Return the form of a PatientID that decides who is who."""
    return canonical_patient_id(original) if options.patient_variants == "join" else original


ASCII = decoder(())
Masked = Literal["", "all", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A data set or an item in which elements lie; `patient` is the new PatientID that holds there.

    `masked`: free text becomes a dummy: all of it, or all but the codes of schemes that everybody uses.
    """

    patient: str
    terms: tuple[str, ...] = ()
    decode: Decode = ASCII
    depth: int = 0
    masked: Masked = ""

    def inside(self, item: Dataset, case: Case, *, masks: bool) -> "Place":
        """Return the place that an item of a sequence is."""
        inner = replace(self.reading(item), depth=self.depth + 1)
        own = inner.text(item, PATIENT_ID)
        masked: Masked = "all" if masks else "text" if self.masked else ""
        if masked == "text" and inner.text(item, CODE_SCHEME) in STANDARD_SCHEMES:
            masked = ""
        return replace(inner, patient=case.patient_id(own) if own else self.patient, masked=masked)

    def reading(self, dataset: Dataset) -> "Place":
        """Return this place with the character set that a data set names, if it does."""
        raw = raw_bytes(dataset.get_item(CHARACTER_SET))
        if not raw:
            return self
        terms = terms_of(raw)
        return replace(self, terms=terms, decode=decoder(terms))

    def text(self, dataset: Dataset, tag: int) -> str:
        """Return an element's text; bytes that cannot be decoded become surrogates, so that two texts differ still."""
        raw = raw_bytes(dataset.get_item(tag), self.terms)
        found = self.decode(raw)
        return (raw.decode(errors="surrogateescape").strip(" \0") if found is None else found).strip(" \0")
