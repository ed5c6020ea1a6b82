"""Deployments in Prefect: the flows by their names, on their schedules, with their parameters."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from cli import stack as stack_commands
from cli.schedules import cron_at, deployments, nightly_request, remember
from imaging.errors import UserFault
from infra.stack import lifecycle
from infra.stack.deployments import TEMPLATE, deploy, deployed, deployed_cron, deployed_time_zone, fill
from infra.stack.flow_runs import FlowRun, next_runs
from infra.stack.lifecycle import StackRequest
from infra.stack.processes import StackError
from infra.stack.servers import repeated_answer
from services.flow_requests import NightlyRequest
from services.settings import Settings
from tests.conftest import FLOWS, Running, answered, until
from tests.synthetic import write_archive

KNOWN: list[dict[str, Any]] = yaml.safe_load(TEMPLATE.read_text())["deployments"]


def night(**changes: Any) -> dict[str, Any]:
    return NightlyRequest(source="/images", dataset="d").model_dump(mode="json") | changes


def filled(nightly: dict[str, Any], time_zone: str | None = None) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in yaml.safe_load(deployments(nightly, time_zone))["deployments"]}


def scheduled(stack: Running, flow: str) -> list[FlowRun]:
    """Return the scheduled runs of a flow; Prefect's scheduler makes them in the seconds after deploying."""
    prefect = stack.record.addresses["prefect"]

    def runs_of_flow() -> list[FlowRun]:
        return [run for run in next_runs(prefect, limit=200) if run.flow == flow]

    return until(runs_of_flow, f"the scheduling of {flow}")


def test_all_flows_are_deployed() -> None:
    assert {item["name"] for item in KNOWN} == set(FLOWS)


@pytest.mark.parametrize("item", KNOWN, ids=lambda item: item["name"])
def test_an_entrypoint_is_a_dotted_name_of_a_flow(item: dict[str, Any]) -> None:
    module, _, name = item["entrypoint"].rpartition(".")
    assert getattr(import_module(module), name).name == item["name"]


def test_only_night_and_reevaluation_have_schedules() -> None:
    crons = {item["name"]: item["schedules"][0]["cron"] for item in KNOWN if "schedules" in item}
    assert crons == {"nightly": "0 2 * * *", "reevaluate": "0 5 * * 0"}


def test_nothing_is_pulled() -> None:
    assert yaml.safe_load(TEMPLATE.read_text())["pull"] == []


def test_each_deployment_gets_its_part_of_the_night() -> None:
    made = filled(night())
    assert made["nightly"]["parameters"]["request"]["source"] == "/images"
    assert made["train"]["parameters"]["request"].keys() == {"dataset", "training", "again"}
    others = [item for name, item in made.items() if name != "deidentify"]
    assert all(item["parameters"]["request"]["dataset"] == "d" for item in others)


def test_a_deidentification_is_asked_for_by_hand() -> None:
    assert "parameters" not in filled(night())["deidentify"]


def test_without_a_request_schedules_are_paused_and_the_form_has_defaults() -> None:
    made = filled({})
    assert made["nightly"]["schedules"][0]["active"] is False
    begun = made["nightly"]["parameters"]["request"]
    assert "source" not in begun
    assert NightlyRequest.model_validate(begun) == NightlyRequest()


def test_with_a_request_schedules_are_on() -> None:
    assert filled(night())["reevaluate"]["schedules"][0]["active"] is True


def test_the_time_zone_can_be_chosen() -> None:
    assert filled(night(), "Asia/Tokyo")["nightly"]["schedules"][0]["timezone"] == "Asia/Tokyo"


def test_the_time_zone_is_remembered(tmp_path: Path) -> None:
    assert deployed_time_zone(tmp_path) is None
    (tmp_path / "prefect.yaml").write_text(deployments(night(), "Asia/Tokyo"))
    assert deployed_time_zone(tmp_path) == "Asia/Tokyo"


