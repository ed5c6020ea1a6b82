"""Flow of the features: embed every example of the newest version of a dataset."""

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from services.flow_requests import FeaturesRequest
from services.prefect.flow_engine import flow_run_name
from services.server_checks import check_servers
from services.settings import activate
from tasks.features import Features, embed_dataset
from tasks.report.outcomes import features_markdown


@flow(name="features", flow_run_name=flow_run_name, log_prints=True)
def features(request: FeaturesRequest) -> Features:
    """Write the embedding of every example by a registered model."""
    settings = activate()
    check_servers(settings)
    outcome = embed_dataset(request, settings)
    create_markdown_artifact(
        features_markdown(outcome), key="features", description=f"Features of {request.dataset}"
    )
    return outcome
