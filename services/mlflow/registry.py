"""Model versions in MLflow's registry: register a candidate, find challenger and champion, list what MLflow names.

What is known of a version are its facts. Few of them are tags, so that a person can read the page: what a consumer
needs (`spec`, `classes`, `threshold`, `input.units`), what versions are looked up by, and the verdict in short. All of
them stand in one JSON artifact of the run. Versions of earlier releases have all as tags, and stay so.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version as installed
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import mlflow
import numpy as np
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from imaging.errors import UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.release_compatibility import canonical_json, check_release, read_config
from models.config import TrainConfig
from models.objectives.objective_catalog import (
    contract_of,
    objective_class_of,
    objective_metadata,
    objective_of,
)
from models.objectives.protocol import Objective
from models.portable.contract import Contract
from services.mlflow.registry_peek import Champion
from services.mlflow.runs import reachable
from services.settings import Settings

Alias = Literal["challenger", "champion"]
MODEL_FILE = "model.onnx"
FACTS_FILE = "model.json"
"""Of the run: all facts of its version, by name."""
FACTS_AS_TAGS = frozenset(
    {
        *("spec", "input.units", "contract", "needs", "aggregate"),
        *("spec.digest", "training.key", "dataset.digest"),
        *("gate.promote", "gate.candidate"),
    }
)
"""Of a version, beside those that its objective is read from: of a classifier, which has no contract, two."""
DESCRIPTION_LIMIT = 5000
"""Characters of a description, as MLflow's database has it."""
DIGEST_TAGS = ("dataset.digest", "reevaluated.dataset")
"""Of a model version: the dataset that it was made from and the one that it was measured on."""
DIGEST_PARAMETER = "dataset.digest"
"""Of a run, of a training or a re-evaluation."""
PAGE = 1000


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A model version: its name, and what its tags say, or all its facts after `with_facts`."""

    name: str
    version: int
    run_id: str
    tags: Mapping[str, str]

    def __str__(self) -> str:
        return f"version {self.version} of {self.name!r}"

    @property
    def uri(self) -> str:
        """The version's address for MLflow's load_model."""
        return f"models:/{self.name}/{self.version}"

    @property
    def spec(self) -> PreprocessSpec:
        """How the images were prepared that it was trained on."""
        return read_config(PreprocessSpec, self.tags["spec"], str(self), digest=self.tags["spec.digest"])

    @property
    def objective(self) -> Objective:
        """What it predicts, and with which classes and thresholds."""
        return objective_of(self.tags)


def register(
    settings: Settings,
    name: str,
    run_id: str,
    model: Any,
    tags: Mapping[str, str],
) -> Registered:
    """Log the portable model under its run and make it a version with these facts, once per run."""
    with reachable(settings) as client:
        for known in _versions(settings, f"name = '{name}' and run_id = '{run_id}'"):
            return with_facts(settings, known)
        mlflow.set_tracking_uri(settings.tracking_uri)
        contract = contract_of(objective_of(tags), PreprocessSpec.model_validate_json(tags["spec"]))
        with mlflow.start_run(run_id=run_id):
            info = mlflow.onnx.log_model(
                model,
                name="model",
                signature=signature(contract),
                input_example=example_input(contract),
                # Given, because guessing them starts a process and takes half a minute.
                pip_requirements=[
                    f"{package}=={installed(package)}" for package in ("onnxruntime", "onnx", "numpy")
                ],
                metadata=dict(tags),
            )
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        # First, so that no version is without.
        client.log_dict(run_id, dict(tags), FACTS_FILE)
        shown = FACTS_AS_TAGS.union(objective_class_of(tags).metadata_keys)
        made = client.create_model_version(
            name,
            info.model_uri,
            run_id=run_id,
            tags={key: value for key, value in tags.items() if key in shown},
            model_id=info.model_id,
        )
        return replace(_registered(client.get_model_version(name, made.version)), tags=dict(tags))


def signature(contract: Contract) -> ModelSignature:
    """Return the signature of a contract: free axes stay free; an inferred signature would fix them."""
    inputs, outputs = (
        Schema(
            [
                TensorSpec(np.dtype(np.float32), tuple(size or -1 for size in tensor.shape), tensor.name)
                for tensor in tensors
            ]
        )
        for tensors in (contract.inputs, contract.outputs)
    )
    return ModelSignature(inputs=inputs, outputs=outputs)


def example_input(contract: Contract) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Return a tiny input: one image of 8 by 8, all zero."""
    sizes = {"batch": 1, "height": 8, "width": 8}
    return {tensor.name: np.zeros(tensor.sized(sizes), np.float32) for tensor in contract.inputs}


