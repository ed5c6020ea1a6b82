"""Flow runs of Prefect's server, as `radloop status` lists them: what each of them waits for."""

from typing import Any

import pytest

from infra.stack.flow_runs import next_runs

PAST, FUTURE = "2020-01-01T02:00:00Z", "2999-01-01T02:00:00Z"


def run(state: str, when: str = PAST, deployment: str = "d", name: str = "second") -> dict[str, Any]:
    return {
        "name": name,
        "flow_id": "f",
        "deployment_id": deployment,
        "state_name": state,
        "start_time": None,
        "expected_start_time": when,
    }


@pytest.mark.parametrize(
    ("waiting", "holders", "waits_for"),
    [
        (run("AwaitingConcurrencySlot"), [run("Running", name="first")], "the end of first"),
        (
            run("AwaitingConcurrencySlot"),
            [run("Running", deployment="other", name="first")],
            "the slot of a run that",
        ),
        (run("AwaitingConcurrencySlot"), [], "the slot of a run that has ended or was killed"),
        (run("Late"), [], "the worker"),
        (run("Scheduled"), [], "the worker"),
        (run("Pending"), [], "its process to start"),
        (run("AwaitingRetry"), [], "its next try"),
    ],
)
def test_a_run_names_what_it_waits_for(
    waiting: dict[str, Any], holders: list[dict[str, Any]], waits_for: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown(waiting, holders, monkeypatch).startswith(waits_for)


@pytest.mark.parametrize("other", [run("Scheduled", FUTURE), run("Running"), run("Completed")])
def test_other_runs_wait_for_nothing(other: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(other, [], monkeypatch) == ""


def shown(waiting: dict[str, Any], holders: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> str:
    def answer(url: str, query: Any = None) -> Any:
        if "/flows/" in url:
            return [{"id": "f", "name": "nightly"}]
        return holders if "deployment_id" in query["flow_runs"] else [waiting]

    monkeypatch.setattr("infra.stack.flow_runs.prefect_answer", answer)
    (one,) = next_runs("http://server")
    return one.waits_for
