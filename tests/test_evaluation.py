"""Evaluation: two registered files predict the same locked test patients."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from mlflow import MlflowClient

from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.errors import UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.statistics.verdict import GateConfig
from imaging.store.folder_store import FolderStore
from services.datasets import shadow_name
from services.ledger import MOVED_BY_HAND, add, ledger_path
from services.mlflow.registry import Registered, model_file, set_alias
from services.mlflow.runs import get_run, open_experiment
from services.settings import Settings
from tasks.evaluation import (
    Evaluation,
    Pair,
    champion_of_other_spec,
    check_champion,
    compare,
    contenders,
    evaluate_pair,
    metrics_of,
    predict,
    versions_for,
)
from tests.synthetic import GREY, measured, register_bright, version_of

GATE = GateConfig(min_patients=2, draws=200)
LARGER = PreprocessSpec.grey_levels(32)


@pytest.fixture(scope="module")
def known() -> dict[str, Registered]:
    return {}


@pytest.fixture
def good(tracked: Settings, known: dict[str, Registered]) -> Registered:
    """Return a model that is always right."""
    return known.setdefault("good", known.get("good") or register_bright(tracked, "evaluation"))


@pytest.fixture
def bad(tracked: Settings, good: Registered, known: dict[str, Registered]) -> Registered:
    """Return a model that is always wrong, registered after the good one."""
    return known.setdefault(
        "bad", known.get("bad") or register_bright(tracked, "evaluation", gain=-1, offset=1)
    )


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    return version_of(FolderStore(tmp_path_factory.mktemp("store")))


def meet(
    settings: Settings, candidate: Registered, champion: Registered | None, version: DatasetVersion
) -> Evaluation:
    return evaluate_pair(settings, candidate, champion, {GREY.digest: version}, GATE)


def test_a_first_candidate_that_reaches_the_floor_is_promoted(
    tracked: Settings, good: Registered, version: DatasetVersion
) -> None:
    outcome = meet(tracked, good, None, version)
    assert outcome.verdict.promote
    assert outcome.measures["auroc"].value == 1


def test_a_first_candidate_below_the_floor_is_not(
    tracked: Settings, bad: Registered, version: DatasetVersion
) -> None:
    assert not meet(tracked, bad, None, version).verdict.promote


def test_a_worse_candidate_does_not_beat_the_champion(
    tracked: Settings, good: Registered, bad: Registered, version: DatasetVersion
) -> None:
    outcome = meet(tracked, bad, good, version)
    assert not outcome.verdict.promote
    assert outcome.champion_measures["auroc"].value == 1


def test_only_the_test_patients_are_looked_at(
    tracked: Settings, good: Registered, bad: Registered, version: DatasetVersion
) -> None:
    outcome = meet(tracked, good, bad, version)
    wanted = version.test_examples("test").patient_keys
    assert outcome.champion_predictions is not None
    for predictions in (outcome.predictions, outcome.champion_predictions):
        assert np.array_equal(predictions.patients, wanted)


def test_a_champion_that_meets_itself_stays(
    tracked: Settings, good: Registered, version: DatasetVersion
) -> None:
    outcome = meet(tracked, good, good, version)
    assert (outcome.already_champion, outcome.verdict.promote, outcome.champion) == (True, False, None)
    assert "is the champion already" in outcome.verdict.headline


def test_the_threshold_is_the_models_own(
    tracked: Settings, good: Registered, version: DatasetVersion
) -> None:
    picky = replace(good, tags={**good.tags, "threshold": "0.99"})
    predictions = predict(tracked, picky, version, version.test_examples("test"))
    assert not predictions.predicted.any()


def test_every_measure_that_is_shown_has_its_interval(
    tracked: Settings, good: Registered, version: DatasetVersion
) -> None:
    outcome = meet(tracked, good, None, version)
    measures = outcome.measures
    assert tuple(measures) == outcome.predictions.reported
    assert all(measure.lower <= measure.value <= measure.upper for measure in measures.values())


def test_a_champion_of_another_spec_sees_the_same_patients(
    tracked: Settings, good: Registered, bad: Registered, version: DatasetVersion
) -> None:
    shadow = version_of(version.store, spec=LARGER, name="d--other")
    old = replace(good, tags={**good.tags, "spec.digest": LARGER.digest})
    outcome = evaluate_pair(tracked, bad, old, {GREY.digest: version, LARGER.digest: shadow}, GATE)
    assert outcome.champion_predictions is not None
    assert np.array_equal(outcome.champion_predictions.patients, outcome.predictions.patients)
    assert np.array_equal(outcome.champion_predictions.labels, outcome.predictions.labels)


def test_a_model_of_other_classes_is_refused(
    tracked: Settings, good: Registered, version: DatasetVersion
) -> None:
    other = replace(good, tags={**good.tags, "classes": '["cat", "dog"]'})
    with pytest.raises(UserFault, match=r"knows the classes \['cat', 'dog'\] and the dataset has"):
        predict(tracked, other, version, version.test_examples("test"))


def test_classes_in_another_order_are_put_in_order(
    tracked: Settings, good: Registered, version: DatasetVersion
) -> None:
    turned = replace(good, tags={**good.tags, "classes": '["bright", "dark"]'})
    rows = version.test_examples("test")
    mine, theirs = predict(tracked, good, version, rows), predict(tracked, turned, version, rows)
    assert np.array_equal(mine.probabilities[:, ::-1], theirs.probabilities)


def test_metrics_have_their_limits_and_leave_out_what_is_undefined() -> None:
    undefined = replace(measured(0.5), value=math.nan, lower=math.nan, upper=math.nan)
    metrics = metrics_of({"auroc": measured(0.5), "f1": undefined})
    assert metrics == pytest.approx({"test_auroc": 0.5, "test_auroc_lower": 0.45, "test_auroc_upper": 0.55})


def test_the_challenger_is_the_one_that_is_compared(
    tracked: Settings, good: Registered, bad: Registered
) -> None:
    set_alias(tracked, good, "challenger")
    assert contenders.fn("evaluation", None, tracked).candidate.version == good.version


def test_a_version_that_is_named_is_the_one_that_is_compared(
    tracked: Settings, good: Registered, bad: Registered
) -> None:
    set_alias(tracked, good, "challenger")
    assert contenders.fn("evaluation", bad.version, tracked).candidate.version == bad.version


def test_without_challenger_the_newest_is(tracked: Settings) -> None:
    made = [register_bright(tracked, "evaluation-newest") for _ in range(2)]
    assert contenders.fn("evaluation-newest", None, tracked).candidate.version == made[1].version


def test_no_model_at_all_is_refused_with_the_remedy(tracked: Settings) -> None:
    with pytest.raises(UserFault, match="no model 'evaluation-none': run `radloop train` first"):
        contenders.fn("evaluation-none", None, tracked)


def test_a_comparison_writes_its_measures_under_the_candidates_run(
    tracked: Settings, good: Registered, version: DatasetVersion
) -> None:
    compare.fn(Pair(candidate=good, champion=None), {GREY.digest: version}, GATE, tracked)
    assert get_run(tracked, good.run_id).data.metrics["test_auroc"] == 1


def test_a_pair_of_one_spec_needs_one_version(tracked: Settings, good: Registered, bad: Registered) -> None:
    version_of(tracked.folder_store, name="evaluation")
    assert list(versions_for(Pair(candidate=bad, champion=good), tracked)) == [GREY.digest]


def test_a_champion_of_another_spec_needs_its_shadow(
    tracked: Settings, good: Registered, bad: Registered
) -> None:
    old = replace(good, tags={**good.tags, "spec.digest": LARGER.digest})
    pair = Pair(candidate=bad, champion=old)
    with pytest.raises(UserFault, match=f"expects images of preprocessing {LARGER.digest}.*`radloop run`"):
        versions_for(pair, tracked)
    shadow = version_of(tracked.folder_store, spec=LARGER, name=shadow_name("evaluation", old))
    assert versions_for(pair, tracked)[LARGER.digest].digest == shadow.digest


def test_a_champion_of_the_same_spec_needs_no_shadow(tracked: Settings, good: Registered) -> None:
    set_alias(tracked, good, "champion")
    assert champion_of_other_spec("evaluation", tracked) is None


def test_a_night_is_refused_before_it_begins_where_the_champion_has_no_file(tracked: Settings) -> None:
    champion = register_bright(tracked, "no-file")
    set_alias(tracked, champion, "champion")
    check_champion("no-file", tracked)
    shutil.rmtree(model_file(tracked, champion).parent)
    with pytest.raises(UserFault, match="version 1 of 'no-file' is gone"):
        check_champion("no-file", tracked)


def test_a_night_is_refused_before_it_begins_where_the_experiment_was_deleted(tracked: Settings) -> None:
    MlflowClient(tracked.tracking_uri).delete_experiment(open_experiment(tracked, "no-experiment"))
    with pytest.raises(UserFault, match="'no-experiment' was deleted"):
        check_champion("no-experiment", tracked)


def test_a_version_that_is_not_there_is_named(tracked: Settings, good: Registered) -> None:
    with pytest.raises(UserFault, match="no version 77 of 'evaluation'"):
        contenders.fn("evaluation", 77, tracked)


def test_a_model_of_no_use_in_validation_is_not_promoted(
    tracked: Settings, good: Registered, version: DatasetVersion
) -> None:
    doubtful = replace(good, tags={**good.tags, "validation.auroc": "0.1900"})
    verdict = meet(tracked, doubtful, None, version).verdict
    assert (verdict.promote, "0.190 is no better than chance" in verdict.reason) == (False, True)


def test_a_model_that_was_taken_off_is_not_promoted_and_the_verdict_has_the_reason(
    tracked: Settings, good: Registered, version: DatasetVersion
) -> None:
    model = register_bright(tracked, "taken-off")
    add(ledger_path(tracked, "taken-off"), {"event": MOVED_BY_HAND, "candidate": None, "champion": 1})
    verdict = meet(tracked, model, None, version).verdict
    assert (verdict.promote, "taken off as the champion by hand" in verdict.headline) == (False, True)
