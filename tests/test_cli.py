"""Command line: what a person can mend ends with exit code 2, a message with the remedy, and nothing half-done."""

import ast
import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from cli.main import app, main
from imaging.dataset.version.dataset_version import newest_version
from imaging.release_compatibility import RELEASE
from imaging.store.folder_store import FolderStore
from services.mlflow.registry import Registered
from tasks.training import TrainOutcome
from tests.conftest import REPOSITORY, Running
from tests.synthetic import closed_port, version_of, write_archive, write_dicom, write_labels


@dataclass(frozen=True)
class CommandResult:
    """How a command ended, what it printed and what it left in its home."""

    code: int
    text: str
    home: Path


Radloop = Callable[..., CommandResult]
OUTCOME = TrainOutcome(
    candidate=Registered(name="chest", version=7, run_id="r", tags={"network": "small_cnn"}),
    trained_now=False,
    best_epoch=None,
    history=(),
    timings_s={},
)


def names_of_commands(group: Any, above: str = "") -> set[str]:
    """Return the commands of a group and of the groups in it, as they are typed."""
    names = set()
    for name, command in group.commands.items():
        below = (
            names_of_commands(command, f"{above}{name} ")
            if hasattr(command, "commands")
            else {f"{above}{name}"}
        )
        names |= below
    return names


COMMANDS = names_of_commands(typer.main.get_command(app))


@pytest.fixture
def radloop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], plain_flows: list[Any]
) -> Radloop:
    """Run a command in this process, its flow without Prefect."""

    def run(*arguments: str | Path) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["radloop", "--home", str(tmp_path / "home"), *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "400")
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        return CommandResult(
            int(ended.value.code or 0), " ".join((printed.out + printed.err).split()), tmp_path / "home"
        )

    return run


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_archive(tmp_path_factory.mktemp("archive") / "dicom")


def refused(result: CommandResult, *texts: str) -> None:
    """Check that a command was refused with these texts, and that nothing half-done can be seen."""
    assert result.code == 2, result.text
    assert "error:" in result.text
    assert "Traceback" not in result.text
    assert [text for text in texts if text not in result.text] == [], result.text
    assert newest_version(FolderStore(result.home / "store"), "radloop") is None
    assert not (result.home / "mlflow.db").exists()


def dispatched() -> list[tuple[str, str, set[str]]]:
    """Return command, target and options of each command that is carried out elsewhere."""
    calls = []
    for path in [REPOSITORY / "cli" / "main.py", *sorted((REPOSITORY / "cli" / "commands").glob("*.py"))]:
        functions = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)
        ]
        for function in functions:
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "carry_out":
                    options = {keyword.arg for keyword in call.keywords if keyword.arg} - {"below"}
                    if any(keyword.arg is None for keyword in call.keywords):
                        options |= {argument.arg for argument in function.args.args}
                    calls.append((function.name, ast.literal_eval(call.args[0]), options))
    return calls


