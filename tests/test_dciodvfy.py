"""Whether what comes out is valid DICOM: Debian's dicom3tools must find no error that the input did not have."""

import re
import subprocess
from collections import Counter
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import Comprehensive3DSRStorage, XRayRadiationDoseSRStorage

from imaging.deidentify.objects.file_writer import write_object
from imaging.deidentify.objects.scrub import scrub
from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.profile.structured_content import load_content
from imaging.dicom.parse import parse
from imaging.errors import DataFault
from tests.dicom_objects import file_bytes
from tests.referencing_objects import study
from tests.requirements import program
from tests.scrubbed_objects import KEY, LOOSE
from tests.structured_reports import nested, of_row, report

FILES = sorted((Path(pydicom.__file__).parent / "data").rglob("*.dcm"))
POLICIES = {
    "default": DeidentifyOptions(documents="clean"),
    "no dates": DeidentifyOptions(documents="clean", dates="remove"),
    "structured": DeidentifyOptions(documents="clean", structured=True, dates="remove"),
    "loose": LOOSE.model_copy(update={"documents": "clean"}),
}
LEAST_OBJECTS = 60
"""Of pydicom's own files those that name a patient and a study."""


def errors(data: bytes, folder: Path) -> Counter[str]:
    """Return the errors in a file, without the values that they quote."""
    validator = program("dciodvfy", "dicom3tools")
    path = folder / "one.dcm"
    path.write_bytes(data)
    output = subprocess.run([validator, str(path)], capture_output=True, check=False, timeout=60).stderr
    lines = (line for line in output.decode("latin-1").splitlines() if line.startswith("Error"))
    return Counter(re.sub(r"<.*?>|UID \S+$", "", line) for line in lines)


def new_errors(data: bytes, options: DeidentifyOptions, folder: Path) -> Counter[str]:
    after = write_object(scrub(parse(data), options, KEY))
    return errors(after, folder) - errors(data, folder)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_no_file_of_pydicom_becomes_invalid(policy: str, tmp_path: Path) -> None:
    seen = 0
    for path in FILES:
        try:
            added = new_errors(path.read_bytes(), POLICIES[policy], tmp_path)
        except DataFault:
            continue
        seen += 1
        assert not added, path.name
    assert seen >= LEAST_OBJECTS


@pytest.mark.parametrize("policy", POLICIES)
def test_no_slice_becomes_invalid(policy: str, tmp_path: Path, ct_slices: Path) -> None:
    for path in sorted(ct_slices.glob("*.dcm"))[::25]:
        assert not new_errors(path.read_bytes(), POLICIES[policy], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("sop_class", [Comprehensive3DSRStorage, XRayRadiationDoseSRStorage])
def test_no_report_with_every_item_of_the_table_becomes_invalid(
    sop_class: str, policy: str, tmp_path: Path
) -> None:
    items = [of_row(row, number)[0] for number, row in enumerate(load_content().rows)]
    data = file_bytes(report(nested(items, 3), SOPClassUID=sop_class))
    assert not new_errors(data, POLICIES[policy], tmp_path)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_object_of_a_study_becomes_invalid(policy: str, tmp_path: Path) -> None:
    for one in study().values():
        assert not new_errors(file_bytes(one), POLICIES[policy], tmp_path)


def test_the_validator_finds_what_is_missing(tmp_path: Path) -> None:
    one = next(iter(study().values()))
    good = errors(file_bytes(one), tmp_path)
    del one.PatientID
    assert errors(file_bytes(one), tmp_path) - good
