"""Configuration: page and example are what the models say, `config show` can be read back, `check` misses no fault."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from cli.main import main
from cli.options import ask
from cli.render.configuration import example_file, fields_of, reference_page
from services.flow_requests import REQUESTS, DeidentifyRequest, NightlyRequest
from services.settings import Settings

DOCS = Path(__file__).parent.parent / "docs"


@dataclass(frozen=True)
class CommandResult:
    """How a command ended, and what it printed."""

    code: int
    out: str
    rest: str


Radloop = Callable[..., CommandResult]


@pytest.fixture
def radloop(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], environment: None, tmp_path: Path
) -> Radloop:
    """Run `radloop config ...` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["radloop", "config", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        return CommandResult(int(ended.value.code or 0), printed.out, printed.err)

    return run


def names_of(kind: type[BaseModel], above: str = "") -> Iterator[str]:
    """Yield the names of a model and of the models in it, by its annotations alone."""
    for name, field in kind.model_fields.items():
        yield f"{above}{name}"
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from names_of(part, f"{above}{name}.")


def test_the_page_is_made_from_the_models() -> None:
    written = (DOCS / "configuration.md").read_text()
    assert written == reference_page(), "python -m cli.render.configuration writes it anew"


def test_the_example_is_made_from_the_models() -> None:
    written = (DOCS / "example.yaml").read_text()
    assert written == example_file(), "python -m cli.render.configuration writes it anew"


@pytest.mark.parametrize("kind", [NightlyRequest, DeidentifyRequest])
def test_every_name_is_in_the_page_and_in_the_example(kind: type[BaseModel]) -> None:
    names = set(names_of(kind))
    assert {".".join(field.path) for field in fields_of(kind)} == names
    page = (DOCS / "configuration.md").read_text()
    assert [name for name in names if f"| `{name}` |" not in page] == []
    example = yaml.safe_load((DOCS / "example.yaml").read_text())
    for name in names:
        below: Any = example
        for part in name.split("."):
            assert part in below, name
            below = below[part]


def test_every_environment_variable_is_in_the_page_with_what_it_is() -> None:
    page = (DOCS / "configuration.md").read_text()
    assert all(field.description for field in Settings.model_fields.values())
    assert "| `RADLOOP_HOME` | .radloop | Folder" in page
    assert "| `MLFLOW_TRACKING_URI` |" in page


@pytest.mark.parametrize("flow", REQUESTS)
def test_the_example_serves_every_command(flow: str) -> None:
    ask(REQUESTS[flow], DOCS / "example.yaml", {})


def test_the_example_changes_no_default() -> None:
    request = ask(NightlyRequest, DOCS / "example.yaml", {})
    assert request.training == NightlyRequest().training
    assert request.gate == NightlyRequest().gate


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "training: {epochs: 3, optimizer: {name: sgd}}",
        "preprocess: {window: 40/400}",
        "preprocess: {window: file, modality: MR}",
        "preprocess: {kind: volume, spacing_mm: [3, 1, 1]}",
        "missing: ['-', '#N/A', 'null', \"a: b\"]\npositive: \"it's: yes\"",
        "splits: {val: 0.2}\ngate: {floor: 0.9}",
    ],
)
def test_what_is_shown_can_be_read_back(radloop: Radloop, tmp_path: Path, text: str) -> None:
    given, shown = tmp_path / "given.yaml", tmp_path / "shown.yaml"
    given.write_text(text)
    shown.write_text(radloop("show", "--config", given, "--source", "s3://bucket/ct").out)
    assert ask(NightlyRequest, shown, {}) == ask(NightlyRequest, given, {"source": "s3://bucket/ct"})


def test_each_value_names_where_it_comes_from(radloop: Radloop, tmp_path: Path) -> None:
    config = tmp_path / "radloop.yaml"
    config.write_text("training: {epochs: 3, workers: 2}\npreprocess: {window: 40/400}\nlabel_column: null")
    shown = radloop("show", "--config", config, "--workers", "4", "--json")
    origins = json.loads(shown.out)["from"]
    file = str(config)
    assert origins["training.epochs"] == file
    assert origins["training.workers"] == "option"
    assert origins["preprocess.window.center"] == file
    assert origins["preprocess.size_px"] == "default"
    assert origins["label_column"] == file
    assert json.loads(shown.out)["values"]["training"]["workers"] == 4
    assert "  epochs: 3  # " + file in radloop("show", "--config", config).out


def test_showing_makes_no_home(radloop: Radloop, tmp_path: Path) -> None:
    radloop("show")
    assert list(tmp_path.iterdir()) == []


def test_all_faults_are_listed_at_once(radloop: Radloop, tmp_path: Path) -> None:
    config = tmp_path / "radloop.yaml"
    config.write_text(
        "training: {epochs: 0, network: vgg}\ngate: {floor: 2}\nepoch: 3\nsauce: a\noptions: {hair: 1}\n"
    )
    ended = radloop("check", config)
    expected = [
        "training.epochs",
        "training.network",
        "gate.floor",
        "epoch: ",
        "sauce: ",
        "options.hair",
        "6 faults",
    ]
    assert ended.code == 2
    assert [text for text in expected if text not in ended.out] == []
    assert len(json.loads(radloop("check", config, "--json").out)["faults"]) == 6


def test_a_good_file_is_called_good(radloop: Radloop) -> None:
    ended = radloop("check", DOCS / "example.yaml")
    assert (ended.code, ended.out.strip()) == (0, f"{DOCS / 'example.yaml'} is good")


@pytest.mark.parametrize(("text", "error"), [("training: [", "not valid YAML"), ("[a]", "must hold names")])
def test_what_is_no_configuration_is_refused(radloop: Radloop, tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    ended = radloop("check", tmp_path / "c.yaml")
    assert (ended.code, error in ended.rest) == (2, True)
