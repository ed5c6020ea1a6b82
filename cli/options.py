"""Requests from options and a configuration file."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from imaging.errors import UserFault
from services.flow_requests import DeidentifyRequest, NightlyRequest, TuneRequest

Asked = TypeVar("Asked", bound=BaseModel)

PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "training": ("objective", "network", "epochs", "workers"),
        "preprocess": ("modality", "window"),
        "search": ("trials",),
    }
)
"""Options by the part of the request that they belong to."""
KNOWN = tuple(NightlyRequest.model_fields | TuneRequest.model_fields | DeidentifyRequest.model_fields)
"""Names of a configuration file: one file serves all commands, and each takes its part of it."""


def ask(kind: type[Asked], config: Path | None, options: dict[str, Any]) -> Asked:
    """Return the request of a configuration file and of options; options that were not given do not count."""
    values = read_config(config, kind) if config else {}
    try:
        return kind.model_validate(overlay(values, options))
    except ValidationError as error:
        place = f"{config} or the options" if config else "the options"
        raise UserFault(
            f"{'; '.join(faults_of(error.errors()))}: correct {place}, --help lists them"
        ) from error


def faults_of(errors: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a line for each value that was refused."""
    return [
        # What a check of ours says names the value itself.
        item["msg"].removeprefix("Value error, ")
        if item["type"] == "value_error"
        else f"{'.'.join(map(str, item['loc']))}: {item['msg']}, got {item['input']!r}"
        for item in errors
    ]


def as_request(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a command that were given, as its request names them.

    >>> as_request({"dataset": "d", "epochs": 3, "window": None})
    {'dataset': 'd', 'training': {'epochs': 3}}
    """
    given = {name: value for name, value in options.items() if value is not None}
    parts = {
        part: {name: given.pop(name) for name in names if name in given} for part, names in PARTS.items()
    }
    return given | {part: values for part, values in parts.items() if values}


def overlay(values: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with options laid over them, those of a part over that part; None, "" and [] were not given.

    >>> overlay({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": None}, "d": ""})
    {'a': {'b': 3, 'c': 2}}
    """
    merged = dict(values)
    for name, value in options.items():
        if isinstance(value, Mapping):
            below = merged.get(name) or {}
            # What is no mapping is left for the model to refuse, with its name.
            merged[name] = overlay(below, value) if isinstance(below, Mapping) else below
        elif value not in (None, "", []):
            merged[name] = value
    return merged


def read_config(path: Path, kind: type[BaseModel]) -> dict[str, Any]:
    """Return what a configuration file has for a request."""
    content = load_config(path)
    for name in unknown_names(content):
        raise UserFault(f"{path} has the unknown name {name!r}: use one of {', '.join(KNOWN)}")
    return {name: value for name, value in content.items() if name in kind.model_fields}


def load_config(path: Path) -> dict[str, Any]:
    """Return the content of a configuration file; YAML reads JSON too."""
    if not path.is_file():
        raise UserFault(f"no configuration file at {path}: give --config the path of a YAML or JSON file")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserFault(f"{path} is not valid YAML: {error}; correct it there") from error
    if not isinstance(content, dict):
        raise UserFault(
            f"{path} holds {type(content).__name__} and must hold names with values, such as 'source: FOLDER'"
        )
    return content


def unknown_names(content: Mapping[str, Any]) -> list[Any]:
    """Return the names of a configuration file that no command knows."""
    return [name for name in content if name not in KNOWN]