def by_alias(settings: Settings, name: str, alias: Alias) -> Registered | None:
    """Return the version that an alias points at, or None."""
    with reachable(settings) as client:
        try:
            return _readable(_registered(client.get_model_version_by_alias(name, alias)))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


def by_version(settings: Settings, name: str, version: int) -> Registered | None:
    """Return a version by its number, or None."""
    versions = _versions(settings, f"name = '{name}'")
    return _readable(next((item for item in versions if item.version == version), None))


def newest(settings: Settings, name: str, **tags: str) -> Registered | None:
    """Return the newest version that carries these tags, or None."""
    versions = _versions(settings, _tagged(name, tags))
    return _readable(max(versions, key=lambda item: item.version, default=None))


def set_alias(settings: Settings, model: Registered, alias: Alias) -> None:
    """Point an alias at a version."""
    with reachable(settings) as client:
        client.set_registered_model_alias(model.name, alias, str(model.version))


def drop_alias(settings: Settings, name: str, alias: Alias) -> None:
    """Take an alias away; nothing happens where it is not set."""
    with reachable(settings) as client:
        client.delete_registered_model_alias(name, alias)


def set_tags(settings: Settings, model: Registered, tags: Mapping[str, str]) -> None:
    """Write tags on a version."""
    with reachable(settings) as client:
        for key, value in tags.items():
            client.set_model_version_tag(model.name, str(model.version), key, value)


def with_facts(settings: Settings, model: Registered) -> Registered:
    """Return a version with all its facts as tags; those of earlier releases have them as tags already."""
    return replace(model, tags={**model.tags, **_facts(settings, model)})


def add_facts(settings: Settings, model: Registered, facts: Mapping[str, str]) -> None:
    """Write facts of a version: into the file of its run, and as tags those that are tags."""
    with reachable(settings) as client:
        if model.run_id:
            client.log_dict(model.run_id, {**_facts(settings, model), **facts}, FACTS_FILE)
        known = client.get_model_version(model.name, str(model.version)).tags
    # What stands in a tag of an earlier release shall not be out of date; and what has no run has no file.
    tags = FACTS_AS_TAGS | set(known) if model.run_id else set(facts)
    set_tags(settings, model, {key: value for key, value in facts.items() if key in tags})


def describe(settings: Settings, model: Registered, markdown: str) -> None:
    """Write the description of a version, in Markdown; of one that is too long the end is left out, line by line."""
    lines = markdown.split("\n")
    while len("\n".join(lines)) > DESCRIPTION_LIMIT:
        lines.pop()
    with reachable(settings) as client:
        client.update_model_version(model.name, str(model.version), "\n".join(lines))


def description(settings: Settings, model: Registered) -> str:
    """Return the description of a version, or nothing."""
    with reachable(settings) as client:
        return client.get_model_version(model.name, str(model.version)).description or ""


def artifact_link(settings: Settings, run_id: str, path: str) -> str:
    """Return the link to an artifact of a run on MLflow's page, for texts on that page: it names no host."""
    with reachable(settings) as client:
        experiment = client.get_run(run_id).info.experiment_id
    return f"#/experiments/{experiment}/runs/{run_id}/artifacts/{path}"


def model_file(settings: Settings, model: Registered) -> Path:
    """Fetch the portable file of a version, and return where it lies."""
    check_files(settings, model)
    with reachable(settings):
        folder = mlflow.artifacts.download_artifacts(artifact_uri=model.uri)
    return Path(folder) / MODEL_FILE


