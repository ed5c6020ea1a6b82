"""What may show a face is kept out unless faces may stay, or somebody looked and says that none can be recognised."""

from typing import Any

import pytest
from pydicom.dataset import Dataset

from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.pixels.faces import check_face
from imaging.errors import DataFault


def dataset_of(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def coded(value: str) -> Dataset:
    item = dataset_of(CodeValue=value, CodingSchemeDesignator="SCT", CodeMeaning="-")
    return dataset_of(Modality="MR", AnatomicRegionSequence=[item])


def of_frames() -> Dataset:
    return dataset_of(
        Modality="MR", SharedFunctionalGroupsSequence=[dataset_of(FrameAnatomySequence=[coded("12738006")])]
    )


def kept_out(made: Dataset) -> bool:
    try:
        check_face(made, DeidentifyOptions())
    except DataFault as fault:
        return fault.reason == "face"
    return False


HEADS = [
    dataset_of(Modality="CT", BodyPartExamined="HEAD"),
    dataset_of(Modality="MR", BodyPartExamined="BRAIN"),
    dataset_of(Modality="PT", BodyPartExamined="WHOLEBODY"),
    dataset_of(Modality="CT", BodyPartExamined="HEAD AND NECK"),
    dataset_of(Modality="MR", SeriesDescription="t1_mprage sag"),
    dataset_of(Modality="MR", StudyDescription="MRT Schädel nativ"),
    coded("69536005"),
    coded("T-A0100"),
    of_frames(),
    dataset_of(Modality="XC"),
    dataset_of(Modality="US", RecognizableVisualFeatures="YES"),
]


@pytest.mark.parametrize("made", HEADS)
def test_a_head_is_kept_out(made: Dataset) -> None:
    assert kept_out(made)


@pytest.mark.parametrize("made", HEADS)
def test_a_head_passes_where_faces_may_stay(made: Dataset) -> None:
    check_face(made, DeidentifyOptions(faces="keep"))


@pytest.mark.parametrize(
    "made",
    [
        dataset_of(Modality="CT", BodyPartExamined="CHEST"),
        dataset_of(Modality="CT", BodyPartExamined="CHEST", StudyDescription="headphones on"),
        dataset_of(Modality="DX", BodyPartExamined="SKULL"),
        dataset_of(Modality="CT", SeriesDescription="overhead arms"),
        coded("51185008"),
    ],
)
def test_what_shows_no_face_passes(made: Dataset) -> None:
    assert not kept_out(made)


def test_somebody_who_looked_is_believed() -> None:
    assert not kept_out(dataset_of(Modality="CT", BodyPartExamined="HEAD", RecognizableVisualFeatures="NO"))
