"""Check for faces: volumes of the head can be turned into one, and photographs may show one."""

import re

from pydicom.dataset import Dataset

from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.pixels.attribute_values import attribute_texts, code_values
from imaging.errors import DataFault

VOLUMES = frozenset({"CT", "MR", "PT", "NM"})
"""Modalities whose slices make a volume that includes the skin (PS3.15 E.3.2)."""
PHOTOGRAPHS = frozenset({"XC", "DMS"})
"""Modalities of photographs of patients, and of their skin."""
PARTS = frozenset(
    {"HEAD", "HEADNECK", "HEADANDNECK", "NECK", "BRAIN", "SKULL", "FACE", "FACIALBONES", "JAW", "MANDIBLE"}
    | {"MAXILLA", "ORBIT", "EYE", "EAR", "IAC", "NOSE", "SINUS", "PARANASALSINUS", "TMJ", "ZYGOMA", "TEETH"}
    | {"PITUITARY", "CEREBRAL", "CRANIUM", "TEMPORALBONE", "SCALP", "TONGUE", "MOUTH", "CIRCLEOFWILLIS"}
    | {"WHOLEBODY", "HEADTOTHIGH", "SKULLBASETOTHIGH"}
)
"""Values of BodyPartExamined, letters alone (PS3.16 annex L): scanned with the face, or all of the body."""
REGIONS = ("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence")
CODES = {
    "head": ("69536005", "T-D1100"),
    "head and neck": ("774007", "T-D1000"),
    "neck": ("45048000", "T-D1600"),
    "brain": ("12738006", "T-A0100"),
    "face": ("89545001", "T-D1200"),
    "skull": ("89546000", "T-11100"),
    "orbit": ("363654007", "T-D14AE"),
    "eye": ("81745001", "T-AA000"),
    "ear": ("117590005", "T-AB001"),
    "nose": ("45206002", "T-21000"),
    "paranasal sinus": ("2095001", "T-22000"),
    "mandible": ("91609006", "T-11180"),
    "maxilla": ("70925003", "T-11170"),
    "internal auditory canal": ("361078006", "T-AB959"),
    "circle of Willis": ("11279006", "T-45520"),
    "temporomandibular joint": ("53620006", "T-15290"),
    "scalp": ("41695006", "T-D1160"),
    "whole body": ("38266002", "T-D0010"),
}
"""The same as codes of SNOMED CT and SNOMED RT (PS3.16 CID 4031)."""
HEAD_TERMS = re.compile(
    r"(?<![^\W_])(head|brain|skull|facial|face|neuro\w*|crani\w*|cerebr\w*|orbits?|sinus(es)?|whole ?body|mprage"
    r"|maxillo\w*|kopf\w*|sch(ä|ae|a)del\w*|gehirn|hirn\w*|t[eê]te|cerveau|cabeza|cr[aá]neo|testa|encefalo|dental)(?![^\W_])",
    re.IGNORECASE,
)
"""Words in descriptions, for objects without a body part: many scans of the brain are named as such only there."""
DESCRIPTIONS = ("StudyDescription", "SeriesDescription", "ProtocolName")


def check_face(dataset: Dataset, options: DeidentifyOptions) -> None:
    """Raise DataFault "face" where an object may show a face and faces must not pass.

    RecognizableVisualFeatures (PS3.3 C.7.6.1) decides where it is given: its NO was set by whoever looked.
    """
    if options.faces == "keep":
        return
    features = attribute_texts(dataset, "RecognizableVisualFeatures")
    if "YES" in features:
        raise DataFault("face", "RecognizableVisualFeatures is YES")
    if "NO" in features:
        return
    modality = set(attribute_texts(dataset, "Modality"))
    if modality & PHOTOGRAPHS:
        raise DataFault("face", "a photograph, and RecognizableVisualFeatures does not say NO")
    if modality & VOLUMES and _of_the_head(dataset):
        raise DataFault("face", "of the head, and RecognizableVisualFeatures does not say NO")


def _of_the_head(dataset: Dataset) -> bool:
    parts = {re.sub(r"[^A-Z]", "", part.upper()) for part in attribute_texts(dataset, "BodyPartExamined")} - {
        ""
    }
    known = {code for pair in CODES.values() for code in pair}
    if parts & PARTS or known.intersection(code_values(dataset, REGIONS)):
        return True
    described = (text for name in DESCRIPTIONS for text in attribute_texts(dataset, name))
    return not parts and any(HEAD_TERMS.search(text) for text in described)
