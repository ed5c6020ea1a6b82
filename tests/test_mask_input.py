"""Masks of a request: the classes by name and value, and which tables are refused."""

from pathlib import Path

import pytest

from imaging.errors import UserFault
from imaging.pseudonyms import Pseudonyms
from services.flow_requests import IngestRequest
from services.mask_input import mask_classes, read_masks_of

KEY = Pseudonyms(b"k" * 32)


def request(*classes: str, masks: str = "m.csv", **changes: object) -> IngestRequest:
    return IngestRequest.model_validate({"masks": masks, "mask_classes": classes, **changes})


def test_classes_are_numbered_in_their_order() -> None:
    classes = mask_classes(request("liver", "tumour"))
    assert (classes.names, dict(classes.values)) == (("liver", "tumour"), {})


def test_a_class_may_have_another_value_in_pictures() -> None:
    classes = mask_classes(request("lung=255", "heart"))
    assert (classes.names, dict(classes.values)) == (("lung", "heart"), {0: 0, 255: 1, 2: 2})


@pytest.mark.parametrize(
    ("classes", "fault"),
    [
        (("lung=one",), "behind '=' comes the value"),
        (("lung=3", "heart=3"), "have one value"),
        (("lung=0",), "have one value"),
        (("lung", "Lung"), "different names"),
    ],
)
def test_classes_of_one_value_are_refused(classes: tuple[str, ...], fault: str) -> None:
    with pytest.raises(UserFault, match=fault):
        mask_classes(request(*classes))


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="no mask table at"):
        read_masks_of(request("a", masks=str(tmp_path / "none.csv")), KEY)
