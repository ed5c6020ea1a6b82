"""Configuration as text: YAML with comments, and the reference page and example file that the models make.

`python -m cli.render.configuration` writes the page and the file anew.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

import yaml
from pydantic import AliasChoices, BaseModel

from imaging.preprocess.spec import PreprocessSpec
from models.networks.catalog import NETWORKS
from services.flow_requests import REQUESTS, DeidentifyRequest, NightlyRequest
from services.settings import Settings

Schema = Mapping[str, Any]
Names = tuple[str, ...]
DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = {"nightly": "run"}
"""Of flows that are called otherwise than their command."""
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
}
TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
NO_DEFAULT = "required"
PART = "the names below"
COMMENT_WIDTH = 100
LEAST_PX = 16
"""Side of the smallest images that a configuration may ask for."""


class Field(NamedTuple):
    """One value of a configuration: its names from the top, what it may be, its default and its description."""

    path: Names
    values: str
    default: str
    description: str


def fields_of(kind: type[BaseModel]) -> list[Field]:
    """Return the values of a request in their order, those of its parts below them."""
    schema = kind.model_json_schema()
    return list(_fields(schema, schema.get("$defs", {}), ()))


def commented_yaml(
    values: Mapping[str, Any], comments: Mapping[Names, tuple[str, ...]], *, above: bool = False
) -> str:
    """Return values as YAML with comments: behind each value, or in lines above it."""
    return "\n".join(_lines(values, comments, (), above))


def _lines(
    values: Mapping[str, Any], comments: Mapping[Names, tuple[str, ...]], path: Names, above: bool
) -> Iterator[str]:
    indent = "  " * len(path)
    for name, value in values.items():
        here = (*path, name)
        notes = comments.get(here, ())
        if above:
            yield from (f"{indent}# {note}" for note in notes)
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}:"
            yield from _lines(value, comments, here, above)
            continue
        text = f"{indent}{name}: {_text(value)}"
        yield text if above or not notes else f"{text}  # {'; '.join(notes)}"


def _fields(schema: Schema, parts: Mapping[str, Schema], path: Names) -> Iterator[Field]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        kinds = [_resolved(kind, parts) for kind in field.get("anyOf", [field])]
        default = NO_DEFAULT if name in required else _text(field.get("default"))
        part = next((kind for kind in kinds if "properties" in kind), None)
        if part is not None:
            default = "" if isinstance(field.get("default"), Mapping) else default
        yield Field(
            path=(*path, name),
            values=" or ".join(dict.fromkeys(_values({**kind, **_bounds(field)}) for kind in kinds)),
            default=default,
            description=field.get("description") or (part or {}).get("description", ""),
        )
        if part is not None:
            yield from _fields(part, parts, (*path, name))


def _resolved(schema: Schema, parts: Mapping[str, Schema]) -> Schema:
    return parts[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _bounds(schema: Schema) -> Schema:
    return {name: schema[name] for name in (*BOUNDS, "enum") if name in schema}


def _values(schema: Schema) -> str:
    if "enum" in schema or "const" in schema:
        return "one of " + ", ".join(map(_text, schema.get("enum", [schema.get("const")])))
    if "properties" in schema:
        return PART
    kind = schema.get("type", "")
    if kind == "array":
        return "list"
    bounds = [text.format(_text(schema[name])) for name, text in BOUNDS.items() if name in schema]
    return ", ".join([str(TYPES.get(kind, kind)), *bounds]) if kind != "null" else "null"


def _text(value: Any) -> str:
    if isinstance(value, str) and "\n" in value:
        # A text of JSON is one of YAML.
        return json.dumps(value)
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).split("\n")[0]


INTRODUCTION = """# Configuration

A file for `--config` is YAML or JSON. One file serves all commands: each takes the names that it knows. Options on the
command line win over the file, and the file over the defaults. [example.yaml](example.yaml) is a complete file.

```sh
radloop config check radloop.yaml   # all faults of a file at once
radloop config show --config radloop.yaml --epochs 3   # what `run` would take, and where each value comes from
radloop run --config radloop.yaml --dry-run   # what a night would read, train and compare
```

What `config show` prints is a file for `--config` itself. In the forms on Prefect's page the names are the same.

This page and the example are made from the models of the code: `python -m cli.render.configuration` writes them anew.
"""

NETWORKS_INTRODUCTION = """
## Networks

Parameters are of two classes and one channel, or of 32 slices. A network of images takes the slices of a volume as its
channels, and gives classes of it; a network of volumes sees them as depth. A stem for small images keeps their size up
to the first block: at 224 px it costs four to sixteen times as much as the published stem (`_224`).
"""


def reference_page() -> str:
    """Return the page docs/configuration.md."""
    head = ("name", "of", "values", "default", "what it is")
    parts = [
        INTRODUCTION,
        "## Names of a file\n",
        _table(head, map(_row, fields_of(NightlyRequest))),
        NETWORKS_INTRODUCTION,
        _table(("network", "what it is", "of", "gives", "parameters"), _networks()),
        "\n## Names of a de-identification\n",
        _table(head, map(_row, fields_of(DeidentifyRequest))),
        "\n## Environment variables\n",
        "They say where things are, and stand in no file.\n",
        _table(("variable", "default", "what it is"), _variables()),
        "",
    ]
    return "\n".join(parts)


def example_file() -> str:
    """Return the file docs/example.yaml: each name with its default, below what it is."""
    night = NightlyRequest(source="/archive/ct", labels="/archive/labels.csv", preprocess=PreprocessSpec())
    release = DeidentifyRequest(source="/archive/ct", destination="/released/ct")
    values = night.model_dump(mode="json") | release.model_dump(mode="json", exclude={"source"})
    kinds = (DeidentifyRequest, NightlyRequest)
    comments = {field.path: _comment(field) for kind in kinds for field in fields_of(kind)}
    head = (
        "# Complete configuration: all names, with their defaults. Made by `python -m cli.render.configuration`.\n"
        "# Keep the lines that you change, and drop the rest: defaults of later releases may be better.\n"
    )
    return f"{head}\n{commented_yaml(values, comments, above=True)}\n"


def _comment(field: Field) -> tuple[str, ...]:
    needed = NO_DEFAULT if field.default == NO_DEFAULT else f"default: {field.default or PART}"
    values = "" if field.values == PART else f"({field.values}; {needed})"
    return tuple(wrap(f"{field.description} {values}".strip(), COMMENT_WIDTH))


def _row(field: Field) -> tuple[str, ...]:
    takers = [
        COMMANDS.get(flow, flow) for flow, kind in REQUESTS.items() if field.path[0] in kind.model_fields
    ]
    commands = ", ".join(takers) if len(field.path) == 1 else ""
    return (f"`{'.'.join(field.path)}`", commands, field.values, field.default, field.description)


def _variables() -> Iterator[tuple[str, ...]]:
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        variable = str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"RADLOOP_{name.upper()}"
        default = "" if field.default is None else str(field.default)
        yield f"`{variable}`", default, field.description or ""


def _networks() -> Iterator[tuple[str, ...]]:
    kinds = {2: "images", 3: "volumes"}
    for name, row in NETWORKS.items():
        title = f"{row.title}, from {row.least_px} px" if row.least_px > LEAST_PX else row.title
        yield f"`{name}`", title, kinds[row.dimensions], row.output, f"{row.parameters:,}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


if __name__ == "__main__":
    (DOCS / "configuration.md").write_text(reference_page())
    (DOCS / "example.yaml").write_text(example_file())
