"""Body of `radloop run`: a night, and the commands that come next."""

import sys
from pathlib import Path
from typing import Any

from cli.flow_run import checked_request, run_flow
from cli.options import as_request
from cli.schedules import remember
from cli.terminal import console
from services.settings import Settings, activate


def run(config: Path | None, **options: Any) -> None:
    """Take in what is new, train, and promote what proves itself."""
    request = checked_request("nightly", config, as_request(options))
    run_flow("nightly", request)
    settings = activate()
    remember(settings, request)
    console.print(next_commands(settings, request.dataset), soft_wrap=True)


def next_commands(settings: Settings, name: str) -> str:
    """Return where everything can be opened after a night, and the commands that come next."""
    radloop = f"{sys.argv[0]} --home {settings.home}" if settings.home != Path(".radloop") else sys.argv[0]
    return (
        f"\n[bold]MLflow and Prefect[/bold]  {radloop} up   (prints their addresses; runs this every night at 02:00)"
        f"\n[bold]Load the champion[/bold]   mlflow.pyfunc.load_model('models:/{name}@champion')"
        f" with MLFLOW_TRACKING_URI={settings.tracking_uri}"
        f"\n[bold]Your own images[/bold]     {sys.argv[0]} run --source FOLDER --labels LABELS.csv --name NAME"
    )
