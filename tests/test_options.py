"""Requests from options and a configuration file, refused with what is wrong and where."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.options import as_request, ask, overlay
from imaging.errors import UserFault
from imaging.sources.label_file import MISSING
from services.flow_requests import NightlyRequest, TrainRequest


def config(folder: Path, text: str) -> Path:
    path = folder / "radloop.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("epochs: 3", ("unknown name 'epochs'", "use one of", "training")),
        ("training: {epoch: 3}", ("training.epoch", "got 3", "radloop.yaml or the options")),
        ("training: fast", ("training", "got 'fast'")),
        ("training: [", ("radloop.yaml is not valid YAML", "correct it there")),
        ("- one", ("holds list and must hold names with values",)),
        ("", ("holds NoneType",)),
        ("preprocess: {size_px: 4}", ("preprocess.size_px", "greater than or equal to 16", "got 4")),
    ],
)
def test_a_bad_configuration_is_refused(tmp_path: Path, text: str, fragments: tuple[str, ...]) -> None:
    with pytest.raises(UserFault) as caught:
        ask(NightlyRequest, config(tmp_path, text), {})
    assert [fragment for fragment in fragments if fragment not in str(caught.value)] == [], str(caught.value)


def test_a_configuration_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "radloop.yaml").write_bytes(b"positive: M\xfcller")
    with pytest.raises(UserFault, match="is not valid YAML"):
        ask(NightlyRequest, tmp_path / "radloop.yaml", {})


def test_a_configuration_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserFault, match=r"no configuration file at nowhere\.yaml: give --config"):
        ask(NightlyRequest, Path("nowhere.yaml"), {})


def asked(folder: Path, text: str, options: Mapping[str, Any]) -> NightlyRequest:
    return ask(NightlyRequest, config(folder, text), dict(options))


def test_options_win_over_the_configuration(tmp_path: Path) -> None:
    request = asked(tmp_path, "source: there\ntraining: {epochs: 3, seed: 7}", {"training": {"epochs": 5}})
    assert (request.source, request.training.epochs, request.training.seed) == ("there", 5, 7)


def test_findings_and_the_objective_are_options_of_the_command_line() -> None:
    given = as_request({"findings": "mass,oedema", "more_labels": ["b.csv"], "objective": "multilabel"})
    night = ask(NightlyRequest, None, given | {"labels": "a.csv"})
    assert (night.findings, night.more_labels) == (("mass", "oedema"), ("b.csv",))
    assert night.training.objective == "multilabel"


def test_options_that_were_not_given_do_not_count(tmp_path: Path) -> None:
    request = asked(tmp_path, "source: there", {"source": "", "labels": None, "training": {"epochs": None}})
    assert (request.source, request.labels, request.training.epochs) == ("there", None, 10)


def test_a_list_that_was_not_given_does_not_count(tmp_path: Path) -> None:
    assert asked(tmp_path, "missing: [unknown]", {"missing": []}).missing == ("unknown",)
    assert asked(tmp_path, "source: there", {"missing": []}).missing == MISSING
    assert asked(tmp_path, "missing: [unknown]", {"missing": ["-", "NA"]}).missing == ("-", "NA")


def test_json_is_a_configuration_too(tmp_path: Path) -> None:
    assert asked(tmp_path, NightlyRequest(source="there").model_dump_json(), {}).source == "there"


def test_a_request_survives_its_own_configuration(tmp_path: Path) -> None:
    request = NightlyRequest(source="there", positive="yes")
    assert asked(tmp_path, yaml.safe_dump(request.model_dump(mode="json")), {}) == request


def test_one_configuration_serves_all_commands(tmp_path: Path) -> None:
    path = config(tmp_path, "source: there\ngate: {floor: 0.9}\ntraining: {epochs: 3}")
    assert ask(TrainRequest, path, {}).training.epochs == 3


def test_an_option_of_another_command_is_refused() -> None:
    with pytest.raises(UserFault, match="gate"):
        ask(TrainRequest, None, {"gate": {"floor": 0.9}})


def test_laying_over_leaves_what_lies_below() -> None:
    below = {"a": {"b": 1}}
    overlay(below, {"a": {"b": 2}})
    assert below == {"a": {"b": 1}}
