"""Dispatch of a command: the environment of its home first, then the module that carries it out."""

import gc
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass
class Verbosity:
    """What a command prints beside its result: with `quiet` errors alone, with `verbose` the libraries' logs too."""

    quiet: bool = False
    verbose: bool = False


verbosity = Verbosity()
"""Of this command, as the options before it say."""


def carry_out(target: str, /, *, below: str = "", **options: Any) -> None:
    """Call MODULE:FUNCTION of this folder with the options of a command; `below` is a home of its own in the home.

    It is the one place of late loading: `--help` loads no body, and prefect, ray and mlflow read the environment when
    they load, so that it has to be set before.
    """
    from imaging.dataset.tables.arrow_without_pandas import look_without_pandas
    from services.settings import Settings, set_environment

    set_environment(Settings().folder / below if below else None)
    module, _, function = target.partition(":")
    # What imports make stays: a tenth of their time went to the collector, which walks through it again and again.
    gc.disable()
    body = getattr(import_module(f"cli.{module}"), function)
    gc.freeze()
    gc.enable()
    look_without_pandas()
    body(**options)
