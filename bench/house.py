"""Counts of what makes a tree hard to read: `python -m bench.house [CHECKOUT ...]` prints a column for each."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOTS = ("cli", "flows", "tasks", "services", "models", "imaging", "infra", "bench")
DIALECT = frozenset(
    [
        "told",
        "tell",
        "tells",
        "teller",
        "tellers",
        "say",
        "says",
        "said",
        "words",
        "found",
        "those",
        "hold",
        "holds",
        "held",
        "settle",
        "settled",
        "settles",
        "swift",
        "swiftly",
        "spread",
        "twin",
        "twins",
        "glance",
        "glances",
        "glanced",
        "parcel",
        "parcels",
        "draft",
        "drafts",
        "drafted",
    ]
)
"""Words that say nothing to a reader of another team; design.md names what stands for each."""
SHORT_LINES = 40


def modules(checkout: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Yield the modules of a checkout that hold code, without its tests."""
    for root in ROOTS:
        for path in sorted((checkout / root).rglob("*.py")):
            if source := path.read_text():
                yield path.relative_to(checkout), ast.parse(source)


def dialect_names(tree: ast.Module) -> list[str]:
    """Return the names of functions, classes, arguments and variables of a module that have a word of the dialect.

    >>> dialect_names(ast.parse("def told(words): found_it = 1; found_it = 2"))
    ['found_it', 'told', 'words']
    """
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
    return sorted(name for name in names if DIALECT & _parts(name))


def inner_imports(tree: ast.Module) -> int:
    """Return how many imports stand inside of functions."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    inner = {
        id(node)
        for outer in functions
        for node in ast.walk(outer)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    return len(inner)


def counts(checkout: Path) -> dict[str, int]:
    """Return the counts of a checkout."""
    parsed = list(modules(checkout))
    lines = {path: len((checkout / path).read_text().splitlines()) for path, _ in parsed}
    product = [(path, tree) for path, tree in parsed if path.parts[0] != "bench"]
    return {
        "identifiers of the dialect": sum(len(dialect_names(tree)) for _, tree in product),
        'modules that begin with "Owns"': sum(
            (ast.get_docstring(tree) or "").startswith("Owns") for _, tree in parsed
        ),
        "lines of code, without tests and bench": sum(lines[path] for path, _ in product),
        f"files under {SHORT_LINES} lines": sum(lines[path] < SHORT_LINES for path, _ in product),
        "imports inside functions": sum(inner_imports(tree) for _, tree in product),
        "modules": len(product),
    }


@cache
def _parts(name: str) -> frozenset[str]:
    return frozenset(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_"))


def main(checkouts: list[str]) -> None:
    columns = [counts(Path(place)) for place in checkouts or ["."]]
    for what in columns[0]:
        print(f"{what:40}" + "".join(f"{column[what]:>10,}" for column in columns))


if __name__ == "__main__":
    main(sys.argv[1:])
