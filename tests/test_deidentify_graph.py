"""Whether the objects of a study still refer to one another when several processes de-identified them."""

from collections.abc import Iterator
from io import BytesIO

import pydicom
import pytest
from pydicom.dataset import Dataset

from imaging.deidentify.options import DeidentifyOptions
from imaging.sandbox.pool import Item, Pool
from imaging.sandbox.worker_process import Answer
from tests.dicom_objects import file_bytes
from tests.referencing_objects import FRAME_OF_REFERENCE, REPORT, SEGMENTS, SLICES, STRUCTURES, STUDY, study
from tests.scrubbed_objects import KEY

pytestmark = pytest.mark.slow

SETUP = {
    "options": DeidentifyOptions(documents="clean").model_dump_json(),
    "secret": KEY.secret.hex(),
}


def in_a_process_of_its_own(objects: dict[str, Dataset]) -> Iterator[tuple[str, Dataset]]:
    """Yield each object as a worker that was started for these few gives it back."""
    with Pool("tests.scrubbed_objects:scrub_payload", SETUP, workers=1) as pool:
        items = [Item({}, (file_bytes(one),)) for one in objects.values()]
        for uid, answer in zip(objects, pool.map(iter(items)), strict=True):
            assert isinstance(answer, Answer), answer
            yield uid, pydicom.dcmread(BytesIO(bytes(answer.blobs[0])))


@pytest.fixture(scope="module")
def after() -> dict[str, Dataset]:
    objects = study()
    first = {uid: objects[uid] for uid in (SLICES[0], STRUCTURES)}
    second = {uid: objects[uid] for uid in (SLICES[1], SEGMENTS)}
    third = {uid: objects[uid] for uid in (SLICES[2], REPORT)}
    return dict(one for part in (first, second, third) for one in in_a_process_of_its_own(part))


def test_every_object_gets_a_uid_of_its_own(after: dict[str, Dataset]) -> None:
    assert len({one.SOPInstanceUID for one in after.values()} - set(after)) == len(after)


def test_all_objects_stay_in_one_study_of_one_patient(after: dict[str, Dataset]) -> None:
    assert len({(one.StudyInstanceUID, one.PatientID, one.StudyDate) for one in after.values()}) == 1


def test_slices_stay_in_one_frame_of_reference(after: dict[str, Dataset]) -> None:
    frames = {after[uid].FrameOfReferenceUID for uid in SLICES}
    assert frames == {after[STRUCTURES].ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID}
    assert frames == {after[STRUCTURES].StructureSetROISequence[0].ReferencedFrameOfReferenceUID}
    assert FRAME_OF_REFERENCE not in frames


def test_a_structure_set_refers_to_its_slices(after: dict[str, Dataset]) -> None:
    study_of = after[STRUCTURES].ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    images = study_of.RTReferencedSeriesSequence[0].ContourImageSequence
    assert [one.ReferencedSOPInstanceUID for one in images] == [after[uid].SOPInstanceUID for uid in SLICES]
    assert study_of.ReferencedSOPInstanceUID == after[SLICES[0]].StudyInstanceUID != STUDY
    contour = after[STRUCTURES].ROIContourSequence[0].ContourSequence[0]
    assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID == after[SLICES[1]].SOPInstanceUID


def test_a_segmentation_refers_to_its_sources(after: dict[str, Dataset]) -> None:
    series = after[SEGMENTS].ReferencedSeriesSequence[0]
    images = [one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence]
    assert images == [after[uid].SOPInstanceUID for uid in SLICES]
    assert series.SeriesInstanceUID == after[SLICES[0]].SeriesInstanceUID
    group = after[SEGMENTS].PerFrameFunctionalGroupsSequence[0]
    source = group.DerivationImageSequence[0].SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID == after[SLICES[2]].SOPInstanceUID


def test_a_report_refers_to_what_it_reports(after: dict[str, Dataset]) -> None:
    image = after[REPORT].ContentSequence[0].ReferencedSOPSequence[0]
    assert image.ReferencedSOPInstanceUID == after[SLICES[0]].SOPInstanceUID
    series = after[REPORT].CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == after[SEGMENTS].SOPInstanceUID


def test_a_report_names_nobody(after: dict[str, Dataset]) -> None:
    _, text, observer = after[REPORT].ContentSequence
    assert (text.TextValue, observer.PersonName) == ("Anonymized", "Anonymous")


def test_a_structure_set_names_nobody(after: dict[str, Dataset]) -> None:
    assert not {"Johanna", "Doe"} & set(str(after[STRUCTURES]).replace("'", " ").split())
