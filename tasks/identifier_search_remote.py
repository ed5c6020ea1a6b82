"""Files of the identifier search from servers: what a night has left on Prefect, MLflow or a store on S3, fetched.

What the embedded default keeps are files of the home, and not fetched. Of a server that others use too, only what is
ours is read: the runs of our flows, and the experiments and models of a dataset.
"""

import json
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import accumulate, chain, count
from pathlib import Path
from typing import Any, Literal

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client

from imaging.deidentify.proof import leak_search
from imaging.errors import EnvironmentFault
from imaging.store.folder_store import FolderStore
from imaging.store.protocol import Missing
from services.mlflow.runs import reachable
from services.settings import Settings

LIMIT_S = 10.0
"""A night must not wait for a slow server; what there was no time for is counted."""
PAGE = 200
ARTIFACT_BYTES = 4 << 20
"""Larger ones are models and shards, whose bytes were searched before they were sent."""
Kind = Literal["/flow_runs/filter", "/task_runs/filter", "/logs/filter", "/artifacts/filter"]
FLOWS = ("nightly", "ingest", "train", "tune", "evaluate", "reevaluate", "deidentify")


def has_servers(settings: Settings) -> bool:
    """Return whether Prefect or MLflow keep what is theirs elsewhere."""
    return settings.other_prefect is not None or settings.tracking_uri.startswith("http")


def fetch(settings: Settings, dataset: str, since_s: float, folder: Path) -> bool:
    """Write what servers hold of the time since then into files of a folder; return whether there was time for all.

    Raises EnvironmentFault where a server does not answer, or lets us not read.
    """
    end = time.monotonic() + LIMIT_S
    written = chain(_of_prefect(settings, since_s, folder), _of_mlflow(settings, dataset, since_s, folder))
    return all(time.monotonic() < end for _ in written)


def fetch_written(settings: Settings, since_s: float, seed: str) -> tuple[list[Path], int]:
    """Fetch what was written since then to a store that is no folder; return the copies, and how many were left out.

    No more is fetched than is searched of a folder; which of more objects, the seed draws.
    """
    store = settings.dataset_store
    if isinstance(store, FolderStore):
        return [], 0
    # The times of some servers are in whole seconds.
    written = [one for one in store.names() if one.mtime_ns >= int(since_s) * 10**9]
    random.Random(seed).shuffle(written)
    ends = accumulate(one.size_bytes for one in written)
    chosen = [one.name for one, end in zip(written, ends, strict=True) if end <= leak_search.BUDGET_BYTES]
    paths = []
    for name in chosen:
        # What a night beside this one has put into a version meanwhile is gone.
        with suppress(Missing):
            paths.append(store.local(name))
    return paths, len(written) - len(chosen)


def _of_prefect(settings: Settings, since_s: float, folder: Path) -> Iterator[None]:
    """Write parameters, states, logs and artifacts of the runs of our flows."""
    if settings.other_prefect is None:
        return
    since = datetime.fromtimestamp(since_s, UTC).isoformat()
    begun = {"flows": {"name": {"any_": FLOWS}}, "flow_runs": {"start_time": {"after_": since}}}
    try:
        with get_client(sync_client=True) as client:
            runs: list[str] = []
            for page in _pages(client, "/flow_runs/filter", begun, folder):
                runs += [run["id"] for run in page]
                yield
            ours = {"flow_run_id": {"any_": runs}}
            pages = chain(
                _pages(client, "/task_runs/filter", begun, folder),
                _pages(client, "/logs/filter", {"logs": ours}, folder),
                _pages(client, "/artifacts/filter", {"artifacts": ours}, folder),
            )
            yield from (None for _ in pages)
    except httpx.HTTPError as error:
        raise EnvironmentFault(
            f"the Prefect server at {settings.other_prefect} cannot be searched ({type(error).__name__}): "
            "start it, or give an account that may read"
        ) from None


def _pages(
    client: SyncPrefectClient, kind: Kind, query: dict[str, Any], folder: Path
) -> Iterator[list[dict[str, Any]]]:
    for number in count():
        asked = {**query, "limit": PAGE, "offset": number * PAGE}
        page = client.request("POST", kind, json=asked).raise_for_status().json()
        _write(folder / f"Prefect-{kind.split('/')[1]}-{number}.json", page)
        yield page
        if len(page) < PAGE:
            return


def _of_mlflow(settings: Settings, dataset: str, since_s: float, folder: Path) -> Iterator[None]:
    """Write parameters, tags, metrics and smaller artifacts of runs, and what is said of the model's versions."""
    if not settings.tracking_uri.startswith("http"):
        return
    with reachable(settings) as client:
        # Shadows of a dataset begin with its name.
        experiments = client.search_experiments(filter_string=f"name LIKE '{dataset}%'")
        _write(folder / "MLflow-experiments.json", [dict(one) for one in experiments])
        versions = client.search_model_versions(f"name = '{dataset}'", max_results=PAGE)
        _write(folder / "MLflow-model-versions.json", [dict(one) for one in versions])
        yield
        began = f"attributes.start_time >= {int(since_s * 1000)}"
        ids = [one.experiment_id for one in experiments]
        for run in client.search_runs(ids, began, max_results=PAGE) if ids else ():
            artifacts = list(_artifacts(client, run.info.run_id))
            # A file is searched without the names of its folders.
            _write(
                folder / f"MLflow-run-{run.info.run_id}.json", {**run.to_dictionary(), "artifacts": artifacts}
            )
            yield
            for path, size in artifacts:
                if size <= ARTIFACT_BYTES:
                    place = folder / f"MLflow-artifacts-{run.info.run_id}"
                    place.mkdir(exist_ok=True)
                    client.download_artifacts(run.info.run_id, path, str(place))
                    yield


def _artifacts(client: Any, run_id: str, below: str | None = None) -> Iterator[tuple[str, int]]:
    for one in client.list_artifacts(run_id, below):
        if one.is_dir:
            yield from _artifacts(client, run_id, one.path)
        else:
            yield one.path, one.file_size or 0


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, default=str, ensure_ascii=False))
