"""Flow of an evaluation: compare the newest candidate with the champion on the locked test patients."""

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from services.flow_requests import EvaluateRequest
from services.prefect.flow_engine import flow_run_name
from services.server_checks import check_servers
from services.settings import activate
from tasks.champion_history import notice_move
from tasks.evaluation import Evaluation, compare, contenders, versions_for
from tasks.report.outcomes import evaluation_markdown


@flow(name="evaluate", flow_run_name=flow_run_name, log_prints=True)
def evaluate(request: EvaluateRequest) -> Evaluation:
    """Measure challenger and champion on the same test patients; the verdict moves nothing by itself."""
    settings = activate()
    check_servers(settings)
    notice_move(request.dataset, settings)
    pair = contenders(request.dataset, request.version, settings)
    print(f"{pair.candidate} is measured beside {pair.champion or 'no champion'}")
    evaluation = compare(pair, versions_for(pair, settings), request.gate, settings)
    create_markdown_artifact(
        evaluation_markdown(evaluation), key="evaluation", description=evaluation.verdict.headline
    )
    return evaluation
