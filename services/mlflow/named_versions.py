"""Owns which dataset versions MLflow names: those that models and runs were made from, and measured on."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from services.settings import Settings

TAGS = ("dataset.digest", "reevaluated.dataset")
"""Of a model version; see `tasks.candidate` and `tasks.reevaluation`."""
PARAMETER = "dataset.digest"
"""Of a run; see `tasks.training` and `tasks.reevaluation`."""
PAGE = 1000


def named_versions(settings: Settings) -> frozenset[str]:
    """Return the digests that model versions and runs name, runs that are still going on among them.

    Looking makes no registry where there is none. Raises EnvironmentFault where the server does not answer.
    """
    embedded = settings.tracking_uri.removeprefix("sqlite:///")
    if embedded != settings.tracking_uri and not settings.folder.joinpath(embedded).exists():
        return frozenset()
    # Loaded here: MLflow takes seconds.
    from services.mlflow.runs import reachable

    with reachable(settings) as client:
        models = _pages(lambda token: client.search_model_versions("", PAGE, page_token=token))
        experiments = [
            one.experiment_id for one in _pages(lambda token: client.search_experiments(page_token=token))
        ]
        runs = _pages(lambda token: client.search_runs(experiments, max_results=PAGE, page_token=token))
        named = chain(
            (model.tags.get(tag) for model in models for tag in TAGS), chain.from_iterable(map(_of_run, runs))
        )
        return frozenset(digest for digest in named if digest)


def _of_run(run: Any) -> Iterator[str | None]:
    yield run.data.params.get(PARAMETER)
    yield from (given.dataset.digest for given in run.inputs.dataset_inputs)


def _pages(search: Callable[[str | None], Any]) -> Iterator[Any]:
    page = search(None)
    yield from page
    while page.token:
        page = search(page.token)
        yield from page
