"""Jobs on a cluster: their lines arrive, their ends are reported, and none outlives the flow run that asked for it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from imaging.errors import EnvironmentFault, UserFault
from infra.stack.flow_runs import cancel_running, declare_lost
from infra.stack.servers import answer_of
from services.mlflow.runs import reachable
from services.ray.jobs import stop_job
from services.settings import Settings
from tasks.cluster_jobs import check_room
from tests.conftest import Running, answered, until

ENDED = ("STOPPED", "FAILED", "SUCCEEDED")
JOBS = """
import json, sys
from pathlib import Path
from imaging.errors import EnvironmentFault
from services.ray.jobs import JobOrder, run_job, stop_job

address, folder = sys.argv[1], Path(sys.argv[2])

def lines_of(name, command, **environment):
    lines = []
    order = dict(address=address, submission_id=name, entrypoint=command, lease=folder / name)
    try:
        run_job(JobOrder(**order, environment=environment), lines.append)
    except EnvironmentFault as error:
        return str(error)
    return [line for line in lines if "INFO" not in line and "Running entrypoint" not in line]

outputs = {"lines": lines_of("lines", "echo first && echo $COLOUR", COLOUR="blue")}
outputs["failure"] = lines_of("failing", "echo no such dose && exit 4")
outputs["again"] = lines_of("failing", "echo mended")
outputs["stopped what never was"] = stop_job(address, "never-was")
outputs["stopped what has ended"] = stop_job(address, "lines")
print(json.dumps(outputs))
"""
SILENT = """
from pathlib import Path
from services.ray.jobs import watch_lease
import sys, time
watch_lease(Path(sys.argv[1]), last_act=lambda: print("last act", flush=True), limit_s=0.5)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def jobs(stack: Running, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Ask for some small jobs, as a process of its own: Ray reads its token when it is loaded."""
    folder = tmp_path_factory.mktemp("jobs")
    return json.loads(in_its_own_process(stack, JOBS, stack.record.addresses["ray"], str(folder)).stdout)


def in_its_own_process(stack: Running, code: str, *arguments: str, **environment: str) -> Any:
    clients = {name: value for group in stack.record.clients for name, value in group.items()}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **clients, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def job_status(stack: Running, submission_id: str) -> str:
    token = stack.record.token_file.read_text()
    job = answer_of(f"{stack.record.addresses['ray']}/api/jobs/{submission_id}", token=token)
    return str((job or {}).get("status"))


def night_in_training(stack: Running) -> str:
    """Start a night that trains without an end, and return its id when its job runs."""
    prefect = stack.record.addresses["prefect"]
    deployment = answered(f"{prefect}/api/deployments/name/nightly/nightly")
    request = deployment["parameters"]["request"]
    request["training"] |= {"epochs": 10_000, "patience": 10_000}
    run = answered(
        f"{prefect}/api/deployments/{deployment['id']}/create_flow_run",
        {"parameters": {"request": request}, "idempotency_key": str(uuid4())},
    )
    until(lambda: job_status(stack, f"prefect-{run['id']}") == "RUNNING", "the start of the job")
    return str(run["id"])


def state(stack: Running, run_id: str) -> str:
    return str(answered(f"{stack.record.addresses['prefect']}/api/flow_runs/{run_id}")["state_name"])


def running_in_mlflow(client: Settings, run_id: str) -> list[Any]:
    with reachable(client) as registry:
        experiments = [item.experiment_id for item in registry.search_experiments()]
        query = f"attributes.status = 'RUNNING' and tags.`prefect.flow_run` = '{run_id}'"
        return list(registry.search_runs(experiments, query))


def engine_of(run_id: str) -> psutil.Process:
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("PREFECT__FLOW_RUN_ID") == run_id
            if mine and "prefect.engine" in process.cmdline():
                return process
        except psutil.Error:
            continue
    raise AssertionError(f"no process runs flow run {run_id}")


@pytest.mark.slow
def test_a_job_that_nobody_waits_for_ends_itself(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SILENT, str(tmp_path / "lease")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (3, "last act")


def test_more_workers_than_processors_are_refused() -> None:
    with pytest.raises(UserFault, match=r"4 workers.*2 processors.*set workers to 2"):
        check_room(4, 2)


def test_a_cluster_that_is_not_there_is_named() -> None:
    with pytest.raises(EnvironmentFault, match=r"127\.0\.0\.1:9.*RADLOOP_RAY_ADDRESS"):
        stop_job("http://127.0.0.1:9", "any")


@pytest.mark.slow
def test_lines_of_a_job_arrive_with_its_environment(jobs: dict[str, Any]) -> None:
    assert jobs["lines"][-2:] == ["first", "blue"]


@pytest.mark.slow
def test_a_job_that_fails_is_reported_with_its_last_lines(jobs: dict[str, Any]) -> None:
    assert re.search(r"job failing ended as FAILED.*no such dose", jobs["failure"], re.DOTALL)


@pytest.mark.slow
def test_a_failed_job_can_be_asked_for_again(jobs: dict[str, Any]) -> None:
    assert jobs["again"][-1] == "mended"
    # They are in the same file.
    assert "no such dose" not in jobs["again"]


@pytest.mark.slow
def test_stopping_what_never_was_does_nothing(jobs: dict[str, Any]) -> None:
    assert jobs["stopped what never was"] is False


@pytest.mark.slow
def test_stopping_what_has_ended_does_nothing(jobs: dict[str, Any]) -> None:
    assert jobs["stopped what has ended"] is False


@pytest.mark.slow
def test_a_wrong_token_is_refused_with_the_remedy(stack: Running, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0" * 64)
    code = "import sys; from services.ray.jobs import connect; connect(sys.argv[1])"
    address = stack.record.addresses["ray"]
    done = in_its_own_process(stack, code, address, RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"))
    assert f"the Ray cluster at {address} refuses the token: set RAY_AUTH_MODE=token" in done.stderr


@pytest.mark.slow
def test_cancelling_a_night_stops_its_training(stack: Running, client: Settings) -> None:
    run_id = night_in_training(stack)
    cancel_running(stack.record.addresses["prefect"], limit_s=150)
    assert state(stack, run_id) == "Cancelled"
    until(lambda: job_status(stack, f"prefect-{run_id}") in ENDED, "the end of the job")
    assert not running_in_mlflow(client, run_id)


@pytest.mark.slow
def test_killing_the_process_of_a_night_stops_its_training(stack: Running, client: Settings) -> None:
    run_id = night_in_training(stack)
    engine_of(run_id).kill()
    until(lambda: state(stack, run_id) == "Crashed", "the end of the flow run")
    until(lambda: job_status(stack, f"prefect-{run_id}") in ENDED, "the end of the job")
    assert not running_in_mlflow(client, run_id)


@pytest.mark.slow
def test_a_run_that_was_lost_frees_the_next_night(stack: Running, client: Settings) -> None:
    """A machine that lost its power leaves a run behind as running, with nobody who would end it."""
    prefect = stack.record.addresses["prefect"]
    deployment = answered(f"{prefect}/api/deployments/name/evaluate/evaluate")
    later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2099-01-01T00:00:00Z"}}
    address = f"{prefect}/api/deployments/{deployment['id']}/create_flow_run"
    asked = {"state": later, "parameters": deployment["parameters"], "idempotency_key": str(uuid4())}
    run_id = answered(address, asked)["id"]
    answered(f"{prefect}/api/flow_runs/{run_id}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    assert declare_lost(prefect) == 1
    assert state(stack, run_id) == "Crashed"


READING = """
import sys
from services.settings import activate
settings = activate()
import tasks.ingest as steps
from imaging.dataset.ingest.pending_files import find_pending
from services.flow_requests import IngestRequest
steps.RAY_FROM = 0
job = steps.open_job.fn(IngestRequest(source=sys.argv[1], labels=sys.argv[2], dataset="on-cluster"), settings)
read = steps.read_new.fn(job, settings, "reading-of-a-test", lambda done, total: print("here", done))
print("finished", read.files, len(find_pending(job).plan.to_read))
"""


@pytest.mark.slow
def test_new_files_are_read_by_a_job_of_the_cluster(stack: Running) -> None:
    home = str(stack.record.home)
    done = in_its_own_process(stack, READING, str(stack.archive), str(stack.labels), RADLOOP_HOME=home)
    lines = done.stdout.splitlines()
    assert lines[-1] == "finished 24 0", done.stdout + done.stderr
    assert any(line.startswith("on-cluster: 24/24 files") for line in lines)
    assert not any(line.startswith("here") for line in lines)
    assert job_status(stack, "prefect-reading-of-a-test") == "SUCCEEDED"


WAITING = """
import json, sys, time
from dataclasses import asdict
from pathlib import Path
from services.settings import activate
settings = activate()
from imaging.errors import EnvironmentFault
from models.config import TrainConfig
from services.mlflow.runs import start_run
from services.ray.jobs import connect, run_step, stop_job
from services.ray.trainer import TrainingJob

HOLDER = (
    "import ray, sys, time; from pathlib import Path; ray.init('auto'); count = int(ray.cluster_resources()['CPU']);"
    "ray.util.placement_group([{'CPU': 1}] * count).wait(60); Path(sys.argv[1]).touch(); time.sleep(300)"
)
folder, lines = Path(sys.argv[1]), []
client = connect(settings.ray_address)
client.submit_job(entrypoint=f'{sys.executable} -c "{HOLDER}" {folder}/held', submission_id="holder-of-a-test")
run_id = start_run(settings, "waiting", "run", {}, {})
given = dict(store="", cache="", cache_bytes=1, dataset="d", digest="")
train = TrainConfig(workers=2).model_dump(mode="json")
job = TrainingJob(**given, train=train, run_folder=str(folder / "run"), run_id=run_id, flow_run_id="waiting-of-a-test")
while not (folder / "held").exists():
    time.sleep(0.1)
try:
    run_step("train", json.dumps(asdict(job)), job.folder, job.flow_run_id, settings, lines.append)
except EnvironmentFault as fault:
    lines.append(str(fault))
finally:
    stop_job(settings.ray_address, "holder-of-a-test")
print(json.dumps(lines))
"""


@pytest.mark.slow
def test_a_training_without_room_logs_what_is_free_and_ends_by_its_limit(
    stack: Running, tmp_path: Path
) -> None:
    home = str(stack.record.home)
    done = in_its_own_process(stack, WAITING, str(tmp_path), RADLOOP_HOME=home, RADLOOP_RAY_WAIT_MIN="0.1")
    assert not done.returncode, done.stderr
    lines = json.loads(done.stdout.splitlines()[-1])
    counts = r"Ray cluster \S+ \((\d+) CPUs in all, \1 held, 0 free\)"
    assert re.fullmatch(
        rf"no room for 2 CPUs within 0\.1 min on the {counts}: wait for .*RADLOOP_RAY_WAIT_MIN.*", lines[-1]
    )
    waiting = rf"waiting for 2 CPUs on the {counts}; ends after 0\.1 min \(RADLOOP_RAY_WAIT_MIN\)"
    assert any(re.fullmatch(waiting, line) for line in lines), lines
