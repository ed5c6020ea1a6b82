"""Bodies of `radloop config ...`: the request that a command would take, with origins, and the faults of a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel, ValidationError
from rich.text import Text

from cli.options import as_request, ask, faults_of, load_config, read_config, unknown_names
from cli.render.configuration import commented_yaml
from cli.terminal import print_result
from services.flow_requests import DeidentifyRequest, NightlyRequest

FAULTY = 2


def show(config: Path | None, as_json: bool, **options: Any) -> None:
    """Print the effective request of a night, and where each value comes from."""
    given = as_request(options)
    request = ask(NightlyRequest, config, given)
    values = request.model_dump(mode="json")
    written = read_config(config, NightlyRequest) if config else {}
    origins = {
        path: "option" if _has(given, path) else str(config) if _has(written, path) else "default"
        for path in leaves(values)
    }
    text = commented_yaml(values, {path: (origin,) for path, origin in origins.items()})
    content = {"values": values, "from": {".".join(path): origin for path, origin in origins.items()}}
    print_result(content, Text(text), as_json)


def check(file: Path, as_json: bool) -> None:
    """Print all faults of a configuration file."""
    content = load_config(file)
    faults = [f"{name}: no command knows this name" for name in unknown_names(content)]
    kinds: list[type[BaseModel]] = [NightlyRequest]
    if {"destination", "options"} & content.keys():
        kinds.append(DeidentifyRequest)
    for kind in kinds:
        try:
            kind.model_validate({name: value for name, value in content.items() if name in kind.model_fields})
        except ValidationError as error:
            # What is not there an option may give.
            faults += faults_of(item for item in error.errors() if item["type"] != "missing")
    faults = list(dict.fromkeys(faults))
    count = f"{len(faults)} fault{'s' * (len(faults) > 1)}"
    text = "\n  ".join([f"{file} has {count}:", *faults]) if faults else f"{file} is good"
    print_result({"file": str(file), "faults": faults}, Text(text), as_json)
    if faults:
        raise typer.Exit(FAULTY)


def leaves(values: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the paths of the values below which there are no names.

    >>> leaves({"a": {"b": 1}, "c": [2]})
    [('a', 'b'), ('c',)]
    """
    paths: list[tuple[str, ...]] = []
    for name, value in values.items():
        below = leaves(value) if isinstance(value, Mapping) and value else [()]
        paths += [(name, *path) for path in below]
    return paths


def _has(values: Any, path: tuple[str, ...]) -> bool:
    """Return whether a value was written: by its whole path, or as a short form of what is above it."""
    for name in path:
        if not isinstance(values, Mapping):
            return values is not None
        if values.get(name) in (None, "", []):
            return name in values and values[name] is None
        values = values[name]
    return True
