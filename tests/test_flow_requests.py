"""Requests: frozen, bounded, and described well enough to be a form."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from imaging.preprocess.spec import PreprocessSpec
from services.datasets import ingest_part, is_shadow, shadow_name
from services.flow_requests import (
    DeidentifyRequest,
    EvaluateRequest,
    IngestRequest,
    NightlyRequest,
    ReevaluateRequest,
    TrainRequest,
)
from services.mlflow.registry import Registered

REQUESTS = (IngestRequest, TrainRequest, EvaluateRequest, NightlyRequest, ReevaluateRequest)
FORMS = (*REQUESTS, DeidentifyRequest)
SPEC = PreprocessSpec(size_px=32)
CHAMPION = Registered(
    name="d", version=1, run_id="r", tags={"spec": SPEC.model_dump_json(), "spec.digest": SPEC.digest}
)


def fields(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every field of a request and of its parts; what a reference lacks, its target may tell."""
    parts = schema.get("$defs", {})
    for where, part in ((schema["title"], schema), *parts.items()):
        for name, field in part["properties"].items():
            target = parts[field["$ref"].rpartition("/")[2]] if "$ref" in field else {}
            yield f"{where}.{name}", target | field


@pytest.mark.parametrize("kind", FORMS)
def test_no_code_is_shown_in_the_form(kind: type[BaseModel]) -> None:
    assert ">>>" not in str(kind.model_json_schema())


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("word", ["title", "description"])
def test_every_field_of_the_form_has_its_title_and_description(kind: type[BaseModel], word: str) -> None:
    assert [name for name, field in fields(kind.model_json_schema()) if not field.get(word)] == []


@pytest.mark.parametrize("kind", REQUESTS)
def test_every_number_of_the_form_has_a_limit(kind: type[BaseModel]) -> None:
    limits = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    free = [
        name
        for name, field in fields(kind.model_json_schema())
        if field.get("type") in ("number", "integer") and not limits & field.keys()
    ]
    # A window's center may be any modality unit.
    assert free in ([], ["Window.center"])


@pytest.mark.parametrize("kind", REQUESTS)
def test_every_request_can_be_made_without_a_word(kind: type[BaseModel]) -> None:
    assert kind().model_dump()["dataset"] == "radloop"


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request_survives_json(kind: type[BaseModel]) -> None:
    assert kind.model_validate_json(kind().model_dump_json()) == kind()


@pytest.mark.parametrize("kind", REQUESTS)
def test_an_unknown_field_is_refused(kind: type[BaseModel]) -> None:
    with pytest.raises(ValidationError, match="epoch"):
        kind.model_validate({"epoch": 3})


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request_is_frozen(kind: type[BaseModel]) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        kind().dataset = "other"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["a", "ct-chest", "ct_chest_2", "0", "a" * 63])
def test_a_good_name_is_taken(name: str) -> None:
    assert IngestRequest(dataset=name).dataset == name


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a b", "../a", "a/b", "a--b", "a'b", "a\n"])
def test_a_name_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        IngestRequest(dataset=name)


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"epochs": 0}},
        {"training": {"network": "vgg"}},
        {"training": {"workers": 4, "batch_size": 2}},
        {"preprocess": {"size_px": 8}},
        {"splits": {"test": 0.99}},
        {"gate": {"floor": 2}},
    ],
)
def test_a_bad_part_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NightlyRequest.model_validate(changes)


def test_ingest_gets_its_part_of_a_night() -> None:
    part = ingest_part(NightlyRequest(source="folder", labels="table", positive="yes"))
    assert type(part) is IngestRequest
    assert (part.source, part.labels, part.positive) == ("folder", "table", "yes")


def test_images_for_another_model_are_prepared_as_it_expects_them() -> None:
    part = ingest_part(NightlyRequest(source="folder", dataset="d"), like=CHAMPION)
    assert (part.preprocess, part.dataset) == (SPEC, shadow_name("d", CHAMPION))


def test_a_shadow_is_distinguished_from_a_dataset() -> None:
    assert is_shadow(shadow_name("d", CHAMPION))
    assert not is_shadow("a-b-c")


@pytest.mark.parametrize(
    ("modality", "proposal"),
    [
        ("MRI", "give MR, or another of"),
        ("CTA", "give CT, or another of"),
        ("x-ray", "give DX or CR, or another of"),
        ("RTDOS", "give RTDOSE"),
        ("", "give one of"),
    ],
)
def test_an_unknown_modality_is_refused_with_what_it_may_mean_and_the_list(
    modality: str, proposal: str
) -> None:
    with pytest.raises(ValidationError, match=f"modality is '{modality}': {proposal}.* CT, MR, PT, NM"):
        IngestRequest.model_validate({"preprocess": {"modality": modality}})


