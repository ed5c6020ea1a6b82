"""Objects before and after scrubbing: a slice of a patient, the key, and the output of both engines, compared."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from imaging.deidentify.objects.fast_path import open_fast_path
from imaging.deidentify.objects.file_writer import write_object
from imaging.deidentify.objects.scrub import scrub
from imaging.deidentify.options import DeidentifyOptions
from imaging.dicom.parse import parse
from imaging.errors import DataFault
from imaging.pseudonyms import Pseudonyms
from tests.dicom_objects import dataset as image
from tests.dicom_objects import file_bytes, ramp

KEY = Pseudonyms(b"k" * 32)
STRICT = DeidentifyOptions(dates="remove")
LOOSE = DeidentifyOptions(
    patient_characteristics=True,
    device_identity=True,
    uids=True,
    safe_private=True,
    descriptors=True,
    graphics=True,
    structured=True,
)


def clean(data: bytes, **options: Any) -> bytes:
    """Return the output for a file; where there is a fast path, its output must be the same."""
    chosen = DeidentifyOptions(**options)
    fast_path = open_fast_path(data, chosen, KEY)
    output = fast_path.output() if fast_path else None
    try:
        slow = write_object(scrub(parse(data), chosen, KEY))
    except DataFault:
        assert output is None
        raise
    assert output is None or b"".join(output[0]) == slow
    return slow


def scrubbed(made: Dataset, syntax: str = ExplicitVRLittleEndian, **options: Any) -> Dataset:
    """Return what comes out of a data set that was written and read."""
    return pydicom.dcmread(BytesIO(clean(file_bytes(made, syntax), **options)))


def slice_of(**changes: Any) -> Dataset:
    return image(ramp((8, 8), np.uint16), **{"PatientName": "Doe^Johanna", "PatientID": "4711-42"} | changes)


def fault(data: bytes, **options: Any) -> DataFault:
    with pytest.raises(DataFault) as caught:
        clean(data, **options)
    return caught.value


def raw_of(data: bytes, keyword: str) -> bytes | None:
    element = parse(data).get_item(keyword)
    assert isinstance(element, RawDataElement)
    return element.value


def scrub_payload(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[bytes]]:
    """De-identify a file in a worker of the sandbox, without a look at its pixels."""
    data = blobs[0] if isinstance(blobs[0], bytes) else blobs[0].read_bytes()
    options = DeidentifyOptions.model_validate_json(setup["options"])
    return {}, [write_object(scrub(parse(data), options, Pseudonyms(bytes.fromhex(setup["secret"]))))]
