"""What may show a face is kept out unless faces may stay, or somebody looked and says that none can be recognised."""

from typing import Any

import pytest
from pydicom.dataset import Dataset

from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.pixels.faces import check_face
from imaging.errors import DataFault


def told(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def coded(value: str) -> Dataset:
    item = told(CodeValue=value, CodingSchemeDesignator="SCT", CodeMeaning="-")
    return told(Modality="MR", AnatomicRegionSequence=[item])


def of_frames() -> Dataset:
    return told(
        Modality="MR", SharedFunctionalGroupsSequence=[told(FrameAnatomySequence=[coded("12738006")])]
    )


def kept_out(made: Dataset) -> bool:
    try:
        check_face(made, DeidentifyOptions())
    except DataFault as fault:
        return fault.reason == "face"
    return False


HEADS = [
    told(Modality="CT", BodyPartExamined="HEAD"),
    told(Modality="MR", BodyPartExamined="BRAIN"),
    told(Modality="PT", BodyPartExamined="WHOLEBODY"),
    told(Modality="CT", BodyPartExamined="HEAD AND NECK"),
    told(Modality="MR", SeriesDescription="t1_mprage sag"),
    told(Modality="MR", StudyDescription="MRT Schädel nativ"),
    coded("69536005"),
    coded("T-A0100"),
    of_frames(),
    told(Modality="XC"),
    told(Modality="US", RecognizableVisualFeatures="YES"),
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
        told(Modality="CT", BodyPartExamined="CHEST"),
        told(Modality="CT", BodyPartExamined="CHEST", StudyDescription="headphones on"),
        told(Modality="DX", BodyPartExamined="SKULL"),
        told(Modality="CT", SeriesDescription="overhead arms"),
        coded("51185008"),
    ],
)
def test_what_shows_no_face_passes(made: Dataset) -> None:
    assert not kept_out(made)


def test_somebody_who_looked_is_believed() -> None:
    assert not kept_out(told(Modality="CT", BodyPartExamined="HEAD", RecognizableVisualFeatures="NO"))
