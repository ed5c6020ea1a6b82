"""Command `radloop deidentify`: its request, its output, and that its page is true."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import typer
from prefect import Flow, Task
from pydantic import ValidationError

import flows.deidentify
from cli import deidentify as deidentify_command
from cli import proof
from cli.commands.deidentify import deidentify
from cli.main import app, main
from cli.options import ask
from imaging.deidentify.folder.deidentify_outcome import DeidentifyOutcome
from imaging.deidentify.options import DeidentifyOptions, method_codes
from imaging.deidentify.proof.output_search import Hit
from imaging.errors import UserFault
from imaging.refusal_reasons import DEIDENTIFICATION_REASONS, MEANINGS
from services.flow_requests import DeidentifyRequest
from tasks.report.outcomes import deidentification_markdown
from tests.synthetic import write_dicom

PAGE = (Path(__file__).parent.parent / "docs" / "privacy.md").read_text()
OUTCOME = DeidentifyOutcome(
    destination="out",
    files_listed=9,
    files_read=5,
    files_removed=1,
    objects=3,
    patients=2,
    patient_variants=0,
    quarantined={"burned-in-text": 2},
    ignored={"not-dicom": 3},
    problems_file=None,
)


@pytest.fixture
def radloop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], environment: None
) -> Callable[..., tuple[int, str]]:
    """Run a command in this process, its flow without Prefect; return its exit code and what it printed."""
    for name, value in vars(flows.deidentify).copy().items():
        if isinstance(value, Flow | Task):
            monkeypatch.setattr(flows.deidentify, name, value.fn)
    monkeypatch.setattr(flows.deidentify, "create_markdown_artifact", lambda *_, **fields: None)
    monkeypatch.setattr("cli.flow_run.quiet_logs", lambda: None)
    monkeypatch.setattr("cli.flow_run.claim_server", lambda log: None)

    def run(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["radloop", "--home", str(tmp_path / "home"), *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "400")
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        return int(ended.value.code or 0), " ".join((printed.out + printed.err).split())

    return run


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[DeidentifyRequest]:
    """Collect what the command asks the flow for, instead of running it."""
    requests: list[DeidentifyRequest] = []
    monkeypatch.setattr("cli.flow_run.check_request", lambda flow, request, _: requests.append(request))
    monkeypatch.setattr(deidentify_command, "run_flow", lambda *_: None)
    return requests


def options_of(command: str) -> dict[str, Any]:
    commands: Any = typer.main.get_command(app)
    return {parameter.name: parameter for parameter in commands.commands[command].params}


def invoke(*arguments: str) -> None:
    command = typer.Typer()
    command.command()(deidentify)
    command(list(arguments), standalone_mode=False)


def test_every_option_of_the_standard_is_an_option_of_the_command() -> None:
    assert set(DeidentifyOptions.model_fields) <= set(options_of("deidentify"))


def test_every_option_is_in_the_page_with_its_code() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `--")]
    documented = {line.split("`")[1].split()[0].removeprefix("--").replace("-", "_") for line in rows}
    assert documented == set(DeidentifyOptions.model_fields)


def test_every_code_that_an_object_may_get_is_in_the_page() -> None:
    flags = {name: True for name, field in DeidentifyOptions.model_fields.items() if field.annotation is bool}
    codes = method_codes(DeidentifyOptions(burned_in="blank", **flags))
    assert [code for code, _ in codes if code not in PAGE] == ["113100"]


@pytest.mark.parametrize(("reason", "meaning"), DEIDENTIFICATION_REASONS.items())
def test_every_reason_is_in_the_page(reason: str, meaning: str) -> None:
    assert f"| {reason} | {meaning} |\n" in PAGE


def test_flags_and_choices_reach_the_request(asked: list[DeidentifyRequest]) -> None:
    invoke("s3://bucket/src", "/dst", "--uids", "--dates", "remove")
    assert asked[0].options == DeidentifyOptions(uids=True, dates="remove")
    assert (asked[0].source, asked[0].destination) == ("s3://bucket/src", "/dst")


def test_a_path_is_made_whole_since_a_worker_runs_elsewhere(
    asked: list[DeidentifyRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    invoke("src", "dst")
    assert (asked[0].source, asked[0].destination) == (str(tmp_path / "src"), str(tmp_path / "dst"))


@pytest.mark.parametrize("field", ["source", "destination"])
@pytest.mark.parametrize("path", ["", "out", "./out", "../out"])
def test_part_of_a_path_is_refused_where_no_folder_is_known(field: str, path: str) -> None:
    with pytest.raises(ValidationError, match=field):
        DeidentifyRequest.model_validate({"source": "/archive", "destination": "/out", field: path})


def test_an_option_wins_over_the_configuration(asked: list[DeidentifyRequest], tmp_path: Path) -> None:
    config = tmp_path / "release.yaml"
    config.write_text("{source: /a, destination: /b, options: {uids: true, faces: keep}}")
    invoke("--config", str(config), "--no-uids")
    assert asked[0] == DeidentifyRequest(
        source="/a", destination="/b", options=DeidentifyOptions(faces="keep", uids=False)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{sauce: a}", "sauce"),
        ("[a]", "must hold names"),
        ("{a: ", "not valid YAML"),
        (None, "no configuration"),
    ],
)
def test_a_bad_configuration_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(UserFault, match=message):
        invoke("--config", str(tmp_path / "c.yaml"))


def test_an_unknown_option_of_the_request_is_refused() -> None:
    with pytest.raises(UserFault, match=r"options\.hair"):
        ask(DeidentifyRequest, None, {"options": {"hair": True}})


def test_no_source_is_refused_with_what_to_give(radloop: Callable[..., tuple[int, str]]) -> None:
    code, output = radloop("deidentify")
    assert (code, "radloop deidentify SRC DST" in output) == (2, True)


@pytest.mark.parametrize("arguments", [("--verify", "dst"), ("--against", "src")])
def test_half_a_proof_is_refused(radloop: Callable[..., tuple[int, str]], arguments: tuple[str, str]) -> None:
    code, output = radloop("deidentify", *arguments)
    assert (code, "give --verify DST --against SRC" in output) == (2, True)


def test_a_proof_that_would_write_is_refused(radloop: Callable[..., tuple[int, str]]) -> None:
    code, output = radloop("deidentify", "src", "dst", "--verify", "dst", "--against", "src")
    assert (code, "give one of them" in output) == (2, True)


def test_the_help_shows_each_default(radloop: Callable[..., tuple[int, str]]) -> None:
    output = radloop("deidentify", "--help")[1]
    assert output.count("[default: ") == len(DeidentifyOptions.model_fields)


def test_a_hit_in_the_name_of_a_file_is_reported_without_it() -> None:
    hit = Hit(output="erika.txt", kind="name", tag=1, encoding="UTF-8", where="name", offset=0)
    assert "erika" not in proof.place(hit)


def test_the_report_names_what_to_hand_out_and_how_to_prove_it() -> None:
    report = deidentification_markdown(OUTCOME)
    assert "Hand out `out/images` alone" in report
    assert "radloop deidentify --verify out --against SRC" in report


def test_the_report_lists_each_reason_and_its_meaning() -> None:
    report = deidentification_markdown(OUTCOME)
    assert f"| burned-in-text | 2 | {MEANINGS['burned-in-text']} |" in report
    assert f"| not-dicom | 3 | ignored: {MEANINGS['not-dicom']} |" in report


def test_the_report_counts_patients_that_may_be_one() -> None:
    report = deidentification_markdown(DeidentifyOutcome(**{**vars(OUTCOME), "patient_variants": 4}))
    assert "4 patients" in report
    assert "--patient-variants join" in report


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return a source of three real slices of two patients."""
    rows = np.tile(np.arange(64), (64, 1))
    for number, patient in enumerate(("00481516", "481516", "PID-2342")):
        changes = {
            "PatientID": patient,
            "PatientName": "MUSTERMANN^ERIKA",
            "StudyDate": "20240229",
            "BodyPartExamined": "CHEST",
            "SOPInstanceUID": f"1.2.826.0.1.3.{number + 1}",
        }
        write_dicom(tmp_path / "archive" / f"erika-{number}", rows, **changes)
    return tmp_path / "archive"


