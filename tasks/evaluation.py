"""Comparison of two registered models on the same locked test patients, and the steps around it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE

from imaging.dataset.version.dataset_version import DatasetVersion, newest_version
from imaging.dataset.version.example_set import ExampleSet
from imaging.errors import UserFault
from imaging.statistics.intervals import Measure, measure_all
from imaging.statistics.predictions import Predictions
from imaging.statistics.verdict import GateConfig, Verdict, decide, gate_measure
from models.objectives.aggregation import NOUNS, Units
from models.objectives.objective_catalog import useless_in_validation
from models.portable.predictor import Predictor
from services.datasets import newest_dataset, shadow_name
from services.mlflow.registry import (
    Registered,
    by_alias,
    by_version,
    check_files,
    model_file,
    newest,
    with_facts,
)
from services.mlflow.runs import check_experiment, log_metrics
from services.settings import Settings
from tasks.champion_history import promoted_before
from tasks.retry import INPUT_OUTPUT

NOT_OF_MLFLOW = re.compile(r"[^\w. -]")
"""Characters that the name of a metric may not have."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The newest candidate, and the champion where there is one."""

    candidate: Registered
    champion: Registered | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Predictions of a candidate, and of the champion where there is one, for the test patients, and the verdict.

    `already_champion`: the candidate is the champion, so that there is nothing to decide.
    """

    candidate: Registered
    champion: Registered | None
    predictions: Predictions
    champion_predictions: Predictions | None
    measures: Mapping[str, Measure]
    champion_measures: Mapping[str, Measure]
    verdict: Verdict
    test_keys: NDArray[np.str_]
    """Of each example that is judged; of a unit that of the image that tells most."""
    already_champion: bool = False
    judged: str = ""
    """What was judged in place of the images, as a sentence."""
    units: str = "images"
    """What was judged, in the plural."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Predictions of a model for test examples or their units, and what stands for `Evaluation`'s fields."""

    predictions: Predictions
    test_keys: NDArray[np.str_]
    text: str = ""