def test_the_time_of_the_night_can_be_chosen_and_is_remembered(tmp_path: Path) -> None:
    assert deployed_cron(tmp_path) is None
    content = deployments(night(), "Asia/Tokyo", cron_at("22:30"))
    crons = {
        item["name"]: item["schedules"][0]["cron"] for item in yaml.safe_load(content)["deployments"][:2]
    }
    assert crons == {"nightly": "30 22 * * *", "reevaluate": "0 5 * * 0"}
    (tmp_path / "prefect.yaml").write_text(content)
    assert deployed_cron(tmp_path) == "30 22 * * *"


@pytest.mark.parametrize("time", ["24:00", "2", "02:60", "2am", "", "02:00:00", "-1:00"])
def test_what_is_no_time_of_a_day_is_named(time: str) -> None:
    with pytest.raises(
        UserFault, match=r"--at .* is no time of a day: give hours and minutes, such as 02:00"
    ):
        cron_at(time)


def test_an_unknown_time_zone_is_named() -> None:
    with pytest.raises(UserFault, match="Mars/Olympus"):
        deployments(night(), "Mars/Olympus")


def test_filling_leaves_the_template_as_it_is() -> None:
    before = TEMPLATE.read_text()
    fill(before, {name: {} for name in FLOWS}, scheduled=True, time_zone="Asia/Tokyo")
    assert TEMPLATE.read_text() == before


def test_the_last_successful_run_is_the_night(settings: Settings) -> None:
    settings.folder.mkdir(parents=True)
    (settings.folder / "nightly.json").write_text(NightlyRequest(source="/i", dataset="d").model_dump_json())
    assert nightly_request(settings, None, {})["dataset"] == "d"


def test_nobody_asked_for_a_night_yet(settings: Settings) -> None:
    assert nightly_request(settings, None, {}) == {}


def test_an_address_is_no_path(settings: Settings) -> None:
    settings.folder.mkdir(parents=True)
    night = NightlyRequest(source="s3://images/ct", labels="/labels.csv")
    remember(settings, night)
    assert nightly_request(settings, None, {})["source"] == "s3://images/ct"


def test_a_night_does_not_train_what_it_has_trained(settings: Settings) -> None:
    settings.folder.mkdir(parents=True)
    (settings.folder / "nightly.json").write_text(NightlyRequest(source="/i", again=True).model_dump_json())
    assert nightly_request(settings, None, {})["again"] is False


def test_a_night_of_another_version_is_refused_with_the_remedy(settings: Settings) -> None:
    settings.folder.mkdir(parents=True)
    (settings.folder / "nightly.json").write_text('{"sauce": 1}')
    with pytest.raises(UserFault, match=r"nightly\.json.*radloop run"):
        nightly_request(settings, None, {})