def check_files(settings: Settings, model: Registered) -> None:
    """Raise UserFault where the portable file of a version is gone; nothing is fetched."""
    with reachable(settings) as client:
        mlflow.set_tracking_uri(settings.tracking_uri)
        files = mlflow.artifacts.list_artifacts(artifact_uri=model.uri)
        place = client.get_model_version_download_uri(model.name, str(model.version))
    if not any(file.path == MODEL_FILE for file in files):
        raise UserFault(
            f"{MODEL_FILE} of {model} is gone from {place}: restore it from a copy; without one, delete the version on "
            "MLflow's page, and point the alias 'champion' at the next that is trained"
        )


def champions(settings: Settings) -> list[Champion]:
    """Return the champion of each registered model; no registry is made where there is none."""
    if not settings.has_registry:
        return []
    with reachable(settings) as client:
        models = client.search_registered_models()
    versions = {model.name: model.aliases.get("champion") for model in models}
    return [Champion(name=name, version=int(at) if at else None) for name, at in versions.items()]


def versions_of(settings: Settings, name: str, **tags: str) -> list[int]:
    """Return the numbers of the versions of a model that carry these tags."""
    return sorted(model.version for model in _versions(settings, _tagged(name, tags)))


def named_datasets(settings: Settings) -> frozenset[str]:
    """Return the digests of dataset versions that model versions and runs name, also runs that are still going on.

    No registry is made where there is none. Raises EnvironmentFault where the server does not answer.
    """
    if not settings.has_registry:
        return frozenset()
    with reachable(settings) as client:
        models = _pages(lambda token: client.search_model_versions("", PAGE, page_token=token))
        experiments = [
            one.experiment_id for one in _pages(lambda token: client.search_experiments(page_token=token))
        ]
        runs = _pages(lambda token: client.search_runs(experiments, max_results=PAGE, page_token=token))
        digests = chain(
            (model.tags.get(tag) for model in models for tag in DIGEST_TAGS),
            chain.from_iterable(map(_digests_of_run, runs)),
        )
        return frozenset(digest for digest in digests if digest)


def model_tags(spec: PreprocessSpec, config: TrainConfig, objective: Objective) -> dict[str, str]:
    """Return the tags that say what a version expects and predicts, how it was made, and the oldest release of use."""
    # What is null in a file, such as the threshold of many classes, is an empty tag.
    described = {
        key: "" if value == "null" else value for key, value in objective_metadata(objective, spec).items()
    }
    return {
        "spec": canonical_json(spec),
        "spec.digest": spec.digest,
        "input.units": spec.input_units,
        **described,
        "network": config.network,
        "train.digest": config.digest,
    }


def _facts(settings: Settings, model: Registered) -> dict[str, str]:
    if not model.run_id:
        return {}
    with reachable(settings) as client:
        if not any(file.path == FACTS_FILE for file in client.list_artifacts(model.run_id)):
            return {}
        mlflow.set_tracking_uri(settings.tracking_uri)
        text = mlflow.artifacts.load_text(f"runs:/{model.run_id}/{FACTS_FILE}")
    return {str(key): str(value) for key, value in json.loads(text).items()}


def _digests_of_run(run: Run) -> Iterator[str | None]:
    yield run.data.params.get(DIGEST_PARAMETER)
    yield from (given.dataset.digest for given in run.inputs.dataset_inputs)


def _pages(search: Callable[[str | None], Any]) -> Iterator[Any]:
    page = search(None)
    yield from page
    while page.token:
        page = search(page.token)
        yield from page


def _tagged(name: str, tags: Mapping[str, str]) -> str:
    return f"name = '{name}'" + "".join(f" and tags.`{key}` = '{value}'" for key, value in tags.items())


def _versions(settings: Settings, query: str) -> list[Registered]:
    with reachable(settings) as client:
        return [_registered(item) for item in client.search_model_versions(query)]


def _readable(model: Registered | None) -> Registered | None:
    """Return a model version; raise UserFault with the release to install where it needs a newer one."""
    if model is not None:
        check_release(str(model), model.tags.get("needs", ""))
    return model


def _registered(item: ModelVersion) -> Registered:
    return Registered(name=item.name, version=int(item.version), run_id=item.run_id, tags=dict(item.tags))
