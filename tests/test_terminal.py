"""Terminal: progress and outcomes, without the libraries' noise and without traces of errors that have a message."""

import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console

from cli import flow_run
from cli.dispatch import verbosity
from cli.terminal import LIBRARIES, NOISE, NoiseFilter, quiet_logs
from imaging.errors import RadloopError, UserFault
from services.flow_requests import REQUESTS
from services.mlflow.registry import Registered
from tasks.report.outcomes import RENDERERS
from tasks.training import TrainOutcome

OUTCOME = TrainOutcome(
    candidate=Registered(name="chest", version=7, run_id="r", tags={"network": "small_cnn"}),
    trained_now=False,
    best_epoch=None,
    history=(),
    timings_s={},
)


def shown(text: str, error: Exception | None = None) -> bool:
    trace = None if error is None else (type(error), error, None)
    return NoiseFilter().filter(logging.LogRecord("prefect", logging.INFO, "file", 1, text, (), trace))


@contextmanager
def root_console() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """Give the root logger a console of its own, and put everything back."""
    logger, text = logging.getLogger(), io.StringIO()
    before = {name: logging.getLogger(name).level for name in ("", *LIBRARIES)}
    others, logger.handlers = logger.handlers, [logging.StreamHandler(text)]
    logger.setLevel(logging.INFO)
    try:
        yield logger, text
    finally:
        logger.handlers = others
        for name, value in before.items():
            logging.getLogger(name).setLevel(value)


def test_progress_is_shown() -> None:
    assert shown("12/100 files, 50 files/s, 2 s left")


@pytest.mark.parametrize("noise", NOISE)
def test_noise_is_not(noise: str) -> None:
    assert not shown(f"{noise} 'brave-lynx'")


def test_an_error_of_ours_leaves_no_trace() -> None:
    assert not shown("Encountered exception during execution", UserFault("no such folder"))


def test_an_error_that_nobody_expected_is_shown() -> None:
    assert shown("Encountered exception during execution", ValueError("a bug"))


def test_a_quiet_console_lets_progress_pass() -> None:
    with root_console() as (logger, text):
        quiet_logs()
        logger.info("Beginning flow run 'x'")
        logger.info("epoch 1/2")
    assert text.getvalue().split("  ", 1)[1] == "epoch 1/2\n"


def test_a_quiet_console_shows_no_trace_of_an_error_of_ours() -> None:
    with root_console() as (logger, text):
        quiet_logs()
        try:
            raise RadloopError("told")
        except RadloopError:
            logger.exception("Encountered exception during execution")
    assert text.getvalue() == ""


def test_libraries_are_quiet_and_still_log_errors() -> None:
    with root_console():
        quiet_logs()
        assert not logging.getLogger("mlflow").isEnabledFor(logging.WARNING)
        assert logging.getLogger("mlflow").isEnabledFor(logging.ERROR)


def test_an_outcome_is_printed_with_its_time(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    console = Console(file=io.StringIO(), width=200)
    monkeypatch.setattr(flow_run, "console", console)
    flow_run.print_outcome("train", OUTCOME, 1.25, 30.0)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "version 7 of chest" in printed
    assert "1.2 s to load and 30.0 s to run" in capfd.readouterr().err


def test_a_verbose_console_shows_what_libraries_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbosity, "verbose", True)
    with root_console() as (logger, text):
        quiet_logs()
        logger.info("Beginning flow run 'x'")
        assert logging.getLogger("mlflow").isEnabledFor(logging.INFO)
    assert "Beginning flow run" in text.getvalue()


def test_a_console_that_was_asked_to_be_quiet_shows_errors_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbosity, "quiet", True)
    with root_console() as (logger, text):
        quiet_logs()
        logger.info("epoch 1/2")
        logger.error("no room")
    assert text.getvalue().split("  ", 1)[1] == "no room\n"


def test_every_flow_but_the_night_has_its_renderer() -> None:
    assert set(RENDERERS) == set(REQUESTS) - {"nightly"}


HEAVY = {"ray", "mlflow", "torch", "prefect", "boto3", "pyarrow", "scipy", "pydicom", "matplotlib"}


def test_the_command_line_loads_nothing_heavy_before_a_command_needs_it() -> None:
    code = f"import sys, cli.main; sys.exit(' '.join({HEAVY} & set(sys.modules)) or 0)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.slow
def test_prefect_is_loaded_by_no_look_before_a_flow() -> None:
    """It reads where its server is when it is loaded, which must be after the running stack was looked for."""
    code = "import sys, cli.main, services.preflight; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
