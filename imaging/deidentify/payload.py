"""De-identification of one payload in a worker of the sandbox: the bytes of the output, or the fault."""

import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from blake3 import blake3
from pydicom.dataset import Dataset

from imaging.deidentify.objects.context import PATIENTS
from imaging.deidentify.objects.fast_path import open_fast_path
from imaging.deidentify.objects.file_writer import write_object
from imaging.deidentify.objects.raw_elements import raw_bytes
from imaging.deidentify.objects.rules import PATIENT_ID
from imaging.deidentify.objects.scrub import check_sop_class, scrub
from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.pixels.pixel_check import check_pixels
from imaging.dicom.elements import Buffer
from imaging.dicom.limits import LIMITS
from imaging.dicom.parse import parse, reading
from imaging.errors import DataFault
from imaging.file_io import process_buffer
from imaging.pseudonyms import Pseudonyms

PLAIN = re.compile(rb"[!-\[\]-~][ -\[\]-~]*\0?")
"""One value in ASCII, which needs no decoding by pydicom."""
FUNCTION = "imaging.deidentify.payload:deidentify_payload"
IDENTIFIERS = {
    "patient": "PatientID",
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "instance": "SOPInstanceUID",
}
Output = tuple[Sequence[Buffer], Mapping[str, str]]
"""A de-identified file in parts, and its new identifiers by keyword."""


def deidentify_payload(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[Buffer]]:
    """De-identify one payload; a `Function` of the sandbox.

    `setup` has `options` (JSON) and `secret` (hex); `value` has `format`, `blobs` is the one file. The answer has
    `patient`, `study`, `series`, `instance` (the new ones), `patient_variant` (see `Pseudonyms.otherwise`),
    `blake3` and `findings`, beside the parts of the new file, valid until the next call; or `fault`, a reason and a
    detail.
    """
    try:
        if value["format"] != "dicom":
            raise DataFault("not-dicom")
        data = process_buffer().load(blobs[0], LIMITS.file_bytes)
        options = _options(setup["options"])
        pseudonyms = Pseudonyms(bytes.fromhex(setup["secret"]), options.patient_variants)
        fast_path = open_fast_path(data, options, pseudonyms)
        dataset = fast_path.dataset if fast_path else parse(data)
        variant = _variant(dataset, pseudonyms)
        # First, as it is cheaper than to search the pixels of an object that does not pass.
        check_sop_class(dataset, options)
        checked = check_pixels(dataset, data, options)
        output: Output | None = fast_path.output() if fast_path is not None else None
        if output is None:
            scrubbed = scrub(checked, options, pseudonyms)
            output = (
                [write_object(scrubbed)],
                {keyword: str(scrubbed[keyword].value) for keyword in IDENTIFIERS.values()},
            )
        parts, identifiers = output
    except DataFault as fault:
        return {"fault": [fault.reason, fault.detail]}, ()
    new = {name: identifiers[keyword] for name, keyword in IDENTIFIERS.items()}
    digest = blake3()
    for part in parts:
        digest.update(part)
    return new | {"patient_variant": variant, "blake3": digest.hexdigest(), "findings": []}, parts


_variant_key = lru_cache(PATIENTS)(Pseudonyms.variant_key)


def _variant(dataset: Dataset, pseudonyms: Pseudonyms) -> str:
    raw = raw_bytes(dataset.get_item(PATIENT_ID)) if PATIENT_ID in dataset else b""
    if PLAIN.fullmatch(raw):
        return _variant_key(pseudonyms, raw.decode().rstrip(" \0"))
    with reading("unreadable"):
        return _variant_key(pseudonyms, str(dataset.get("PatientID") or ""))


@cache
def _options(json: str) -> DeidentifyOptions:
    return DeidentifyOptions.model_validate_json(json)