@pytest.mark.parametrize(("written", "window"), [("mr", "auto"), ("ct", "40/400"), (" Pt ", "auto")])
def test_a_modality_may_be_written_in_lower_case(written: str, window: str) -> None:
    spec = IngestRequest.model_validate({"preprocess": {"modality": written}}).preprocess
    assert spec is not None
    assert (spec.modality, spec.window_text) == (written.strip().upper(), window)
    assert spec.digest == PreprocessSpec(modality=spec.modality).digest


def test_one_missing_label_of_a_yaml_file_is_a_list_of_one() -> None:
    assert IngestRequest.model_validate({"missing": "NA"}).missing == ("NA",)
    assert IngestRequest.model_validate({"missing": ["NA", "."]}).missing == ("NA", ".")


def test_automatic_preprocessing_is_none_given() -> None:
    assert IngestRequest.model_validate({"preprocess": "automatic"}) == IngestRequest()


# Findings


def test_findings_are_read_from_one_text_or_a_list() -> None:
    for given in ("mass, oedema", ["mass", "oedema"]):
        assert IngestRequest.model_validate({"findings": given}).findings == ("mass", "oedema")


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"findings": "a,a"}, "findings has 'a' twice: name each finding once"),
        ({"findings": "a,,b"}, "findings has an empty name"),
        (
            {"findings": "a", "label_column": "l"},
            "both label_column 'l' and findings are given, and either can",
        ),
        ({"findings": "a", "positive": "x"}, "positive 'x' is for two classes, and findings are asked for"),
        ({"more_labels": "b.csv", "findings": "a"}, "more_labels adds tables of findings: give labels"),
        (
            {"more_labels": "b.csv", "labels": "a.csv"},
            "more_labels adds tables of findings: give labels, and findings",
        ),
        (
            {"findings": "a", "training": {"objective": "classification"}},
            "and 'classification' was chosen: choose",
        ),
        ({"training": {"objective": "multilabel"}}, "learns findings: give findings or label_separator"),
        (
            {"findings": "a", "gate": {"measure": "auroc[b]"}},
            r"cannot decide on 'auroc\[b\]': choose one of the .* a",
        ),
    ],
)
def test_what_does_not_fit_findings_is_refused_with_the_remedy(given: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        NightlyRequest.model_validate(given)


@pytest.mark.parametrize("given", [{"findings": "a"}, {"label_separator": ";"}])
def test_a_night_with_findings_learns_them(given: dict[str, str]) -> None:
    night = NightlyRequest.model_validate(given | {"training": {"epochs": 3}})
    assert (night.training.objective, night.training.epochs) == ("multilabel", 3)
    assert NightlyRequest.model_validate(night.model_dump()) == night
    assert NightlyRequest().training.objective == "classification"


def test_a_gate_may_name_one_of_the_findings() -> None:
    night = {"findings": "a,b", "gate": {"measure": "auroc[b]"}}
    assert NightlyRequest.model_validate(night).gate.measure == "auroc[b]"
    lists = {"label_separator": ";", "gate": {"measure": "auroc[b]"}}
    assert NightlyRequest.model_validate(lists).gate.measure == "auroc[b]"


MASKED = {"masks": "m.csv", "mask_classes": "blood pool, myocardium"}


def test_a_night_with_masks_learns_to_draw_them() -> None:
    night = NightlyRequest.model_validate(MASKED)
    assert (night.training.objective, night.training.network) == ("segmentation", "unet")
    assert night.mask_classes == ("blood pool", "myocardium")


def test_masks_of_volumes_are_learned_by_a_network_of_volumes() -> None:
    night = NightlyRequest.model_validate(MASKED | {"preprocess": {"kind": "volume"}})
    assert night.training.network == "unet_3d"


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (MASKED | {"labels": "l.csv"}, "both masks and labels are given"),
        (MASKED | {"label_separator": ";"}, "both masks and labels are given"),
        ({"masks": "m.csv"}, "masks and mask_classes go together"),
        ({"mask_classes": "a"}, "masks and mask_classes go together"),
        (MASKED | {"training": {"objective": "classification"}}, "'classification' was chosen with masks"),
        ({"training": {"objective": "segmentation"}}, "was chosen with no masks"),
        (MASKED | {"gate": {"measure": "auroc"}}, "the gate cannot decide on 'auroc'"),
    ],
)
def test_what_does_not_fit_masks_is_refused_with_the_remedy(given: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        NightlyRequest.model_validate(given)


def test_a_gate_may_name_one_of_the_mask_classes() -> None:
    night = NightlyRequest.model_validate(MASKED | {"gate": {"measure": "dice[myocardium]"}})
    assert night.gate.measure == "dice[myocardium]"
