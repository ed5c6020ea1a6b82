"""Schema of a form on Prefect's page: what is required is marked, and a value that may be left out is one blank field.

Prefect draws a form from the JSON schema of a flow's parameters. Of pydantic's `anyOf` with null it makes a choice
between two types, of which the second reads 'Property is type "None"'; of a `const`, a field that cannot be changed.
Its server takes null for a value that has a type, no choices and no default, so runs made before stay valid there.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Schema = dict[str, Any]
Resolve = Callable[[Schema], Schema]
AUTOMATIC = "automatic"
"""What the form shows and sends for a part, such as the preprocessing, that follows from the rest."""
NULL: Mapping[str, str] = {"type": "null"}
REQUIRED = " (required)"
"""Prefect itself marks what is optional alone."""


def shape_for_form(schema: Schema, asked: tuple[str, ...], resolve: Resolve) -> None:
    """Rewrite the schema of a request and those of its parts in place.

    `asked` are fields whose empty default a form does not take; `resolve` returns what a reference leads to.
    """
    top = resolve(schema)
    top["required"] = [*asked, *(name for name in top.get("required", ()) if name not in asked)]
    for name in asked:
        top["properties"][name] |= {"minLength": 1}
        top["properties"][name].pop("default", None)
    for part in _parts(top, resolve, []):
        for name, field in part.get("properties", {}).items():
            _shape(field)
            if name in part.get("required", ()) and not field.get("title", "").endswith(REQUIRED):
                field["title"] = field.get("title", name) + REQUIRED
    if not top["required"]:
        del top["required"]


def _parts(schema: Schema, resolve: Resolve, seen: list[str]) -> Iterator[Schema]:
    """Yield the schema of an object and those of all objects inside it, each once."""
    yield schema
    for field in schema.get("properties", {}).values():
        for kind in [field, field.get("items", {}), *field.get("anyOf", ())]:
            if "$ref" in kind and kind["$ref"] not in seen:
                seen.append(kind["$ref"])
                yield from _parts(resolve({"$ref": kind["$ref"]}), resolve, seen)


def _shape(field: Schema) -> None:
    if "default" in field:
        field["default"] = _without_nulls(field["default"])
    if NULL in field.get("anyOf", ()):
        rest = [kind for kind in field.pop("anyOf") if kind != NULL]
        if field.get("default") is None:
            field.pop("default", None)
        if len(rest) == 1 and "$ref" not in rest[0]:
            field |= rest[0] | field
        else:
            # Without a choice of its own the form would fill in the part's defaults, which mean something else.
            left_out = {"type": "string", "enum": [AUTOMATIC], "title": AUTOMATIC}
            field |= {"anyOf": [left_out, *rest], "default": AUTOMATIC}
    for kind in [field, *field.get("anyOf", ())]:
        if "const" in kind:
            kind["enum"] = [kind.pop("const")]


def _without_nulls(value: Any) -> Any:
    """Return a value without the fields of its parts that are null."""
    if isinstance(value, Mapping):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value
