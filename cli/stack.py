"""Commands `radloop up`, `status` and `down`: the one-machine stack."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.flow_run import checked_request
from cli.options import Config, Labels
from cli.terminal import console
from imaging.errors import EnvironmentFault, UserFault
from imaging.release_compatibility import canonical, canonical_json
from infra.stack import lifecycle
from infra.stack.deployments import TEMPLATE, deployed_time_zone, fill
from infra.stack.flow_runs import FlowRun, latest_runs, next_runs
from infra.stack.processes import StackError
from infra.stack.record import Stack, read_stack
from services.flow_requests import REQUESTS, NightlyRequest, absolute_place
from services.prefect.run_record import abandoned_runs
from services.prefect.server import end_server, log_of, running_server, without_server
from services.settings import Settings, activate, use_home_server

REMEMBERED = "nightly.json"
"""Parameters of the night: written by `radloop run` when it succeeds, and here."""

Source = Annotated[
    str, typer.Option(help="Source of the nightly run. [default: that of the last `radloop run`]")
]
Name = Annotated[str | None, typer.Option(help="Name of the dataset and of the model.")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="[default: a free one]")]
TimeZone = Annotated[
    str | None, typer.Option(help="Of the schedules, as in Europe/Berlin. [default: the last one, or UTC]")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (up, status, down):
        app.command()(command)


def remember(settings: Settings, request: NightlyRequest) -> None:
    """Keep a night that went well for the schedule, whose runs start in another folder."""
    (settings.folder / REMEMBERED).write_text(canonical_json(_with_absolute_places(request), indent=1))


def up(
    source: Source = "",
    labels: Labels = None,
    name: Name = None,
    config: Config = None,
    prefect_port: Port = None,
    mlflow_port: Port = None,
    ray_port: Port = None,
    time_zone: TimeZone = None,
) -> None:
    """Start Prefect, MLflow, Ray, a worker and the schedules here."""
    settings = activate()
    known = {"source": source, "labels": labels, "dataset": name}
    nightly = nightly_request(settings, config, {key: value for key, value in known.items() if value})
    request = lifecycle.StackRequest(
        ports={"prefect": prefect_port, "mlflow": mlflow_port, "ray": ray_port},
        environment=settings.defaults(),
        deployments=deployments(nightly, time_zone or deployed_time_zone(settings.folder)),
    )
    with infra_faults(), without_server(settings.folder):
        running = lifecycle.up(settings.folder, request, lambda line: console.print(line, highlight=False))
    if nightly:
        # So that the next `up` needs no options.
        (settings.folder / REMEMBERED).write_text(json.dumps(nightly, indent=1))
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
    end_killed_runs(settings)
    with infra_faults():
        processes = lifecycle.status(settings.folder)
        running = read_stack(settings.folder)
    if running is None:
        console.print(f"Nothing is up in {settings.folder}; `radloop up` starts it", soft_wrap=True)
        if server := running_server(settings.folder):
            console.print(
                f"The Prefect server of the commands runs at {server.address} (pid {server.pid}, log "
                f"{log_of(settings.folder)}); it ends {settings.prefect_idle_min:g} minutes after the last of them",
                highlight=False,
                soft_wrap=True,
            )
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
    leave_for_problems(processes)


def end_killed_runs(settings: Settings) -> None:
    """End the runs of commands that were killed, where a server runs that knows them."""
    if not abandoned_runs(settings.folder):
        return
    # Loaded here: it asks servers, which is rarely needed.
    from services.open_runs import repair

    server = running_server(settings.folder)
    if settings.prefect_api_url is None and server:
        use_home_server(f"{server.address}/api")
    repair(activate(), print_remark)
    if left := [record for record in abandoned_runs(settings.folder) if not record.ended]:
        print_remark(f"{len(left)} runs of commands that were killed are open: the next command ends them")


def leave_for_problems(processes: Iterable[lifecycle.ProcessStatus]) -> None:
    """Print what is wrong with the stack, and leave with exit code 1 where something is."""
    problems = [item.problem for item in processes if item.problem]
    for problem in problems:
        print_remark(f"[red]{escape(problem)}[/red]")
    if problems:
        raise typer.Exit(1)


def print_remark(line: str) -> None:
    """Print a line beside the result of a command."""
    Console(stderr=True).print(line, highlight=False, soft_wrap=True)


def down() -> None:
    """End exactly what `radloop up` and the commands started."""
    settings = activate()
    with infra_faults():
        ended = lifecycle.down(settings.folder)
    if ended:
        console.print(f"Ended {ended} processes", highlight=False)
    if end_server(settings.folder):
        console.print("Ended the Prefect server of the home")
    elif not ended:
        console.print("Nothing was up")


def nightly_request(settings: Settings, config: Path | None, options: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters of the night: options over the last successful run's; empty where nothing is known."""
    remembered = settings.folder / REMEMBERED
    if config or options:
        request = checked_request("nightly", config, options)
    elif remembered.exists():
        try:
            request = NightlyRequest.model_validate_json(remembered.read_text())
        except ValidationError as error:
            raise UserFault(
                f"{remembered} is not of this version of radloop: `radloop run` writes it anew"
            ) from error
    else:
        return {}
    # A schedule shall not train in vain.
    return canonical(_with_absolute_places(request).model_copy(update={"again": False}))


def deployments(nightly: Mapping[str, Any], time_zone: str | None) -> str:
    """Return prefect.yaml, filled in for a nightly request; schedules are on only where there is one."""
    if time_zone:
        try:
            ZoneInfo(time_zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise UserFault(
                f"--time-zone {time_zone!r} is unknown: give a name such as Europe/Berlin"
            ) from error
    parameters = {
        name: kind(**{key: value for key, value in nightly.items() if key in kind.model_fields}).model_dump(
            mode="json"
        )
        for name, kind in REQUESTS.items()
        if name != "deidentify"  # Its form asks for everything.
    }
    return fill(TEMPLATE.read_text(), parameters, scheduled=bool(nightly), time_zone=time_zone)


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


def _with_absolute_places(request: NightlyRequest) -> NightlyRequest:
    places = {
        name: absolute_place(place) for name in ("source", "labels") if (place := getattr(request, name))
    }
    return request.model_copy(update=places)


def _state(item: lifecycle.ProcessStatus) -> str:
    if not item.runs:
        return "[red]ended[/red]"
    return "answers" if item.answers else "[red]runs, does not answer[/red]"


def _scheduled(run: FlowRun) -> Sequence[str]:
    return (f"{run.when:%a %d %b %H:%M %Z}", run.flow, run.name)


def _begun(run: FlowRun) -> Sequence[str]:
    return (*_scheduled(run), run.state)


def _champions(settings: Settings) -> Iterable[Sequence[str]]:
    if not settings.has_registry:
        return []
    # Loaded here: MLflow takes seconds.
    from services.mlflow.registry import champions

    return [
        (item.name, f"version {item.version}" if item.version else "none yet") for item in champions(settings)
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(*head, box=None, header_style="bold")
    for row in rows:
        table.add_row(*row)
    return table
