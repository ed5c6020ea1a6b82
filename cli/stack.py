"""Bodies of `radloop up`, `status` and `down`: the one-machine stack."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table

from cli.terminal import note, print_error, print_result
from imaging.errors import EnvironmentFault
from infra.stack import lifecycle
from infra.stack.deployments import deployed_cron, deployed_time_zone
from infra.stack.flow_runs import latest_runs, next_runs
from infra.stack.processes import StackError
from infra.stack.record import Stack, read_stack
from infra.stack.schedule_changes import NewerWish
from services.mlflow.registry_peek import peek_champions
from services.prefect.run_names import planned_name
from services.prefect.run_record import abandoned_runs
from services.prefect.server import end_server, log_of, running_server, without_server
from services.settings import Settings, activate, use_home_server


def up(
    source: str = "",
    labels: str | None = None,
    name: str | None = None,
    config: Path | None = None,
    prefect_port: int | None = None,
    mlflow_port: int | None = None,
    ray_port: int | None = None,
    time_zone: str | None = None,
    at: str | None = None,
    reset_schedules: bool = False,
    as_json: bool = False,
) -> None:
    """Start Prefect, MLflow, Ray, a worker and the schedules here."""
    # Loaded here: it takes the readers of images, which `status` does not need.
    from cli.schedules import cron_at, deployments, keep, nightly_request

    settings = activate()
    known = {"source": source, "labels": labels, "dataset": name}
    nightly = nightly_request(settings, config, {key: value for key, value in known.items() if value})
    request = lifecycle.StackRequest(
        ports={"prefect": prefect_port, "mlflow": mlflow_port, "ray": ray_port},
        environment=settings.defaults(),
        deployments=deployments(
            nightly,
            time_zone or deployed_time_zone(settings.folder),
            cron_at(at) if at else deployed_cron(settings.folder),
        ),
        schedules=NewerWish(night=bool(at), time_zone=bool(time_zone), reset=reset_schedules),
    )
    with infra_faults(), without_server(settings.folder, note):
        running = lifecycle.up(settings.folder, request, note)
    if nightly:
        # So that the next `up` needs no options.
        keep(settings, nightly)
    for line in servers_elsewhere(settings, running):
        note(line)
    content = {
        "addresses": dict(running.addresses),
        "token_file": str(running.token_file),
        "scheduled": bool(nightly),
    }
    print_result(content, addresses(running), as_json)
    if not nightly:
        note(
            "[bold]Schedules are paused[/bold]: nothing says yet which images to take in. Run `radloop run "
            "--source FOLDER --labels LABELS.csv --name NAME` once and `radloop up` again, or give these to `up`."
        )


def status(as_json: bool = False) -> None:
    """Show what is up, what runs next and last, and who is champion."""
    settings = activate()
    end_killed_runs(settings)
    with infra_faults():
        processes = lifecycle.status(settings.folder)
        running = read_stack(settings.folder)
    content: dict[str, Any] = {
        "home": str(settings.folder),
        "up": running is not None,
        "champions": [asdict(champion) for champion in peek_champions(settings)],
    }
    if server := running_server(settings.folder):
        content["commands_server"] = {
            "address": server.address,
            "pid": server.pid,
            "log": str(log_of(settings.folder)),
            "idle_min": settings.prefect_idle_min,
        }
    if running is not None:
        prefect = running.addresses["prefect"]
        content |= {
            "processes": [
                {**asdict(item), "address": running.addresses.get(item.name, "")} for item in processes
            ],
            "next": [asdict(run) for run in next_runs(prefect, name_of=planned_name)],
            "latest": [asdict(run) for run in latest_runs(prefect, name_of=planned_name)],
        }
    problems = [item.problem for item in processes if item.problem]
    print_result(content | {"problems": problems}, Group(*_tables(content)), as_json)
    for problem in problems:
        print_error(problem)
    if problems:
        raise typer.Exit(1)


def _tables(content: Mapping[str, Any]) -> Iterator[RenderableType]:
    if not content["up"]:
        yield f"Nothing is up in {content['home']}; `radloop up` starts it"
        if server := content.get("commands_server"):
            yield (
                f"The Prefect server of the commands runs at {server['address']} (pid {server['pid']}, log "
                f"{server['log']}); it ends {server['idle_min']:g} minutes after the last of them"
            )
    else:
        processes = [(one["name"], _state(one), one["address"], one["log"]) for one in content["processes"]]
        yield _table(("process", "state", "address", "log"), processes)
        planned = [(*_run(one), one["waits_for"]) for one in content["next"]]
        yield _table(("next", "flow", "run", "waits for"), planned)
        latest = [(*_run(one), one["state"], one["waits_for"]) for one in content["latest"]]
        yield _table(("latest", "flow", "run", "state", "waits for"), latest)
    champions = [
        (one["name"], f"version {one['version']}" if one["version"] else "none yet")
        for one in content["champions"]
    ]
    yield _table(("model", "champion"), champions)


def end_killed_runs(settings: Settings) -> None:
    """End the runs of commands that were killed, where a server runs that knows them."""
    if not abandoned_runs(settings.folder):
        return
    # Loaded here: the clients of servers take a tenth of the processor time of `status`.
    from services.open_runs import repair

    server = running_server(settings.folder)
    if settings.prefect_api_url is None and server:
        use_home_server(f"{server.address}/api")
    repair(activate(), note)
    if left := [record for record in abandoned_runs(settings.folder) if not record.ended]:
        note(f"{len(left)} runs of commands that were killed are open: the next command ends them")


def down(as_json: bool = False) -> None:
    """End exactly what `radloop up` and the commands started."""
    settings = activate()
    with infra_faults():
        ended = lifecycle.down(settings.folder)
    server = end_server(settings.folder, note)
    lines = [f"Ended {ended} processes"] if ended else []
    lines += ["Ended the Prefect server of the home"] if server else []
    print_result({"ended": ended, "server_ended": server}, "\n".join(lines or ["Nothing was up"]), as_json)


def servers_elsewhere(settings: Settings, running: Stack) -> Iterator[str]:
    """Yield a line for each server that the environment names and that is none of the stack."""
    own = f"sqlite:///{settings.folder / 'mlflow.db'}"
    given = {
        "PREFECT_API_URL": settings.other_prefect,
        "MLFLOW_TRACKING_URI": None if settings.tracking_uri == own else settings.tracking_uri,
        "RADLOOP_RAY_ADDRESS": settings.ray_address,
    }
    ours = {name: value for group in running.clients for name, value in group.items()}
    for name, value in given.items():
        if value and value.rstrip("/") != ours[name]:
            yield (
                f"{name} names {without_login(value)}: commands of this shell use that and not the stack's, and its "
                f"runs use the stack's; `unset {name}` ends that"
            )


def without_login(address: str) -> str:
    """Return an address without the user and the password that it may contain.

    >>> without_login("http://anna:secret@host:4200/api")
    'http://host:4200/api'
    """
    return re.sub(r"//[^/@]*@", "//", address)


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


def _state(process: Mapping[str, Any]) -> str:
    if not process["runs"]:
        return "[red]ended[/red]"
    return "answers" if process["answers"] else "[red]runs, does not answer[/red]"


def _run(run: Mapping[str, Any]) -> Sequence[str]:
    return (f"{run['when']:%a %d %b %H:%M %Z}", run["flow"], run["name"])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(*head, box=None, header_style="bold")
    for row in rows:
        table.add_row(*row)
    return table