@pytest.mark.parametrize(
    ("name", "target", "options"), dispatched(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_has_a_body_that_takes_its_options(name: str, target: str, options: set[str]) -> None:
    module, _, function = target.partition(":")
    inspect.signature(getattr(import_module(f"cli.{module}"), function)).bind(**dict.fromkeys(options))


def test_no_source_is_refused(radloop: Radloop) -> None:
    refused(radloop("run"), "no source was given", "--source")


@pytest.mark.parametrize("command", ["run", "ingest", "reevaluate"])
def test_a_folder_that_is_not_there_is_refused(
    radloop: Radloop, archive: tuple[Path, Path], tmp_path: Path, command: str
) -> None:
    result = radloop(command, "--source", tmp_path / "nowhere", "--labels", archive[1])
    refused(result, f"{tmp_path}/nowhere does not exist", "give a folder of DICOM, NIfTI or picture files")
    assert not result.home.exists()


def test_an_empty_folder_is_refused(radloop: Radloop, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(
        radloop("run", "--source", tmp_path / "empty"), f"{tmp_path}/empty holds no files", "give --source"
    )


@pytest.mark.slow
def test_a_folder_without_images_is_refused(
    radloop: Radloop, tmp_path: Path, archive: tuple[Path, Path]
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("not an image")
    result = radloop("ingest", "--source", tmp_path / "notes", "--labels", archive[1])
    refused(result, "no usable image in the 1 file of", "1 x not-dicom", "is it the right folder?")


@pytest.mark.slow
def test_an_archive_of_another_modality_is_refused_with_the_line_to_type(
    radloop: Radloop, tmp_path: Path, archive: tuple[Path, Path]
) -> None:
    write_dicom(tmp_path / "mr" / "a", np.zeros((16, 16)), Modality="MR")
    result = radloop("ingest", "--source", tmp_path / "mr", "--labels", archive[1])
    refused(result, "1 x wrong-modality", "found 1 MR, expected CT: add --modality MR to take these in")


def test_dicom_without_labels_is_refused(radloop: Radloop, archive: tuple[Path, Path]) -> None:
    refused(radloop("run", "--source", archive[0]), "carries no labels", "--labels LABELS.csv")


def test_a_label_table_that_is_not_there_is_refused(radloop: Radloop, archive: tuple[Path, Path]) -> None:
    result = radloop("run", "--source", archive[0], "--labels", "nowhere.csv")
    refused(result, "no label table at nowhere.csv", "give --labels")


def test_a_label_column_that_is_not_there_is_refused(radloop: Radloop, archive: tuple[Path, Path]) -> None:
    result = radloop("run", "--source", archive[0], "--labels", archive[1], "--label-column", "grade")
    refused(result, "['SOPInstanceUID', 'label', 'ward'] and no 'grade'", "give --label-column one of them")


@pytest.mark.slow
def test_one_class_only_is_refused_before_its_splits_are_drawn(
    radloop: Radloop, archive: tuple[Path, Path]
) -> None:
    result = radloop("ingest", "--source", archive[0], "--labels", archive[1], "--label-column", "ward")
    refused(result, "only 'one'", "two classes or more", "check the label table and its label column")


@pytest.mark.slow
def test_too_few_patients_for_the_splits_are_refused(radloop: Radloop, tmp_path: Path) -> None:
    folder, labels = write_archive(tmp_path / "few", 4)
    result = radloop("run", "--source", folder, "--labels", labels)
    refused(
        result, "too few patients for the splits", "has 2 patients", "at least one in each", "add labelled"
    )


@pytest.mark.slow
def test_labels_of_other_images_are_refused(
    radloop: Radloop, archive: tuple[Path, Path], tmp_path: Path
) -> None:
    labels = write_labels(tmp_path / "other.csv", [{"SOPInstanceUID": "9.9", "label": "plain"}])
    result = radloop("ingest", "--source", archive[0], "--labels", labels)
    refused(result, "no label at all", "labels name no image: 1", "--patient-variants join", "lists them")
    assert "names-no-image" in (result.home / "private" / "problems-radloop.csv").read_text()


def test_a_class_to_look_for_that_is_not_there_is_refused(
    radloop: Radloop, archive: tuple[Path, Path]
) -> None:
    result = radloop("ingest", "--source", archive[0], "--labels", archive[1], "--positive", "tumour")
    refused(result, "'tumour' is not among the labels ['contrast', 'plain']", "name one of them")


def test_a_file_of_another_kind_is_refused(radloop: Radloop, tmp_path: Path) -> None:
    (tmp_path / "rows.npz").write_bytes(b"no zip")
    refused(radloop("run", "--source", tmp_path / "rows.npz"), "rows.npz is no NPZ file", "numpy.savez")


def test_a_missing_decoder_stops_the_ingest(
    radloop: Radloop, archive: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydicom.pixels.decoders.base import Decoder

    monkeypatch.setattr(Decoder, "is_available", property(lambda _: False))
    result = radloop("run", "--source", archive[0], "--labels", archive[1])
    refused(result, "no decoder is installed for Explicit VR Little Endian", "install radloop with all its")


@pytest.mark.parametrize(
    ("variable", "server"),
    [
        ("MLFLOW_TRACKING_URI", "MLflow server"),
        ("PREFECT_API_URL", "Prefect server"),
        ("RADLOOP_RAY_ADDRESS", "Ray cluster"),
    ],
)
def test_a_server_that_does_not_answer_is_reported_before_anything_is_read(
    radloop: Radloop, archive: tuple[Path, Path], variable: str, server: str
) -> None:
    os.environ[variable] = address = f"http://127.0.0.1:{closed_port()}"
    result = radloop("run", "--source", archive[0], "--labels", archive[1])
    refused(result, f"no {server} answers at {address}", f"unset {variable}")
    assert not (result.home / "store").exists()


@pytest.mark.parametrize("command", ["train", "evaluate", "reevaluate"])
def test_every_flow_looks_for_its_servers_first(radloop: Radloop, tmp_path: Path, command: str) -> None:
    version_of(FolderStore(tmp_path / "home" / "store"), name="chest")
    os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{closed_port()}"
    refused(radloop(command, "--name", "chest"), "no MLflow server answers")


def test_training_without_data_is_refused(radloop: Radloop) -> None:
    refused(radloop("train", "--name", "chest"), "there is no dataset 'chest'", "run `radloop ingest` first")


def test_an_unknown_network_is_refused_with_the_known_ones(radloop: Radloop) -> None:
    result = radloop("train", "--network", "vgg")
    refused(result, "training.network", "got 'vgg'", "'resnet18'", "correct the options")


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (("--epochs", "0"), ("training.epochs", "greater than or equal to 1", "got 0")),
        (("--workers", "64"), ("batch_size 32 is less than workers 64", "raise batch_size")),
        (("--name", "Chest CT"), ("dataset", "pattern", "got 'Chest CT'")),
    ],
)
def test_a_value_out_of_its_limits_is_refused(
    radloop: Radloop, options: tuple[str, ...], texts: tuple[str, ...]
) -> None:
    refused(radloop("train", *options), *texts)


def test_a_bad_configuration_is_refused(radloop: Radloop, tmp_path: Path) -> None:
    # In brackets, as rich would take it for the end of a style.
    (tmp_path / "radloop.yaml").write_text("gate: {floor: 'so [/b] so'}")
    refused(
        radloop("run", "--config", tmp_path / "radloop.yaml"),
        "gate.floor",
        "got 'so [/b] so'",
        "radloop.yaml",
    )


def test_a_home_that_cannot_be_made_is_refused(
    radloop: Radloop, archive: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "home").write_text("a file")
    result = radloop("ingest", "--source", archive[0], "--labels", archive[1])
    assert (result.code, "cannot make the home" in result.text, "give --home" in result.text) == (
        2,
        True,
        True,
    )


@pytest.mark.parametrize("command", ["run", "ingest"])
def test_spellings_of_a_number_can_be_joined(
    radloop: Radloop, archive: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    requests: list[Any] = []
    monkeypatch.setattr("cli.flow_run.check_request", lambda flow, request, _: requests.append(request))
    monkeypatch.setattr("cli.flow_run.run_flow", lambda *_: None)
    monkeypatch.setattr("cli.night.run_flow", lambda *_: None)
    radloop(command, "--source", archive[0], "--patient-variants", "join")
    assert requests[0].patient_variants == "join"


def test_the_help_cuts_off_no_default(radloop: Radloop) -> None:
    assert "[default: radloop]" in radloop("run", "--help").text


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_a_short_option_of_its_help(radloop: Radloop, command: str) -> None:
    result = radloop(*command.split(), "-h")
    assert (result.code, "-h, --help" in result.text) == (0, True)


@pytest.mark.parametrize("command", sorted(COMMANDS - {"demo"}))
def test_every_command_has_an_option_for_programs(radloop: Radloop, command: str) -> None:
    assert "--json" in radloop(*command.split(), "--help").text


def test_the_version_is_that_of_the_release(radloop: Radloop) -> None:
    assert (radloop("--version").text, version("radloop")) == (f"radloop {RELEASE}", RELEASE)


def test_more_and_less_output_at_once_are_refused(radloop: Radloop) -> None:
    refused(radloop("-v", "-q", "status"), "-v prints more and -q less")


def test_a_quiet_command_prints_its_result_alone(radloop: Radloop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.flow_run.load_flow", lambda name: lambda request: OUTCOME)
    monkeypatch.setattr("cli.flow_run.check_request", lambda *_: None)
    loud, quiet = radloop("train"), radloop("-q", "train")
    assert ("loading" in loud.text, "to load and" in loud.text) == (True, True)
    assert ("loading" in quiet.text, "to load and" in quiet.text) == (False, False)
    assert "version 7 of chest" in quiet.text


def test_options_of_every_command_may_stand_behind_it(radloop: Radloop, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert str(other) in radloop("status", "--home", other).text


def test_an_interrupt_while_the_command_line_loads_prints_nothing() -> None:
    code = (
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(name, *_):\n"
        "        if name == 'cli.main': print('loading', flush=True); time.sleep(60)\n"
        "sys.meta_path.insert(0, Slow)\n"
        "from cli.__main__ import main; main()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        assert (process.wait(), process.stderr.read()) == (-signal.SIGINT, "")


def test_a_flow_with_json_prints_nothing_else_on_standard_output(
    radloop: Radloop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def flow(request: Any) -> Any:
        print("12 files listed")
        return OUTCOME

    monkeypatch.setattr("cli.flow_run.load_flow", lambda name: flow)
    monkeypatch.setattr("cli.flow_run.check_request", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["radloop", "--home", str(tmp_path), "train", "--json"])
    with pytest.raises(SystemExit):
        main()
    printed = capfd.readouterr()
    assert json.loads(printed.out)["candidate"]["version"] == 7
    assert "12 files listed" in printed.err


@pytest.mark.slow
def test_a_shell_completes_commands_options_and_choices(tmp_path: Path) -> None:
    script = tmp_path / "radloop"
    script.write_text(f"#!{sys.executable}\nfrom cli.main import main\nmain()\n")
    script.chmod(0o755)

    def completed(line: str) -> list[str]:
        variables = {
            "COMP_WORDS": line,
            "COMP_CWORD": str(line.count(" ")),
            "_RADLOOP_COMPLETE": "complete_bash",
        }
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
        done = subprocess.run([script], env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert completed("radloop st") == ["status"]
    assert completed("radloop dataset sh") == ["show"]
    assert "--positive" in completed("radloop run --po")
    assert completed("radloop deidentify --dates s") == ["shift"]


@pytest.mark.slow
def test_a_dry_run_prints_the_preview_and_writes_nothing(
    radloop: Radloop, archive: tuple[Path, Path], tmp_path: Path
) -> None:
    result = radloop("run", "--source", archive[0], "--labels", archive[1], "--dry-run")
    assert (result.code, result.home.exists()) == (0, False)
    assert "24 listed: 24 new, 0 changed, 0 gone" in result.text
    assert "yes: there is no version of the dataset yet" in result.text


def test_an_unknown_option_is_refused(radloop: Radloop) -> None:
    result = radloop("train", "--epoch", "3")
    assert (result.code, "No such option" in result.text) == (2, True)


@pytest.mark.slow
def test_a_good_ingest_succeeds_and_reports_its_counts(radloop: Radloop, archive: tuple[Path, Path]) -> None:
    result = radloop("ingest", "--source", archive[0], "--labels", archive[1], "--name", "chest")
    assert (result.code, "24 files listed, 24 read" in result.text) == (0, True)
    assert newest_version(FolderStore(result.home / "store"), "chest") is not None


@pytest.mark.slow
def test_a_refused_second_ingest_leaves_the_first(
    radloop: Radloop, archive: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("ingest", "--source", archive[0], "--labels", archive[1])
    home = radloop(*command).home
    first = newest_version(FolderStore(home / "store"), "radloop")
    assert radloop(*command, "--label-column", "ward").code == 2
    second = newest_version(FolderStore(home / "store"), "radloop")
    assert first is not None
    assert second is not None
    assert second.digest == first.digest


def test_a_bug_is_not_dressed_up(radloop: Radloop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    version_of(FolderStore(tmp_path / "home" / "store"), name="radloop")

    def broken(_: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("cli.flow_run.load_flow", broken)
    with pytest.raises(ZeroDivisionError):
        radloop("train")


def test_a_training_needs_two_classes_whatever_ingest_let_pass(radloop: Radloop, tmp_path: Path) -> None:
    version_of(FolderStore(tmp_path / "home" / "store"), 4, name="chest")
    result = radloop("train", "--name", "chest")
    assert (result.code, "too few patients for the splits" in result.text) == (2, True)


def in_its_own_process(home: Path, *arguments: str | Path, **environment: str) -> CommandResult:
    """Run a command as a person does, Prefect and all."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "--home", str(home), *map(str, arguments)],
        env={**os.environ, "COLUMNS": "400", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return CommandResult(done.returncode, " ".join((done.stdout + done.stderr).split()), home)


@pytest.mark.slow
def test_a_task_that_refuses_leaves_no_trace_in_the_terminal(
    environment: None, tmp_path: Path, prefect_api: str
) -> None:
    folder, labels = write_archive(tmp_path / "few", 4)
    given = ("ingest", "--source", folder, "--labels", labels)
    result = in_its_own_process(tmp_path / "home", *given, PREFECT_API_URL=prefect_api)
    refused(
        result,
        "4 files listed",
        "4 files to read",
        "too few patients for the splits",
        "add labelled patients",
    )


@pytest.mark.slow
def test_a_wrong_token_is_refused_before_anything_is_read(
    stack: Running, archive: tuple[Path, Path], environment: None, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("0" * 64)
    variables = {
        "RADLOOP_RAY_ADDRESS": stack.record.addresses["ray"],
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"),
    }
    command = ("run", "--source", archive[0], "--labels", archive[1])
    refused(
        in_its_own_process(tmp_path / "home", *command, **variables),
        "refuses the token",
        "RAY_AUTH_TOKEN_PATH",
    )
