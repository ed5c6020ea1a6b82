"""Flow of a training: train a candidate on the newest version of a dataset."""

from typing import Any

from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact

from services.flow_requests import TrainRequest
from services.prefect.flow_engine import flow_run_name
from services.server_checks import check_servers
from services.settings import activate
from tasks.report.outcomes import training_markdown
from tasks.training import TrainOutcome, begin, finish, fit_model, known_candidate, stop, with_weights


def stop_training(flow: Any, flow_run: Any, state: Any) -> None:
    """Stop the Ray job of a flow run that was cancelled or has crashed."""
    stop(str(flow_run.id), activate())


@flow(
    name="train",
    flow_run_name=flow_run_name,
    log_prints=True,
    on_cancellation=[stop_training],
    on_crashed=[stop_training],
)
def train(request: TrainRequest) -> TrainOutcome:
    """Train a candidate on all workers, and register it as the challenger."""
    settings = activate()
    check_servers(settings)
    if request.training.start.weights:
        request = with_weights(request, settings)
    outcome = known_candidate(request, settings)
    if outcome is None:
        job = begin(request, settings, str(runtime.flow_run.root_flow_run_id or runtime.flow_run.id))
        outcome = finish(job, fit_model(job, settings), settings)
    create_markdown_artifact(
        training_markdown(outcome), key="training", description=f"Training of {request.dataset}"
    )
    return outcome
