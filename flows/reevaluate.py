"""Flow of a re-evaluation: measure the champion on the newest labelled data."""

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.ingest import ingest
from services.datasets import ingest_part
from services.flow_requests import ReevaluateRequest
from services.open_runs import end_child_runs
from services.prefect.flow_engine import flow_run_name
from services.server_checks import check_servers
from services.settings import activate
from tasks.evaluation import champion_of_other_spec, check_champion
from tasks.reevaluation import Reevaluation, remeasure
from tasks.report.outcomes import reevaluation_markdown


@flow(
    name="reevaluate",
    flow_run_name=flow_run_name,
    log_prints=True,
    on_cancellation=[end_child_runs],
    on_crashed=[end_child_runs],
)
def reevaluate(request: ReevaluateRequest) -> Reevaluation:
    """Take in what is new, measure the champion on all test patients, and say whether it still holds."""
    settings = activate()
    check_servers(settings)
    check_champion(request.dataset, settings)
    if request.source:
        ingest(ingest_part(request))
        other = champion_of_other_spec(request.dataset, settings)
        if other is not None:
            ingest(ingest_part(request, like=other))
    outcome = remeasure(request.dataset, request.gate, settings)
    create_markdown_artifact(reevaluation_markdown(outcome), key="reevaluation", description=outcome.headline)
    return outcome
