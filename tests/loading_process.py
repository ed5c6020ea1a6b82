"""Command in a process of its own that reports which libraries it has loaded, and which before the environment was set.

`python -m tests.loading_process ARGUMENTS`: the last line on standard error is the report, as JSON. A flow is loaded
and not run, unless RUNS=1: then it runs without Prefect's decorators.
"""

import json
import os
import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from typing import Any

from cli import dispatch
from cli.main import main
from imaging.errors import UserFault

READERS = ("prefect", "ray", "mlflow")
"""They read the environment when they load."""
LIBRARIES = (
    *READERS,
    "torch",
    "matplotlib",
    "sklearn",
    "pandas",
    "scipy",
    "pydicom",
    "pyarrow",
    "numpy",
    "boto3",
)


class Watch(MetaPathFinder):
    """Finder that finds nothing, and notes what was asked for while the home was not yet in the environment."""

    def __init__(self) -> None:
        self.too_early: list[str] = []

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname in READERS and "PREFECT_HOME" not in os.environ:
            self.too_early.append(fullname)


def stopped(name: str) -> Any:
    """Return a flow that is loaded, and refuses to run."""
    import_module(f"flows.{name}")

    def flow(request: Any) -> None:
        raise UserFault("loaded")

    return flow


def without_prefect(name: str) -> Any:
    """Return a flow without its decorators, so that no server starts."""
    module: Any = import_module(f"flows.{name}")
    from prefect import Flow, Task

    for key, value in vars(module).copy().items():
        if isinstance(value, Flow | Task):
            setattr(module, key, value.fn)
    module.create_markdown_artifact = lambda *_, **__: None
    module.progress = lambda *_: lambda done, total: None
    return getattr(module, name)


if __name__ == "__main__":
    watch = Watch()
    sys.meta_path.insert(0, watch)
    load = without_prefect if os.environ.get("RUNS") else stopped
    sys.argv = ["radloop", *sys.argv[1:]]

    def watched_import(name: str) -> Any:
        module = import_module(name)
        if flow_run := sys.modules.get("cli.flow_run"):
            flow_run.load_flow = load  # type: ignore[attr-defined]
        return module

    dispatch.import_module = watched_import  # type: ignore[attr-defined]
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    loaded = [name for name in LIBRARIES if name in sys.modules]
    print(json.dumps({"code": code, "loaded": loaded, "too_early": watch.too_early}), file=sys.stderr)
