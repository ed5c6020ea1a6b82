"""What a person may say of a model's input, within which bounds, and how it is named."""

import pytest
from pydantic import ValidationError

from imaging.image.window import IDENTITY, Window
from imaging.preprocess.spec import PreprocessSpec

SOFT = Window(center=40, width=400)


@pytest.mark.parametrize("width", [1, 0, -5])
def test_a_window_must_be_wider_than_one(width: float) -> None:
    with pytest.raises(ValidationError, match="greater than 1"):
        Window(center=0, width=width)


@pytest.mark.parametrize("size_px", [15, 1025])
def test_a_size_out_of_bounds_is_refused(size_px: int) -> None:
    with pytest.raises(ValidationError, match="size_px"):
        PreprocessSpec(size_px=size_px)


@pytest.mark.parametrize("number", [0, 17])
def test_a_window_number_out_of_bounds_is_refused(number: int) -> None:
    with pytest.raises(ValidationError, match="window_number"):
        PreprocessSpec(window_number=number)


@pytest.mark.parametrize("slices", [1, 513])
def test_a_number_of_slices_out_of_bounds_is_refused(slices: int) -> None:
    with pytest.raises(ValidationError, match="slices"):
        PreprocessSpec(slices=slices)


@pytest.mark.parametrize("mm", [0.0, -1.0, 0.04, 51.0, float("nan"), float("inf")])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_spacing_out_of_bounds_is_refused_with_the_bounds(axis: int, mm: float) -> None:
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = mm
    with pytest.raises(ValidationError, match=r"spacing_mm is .*between 0\.05 and 50 mm"):
        PreprocessSpec.model_validate({"spacing_mm": spacing})


@pytest.mark.parametrize(("name", "value"), [("kind", "stack"), ("order", "resize"), ("window", "own")])
def test_a_word_that_is_none_of_the_choices_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match=name):
        PreprocessSpec.model_validate({name: value})


def test_no_two_settings_share_a_digest() -> None:
    changes = [{"slices": 33}, {"size_px": 33}, {"window_number": 2}, {"slices": 33, "size_px": 33}]
    assert len({PreprocessSpec.model_validate(change).digest for change in changes}) == len(changes)


@pytest.mark.parametrize(("kind", "shape"), [("slice", (20, 20)), ("volume", (9, 20, 20))])
def test_the_shape_is_that_of_one_example(kind: str, shape: tuple[int, ...]) -> None:
    assert PreprocessSpec.model_validate({"kind": kind, "size_px": 20, "slices": 9}).shape == shape


def test_a_spec_survives_json() -> None:
    spec = PreprocessSpec(kind="volume", spacing_mm=(2.5, 1, 1), window="file", order="resize-window")
    assert PreprocessSpec.model_validate_json(spec.model_dump_json()) == spec


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        PreprocessSpec.model_validate({"sise_px": 64})


def test_equal_specs_have_equal_digests() -> None:
    assert PreprocessSpec(size_px=64).digest == PreprocessSpec().digest


@pytest.mark.parametrize(
    "other",
    [
        PreprocessSpec(size_px=65),
        PreprocessSpec(modality="MR"),
        PreprocessSpec(window="file"),
        PreprocessSpec(window=Window(center=40, width=401)),
        PreprocessSpec(kind="volume"),
        PreprocessSpec(window_number=2),
        PreprocessSpec(order="resize-window"),
        PreprocessSpec(slices=33),
        PreprocessSpec(spacing_mm=(1, 1, 1)),
    ],
    ids=["size", "modality", "file", "width", "kind", "number", "order", "slices", "spacing"],
)
def test_each_setting_is_part_of_the_digest(other: PreprocessSpec) -> None:
    assert other.digest != PreprocessSpec().digest


@pytest.mark.parametrize(
    ("spec", "window"),
    [
        (PreprocessSpec(window="file"), IDENTITY),
        (PreprocessSpec(window="auto"), IDENTITY),
        (PreprocessSpec(window=SOFT), SOFT),
    ],
    ids=["file", "auto", "fixed"],
)
def test_a_portable_model_has_the_fixed_window_alone(spec: PreprocessSpec, window: Window) -> None:
    assert spec.portable_window == window


@pytest.mark.parametrize(
    ("spec", "units"),
    [
        (PreprocessSpec(), "Hounsfield units"),
        (PreprocessSpec(modality="MR", window=SOFT), "modality units"),
        (PreprocessSpec(modality="MR"), "grey levels 0..255"),
        (PreprocessSpec(window="file"), "grey levels 0..255"),
        (PreprocessSpec.grey_levels(28), "grey levels 0..255"),
    ],
    ids=["ct", "mr", "mr by default", "file", "grey"],
)
def test_the_units_of_the_input_follow_from_the_spec(spec: PreprocessSpec, units: str) -> None:
    assert spec.input_units == units


@pytest.mark.parametrize("modality", ["MR", "PT", "NM", "US", "CR", "DX", "MG", "XA", "OT"])
def test_another_modality_has_not_the_window_of_ct(modality: str) -> None:
    assert PreprocessSpec.model_validate({"modality": modality}).window == "auto"


def test_a_window_that_is_chosen_stays_whatever_the_modality() -> None:
    assert PreprocessSpec.model_validate({"modality": "MR", "window": "file"}).window == "file"


@pytest.mark.parametrize("window", ["40/400", "40.0 / 400", {"center": 40, "width": 400}, None])
def test_a_window_can_be_written_as_center_and_width(window: object) -> None:
    assert PreprocessSpec.model_validate({"window": window}).window == SOFT


@pytest.mark.parametrize("window", ["40", "soft", "40/", "a/b", ""])
def test_a_window_that_is_no_pair_is_refused_with_the_form(window: str) -> None:
    with pytest.raises(ValidationError, match=r"give CENTER/WIDTH as in 40/400, 'file' or 'auto'"):
        PreprocessSpec.model_validate({"window": window})


def test_a_form_offers_no_window_of_another_modality() -> None:
    assert "default" not in PreprocessSpec.model_json_schema()["properties"]["window"]


@pytest.mark.parametrize("window", ["nan/400", "40/inf", "inf/10", "40/nan", "40/1", "40/-5"])
def test_a_window_without_finite_bounds_is_refused(window: str) -> None:
    with pytest.raises(ValidationError, match="it must be above 1, and both must be finite"):
        PreprocessSpec.model_validate({"window": window})


def test_a_share_of_tissue_without_slides_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"slide_tissue is 0\.5 and there is no slide_mpp"):
        PreprocessSpec(slide_tissue=0.5)
