"""Order of the classes: which of two is looked for, and what decided it."""

import pytest

from imaging.annotations.class_order import decided_by, order_classes
from imaging.errors import UserFault


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["pneumonia", "normal"], ("normal", "pneumonia")),
        (["absent", "present"], ("absent", "present")),
        (["1", "0"], ("0", "1")),
        (["10", "9", "2"], ("2", "9", "10")),
        (["b", "a"], ("a", "b")),
        (["only"], ("only",)),
        (["²", "1"], ("1", "²")),
        ([], ()),
    ],
)
def test_the_class_that_is_looked_for_comes_second(labels: list[str], classes: tuple[str, ...]) -> None:
    assert order_classes(labels) == classes


def test_a_person_may_choose_the_positive_class() -> None:
    assert order_classes(["normal", "lesion"], positive="normal") == ("lesion", "normal")


def test_a_class_that_is_not_there_cannot_be_looked_for() -> None:
    with pytest.raises(UserFault, match=r"'tumour' is not among the labels \['lesion', 'normal'\]"):
        order_classes(["normal", "lesion"], positive="tumour")


# "No Finding": the labels of NIH ChestX-ray14, CheXpert and RSNA; the others: public tables of two classes.
@pytest.mark.parametrize(
    ("negative", "positive"),
    [
        ("No Finding", "Effusion"),
        ("no_finding", "effusion"),
        ("non-COVID", "COVID"),
        ("Non-Nodule", "Nodule"),
        ("not fractured", "fractured"),
        ("without tumour", "tumour"),
        ("benign nevus", "melanoma"),
        ("lesion absent", "any lesion"),
        ("negative for pneumonia", "bacterial"),
        ("Normal Tissue", "Abnormal Tissue"),
        ("healthy control", "patient"),
        ("normal", "not normal"),
        ("absent", "not absent"),
        ("False", "True"),
        ("0", "1"),
        ("0.0", "1.0"),
        ("-1", "1"),
        ("None", "Mass"),
    ],
)
def test_names_of_what_is_healthy_come_first(negative: str, positive: str) -> None:
    assert order_classes([negative, positive]) == (negative, positive)
    assert decided_by((negative, positive)) == "names"


@pytest.mark.parametrize(
    "names", [("cat", "dog"), ("benign", "normal"), ("absent", "No Finding"), ("1", "2")]
)
def test_names_of_both_sides_or_none_leave_it_to_the_order(names: tuple[str, str]) -> None:
    assert (order_classes(names), decided_by(names)) == (names, "order")


def test_a_person_decides_before_the_names() -> None:
    assert decided_by(("lesion", "normal"), "normal") == "person"


@pytest.mark.parametrize(
    "names", [("normal", "nonlesion"), ("benign", "malignant"), ("control", "no control")]
)
def test_names_that_decided_before_decide_alike(names: tuple[str, str]) -> None:
    assert order_classes(names) == names
