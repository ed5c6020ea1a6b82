"""Dispatch of a command: the environment of its home first, then the module that carries it out."""

from importlib import import_module
from typing import Any


def carry_out(target: str, /, *, below: str = "", **options: Any) -> None:
    """Call MODULE:FUNCTION of this folder with the options of a command; `below` is a home of its own in the home.

    It is the one place of late loading: `--help` loads no body, and prefect, ray and mlflow read the environment when
    they load, so that it has to be set before.
    """
    from imaging.dataset.tables.arrow_without_pandas import look_without_pandas
    from services.settings import Settings, set_environment

    set_environment(Settings().folder / below if below else None)
    module, _, function = target.partition(":")
    body = getattr(import_module(f"cli.{module}"), function)
    look_without_pandas()
    body(**options)
