"""Nothing that is planted in any item of the table of content items comes out, at whatever depth."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from imaging.deidentify.profile.structured_content import load_content
from tests.dicom_objects import NATIVE, file_bytes
from tests.planted_identifiers import leaks
from tests.referencing_objects import item
from tests.scrubbed_objects import clean, scrubbed, slice_of
from tests.structured_reports import nested, of_row, report

ROWS = load_content().rows
POLICIES: dict[str, dict[str, Any]] = {
    "default": {"documents": "clean"},
    "structured": {"documents": "clean", "structured": True},
    "structured, no dates": {"documents": "clean", "structured": True, "dates": "remove"},
}


def planted(dates: str) -> tuple[list[Dataset], set[str]]:
    made = [(row, *of_row(row, number)) for number, row in enumerate(ROWS)]
    # A time of day stays where dates are shifted.
    secrets = {secret for row, _, secret in made if dates == "remove" or row.value_type != "TIME"}
    return [one for _, one, _ in made], secrets


def ways(items: list[Dataset], depth: int) -> Iterator[Dataset]:
    """Yield objects that contain content items in each of the sequences that may."""
    yield report(nested(items, depth))
    inner = [item(ContentItemModifierSequence=Sequence(items), **{"ValueType": "TEXT", "TextValue": "x"})]
    yield slice_of(AcquisitionContextSequence=Sequence(items if depth == 1 else inner))
    around = item(SpecimenPreparationStepContentItemSequence=Sequence(nested(items, depth)))
    specimen = item(SpecimenPreparationSequence=Sequence([around]))
    yield slice_of(SpecimenDescriptionSequence=Sequence([specimen]))


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("depth", [1, 3, 8])
def test_nothing_planted_in_any_item_of_the_table_comes_out(policy: str, depth: int) -> None:
    options = POLICIES[policy]
    items, secrets = planted(options.get("dates", "shift"))
    for made in ways(items, depth):
        assert leaks(file_bytes(made), secrets) == secrets
        assert not leaks(clean(file_bytes(made), **options), secrets)


@pytest.mark.slow
@pytest.mark.parametrize("syntax", NATIVE)
def test_nothing_planted_comes_out_in_any_encoding(syntax: str) -> None:
    items, secrets = planted("shift")
    assert not leaks(clean(file_bytes(report(items), syntax), documents="clean", structured=True), secrets)


def test_no_name_comes_out_of_a_text_that_options_keep() -> None:
    texts = [row for row in ROWS if row.value_type == "TEXT"]
    items = [of_row(row, number)[0] for number, row in enumerate(texts)]
    for one in items:
        one.TextValue = "seen by Johanna Doe"
    chosen = {"documents": "clean", "structured": True, "descriptors": True, "device_identity": True}
    cleaned = scrubbed(report(items), **chosen).ContentSequence
    kept = [one.TextValue for one in cleaned]
    assert kept.count("seen by") > 40
    assert set(kept) == {"seen by", "Anonymized"}
