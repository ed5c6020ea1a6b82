"""Flow of a night: ingest, train, evaluate, then the gate, promotion and the report."""

import time

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.train import stop_training, train
from services.datasets import ingest_part
from services.flow_requests import EvaluateRequest, NightlyRequest, TrainRequest
from services.open_runs import end_child_runs
from services.prefect.flow_engine import flow_run_name
from services.server_checks import check_servers
from services.settings import activate
from tasks.evaluation import champion_of_other_spec, check_champion
from tasks.identifier_search import search_identifiers
from tasks.promotion import promote_candidate
from tasks.report.outcomes import nightly_markdown
from tasks.reporting import Night, NightlyReport, publish_report
from tasks.split_check import check_splits


@flow(
    name="nightly",
    flow_run_name=flow_run_name,
    log_prints=True,
    on_cancellation=[stop_training, end_child_runs],
    on_crashed=[stop_training, end_child_runs],
)
def nightly(request: NightlyRequest) -> NightlyReport:
    """Take in what is new, train, and promote the model if it proves itself."""
    settings = activate()
    check_servers(settings)
    check_champion(request.dataset, settings)
    clock = Stopwatch()
    ingested = ingest(ingest_part(request))
    check_splits(request.dataset, settings)
    clock.lap("ingest")
    trained = train(TrainRequest(dataset=request.dataset, training=request.training, again=request.again))
    clock.lap("train")
    # A champion of another preprocessing is judged on the same patients, prepared as it expects them.
    other = champion_of_other_spec(request.dataset, settings)
    if other is not None:
        ingest(ingest_part(request, like=other))
    evaluation = evaluate(
        EvaluateRequest(dataset=request.dataset, version=trained.candidate.version, gate=request.gate)
    )
    promotion = promote_candidate(evaluation, settings)
    clock.lap("evaluate and promote")
    night = Night(
        ingested=ingested,
        trained=trained,
        evaluation=evaluation,
        promotion=promotion,
        timings_s=clock.laps,
    )
    path = publish_report(night, settings)
    clock.lap("report")
    search_identifiers(request, settings, took_s=sum(clock.laps.values()), seed=path)
    clock.lap("search for leaks")
    report = NightlyReport(**vars(night), report=path)
    create_markdown_artifact(nightly_markdown(report), key="nightly", description=evaluation.verdict.headline)
    return report


class Stopwatch:
    """Seconds of each stage of a night."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        """End a stage."""
        now = time.monotonic()
        self.laps[stage] = now - self._last
        self._last = now
