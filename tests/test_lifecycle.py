"""Stack of one machine: it starts completely or not at all, is recognised, and ends only its own processes."""

import json
import os
import re
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer
from mlflow import MlflowClient
from typer.testing import CliRunner

from cli import stack as stack_commands
from cli.commands import stack as commands
from imaging.errors import EnvironmentFault, UserFault
from infra.stack import lifecycle as stacks
from infra.stack.flow_runs import declare_lost
from infra.stack.lifecycle import StackRequest
from infra.stack.processes import OwnedProcess, StackError, start, tail
from infra.stack.record import FILE, Stack
from infra.stack.servers import Server, answer_of
from services.mlflow.registry import champions
from services.settings import Settings, activate
from services.stack_file import running_stack
from tests.conftest import FAILING, PORTS, REPOSITORY, SLEEP, Running, until
from tests.synthetic import register_bright

pytestmark = pytest.mark.slow


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """Put sleeping processes in the place of the servers; return the deployments that are handed over."""
    handed: list[str] = []

    def server(name: str) -> Callable[[Stack], Server]:
        return lambda stack: Server(name=name, command=SLEEP, answers=lambda: True)

    def hand_over(content: str, home: Path, *_: object) -> None:
        handed.append(content)
        (home / "prefect.yaml").write_text(content)

    monkeypatch.setattr(stacks, "SERVERS", (server("prefect"), server("mlflow")))
    monkeypatch.setattr(stacks, "worker", server("worker"))
    monkeypatch.setattr(stacks, "deploy", hand_over)
    monkeypatch.setattr(stacks, "prefect_answer", lambda *_: None)
    monkeypatch.setattr(stacks, "repeated_answer", lambda *_: [])
    monkeypatch.setattr(stacks, "declare_lost", lambda *_: 0)
    monkeypatch.setattr(stacks, "cancel_running", lambda *_: None)
    yield handed
    stacks.down(tmp_path)


FIRST, SECOND = "name: first", "name: second"


def request(deployments: str = FIRST) -> StackRequest:
    return StackRequest(ports=PORTS, environment={}, deployments=deployments)


def up(home: Path, deployments: str = FIRST) -> Stack:
    return stacks.up(home, request(deployments), log=lambda line: None)


def test_up_starts_all_and_hands_over_the_deployments(tmp_path: Path, pretended: list[str]) -> None:
    running = up(tmp_path)
    assert [item.name for item in running.processes] == ["prefect", "mlflow", "worker"]
    assert running.up
    assert pretended == [FIRST]


def test_the_token_is_for_its_owner_alone(tmp_path: Path, pretended: list[str]) -> None:
    token = up(tmp_path).token_file
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert len(token.read_text()) == 64


def test_a_second_up_reports_the_first_and_starts_nothing(tmp_path: Path, pretended: list[str]) -> None:
    before, lines = up(tmp_path), list[str]()
    assert stacks.up(tmp_path, request(), lines.append) == before
    assert lines == ["The stack is up already."]
    assert pretended == [FIRST]


def test_a_second_up_hands_over_what_has_changed(tmp_path: Path, pretended: list[str]) -> None:
    up(tmp_path)
    up(tmp_path, deployments=SECOND)
    assert pretended == [FIRST, SECOND]


def test_ports_stay_the_same_after_down_and_after_a_crash(tmp_path: Path, pretended: list[str]) -> None:
    before = up(tmp_path).addresses
    stacks.down(tmp_path)
    again = up(tmp_path)
    assert again.addresses == before
    os.kill(again.processes[0].pid, signal.SIGKILL)
    until(lambda: again.processes[0].process() is None, "its end")
    assert up(tmp_path).addresses == before


def test_a_port_for_a_stack_that_is_up_is_refused(tmp_path: Path, pretended: list[str]) -> None:
    ports = up(tmp_path).ports
    asked = replace(request(), ports={**PORTS, "mlflow": ports["mlflow"]})
    assert stacks.up(tmp_path, asked, lambda line: None).ports == ports
    with pytest.raises(StackError, match=f"mlflow on port {ports['mlflow']}: `radloop down` first"):
        stacks.up(tmp_path, replace(request(), ports={**PORTS, "mlflow": ports["mlflow"] + 1}), print)


