"""Promotion: the champion's alias moves by a verdict alone, and only from where the verdict saw it."""

from dataclasses import replace
from threading import Thread
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from mlflow import MlflowClient

from imaging.errors import EnvironmentFault
from imaging.statistics.classification import ClassPredictions
from services.ledger import entries, ledger_path
from services.mlflow.registry import Registered, by_alias, describe, description, set_alias
from services.settings import Settings
from tasks.evaluation import Evaluation
from tasks.promotion import Promotion, promote, promote_candidate
from tests.synthetic import measured, verdict


@pytest.fixture
def versions(tracked: Settings, request: pytest.FixtureRequest) -> list[Registered]:
    """Return three bare versions of a model of the test's own, the third as challenger."""
    name = f"promotion-{abs(hash(request.node.name))}"
    client = MlflowClient(tracked.tracking_uri)
    client.create_registered_model(name)
    for _ in range(3):
        client.create_model_version(name, "s3://none/none")
    made = [Registered(name=name, version=number, run_id="", tags={}) for number in (1, 2, 3)]
    set_alias(tracked, made[2], "challenger")
    return made


def champion(settings: Settings, versions: list[Registered]) -> int | None:
    registered = by_alias(settings, versions[0].name, "champion")
    return registered.version if registered else None


def ledger(settings: Settings, versions: list[Registered]) -> list[dict[str, Any]]:
    return entries(ledger_path(settings, versions[0].name))


def test_the_first_candidate_that_may_becomes_champion(tracked: Settings, versions: list[Registered]) -> None:
    done = promote(tracked, versions[2], None, verdict(promote=True))
    assert done == Promotion(promoted=True, champion=3, before=None)
    assert champion(tracked, versions) == 3


def test_a_better_candidate_takes_the_champions_place(tracked: Settings, versions: list[Registered]) -> None:
    set_alias(tracked, versions[0], "champion")
    done = promote(tracked, versions[2], versions[0], verdict(promote=True, champion=0.8))
    assert done == Promotion(promoted=True, champion=3, before=1)
    assert champion(tracked, versions) == 3


def test_a_promoted_candidate_challenges_no_more(tracked: Settings, versions: list[Registered]) -> None:
    promote(tracked, versions[2], None, verdict(promote=True))
    assert by_alias(tracked, versions[0].name, "challenger") is None


def test_a_rejected_candidate_leaves_the_champion(tracked: Settings, versions: list[Registered]) -> None:
    set_alias(tracked, versions[0], "champion")
    done = promote(tracked, versions[2], versions[0], verdict(promote=False, champion=0.95))
    assert done == Promotion(promoted=False, champion=1, before=1)
    assert champion(tracked, versions) == 1


def test_a_rejected_first_candidate_leaves_none(tracked: Settings, versions: list[Registered]) -> None:
    assert promote(tracked, versions[2], None, verdict(promote=False)).champion is None
    assert champion(tracked, versions) is None


@pytest.mark.parametrize("promoted", [True, False])
def test_the_verdict_is_on_the_version_either_way(
    tracked: Settings, versions: list[Registered], promoted: bool
) -> None:
    promote(tracked, versions[2], None, verdict(promote=promoted))
    tags = MlflowClient(tracked.tracking_uri).get_model_version(versions[2].name, "3").tags
    assert tags["gate.promote"] == str(promoted).lower()
    assert tags["gate.candidate"] == "0.900 (0.850-0.950)"


@pytest.mark.parametrize(("promoted", "event"), [(True, "promoted"), (False, "kept")])
def test_the_ledger_has_a_line_either_way(
    tracked: Settings, versions: list[Registered], promoted: bool, event: str
) -> None:
    set_alias(tracked, versions[0], "champion")
    promote(tracked, versions[2], versions[0], verdict(promote=promoted, champion=0.9))
    (line,) = ledger(tracked, versions)
    assert (line["event"], line["candidate"], line["champion"]) == (event, 3, 1)
    assert line["gate.measure"] == "auroc"