def test_relative_paths_are_made_whole(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_archive(tmp_path / "dicom", patients=1)
    monkeypatch.chdir(tmp_path)
    made = nightly_request(settings, None, {"source": "dicom", "labels": "labels.csv"})
    assert (made["source"], made["labels"]) == (str(tmp_path / "dicom"), str(tmp_path / "labels.csv"))


def test_a_source_that_is_not_there_starts_nothing(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="nowhere"):
        nightly_request(settings, None, {"source": str(tmp_path / "nowhere")})


@pytest.mark.slow
def test_runs_are_scheduled_at_two_in_the_time_zone(stack: Running) -> None:
    runs = scheduled(stack, "nightly")
    zone = ZoneInfo("Europe/Berlin")
    assert len(runs) >= 3
    assert {(run.when.astimezone(zone).hour, run.when.astimezone(zone).minute) for run in runs} == {(2, 0)}
    assert {run.state for run in runs} == {"Scheduled"}


@pytest.mark.slow
def test_reevaluations_are_scheduled_on_sundays(stack: Running) -> None:
    runs = scheduled(stack, "reevaluate")
    assert {run.when.astimezone(ZoneInfo("Europe/Berlin")).weekday() for run in runs} == {6}


@pytest.mark.slow
def test_other_flows_wait_to_be_asked(stack: Running) -> None:
    scheduled(stack, "nightly")
    scheduled(stack, "reevaluate")
    runs = next_runs(stack.record.addresses["prefect"], limit=200)
    assert {run.flow for run in runs} == {"nightly", "reevaluate"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOWS)
def test_one_run_at_a_time_and_the_next_one_waits(stack: Running, name: str) -> None:
    made = answered(f"{stack.record.addresses['prefect']}/api/deployments/name/{name}/{name}")
    assert made["global_concurrency_limit"]["limit"] == 1
    assert made["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert made["work_pool_name"] == "radloop"


@pytest.mark.slow
def test_the_parameters_are_there(stack: Running) -> None:
    made = answered(f"{stack.record.addresses['prefect']}/api/deployments/name/nightly/nightly")
    request = NightlyRequest.model_validate(made["parameters"]["request"])
    assert (request.source, request.labels, request.dataset) == (
        str(stack.archive),
        str(stack.labels),
        stack.name,
    )


@pytest.mark.slow
def test_what_a_person_changed_on_the_page_survives_a_new_deployment_until_it_is_reset(
    stack: Running, client: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    api = f"{stack.record.addresses['prefect']}/api/deployments"
    made = answered(f"{api}/name/nightly/nightly")
    before = [(one["slug"], one["schedule"]["cron"], one["active"]) for one in made["schedules"]]
    place = f"{api}/{made['id']}"
    moved = {"cron": "30 3 * * *", "timezone": "Europe/Berlin"}
    # As the page does it.
    repeated_answer(place, {"paused": True}, "PATCH")
    repeated_answer(f"{place}/schedules/{made['schedules'][0]['id']}", {"schedule": moved}, "PATCH")
    repeated_answer(f"{place}/schedules", [{"schedule": moved | {"cron": "0 12 * * *"}, "active": False}])
    try:
        lines = list[str]()
        content = deployed(stack.record.home)
        request = StackRequest(ports={}, environment=client.defaults(), deployments=content)
        # A start of the stack deploys in any case.
        lifecycle._deploy(stack.record, request, lines.append, always=True)
        made = answered(f"{api}/name/nightly/nightly")
        seen = sorted(
            (one["slug"] or "", one["schedule"]["cron"], one["active"]) for one in made["schedules"]
        )
        assert made["paused"]
        assert seen == [("", "0 12 * * *", False), ("every-night", "30 3 * * *", True)]
        assert [line.partition(" on Prefect's page")[0] for line in lines] == [
            "nightly was paused",
            "a schedule of nightly was added",
            "the schedule every-night of nightly was changed",
        ]
        assert deployed(stack.record.home) == content
    finally:
        stack_commands.up(reset_schedules=True)
    made = answered(f"{api}/name/nightly/nightly")
    assert not made["paused"]
    assert [(one["slug"], one["schedule"]["cron"], one["active"]) for one in made["schedules"]] == before
    assert "kept" not in capsys.readouterr().err


@pytest.mark.slow
def test_the_night_is_remembered_for_the_next_up(stack: Running) -> None:
    kept = NightlyRequest.model_validate_json((stack.record.home / "nightly.json").read_text())
    assert (kept.source, kept.dataset) == (str(stack.archive), stack.name)


@pytest.mark.slow
def test_what_prefect_refuses_is_reported_with_its_log(stack: Running, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    broken = {"name": "broken", "entrypoint": "flows.ingest.nobody", "work_pool": {"name": "radloop"}}
    environment = {**os.environ, "PREFECT_API_URL": f"{stack.record.addresses['prefect']}/api"}
    with pytest.raises(StackError, match=r"deploy\.log"):
        deploy(yaml.safe_dump({"pull": [], "deployments": [broken]}), tmp_path, environment)