def test_what_a_killed_up_has_started_is_known_to_down(
    tmp_path: Path, pretended: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL leaves no time for a record of the process that was started last."""
    started = list[OwnedProcess]()

    def launch(*given: Any) -> OwnedProcess:
        started.append(start(*given))
        raise KeyboardInterrupt

    monkeypatch.setattr(stacks, "start", launch)
    monkeypatch.setattr(stacks, "_end", lambda stack: 0)
    with pytest.raises(KeyboardInterrupt):
        up(tmp_path)
    monkeypatch.undo()
    assert stacks.down(tmp_path) == 1
    assert started[0].process() is None


def test_the_lock_of_a_process_that_was_killed_is_free(
    tmp_path: Path, pretended: list[str], begin: Callable[..., OwnedProcess]
) -> None:
    locking = (
        "import pathlib, sys, time; from infra.stack.lifecycle import _locked\n"
        f"with _locked(pathlib.Path({str(tmp_path)!r})): print('locked', flush=True); time.sleep(300)"
    )
    holder = begin((sys.executable, "-c", locking), PYTHONPATH=str(REPOSITORY))
    until(lambda: "locked" in tail(holder.log), "its lock")
    with pytest.raises(StackError, match="another `radloop up`"):
        up(tmp_path)
    os.kill(holder.pid, signal.SIGKILL)
    until(lambda: holder.process() is None, "its end")
    assert up(tmp_path).up


def test_up_after_a_crash_begins_anew(tmp_path: Path, pretended: list[str]) -> None:
    old = up(tmp_path)
    os.kill(old.processes[0].pid, signal.SIGKILL)
    until(lambda: old.processes[0].process() is None, "its end")
    new = up(tmp_path)
    assert new.up
    assert not any(item.process() for item in old.processes)


def test_down_ends_what_up_started(tmp_path: Path, pretended: list[str]) -> None:
    running = up(tmp_path)
    assert stacks.down(tmp_path) == 3
    assert not any(item.process() for item in running.processes)
    assert not Path(running.ray_temp).exists()
    assert not (tmp_path / FILE).exists()


def test_down_twice_ends_nothing(tmp_path: Path, pretended: list[str]) -> None:
    up(tmp_path)
    stacks.down(tmp_path)
    assert stacks.down(tmp_path) == 0


def test_down_spares_who_has_the_pids_by_now(
    tmp_path: Path, pretended: list[str], begin: Callable[..., OwnedProcess]
) -> None:
    foreign = begin(SLEEP)
    content = {"mark": "m", "ready": True, "ports": dict.fromkeys(PORTS, 1), "ray_temp": "/nowhere"}
    stale = {"name": "mlflow", "pid": foreign.pid, "since_boot_s": foreign.since_boot_s - 3600, "log": ""}
    stale["boot"] = foreign.boot
    (tmp_path / FILE).write_text(json.dumps(content | {"processes": [stale]}))
    assert stacks.down(tmp_path) == 0
    assert foreign.process() is not None
    assert not (tmp_path / FILE).exists()


def test_down_removes_no_folder_that_is_not_rays(tmp_path: Path, pretended: list[str]) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    Stack(home=tmp_path, mark="m", ports=dict.fromkeys(PORTS, 1), ray_temp=str(mine)).written()
    stacks.down(tmp_path)
    assert mine.exists()


def test_a_failed_start_leaves_nothing_and_names_the_log(
    tmp_path: Path, pretended: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Server(name="ray", command=FAILING, answers=lambda: False)
    monkeypatch.setattr(stacks, "SERVERS", (*stacks.SERVERS, lambda stack: broken))
    begun: list[OwnedProcess] = []
    monkeypatch.setattr(stacks, "start", lambda *given: begun.append(start(*given)) or begun[-1])
    with pytest.raises(StackError, match=r"ray ended.*ray\.log:\nno such door"):
        up(tmp_path)
    assert len(begun) == 3
    assert not any(item.process() for item in begun)
    assert not (tmp_path / FILE).exists()


def test_a_silent_server_ends_the_start(
    tmp_path: Path, pretended: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = Server(name="ray", command=SLEEP, answers=lambda: False)
    monkeypatch.setattr(stacks, "SERVERS", (lambda stack: silent,))
    monkeypatch.setattr(stacks, "START_LIMIT_S", 0.2)
    with pytest.raises(StackError, match="ray does not answer after 0 s"):
        up(tmp_path)


def test_two_at_once_are_refused(tmp_path: Path, pretended: list[str]) -> None:
    with stacks._locked(tmp_path), pytest.raises(StackError, match="another `radloop up`"):
        up(tmp_path)


def test_status_shows_which_process_has_ended(tmp_path: Path, pretended: list[str]) -> None:
    running = up(tmp_path)
    os.kill(running.processes[1].pid, signal.SIGKILL)
    until(lambda: running.processes[1].process() is None, "its end")
    seen = {item.name: item.runs for item in stacks.status(tmp_path)}
    assert seen == {"prefect": True, "mlflow": False, "worker": True}


def test_a_home_that_cannot_be_written_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "stack.lock").mkdir()
    with pytest.raises(StackError, match=r"cannot write .*give --home another folder"):
        stacks.down(tmp_path)


def test_status_names_the_process_since_when_and_the_remedy(
    settings: Settings, pretended: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    running = up(settings.folder)
    try:
        os.kill(running.processes[1].pid, signal.SIGKILL)
        until(lambda: running.processes[1].process() is None, "its end")
        with pytest.raises(typer.Exit) as left:
            stack_commands.status()
        assert left.value.exit_code == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith(
            f"error: mlflow has ended (process {running.processes[1].pid}, last sign of life "
        )
        assert line.endswith(f"`radloop up` starts it again, see {running.processes[1].log}")
    finally:
        stacks.down(settings.folder)


def test_the_child_runs_of_a_lost_run_are_lost_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"deployment_id": ["parent"], "parent_flow_run_id": ["child"]}
    ended = list[str]()

    def answer(url: str, body: Any = None) -> Any:
        if url.endswith("/set_state"):
            ended.append(url.split("/")[-2])
            return None
        return [{"id": run} for name, runs in asked.items() if name in body["flow_runs"] for run in runs]

    monkeypatch.setattr("infra.stack.flow_runs.prefect_answer", answer)
    assert declare_lost("http://server") == 1
    assert ended == ["parent", "child"]


def test_commands_use_the_stack_that_is_up(settings: Settings, pretended: list[str]) -> None:
    running = up(settings.folder)
    try:
        active = activate()
        assert active.ray_address == running.addresses["ray"]
        assert active.tracking_uri == running.addresses["mlflow"]
        assert os.environ["PREFECT_API_URL"] == f"{running.addresses['prefect']}/api"
        assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(running.token_file)
    finally:
        stacks.down(settings.folder)


def test_what_the_user_has_set_wins_over_the_stack(settings: Settings, pretended: list[str]) -> None:
    up(settings.folder)
    try:
        os.environ["RADLOOP_RAY_ADDRESS"] = "http://cluster:8265"
        assert activate().ray_address == "http://cluster:8265"
        assert "RAY_AUTH_TOKEN_PATH" not in os.environ
    finally:
        stacks.down(settings.folder)


def test_a_server_that_the_environment_names_beside_the_stacks_is_named(
    settings: Settings, pretended: list[str]
) -> None:
    running = up(settings.folder)
    try:
        assert list(stack_commands.servers_elsewhere(activate(), running)) == []
        os.environ["PREFECT_API_URL"] = "http://anna:secret@elsewhere:4200/api"
        os.environ["RADLOOP_RAY_ADDRESS"] = running.addresses["ray"] + "/"
        (line,) = stack_commands.servers_elsewhere(activate(), running)
        assert line.startswith(
            "PREFECT_API_URL names http://elsewhere:4200/api: commands of this shell use that"
        )
    finally:
        stacks.down(settings.folder)


def test_a_stack_that_is_gone_does_not_count(settings: Settings, pretended: list[str]) -> None:
    running = up(settings.folder)
    try:
        os.kill(running.processes[0].pid, signal.SIGKILL)
        until(lambda: running.processes[0].process() is None, "its end")
        assert running_stack(settings.folder) == ()
        assert activate().ray_address is None
    finally:
        stacks.down(settings.folder)


def test_a_stack_that_is_still_starting_does_not_count(tmp_path: Path, pretended: list[str]) -> None:
    replace(up(tmp_path), ready=False).written()
    assert running_stack(tmp_path) == ()


def test_a_damaged_record_is_the_users_to_remove(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("[]")
    with pytest.raises(UserFault, match=r"stack\.json is damaged"):
        running_stack(tmp_path)


def test_the_commands_are_on_the_command_line() -> None:
    app = typer.Typer()
    commands.register(app)
    output = CliRunner().invoke(app, ["--help"]).stdout
    assert all(name in output for name in ("up", "status", "down"))


def test_a_fault_of_the_stack_is_one_of_the_environment() -> None:
    with pytest.raises(EnvironmentFault, match="no such door"), stack_commands.infra_faults():
        raise StackError("no such door")


def test_status_prints_that_nothing_is_up(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    stack_commands.status()
    assert "Nothing is up" in capsys.readouterr().out


def test_looking_for_champions_makes_no_registry(settings: Settings) -> None:
    assert champions(settings) == []
    assert not (settings.folder / "mlflow.db").exists()


@pytest.mark.slow
def test_every_server_answers(stack: Running) -> None:
    seen = stacks.status(stack.record.home)
    assert {item.name for item in seen if item.runs and item.answers} == {
        "prefect",
        "mlflow",
        "ray",
        "worker",
    }


@pytest.mark.slow
def test_pages_answer_on_loopback_alone(stack: Running) -> None:
    ports = {stack.record.ports[name] for name in ("prefect", "mlflow", "ray")}
    listening = [item.laddr for item in psutil.net_connections("tcp") if item.status == psutil.CONN_LISTEN]
    assert {place.ip for place in listening if place.port in ports} == {"127.0.0.1"}


@pytest.mark.slow
def test_ray_answers_nobody_without_the_token(stack: Running) -> None:
    assert answer_of(f"{stack.record.addresses['ray']}/api/jobs/") is None
    assert answer_of(f"{stack.record.addresses['ray']}/api/jobs/", token="0" * 64) is None


@pytest.mark.slow
def test_status_shows_runs_and_champions(
    stack: Running, client: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    champion = register_bright(client, "shining")
    MlflowClient().set_registered_model_alias("shining", "champion", str(champion.version))
    until(lambda: "02:00" in status_of(capsys) or "01:00" in status_of(capsys), "the scheduling of a night")
    output = status_of(capsys)
    assert re.search(rf"shining +version {champion.version} ", output)
    assert "answers" in output


def status_of(capsys: pytest.CaptureFixture[str]) -> str:
    stack_commands.status()
    return capsys.readouterr().out


@pytest.mark.slow
def test_what_the_server_keeps_is_readable_without_it(stack: Running, client: Settings) -> None:
    run_id = note(MlflowClient(client.tracking_uri), "through the server", location=None)
    direct = MlflowClient(f"sqlite:///{client.folder / 'mlflow.db'}")
    assert Path(direct.download_artifacts(run_id, "note.txt")).read_text() == "through the server"


@pytest.mark.slow
def test_what_was_kept_without_the_server_is_readable_through_it(stack: Running, client: Settings) -> None:
    location = (client.folder / "mlartifacts").as_uri()
    run_id = note(MlflowClient(f"sqlite:///{client.folder / 'mlflow.db'}"), "without the server", location)
    served = MlflowClient(client.tracking_uri)
    assert Path(served.download_artifacts(run_id, "note.txt")).read_text() == "without the server"


def note(registry: MlflowClient, text: str, location: str | None) -> str:
    experiment = registry.create_experiment(text, artifact_location=location)
    run = registry.create_run(experiment)
    registry.log_text(run.info.run_id, text, "note.txt")
    return str(run.info.run_id)


@pytest.mark.slow
def test_the_stack_is_nobodys_child(stack: Running) -> None:
    assert all(os.getsid(item.pid) == item.pid for item in stack.record.processes)


@pytest.mark.slow
def test_the_worker_shares_no_folder_with_other_users_of_the_machine(stack: Running) -> None:
    assert (stack.record.temporary / "runner_storage").is_dir()
    assert stack.record.temporary.is_relative_to(stack.record.home)
