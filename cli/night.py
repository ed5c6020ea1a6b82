"""Body of `radloop run`: a night, and the commands that come next."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from cli.flow_run import checked_request, run_flow
from cli.options import as_request
from cli.schedules import remember
from cli.terminal import note, print_result
from services.night_preview import NightPreview, preview_night
from services.settings import Settings, activate


def run(config: Path | None, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Take in what is new, train, and promote what proves itself; or print what that would be."""
    request = checked_request("nightly", config, as_request(options))
    if dry_run:
        preview = preview_night(request, Settings())
        print_result(asdict(preview), rendered(preview), as_json)
        return
    run_flow("nightly", request, as_json)
    settings = activate()
    remember(settings, request)
    if not as_json:
        note(next_commands(settings, request.dataset))


def rendered(preview: NightPreview) -> RenderableType:
    """Return what a night would do, in lines."""
    files = preview.files
    table = Table(box=None, show_header=False)
    version = f"version {preview.version[:12]}" if preview.version else "no version yet"
    begun = f", {files.begun:,} of these were read by a run that has not ended" if files.begun else ""
    for row in (
        ("dataset", f"{preview.dataset}, {version}"),
        (
            "files",
            f"{files.listed:,} listed: {files.new:,} new, {files.changed:,} changed, {files.gone:,} gone{begun}",
        ),
        ("trains", f"{'yes' if preview.trains else 'no'}: {preview.why}"),
        ("compared with", preview.compared),
    ):
        table.add_row(*row)
    return table


def next_commands(settings: Settings, name: str) -> str:
    """Return where everything can be opened after a night, and the commands that come next."""
    radloop = f"{sys.argv[0]} --home {settings.home}" if settings.home != Path(".radloop") else sys.argv[0]
    return (
        f"\n[bold]MLflow and Prefect[/bold]  {radloop} up   (prints their addresses; runs this every night at 02:00)"
        f"\n[bold]Load the champion[/bold]   mlflow.pyfunc.load_model('models:/{name}@champion')"
        f" with MLFLOW_TRACKING_URI={settings.tracking_uri}"
        f"\n[bold]Your own images[/bold]     {sys.argv[0]} run --source FOLDER --labels LABELS.csv --name NAME"
    )
