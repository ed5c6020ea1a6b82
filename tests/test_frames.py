"""Places of frames: by the rule of a class that gives one position for all of them, or the object is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    NuclearMedicineImageStorage,
    RTDoseStorage,
)

from imaging.dicom.dicom_object import open_object
from imaging.dicom.frames import frames_of
from imaging.errors import DataFault
from imaging.formats.dicom import read_dicom
from imaging.formats.series import DROP_SLICE, DROP_STUDY, read_series
from imaging.image.instance import Instance
from imaging.sources.protocol import Payload
from tests.dicom_objects import dataset, file_bytes

PLANES = np.random.default_rng(0).integers(0, 999, (4, 8, 6)).astype(np.uint16)
AXIAL = [1, 0, 0, 0, 1, 0]
TILTED = [1, 0, 0, 0, 0.8, -0.6]
BEHIND = np.array([0, 0.6, 0.8])
"""The normal of TILTED."""
CORNER = [-10, 20, 30]


def made(planes: Any = PLANES, **changes: Any) -> bytes:
    plain = {"ImagePositionPatient": CORNER, "ImageOrientationPatient": TILTED, "PixelSpacing": [3, 2]}
    return file_bytes(dataset(planes, **{**plain, **changes}))


def dose(offsets: list[float] | None, **changes: Any) -> bytes:
    return made(SOPClassUID=RTDoseStorage, GridFrameOffsetVector=offsets, Modality="RTDOSE", **changes)


def nuclear(flavor: str = "RECON TOMO", detectors: int = 1, **changes: Any) -> bytes:
    detector = Dataset()
    detector.ImagePositionPatient, detector.ImageOrientationPatient = CORNER, TILTED
    plain = {
        "SOPClassUID": NuclearMedicineImageStorage,
        "Modality": "NM",
        "ImageType": ["ORIGINAL", "PRIMARY", flavor, "EMISSION"],
        "ImagePositionPatient": None,
        "ImageOrientationPatient": None,
        "DetectorInformationSequence": Sequence([detector] * detectors),
        "SliceVector": [1, 2, 3, 4],
        "SpacingBetweenSlices": 5,
    }
    return made(**{**plain, **changes})


def places(data: bytes) -> Any:
    """Return the way of each frame from CORNER."""
    opened = open_object(data)
    slices = frames_of(opened).slice_attributes()
    return np.array([one["ImagePositionPatient"] for one in slices], float) - CORNER


def volumes(data: bytes, modality: str, policy: str = DROP_STUDY) -> list[Instance]:
    payload = Payload(format="series", name="s", contents=(data,), metadata=(("bad-slice", policy),))
    return list(read_series(payload, modality))


@pytest.mark.parametrize("offsets", [[0, 2, 4, 6], [0, 2, 4.5, 7], [0, -2, -4, -6]])
def test_planes_of_a_dose_lie_along_the_normal_by_their_offsets(offsets: list[float]) -> None:
    # PS3.3 C.8.8.3.2 a): positive offsets in the direction of the cross product of row and column directions.
    np.testing.assert_allclose(places(dose(offsets)), np.outer(offsets, BEHIND), atol=1e-12)


def test_planes_of_an_axial_dose_may_have_absolute_places() -> None:
    # PS3.3 C.8.8.3.2 b): the first equals z of the position, the orientation is 1, 0, 0, 0, 1, 0.
    data = dose([30, 33, 36, 39], ImageOrientationPatient=AXIAL)
    np.testing.assert_allclose(places(data), np.outer([0, 3, 6, 9], [0, 0, 1]))


def test_a_dose_is_a_volume_as_simpleitk_reads_it(tmp_path: Path) -> None:
    data = dose([0, 2, 4, 6])
    (tmp_path / "dose.dcm").write_bytes(data)
    other = SimpleITK.ReadImage(tmp_path / "dose.dcm")
    (one,) = volumes(data, "RTDOSE")
    np.testing.assert_array_equal(one.image.stored, SimpleITK.GetArrayFromImage(other))
    np.testing.assert_allclose(one.image.spacing_mm, other.GetSpacing()[::-1])


def test_a_dose_whose_planes_go_down_is_turned_over() -> None:
    (one,) = volumes(dose([0, -2, -4, -6]), "RTDOSE")
    np.testing.assert_array_equal(one.image.stored, PLANES[::-1])


REFUSED = {
    "no offsets": dose(None),
    "too few offsets": dose([0, 2, 4]),
    "offsets up and down": dose([0, 2, 1, 3]),
    "one offset twice": dose([0, 2, 2, 3]),
    "absolute and oblique": dose([30, 33, 36, 39]),
    "absolute from elsewhere": dose([31, 34, 37, 40], ImageOrientationPatient=AXIAL),
    "a dose without orientation": dose([0, 2, 4, 6], ImageOrientationPatient=None),
    "a cone beam as CT": made(
        SOPClassUID=CTImageStorage, SpacingBetweenSlices=2, GridFrameOffsetVector=[0, 2, 4, 6]
    ),
    "a cone beam as secondary capture": made(
        SOPClassUID=MultiFrameGrayscaleWordSecondaryCaptureImageStorage, SpacingBetweenSlices=2
    ),
    "projections": nuclear("TOMO"),
    "static images": nuclear("STATIC", SliceVector=None),
    "no slice vector": nuclear(SliceVector=None),
    "no distance": nuclear(SpacingBetweenSlices=None),
    "two detectors": nuclear(detectors=2),
    "no detector": nuclear(DetectorInformationSequence=None, ImagePositionPatient=CORNER),
}


@pytest.mark.parametrize("policy", [DROP_STUDY, DROP_SLICE])
@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_one_position_without_a_rule_makes_no_volume_whatever_the_policy(data: bytes, policy: str) -> None:
    modality = str(open_object(data).attributes["Modality"])
    with pytest.raises(DataFault) as caught:
        volumes(data, modality, policy)
    assert caught.value.reason == "no-geometry"
    assert len(list(read_dicom(data, modality))) == 4


@pytest.mark.parametrize("step", [5, -5])
def test_slices_of_reconstructed_nm_lie_along_the_normal_by_the_sign_of_their_distance(step: int) -> None:
    # PS3.3 C.8.4.15: positive is behind the first slice, which is along the normal, negative in front of it.
    data = nuclear(SpacingBetweenSlices=step)
    np.testing.assert_allclose(places(data), np.outer([0, step, 2 * step, 3 * step], BEHIND), atol=1e-12)
    (one,) = volumes(data, "NM")
    np.testing.assert_array_equal(one.image.stored, PLANES[:: 1 if step > 0 else -1])
    assert one.image.spacing_mm == (5, 3, 2)


def test_slices_of_nm_lie_by_their_vector_and_not_by_their_order() -> None:
    np.testing.assert_allclose(places(nuclear(SliceVector=[2, 1, 4, 3]))[:, 2], [4, 0, 12, 8])


def test_times_of_a_gated_reconstruction_are_volumes_of_their_own() -> None:
    data = nuclear(
        "RECON GATED TOMO",
        RRIntervalVector=[1, 1, 1, 1],
        TimeSlotVector=[1, 1, 2, 2],
        SliceVector=[1, 2, 1, 2],
    )
    made = volumes(data, "NM")
    assert [one.image.stored.tolist() for one in made] == [PLANES[:2].tolist(), PLANES[2:].tolist()]
    assert all("several-times" in one.findings for one in made)


def joint(times: int, **changes: Any) -> bytes:
    """Return frames of a moving joint: one place, which the shared groups give, and a time for each."""
    shared, place, turn, measures = Dataset(), Dataset(), Dataset(), Dataset()
    place.ImagePositionPatient, turn.ImageOrientationPatient, measures.PixelSpacing = CORNER, TILTED, [3, 2]
    shared.PlanePositionSequence, shared.PlaneOrientationSequence = Sequence([place]), Sequence([turn])
    shared.PixelMeasuresSequence = Sequence([measures])
    groups = []
    for n in range(times):
        group, content = Dataset(), Dataset()
        content.TemporalPositionIndex = n + 1
        group.FrameContentSequence = Sequence([content])
        groups.append(group)
    return made(
        np.stack([PLANES[0] + n for n in range(times)]).astype(np.uint16),
        SOPClassUID=EnhancedMRImageStorage,
        Modality="MR",
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(groups),
        **changes,
    )


@pytest.mark.parametrize("policy", [DROP_STUDY, DROP_SLICE])
@pytest.mark.parametrize("changes", [{}, {"ImagePositionPatient": None, "ImageOrientationPatient": None}])
def test_times_at_one_place_are_no_volumes(policy: str, changes: dict[str, Any]) -> None:
    with pytest.raises(DataFault) as caught:
        volumes(joint(19, **changes), "MR", policy)
    assert caught.value.reason == "no-volume"
    assert "several-times" in caught.value.detail
    assert len(list(read_dicom(joint(19, **changes), "MR"))) == 19


def test_a_frame_without_a_place_among_others_has_none() -> None:
    groups = []
    for n in range(4):
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, 2 * n]
        group.PlanePositionSequence = Sequence([place] if n != 2 else [])
        groups.append(group)
    data = made(
        SOPClassUID=EnhancedMRImageStorage, Modality="MR", PerFrameFunctionalGroupsSequence=Sequence(groups)
    )
    with pytest.raises(DataFault) as caught:
        volumes(data, "MR")
    assert (caught.value.reason, "no-geometry" in caught.value.detail) == ("bad-slice", True)
