"""Schema of the forms on Prefect's page, as Prefect makes it of a flow and as its server checks what is sent."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Literal

import pytest
import yaml
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate
from pydantic import Field

from cli.schedules import deployments, form_values
from imaging.preprocess.spec import PreprocessSpec
from services.flow_requests import REQUESTS, NightlyRequest, Request
from tests.conftest import FLOWS

PLANNED = {"source": "/images", "dataset": "d"}
GIVEN: dict[str, dict[str, Any]] = {
    "ingest": PLANNED,
    "nightly": PLANNED,
    "deidentify": {"source": "/images", "destination": "/released"},
}
"""What a person must give."""


def schema_of(flow: str) -> dict[str, Any]:
    """Return the schema of a flow's parameters, as `prefect deploy` makes it."""
    return parameter_schema(getattr(import_module(f"flows.{flow}"), flow)).model_dump_for_openapi()


SCHEMAS = {flow: schema_of(flow) for flow in FLOWS}


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object inside a schema."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from objects(item)


def properties(flow: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield the fields of a form with their names, and whether they are required."""
    for part in SCHEMAS[flow]["definitions"].values():
        for name, field in part["properties"].items():
            yield name, field, name in part.get("required", ())


def check(flow: str, request: dict[str, Any]) -> None:
    """Check a request as Prefect's server does when a run is made."""
    validate({"request": request}, SCHEMAS[flow], raise_on_error=True)


@pytest.mark.parametrize("flow", FLOWS)
def test_no_field_is_of_type_none_or_constant(flow: str) -> None:
    assert not [part for part in objects(SCHEMAS[flow]) if part.get("type") == "null" or "const" in part]


@pytest.mark.parametrize("flow", FLOWS)
def test_no_field_begins_with_null(flow: str) -> None:
    defaults = [part["default"] for part in objects(SCHEMAS[flow]) if "default" in part]
    assert not [default for default in defaults if default is None]
    assert not [
        name for part in defaults if isinstance(part, dict) for name, value in part.items() if value is None
    ]


@pytest.mark.parametrize(
    ("flow", "required"),
    [
        ("ingest", ["source"]),
        ("nightly", ["source"]),
        ("deidentify", ["source", "destination"]),
        ("train", []),
        ("evaluate", []),
        ("reevaluate", []),
        ("features", []),
    ],
)
def test_what_a_person_must_fill_in_is_required(flow: str, required: list[str]) -> None:
    assert SCHEMAS[flow]["definitions"][REQUESTS[flow].__name__].get("required", []) == required


@pytest.mark.parametrize("flow", FLOWS)
def test_what_is_required_and_nothing_else_is_marked(flow: str) -> None:
    marked = {name: field.get("title", "").endswith(" (required)") for name, field, _ in properties(flow)}
    assert marked == {name: required for name, _, required in properties(flow)}


def test_a_field_of_one_value_is_a_choice() -> None:
    class OneValue(Request):
        kind: Literal["one"] = Field("one", title="Kind")

    assert OneValue.model_json_schema()["properties"]["kind"]["enum"] == ["one"]


@pytest.mark.parametrize("flow", FLOWS)
def test_a_form_with_nothing_but_what_is_required_is_taken(flow: str) -> None:
    given = GIVEN.get(flow, {})
    check(flow, given)
    assert REQUESTS[flow].model_validate(given)


@pytest.mark.parametrize("flow", FLOWS)
def test_null_is_taken_for_text_and_numbers_as_runs_of_before_have_it(flow: str) -> None:
    fields = SCHEMAS[flow]["definitions"][REQUESTS[flow].__name__]["properties"]
    blank = [
        name
        for name, field in fields.items()
        if field.get("type") in ("string", "integer")
        and not {"default", "enum", "minLength", "pattern"} & {*field}
    ]
    given = dict.fromkeys(blank) | GIVEN.get(flow, {})
    check(flow, given)
    assert REQUESTS[flow].model_validate(given)


@pytest.mark.parametrize(
    "nightly", [{}, NightlyRequest(**PLANNED).model_dump(mode="json")], ids=["none", "one"]
)
def test_what_deployments_begin_with_is_taken(nightly: dict[str, Any]) -> None:
    for item in yaml.safe_load(deployments(nightly, None))["deployments"]:
        if "parameters" in item:
            # Of a deployment the server does not ask for what is required.
            validate(item["parameters"], SCHEMAS[item["name"]], raise_on_error=True, ignore_required=True)
            request = REQUESTS[item["name"]].model_validate(item["parameters"]["request"])
            assert form_values(request) == item["parameters"]["request"]


@pytest.mark.parametrize(
    "part",
    [
        {"preprocess": "automatic"},
        {"preprocess": PreprocessSpec(size_px=32).model_dump(mode="json", exclude_none=True)},
        {"preprocess": {"modality": "MR", "window": "auto"}},
        {"bad_slice": "drop-study"},
        {"gate": {"measure": None}},
        {"gate": {"measure": "auroc"}},
        {"preprocess": {"kind": "volume", "spacing_mm": [2.0, 1.0, 1.0]}},
    ],
)
def test_what_a_person_chooses_is_taken(part: dict[str, Any]) -> None:
    check("nightly", PLANNED | part)
    NightlyRequest.model_validate(PLANNED | part)


@pytest.mark.parametrize("flow", ["ingest", "nightly"])
@pytest.mark.parametrize(
    ("given", "sentence"),
    [({}, "'source' is a required property"), ({"source": ""}, "'' should be non-empty")],
)
def test_a_run_without_a_source_is_refused_in_one_sentence(
    flow: str, given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValidationError, match=sentence):
        check(flow, given)


def test_a_reevaluation_needs_no_source() -> None:
    check("reevaluate", {"source": ""})
