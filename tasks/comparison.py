"""Owns the steps of an evaluation: who meets whom, on which rows, and what is written about it."""

from collections.abc import Mapping
from dataclasses import dataclass

from prefect import task
from prefect.cache_policies import NO_CACHE

from imaging.dataset.version.dataset_version import DatasetVersion, newest_version
from imaging.errors import UserFault
from imaging.statistics.verdict import GateConfig
from services.mlflow.registry import Registered, by_alias, by_version, newest
from services.settings import Settings
from tasks.evaluation import Evaluation, evaluate_pair, metrics_of
from tasks.requests import shadow_name
from tasks.retry import INPUT_OUTPUT
from tasks.training import newest_dataset


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The newest candidate, and the champion where there is one."""

    candidate: Registered
    champion: Registered | None


@task(name="find contenders", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def contenders(name: str, version: int | None, settings: Settings) -> Pair:
    """Return the candidate, which is the challenger or the newest version where none is named, and the champion."""
    if version is not None:
        candidate = by_version(settings, name, version)
    else:
        candidate = by_alias(settings, name, "challenger") or newest(settings, name)
    if candidate is None:
        raise UserFault(
            f"the registry at {settings.tracking_uri} has no model {name!r}: run `radloop train` first"
        )
    return Pair(candidate=candidate, champion=by_alias(settings, name, "champion"))


def versions_for(pair: Pair, settings: Settings) -> dict[str, DatasetVersion]:
    """Return a dataset version for each preprocessing that the pair expects."""
    name = pair.candidate.name
    newest_one = newest_dataset(settings, name)
    versions = {newest_one.spec.digest: newest_one}
    for model in (pair.candidate, pair.champion):
        if model is not None and model.tags["spec.digest"] not in versions:
            shadow = newest_version(settings.dataset_store, shadow_name(name, model))
            if shadow is None:
                raise UserFault(
                    f"version {model.version} of {name!r} expects images of preprocessing {model.tags['spec.digest']} "
                    f"and the dataset holds {newest_one.spec.digest}: `radloop run` prepares both"
                )
            versions[model.tags["spec.digest"]] = shadow
    return versions


@task(name="compare", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def compare(
    pair: Pair, versions: Mapping[str, DatasetVersion], gate: GateConfig, settings: Settings
) -> Evaluation:
    """Let both predict the same test patients, decide, and log the candidate's measures under its run."""
    from services.mlflow.runs import log_metrics

    evaluation = evaluate_pair(settings, pair.candidate, pair.champion, versions, gate)
    log_metrics(settings, pair.candidate.run_id, metrics_of(evaluation.measures))
    return evaluation


def champion_of_other_spec(name: str, settings: Settings) -> Registered | None:
    """Return the champion, where it expects images that are prepared otherwise than the newest version's."""
    champion = by_alias(settings, name, "champion")
    same = champion is None or champion.tags["spec.digest"] == newest_dataset(settings, name).spec.digest
    return None if same else champion
