"""Bodies of `radloop up`, `status` and `down`: the one-machine stack."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.table import Table

from cli.terminal import console
from imaging.errors import EnvironmentFault
from infra.stack import lifecycle
from infra.stack.deployments import deployed_time_zone
from infra.stack.flow_runs import FlowRun, latest_runs, next_runs
from infra.stack.processes import StackError
from infra.stack.record import Stack, read_stack
from services.mlflow.registry_peek import peek_champions
from services.settings import Settings, activate


def up(
    source: str = "",
    labels: str | None = None,
    name: str | None = None,
    config: Path | None = None,
    prefect_port: int | None = None,
    mlflow_port: int | None = None,
    ray_port: int | None = None,
    time_zone: str | None = None,
) -> None:
    """Start Prefect, MLflow, Ray, a worker and the schedules here."""
    # Loaded here: it takes the readers of images, which `status` does not need.
    from cli.schedules import deployments, keep, nightly_request

    settings = activate()
    known = {"source": source, "labels": labels, "dataset": name}
    nightly = nightly_request(settings, config, {key: value for key, value in known.items() if value})
    request = lifecycle.StackRequest(
        ports={"prefect": prefect_port, "mlflow": mlflow_port, "ray": ray_port},
        environment=settings.defaults(),
        deployments=deployments(nightly, time_zone or deployed_time_zone(settings.folder)),
    )
    with infra_faults():
        running = lifecycle.up(settings.folder, request, lambda line: console.print(line, highlight=False))
    if nightly:
        # So that the next `up` needs no options.
        keep(settings, nightly)
    console.print(addresses(running), soft_wrap=True)
    if not nightly:
        console.print(
            "[bold]Schedules are paused[/bold]: nothing says yet which images to take in. Run `radloop run "
            "--source FOLDER --labels LABELS.csv --name NAME` once and `radloop up` again, or give these to `up`.",
            soft_wrap=True,
        )


def status() -> None:
    """Show what is up, what runs next and last, and who is champion."""
    settings = activate()
    with infra_faults():
        processes = lifecycle.status(settings.folder)
        running = read_stack(settings.folder)
    if running is None:
        console.print(f"Nothing is up in {settings.folder}; `radloop up` starts it", soft_wrap=True)
    else:
        rows = [
            (item.name, _state(item), running.addresses.get(item.name, ""), item.log) for item in processes
        ]
        console.print(_table(("process", "state", "address", "log"), rows))
        console.print(
            _table(("next", "flow", "run"), map(_scheduled, next_runs(running.addresses["prefect"])))
        )
        console.print(
            _table(("latest", "flow", "run", "state"), map(_begun, latest_runs(running.addresses["prefect"])))
        )
    console.print(_table(("model", "champion"), _champions(settings)))


def down() -> None:
    """End exactly what `radloop up` started."""
    settings = activate()
    with infra_faults():
        ended = lifecycle.down(settings.folder)
    console.print(f"Ended {ended} processes" if ended else "Nothing was up", highlight=False)


def addresses(running: Stack) -> str:
    """Return where everything answers, and what comes next."""
    return (
        f"\n[bold]Prefect[/bold]  {running.addresses['prefect']}   (runs, schedules; Deployments > nightly > Run)"
        f"\n[bold]MLflow[/bold]   {running.addresses['mlflow']}   (measures, models)"
        f"\n[bold]Ray[/bold]      {running.addresses['ray']}   (asks for the token in {running.token_file})"
        "\n`radloop status` says what goes on, `radloop down` ends it, and `radloop run` uses it meanwhile."
    )


@contextmanager
def infra_faults() -> Iterator[None]:
    """Turn a StackError into an EnvironmentFault, which the command line prints without a traceback."""
    try:
        yield
    except StackError as error:
        raise EnvironmentFault(str(error)) from error


def _state(item: lifecycle.ProcessStatus) -> str:
    if not item.runs:
        return "[red]ended[/red]"
    return "answers" if item.answers else "[red]runs, does not answer[/red]"


def _scheduled(run: FlowRun) -> Sequence[str]:
    return (f"{run.when:%a %d %b %H:%M %Z}", run.flow, run.name)


def _begun(run: FlowRun) -> Sequence[str]:
    return (*_scheduled(run), run.state)


def _champions(settings: Settings) -> Iterable[Sequence[str]]:
    return [
        (item.name, f"version {item.version}" if item.version else "none yet")
        for item in peek_champions(settings)
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(*head, box=None, header_style="bold")
    for row in rows:
        table.add_row(*row)
    return table