@task(name="find contenders", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def contenders(name: str, version: int | None, settings: Settings) -> Pair:
    """Return the champion and the candidate: the version that is asked for, the challenger, or the newest."""
    if version is not None:
        candidate = by_version(settings, name, version)
    else:
        candidate = by_alias(settings, name, "challenger") or newest(settings, name)
    if candidate is None:
        which = f"model {name!r}" if version is None else f"version {version} of {name!r}"
        raise UserFault(
            f"the registry at {settings.tracking_uri} has no {which}: run `radloop train` first"
            + (", or give another --version" if version is not None else "")
        )
    # Of its measures in validation: the gate asks whether it was of use there.
    return Pair(candidate=with_facts(settings, candidate), champion=by_alias(settings, name, "champion"))


def versions_for(pair: Pair, settings: Settings) -> dict[str, DatasetVersion]:
    """Return a dataset version for each preprocessing that the pair expects, by the digest of its spec."""
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


def check_champion(name: str, settings: Settings) -> None:
    """Raise UserFault, before a night takes anything in, for a champion that cannot be met or a place that was deleted.

    It may need a newer release, or its files are gone; of the place, see `check_experiment`.
    """
    if not settings.has_registry:
        return
    check_experiment(settings, name)
    champion = by_alias(settings, name, "champion")
    if champion is not None:
        _ = champion.spec
        check_files(settings, champion)


def champion_of_other_spec(name: str, settings: Settings) -> Registered | None:
    """Return the champion, where it expects images that are prepared otherwise than the newest version's."""
    champion = by_alias(settings, name, "champion")
    same = champion is None or champion.tags["spec.digest"] == newest_dataset(settings, name).spec.digest
    return None if same else champion


@task(name="compare", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def compare(
    pair: Pair, versions: Mapping[str, DatasetVersion], gate: GateConfig, settings: Settings
) -> Evaluation:
    """Let both predict the same test patients, decide, and log the candidate's measures under its run."""
    evaluation = evaluate_pair(settings, pair.candidate, pair.champion, versions, gate)
    if evaluation.judged:
        print(evaluation.judged)
    log_metrics(settings, pair.candidate.run_id, metrics_of(evaluation.measures))
    return evaluation


def evaluate_pair(
    settings: Settings,
    candidate: Registered,
    champion: Registered | None,
    versions: Mapping[str, DatasetVersion],
    gate: GateConfig,
) -> Evaluation:
    """Let both models predict the test patients of the candidate's version, and decide.

    `versions` holds the dataset version for each preprocessing digest: the champion may expect another one. Both are
    judged by what the candidate is to be judged by, each by its own rule; one that has none by the mean.
    """
    version = versions[candidate.tags["spec.digest"]]
    test = version.test_examples(f"evaluate {candidate.name} {candidate.version}")
    already_champion = champion is not None and champion.version == candidate.version
    if already_champion:
        champion = None
    over = candidate.objective.aggregation.over
    judged = judge(settings, candidate, version, test, over)
    predictions, champion_predictions = judged.predictions, None
    if champion is not None:
        of_champion = versions[champion.tags["spec.digest"]]
        champion_predictions = judge(settings, champion, of_champion, test, over).predictions
    verdict = decide(predictions, champion_predictions, gate, useless_in_validation(candidate.tags))
    if already_champion:
        end = f"; but it is of no use: {verdict.useless}" if verdict.useless else "."
        reason = f"version {candidate.version} is the champion already, and nothing newer was trained{end}"
        verdict = replace(verdict, promote=False, reason=reason)
    elif verdict.promote and (before := promoted_before(settings, candidate)):
        verdict = replace(verdict, promote=False, reason=before)
    return Evaluation(
        candidate=candidate,
        champion=champion,
        predictions=predictions,
        champion_predictions=champion_predictions,
        measures=reported_measures(predictions, gate),
        champion_measures=reported_measures(champion_predictions, gate) if champion_predictions else {},
        verdict=verdict,
        test_keys=judged.test_keys,
        already_champion=already_champion,
        judged=judged.text,
        units=NOUNS[over],
    )


def predict(settings: Settings, model: Registered, version: DatasetVersion, test: ExampleSet) -> Predictions:
    """Return what the registered file itself predicts for the test rows, or for the units that it is judged by."""
    return judge(settings, model, version, test, model.objective.aggregation.over).predictions


def judge(
    settings: Settings, model: Registered, version: DatasetVersion, test: ExampleSet, over: str
) -> Judged:
    """Return what the registered file itself predicts for the test rows, prepared as it expects them, or for units."""
    objective = model.objective
    if refusal := objective.refusal(version):
        raise UserFault(
            f"version {model.version} of {model.name!r} {refusal}: start another model with --name"
        )
    examples = test if version.digest == test.version_digest else version.examples_of(test.instance_keys)
    scores = Predictor.load(model_file(settings, model)).score(examples)
    if over == "image":
        return Judged(
            predictions=objective.predictions(scores, examples, version), test_keys=test.instance_keys
        )
    units = Units.of_version(version, examples, over)
    # Whatever aggregates has probabilities, in the order of the version.
    of_units: Any = objective.predictions(objective.unit_scores(scores, units), units, version)
    # Of two classes the second is looked for; else what the unit most probably has.
    column = np.full(len(units), 1) if len(version.classes) == 2 else of_units.probabilities.argmax(axis=1)
    of_images: Any = objective.predictions(scores, examples, version)
    shown = units.shown(of_images.probabilities, column)
    return Judged(
        predictions=of_units,
        test_keys=test.instance_keys[shown],
        text=units.text(objective.aggregation.rule),
    )


def reported_measures(predictions: Predictions, gate: GateConfig) -> dict[str, Measure]:
    """Return the measures of a report and that of the gate, each with its patient-bootstrap interval."""
    names = dict.fromkeys([*predictions.reported, gate_measure(predictions.measures, gate)])
    return measure_all(predictions, names, draws=gate.draws, seed=gate.seed)


def metrics_of(measures: Mapping[str, Measure], prefix: str = "test") -> dict[str, float]:
    """Return measures with their limits under the names that MLflow shows, which allow no brackets."""
    limits: dict[str, float] = {}
    for name, measure in measures.items():
        base, _, part = name.removesuffix("]").partition("[")
        of_part = f".{NOT_OF_MLFLOW.sub('_', part)}" if part else ""
        numbers = {"": measure.value, "_lower": measure.lower, "_upper": measure.upper}
        limits |= {
            f"{prefix}_{base}{end}{of_part}": float(value)
            for end, value in numbers.items()
            if np.isfinite(value)
        }
    return limits