@pytest.mark.slow
def test_a_source_is_written_and_proven(
    radloop: Callable[..., tuple[int, str]], archive: Path, tmp_path: Path
) -> None:
    code, output = radloop("deidentify", archive, tmp_path / "out")
    assert (code, "3 objects of 3 patients stand" in output) == (0, True), output
    assert f"Keep a copy of {tmp_path / 'home' / 'private' / 'pseudonym.key'}" in output
    code, output = radloop("deidentify", "--verify", tmp_path / "out", "--against", archive)
    assert (code, "no original value was found" in output) == (0, True), output


@pytest.mark.slow
def test_spellings_of_a_number_are_joined_where_asked(
    radloop: Callable[..., tuple[int, str]], archive: Path, tmp_path: Path
) -> None:
    output = radloop("deidentify", archive, tmp_path / "joined", "--patient-variants", "join")[1]
    assert "3 objects of 2 patients stand" in output, output


@pytest.mark.slow
def test_a_planted_identifier_fails_the_proof(
    radloop: Callable[..., tuple[int, str]], archive: Path, tmp_path: Path
) -> None:
    radloop("deidentify", archive, tmp_path / "out")
    leak = next((tmp_path / "out" / "images").rglob("*.dcm"))
    dataset = pydicom.dcmread(leak)
    dataset.SoftwareVersions = "for mustermann"
    dataset.save_as(leak)
    code, output = radloop("deidentify", "--verify", tmp_path / "out", "--against", archive)
    assert code == 1
    assert f"found: {leak.relative_to(tmp_path / 'out')}, a name" in output
    assert "mustermann" not in output.casefold()
