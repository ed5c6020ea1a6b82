"""Instance: one image on its way through ingest, with identifiers that only ingest may see."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from imaging.image.image import Image

SLIDES = "SM"
"""Modality of whole slides (PS3.3 A.32.8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One image or volume with its identifiers; `frame` counts from 1 in a multi-frame object and is 0 in others.

    `slice_uids` are the SOPInstanceUIDs of a volume's slices, "" of one that was filled; NIfTI has none.
    `institution` and `frame_of_reference_uid` are identifiers too, empty where there is none. The digests are hex
    digits of `imaging.pixel_digests`; `findings` are keys of `imaging.dicom.findings.FINDINGS`.
    """

    patient_id: str
    study_uid: str
    series_uid: str
    sop_instance_uid: str
    image: Image
    content_blake3: str
    pixel_blake3: str
    institution: str = ""
    frame_of_reference_uid: str = ""
    frame: int = 0
    slice_uids: tuple[str, ...] = ()
    attributes: Mapping[str, str | float] = field(default_factory=dict)
    label: str | None = None
    split: str | None = None
    findings: tuple[str, ...] = ()
