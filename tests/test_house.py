"""Names, docstrings and sizes of the tree: what a new reader needs, held by counts of `bench.house`."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from bench.house import dialect_names, inner_imports, modules
from tests.conftest import REPOSITORY

LONGEST_LINES = 350
INNER_IMPORTS = 51
"""At most: what a command does not need it does not load, so some imports stay inside functions."""

ALIKE = ("classification", "export", "multilabel", "segmentation")
"""Modules of one name: objectives and their measures; the export of a dataset, and of a model."""


@pytest.fixture(scope="module")
def parsed() -> list[tuple[Path, ast.Module]]:
    return list(modules(REPOSITORY))


@pytest.fixture(scope="module")
def parsed_tests() -> list[tuple[Path, ast.Module]]:
    paths = sorted((REPOSITORY / "tests").rglob("*.py"))
    return [(path.relative_to(REPOSITORY), ast.parse(path.read_text())) for path in paths]


def test_no_name_is_of_the_old_dialect(
    parsed: list[tuple[Path, ast.Module]], parsed_tests: list[tuple[Path, ast.Module]]
) -> None:
    files = [*parsed, *parsed_tests]
    assert {str(path): names for path, tree in files if (names := dialect_names(tree))} == {}


def test_every_module_has_a_docstring(parsed: list[tuple[Path, ast.Module]]) -> None:
    silent = [str(path) for path, tree in parsed if tree.body and not ast.get_docstring(tree)]
    assert silent == []


def test_no_docstring_begins_with_owns(
    parsed: list[tuple[Path, ast.Module]], parsed_tests: list[tuple[Path, ast.Module]]
) -> None:
    docstrings = {str(path): ast.get_docstring(tree) or "" for path, tree in [*parsed, *parsed_tests]}
    assert [path for path, docstring in docstrings.items() if docstring.startswith("Owns")] == []


def test_no_file_is_longer_than_one_idea(parsed: list[tuple[Path, ast.Module]]) -> None:
    lines = {str(path): len((REPOSITORY / path).read_text().splitlines()) for path, _ in parsed}
    assert {path: count for path, count in lines.items() if count > LONGEST_LINES} == {}


def test_no_two_classes_share_a_name(parsed: list[tuple[Path, ast.Module]]) -> None:
    places = defaultdict(list)
    for path, tree in parsed:
        if path.parts[0] != "bench":
            for node in tree.body:
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(str(path))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_no_two_modules_share_a_name(parsed: list[tuple[Path, ast.Module]]) -> None:
    places = defaultdict(list)
    for path, _ in parsed:
        # A command, its flow and its steps have one name; each room with several implementations has its protocol.
        if path.parts[0] not in ("bench", "cli", "flows", "tasks") and path.name not in (
            "__init__.py",
            "protocol.py",
        ):
            places[path.stem].append(str(path))
    repeated = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert repeated == {name: repeated.get(name) for name in ALIKE}


def test_imports_stand_at_the_top(parsed: list[tuple[Path, ast.Module]]) -> None:
    inner = {str(path): inner_imports(tree) for path, tree in parsed if path.parts[0] != "bench"}
    assert sum(inner.values()) <= INNER_IMPORTS


def test_a_name_of_the_dialect_is_seen_wherever_it_stands() -> None:
    tree = ast.parse("class Teller:\n  def f(self, words):\n    found = [swift for swift in words]")
    assert dialect_names(tree) == ["Teller", "found", "swift", "words"]
