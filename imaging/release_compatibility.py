"""Compatibility of stored configurations between releases: their canonical JSON, their digests, how they are read.

Fields without a mark are those of release 0.1.0: they are always written. A field that came later is marked with the
release that brought it:

    sharpen: Annotated[float, Since("0.2.0")] = Field(0.0, description="Weight of an unsharp mask.")

While it has its default it is neither written nor covered by a digest. So what was made before keeps its name, an older
release reads what is written, and a field that a reader does not know has a value that matters. The default of a field
that is marked never changes after: what was stored without it would be read as something else
(tests/test_release_compatibility.py holds all fields and defaults still).
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from imaging.errors import UserFault

LOG = logging.getLogger(__name__)
RELEASE = "0.2.0"
"""Of this program, as pyproject.toml has it; not asked of the installation, since nodes of a cluster have none."""
Config = TypeVar("Config", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Since:
    """Mark of a field that came after release 0.1.0: the release that brought it."""

    release: str


def canonical_json(config: BaseModel, indent: int | None = None) -> str:
    """Return a configuration as JSON, in the order of its fields, without newer ones that have their default."""
    return config.model_dump_json(exclude=_left_out(config), indent=indent)


def canonical(config: BaseModel) -> dict[str, Any]:
    """Return a configuration as plain values of JSON, without newer fields that have their default."""
    return config.model_dump(mode="json", exclude=_left_out(config))


def config_digest(config: BaseModel) -> str:
    """Return the name of a configuration: 16 hex digits of SHA-256 of its canonical JSON."""
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()[:16]


def needed_release(config: BaseModel) -> str:
    """Return the first release that knows all fields that are written of a configuration; "" for 0.1.0."""
    return newest_release(*(release for _, release, is_default in _marked(config) if not is_default))


def newest_release(*releases: str) -> str:
    """Return the newest of some releases; "" counts for none.

    >>> newest_release("0.9.0", "", "0.10.0")
    '0.10.0'
    """
    return max(filter(None, releases), key=_numbers, default="")


def read_config(
    kind: type[Config], stored: str | Mapping[str, Any], what: str, *, digest: str = "", needs: str = ""
) -> Config:
    """Return a configuration that any release has stored; `what` names the thing that holds it.

    Fields that this release does not know are left aside, with a line in the log, where `digest` (the name that was
    stored beside it) says that they change nothing. Raises UserFault with the release to install where they do.
    """
    check_release(what, needs)
    plain = json.loads(stored) if isinstance(stored, str) else stored
    try:
        return kind.model_validate(plain)
    except ValidationError as error:
        unknown = [item["loc"][-1] for item in error.errors() if item["type"] == "extra_forbidden"]
        chosen = [item["loc"][-1] for item in error.errors() if item["type"] == "literal_error"]
        if not unknown and not chosen:
            raise
        names = ", ".join(sorted({str(name) for name in unknown or chosen}))
        if (chosen and not unknown) or config_digest(kind.model_validate(plain, extra="ignore")) != digest:
            raise UserFault(newer(what, f"has {names}, which this release does not know", needs)) from None
        log_unknown(what, names)
        return kind.model_validate(plain, extra="ignore")


def check_release(what: str, needs: str) -> None:
    """Raise UserFault where something needs a newer release than this one; `needs` is "" where it needs none."""
    if needs and _numbers(needs) > _numbers(RELEASE):
        raise UserFault(newer(what, f"needs release {needs}", needs))


def newer(what: str, why: str, needs: str = "") -> str:
    """Return the message about something that a newer release has written: what to install."""
    wanted = f"radloop {needs} or newer" if needs else "the release of radloop that wrote it, or a newer one"
    return f"{what} {why}; this is radloop {RELEASE}: install {wanted}; nothing was changed"


def log_unknown(what: str, names: str) -> None:
    """Write in the log that something of a newer release is read without what this one does not know."""
    log_once(f"{what} was written by a newer radloop: read without {names}, which changes nothing here")


@cache
def log_once(line: str) -> None:
    """Write a warning in the log, once in a process: a head or a tag is read many times in a night."""
    LOG.warning("%s", line)


def _left_out(config: BaseModel) -> dict[Any, Any]:
    """Return the newer fields that have their default, in the form of pydantic's `exclude`."""
    left_out: dict[Any, Any] = {}
    for path, _, is_default in _marked(config):
        inside = left_out
        for key in path[:-1] if is_default else ():
            inside = inside.setdefault(key, {})
        inside |= {path[-1]: True} if is_default else {}
    return left_out


def _marked(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str, bool]]:
    """Yield path, release, and whether it has its default, of each field that is marked, of nested ones too."""
    if isinstance(value, list | tuple):
        for at, item in enumerate(value):
            yield from _marked(item, (*path, at))
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            item, here = getattr(value, name), (*path, name)
            release = next((mark.release for mark in field.metadata if isinstance(mark, Since)), "")
            is_default = item == field.get_default(call_default_factory=True)
            if release:
                yield here, release, is_default
            if not (release and is_default):
                yield from _marked(item, here)


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release))
