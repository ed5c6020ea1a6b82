"""Pages: every command in them exists, and every command is in them."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from cli.main import app
from imaging.dicom.findings import FINDINGS
from imaging.refusal_reasons import IGNORED, REASONS
from services.flow_requests import NightlyRequest

REPOSITORY = Path(__file__).parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    """Return (page, content) of the code blocks in a language."""
    return [
        (page.name, content)
        for page in PAGES
        for kind, content in BLOCK.findall(page.read_text())
        if kind == language
    ]


def shell_lines() -> list[tuple[str, str]]:
    return [
        (page, line.strip())
        for page, content in blocks("sh")
        for line in content.splitlines()
        if line.strip()
    ]


@pytest.mark.parametrize(("page", "line"), [item for item in shell_lines() if item[1].startswith("radloop ")])
def test_a_radloop_line_of_the_pages_is_understood(page: str, line: str) -> None:
    arguments = [word for word in shlex.split(line, comments=True)[1:] if word != "..."]
    while arguments[0].startswith("--"):
        arguments = arguments[2:]
    command = COMMANDS[arguments[0]]
    if isinstance(command, typer.core.TyperGroup):
        command = command.commands[arguments[1]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in arguments[1:] if word.startswith("--")} <= known


@pytest.mark.parametrize(("page", "line"), [item for item in shell_lines() if item[1].startswith("make ")])
def test_a_make_line_of_the_pages_names_a_target(page: str, line: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert set(shlex.split(line, comments=True)[1:]) <= set(targets)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_in_a_page(name: str) -> None:
    assert any(f"radloop {name}" in page.read_text() for page in PAGES)


@pytest.mark.parametrize(("page", "content"), blocks("yaml"))
def test_a_configuration_of_the_pages_is_valid(page: str, content: str) -> None:
    NightlyRequest.model_validate(yaml.safe_load(content))


@pytest.mark.parametrize(("page", "content"), blocks("python"))
def test_a_python_block_of_the_pages_compiles(page: str, content: str) -> None:
    compile(content, page, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_of_the_pages_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_no_page_names_a_path_of_one_machine() -> None:
    assert [page.name for page in PAGES if re.search(r"/(home|root|work|Users)/", page.read_text())] == []


@pytest.mark.parametrize(("name", "meaning"), [*IGNORED.items(), *REASONS.items(), *FINDINGS.items()])
def test_every_reason_and_finding_is_in_the_page(name: str, meaning: str) -> None:
    assert f"| {name} | {meaning} |\n" in (REPOSITORY / "docs" / "reading.md").read_text()
