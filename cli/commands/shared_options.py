"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Config = Annotated[Path | None, typer.Option(help="YAML or JSON with all parameters; options win over it.")]
Labels = Annotated[str | None, typer.Option(help="CSV with an identifier column and a label column.")]
