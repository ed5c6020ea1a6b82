"""Flow of a search: try trainings, train the best one as a candidate, and let the gate decide."""

from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact

from flows.evaluate import evaluate
from flows.train import stop_training, train
from services.flow_requests import EvaluateRequest, TrainRequest, TuneRequest
from services.open_runs import end_child_runs
from services.prefect.flow_engine import flow_run_name
from services.server_checks import check_servers
from services.settings import activate
from tasks.evaluation import check_champion
from tasks.promotion import promote_candidate
from tasks.report.outcomes import tuning_markdown
from tasks.search import TuneOutcome, search_trainings


@flow(
    name="tune",
    flow_run_name=flow_run_name,
    log_prints=True,
    on_cancellation=[stop_training, end_child_runs],
    on_crashed=[stop_training, end_child_runs],
)
def tune(request: TuneRequest) -> TuneOutcome:
    """Try trainings on the newest version of a dataset, and promote the best one if it proves itself."""
    settings = activate()
    check_servers(settings)
    check_champion(request.dataset, settings)
    search = search_trainings(
        request, settings, str(runtime.flow_run.root_flow_run_id or runtime.flow_run.id)
    )
    print(f"The best of {len(search.trials)} trials is {search.best + 1}: it is trained by all workers now")
    trained = train(TrainRequest(dataset=request.dataset, training=search.config))
    evaluation = evaluate(
        EvaluateRequest(dataset=request.dataset, version=trained.candidate.version, gate=request.gate)
    )
    promotion = promote_candidate(evaluation, settings)
    outcome = TuneOutcome(search=search, trained=trained, evaluation=evaluation, promotion=promotion)
    create_markdown_artifact(tuning_markdown(outcome), key="tuning", description=evaluation.verdict.headline)
    return outcome