def test_a_champion_that_moved_meanwhile_stops_the_move(
    tracked: Settings, versions: list[Registered]
) -> None:
    set_alias(tracked, versions[1], "champion")
    with pytest.raises(
        EnvironmentFault, match=r"became version 2 while version 3 .* version 1: .*evaluate again"
    ):
        promote(tracked, versions[2], versions[0], verdict(promote=True, champion=0.8))
    assert champion(tracked, versions) == 2
    assert ledger(tracked, versions) == []


def test_a_champion_that_appeared_meanwhile_stops_the_move(
    tracked: Settings, versions: list[Registered]
) -> None:
    set_alias(tracked, versions[1], "champion")
    with pytest.raises(EnvironmentFault, match="became version 2"):
        promote(tracked, versions[2], None, verdict(promote=True))


def test_a_promotion_that_was_cut_short_can_be_repeated(
    tracked: Settings, versions: list[Registered]
) -> None:
    set_alias(tracked, versions[2], "champion")
    assert promote(tracked, versions[2], versions[0], verdict(promote=True, champion=0.8)).promoted
    assert champion(tracked, versions) == 3


def test_nobody_moves_the_alias_while_another_does(tracked: Settings, versions: list[Registered]) -> None:
    lock = ledger_path(tracked, versions[0].name).with_suffix(".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    work = Thread(target=promote, args=(tracked, versions[2], None, verdict(promote=True)))
    with FileLock(lock):
        work.start()
        work.join(0.5)
        assert champion(tracked, versions) is None
    work.join(30)
    assert champion(tracked, versions) == 3


def test_of_two_promotions_at_once_one_wins(tracked: Settings, versions: list[Registered]) -> None:
    outcomes: list[str] = []

    def move(candidate: Registered) -> None:
        try:
            promote(tracked, candidate, None, verdict(promote=True))
            outcomes.append("moved")
        except EnvironmentFault:
            outcomes.append("refused")

    works = [Thread(target=move, args=(candidate,)) for candidate in versions[:2]]
    for work in works:
        work.start()
    for work in works:
        work.join(60)
    assert sorted(outcomes) == ["moved", "refused"]
    assert [line["candidate"] for line in ledger(tracked, versions)] == [champion(tracked, versions)]


def evaluated(candidate: Registered, **changes: Any) -> Evaluation:
    predictions = ClassPredictions(
        labels=np.array([0, 1]),
        probabilities=np.eye(2),
        patients=np.array(["a", "b"]),
        classes=("dark", "bright"),
    )
    plain = Evaluation(
        candidate=candidate,
        champion=None,
        predictions=predictions,
        champion_predictions=None,
        measures={"auroc": measured(0.9)},
        champion_measures={},
        verdict=verdict(promote=True),
        test_keys=np.array(["i", "j"]),
    )
    return replace(plain, **changes)


def test_an_evaluation_takes_effect(tracked: Settings, versions: list[Registered]) -> None:
    assert promote_candidate.fn(evaluated(versions[2]), tracked).promoted


def test_a_champion_that_met_itself_leaves_no_trace(tracked: Settings, versions: list[Registered]) -> None:
    set_alias(tracked, versions[2], "champion")
    done = promote_candidate.fn(evaluated(versions[2], already_champion=True), tracked)
    assert done == Promotion(promoted=False, champion=3, before=3)
    assert ledger(tracked, versions) == []


def test_the_description_of_a_version_has_the_verdict(tracked: Settings, versions: list[Registered]) -> None:
    promote_candidate.fn(evaluated(versions[2]), tracked)
    text = description(tracked, versions[2])
    assert text.startswith(verdict(promote=True).headline)
    assert "| AUROC | 0.900 (0.850-0.950) |" in text


def test_a_champion_that_met_itself_keeps_its_description(
    tracked: Settings, versions: list[Registered]
) -> None:
    describe(tracked, versions[2], "as it was")
    promote_candidate.fn(evaluated(versions[2], already_champion=True), tracked)
    assert description(tracked, versions[2]) == "as it was"
