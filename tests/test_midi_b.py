"""A small run of the ten kinds of action of MIDI-B, and that each check can fail."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from bench.midi_b import HIPAA, KINDS, OPTIONS, Seen, checks, folded, pixel_checks
from bench.midi_objects import Exam, exam, put, set_pixels
from imaging.deidentify.objects.file_writer import write_object
from imaging.deidentify.objects.scrub import scrub
from imaging.deidentify.pixels.pixel_check import check_pixels
from imaging.dicom.parse import parse
from imaging.pseudonyms import Pseudonyms

KEY = Pseudonyms(bytes(range(32)))
OBJECTS = 24


def made_of(one: Exam) -> tuple[Dataset, bytes]:
    written = write_object(scrub(parse(one.data), OPTIONS, KEY))
    return parse(written), written


def missed(one: Exam, made: Dataset, written: bytes, seen: Seen | None = None) -> set[str]:
    results = [*checks(one, made, written, seen or Seen()), *pixel_checks(one, made)]
    return {kind for kind, _, passed in results if not passed}


@pytest.fixture(scope="module")
def results() -> list[tuple[str, str, bool]]:
    seen, all_checks = Seen(), []
    for number in range(OBJECTS):
        one = exam(number)
        all_checks += checks(one, *made_of(one), seen)
    return all_checks


@pytest.mark.slow
def test_every_check_passes_on_made_up_objects(results: list[tuple[str, str, bool]]) -> None:
    assert [(kind, what) for kind, what, passed in results if not passed] == []


def test_no_check_of_a_hipaa_category_is_missed(results: list[tuple[str, str, bool]]) -> None:
    assert [(kind, what) for kind, what, passed in results if kind in HIPAA and not passed] == []
    assert len(results) > 80 * OBJECTS


def test_each_kind_of_action_is_checked() -> None:
    one, text = exam(0), exam(1, burned_in=True)
    kinds = {kind for kind, _, _ in checks(one, *made_of(one), Seen())}
    kinds |= {kind for each in (one, text) for kind, _, _ in pixel_checks(each, each.dataset)}
    assert kinds == set(KINDS)


def test_the_original_fails_all_that_asks_for_a_change() -> None:
    one = exam(0)
    assert missed(one, parse(one.data), one.data) == {"text removed", "date shifted", "UID changed"}


BROKEN: dict[str, Callable[[Dataset], Any]] = {
    "tag retained": lambda made: setattr(made, "RescaleSlope", 2),
    "text not null": lambda made: setattr(made, "Modality", None),
    "text retained": lambda made: setattr(made, "StudyDescription", "thorax"),
    "text removed": lambda made: made.add_new(0x00291010, "LO", "private"),
    "date shifted": lambda made: setattr(made, "ContentDate", "20190101"),
    "UID changed": lambda made: setattr(made, "FrameOfReferenceUID", exam(0).dataset.FrameOfReferenceUID),
    "UID consistent": lambda made: put(
        made, ("ReferencedImageSequence", "ReferencedSOPInstanceUID"), "2.25.1"
    ),
    "pixels retained": lambda made: set_pixels(made, np.zeros((16, 16), np.uint16)),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_check_sees_what_it_is_for(kind: str) -> None:
    one = exam(0)
    made, written = made_of(one)
    BROKEN[kind](made)
    assert kind in missed(one, made, written)


def test_a_patient_with_two_numbers_is_seen() -> None:
    one, seen = exam(0), Seen()
    made, written = made_of(one)
    assert missed(one, made, written, seen) == set()
    made.PatientID = "another"
    assert "patient id consistent" in missed(one, made, written, seen)


@pytest.mark.slow
def test_text_in_pixels_is_hidden_and_seen_where_it_is_not() -> None:
    one = exam(0, burned_in=True)
    blanked = check_pixels(parse(one.data), one.data, OPTIONS)
    assert [passed for _, _, passed in pixel_checks(one, blanked)] == [True]
    assert [passed for _, _, passed in pixel_checks(one, one.dataset)] == [False]


def test_names_are_compared_as_a_reader_sees_them() -> None:
    assert folded("Müller, J. Weiß") == "mullerjweiss"
