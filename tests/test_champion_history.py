"""History of the champion: what a person did to the alias is noticed, kept, and not undone."""

from dataclasses import replace
from typing import Any

import pytest
from mlflow import MlflowClient

from services.ledger import add, entries, ledger_path
from services.mlflow.registry import Registered, drop_alias, set_alias
from services.settings import Settings
from tasks.champion_history import notice_move, promoted_before
from tasks.promotion import promote
from tests.synthetic import verdict


@pytest.fixture
def versions(tracked: Settings, request: pytest.FixtureRequest) -> list[Registered]:
    """Return four versions of a model of the test's own, each of a training of its own but the last, which repeats."""
    name = f"history-{abs(hash(request.node.name))}"
    client = MlflowClient(tracked.tracking_uri)
    client.create_registered_model(name)
    keys = ("data-1", "data-2", "data-3", "data-3")
    for key in keys:
        client.create_model_version(name, "s3://none/none", tags={"training.key": key})
    return [
        Registered(name=name, version=number, run_id="", tags={"training.key": key})
        for number, key in enumerate(keys, start=1)
    ]


def promoted(settings: Settings, *versions: Registered) -> None:
    """Promote versions one after the other, as nights do."""
    champion = None
    for version in versions:
        set_alias(settings, version, "challenger")
        promote(settings, version, champion, verdict(promote=True, champion=0.8 if champion else None))
        champion = version


def noticed(settings: Settings, versions: list[Registered]) -> list[dict[str, Any]]:
    """Notice moves, and return the lines about them."""
    notice_move.fn(versions[0].name, settings)
    lines = entries(ledger_path(settings, versions[0].name))
    return [line for line in lines if line["event"] == "moved by hand"]


def test_a_champion_that_nobody_moved_is_no_news(tracked: Settings, versions: list[Registered]) -> None:
    assert noticed(tracked, versions) == []
    promoted(tracked, versions[0], versions[1])
    assert noticed(tracked, versions) == []


def test_a_roll_back_by_hand_is_written_once(
    tracked: Settings, versions: list[Registered], capsys: pytest.CaptureFixture[str]
) -> None:
    promoted(tracked, versions[0], versions[1])
    set_alias(tracked, versions[0], "champion")
    (line,) = noticed(tracked, versions)
    assert (line["who"], line["champion"], line["candidate"]) == ("unknown", 2, 1)
    assert (line["training.before"], line["training"]) == ("data-2", "data-1")
    assert "from version 2 to version 1" in capsys.readouterr().out
    assert len(noticed(tracked, versions)) == 1


def test_a_champion_that_was_taken_off_is_written(tracked: Settings, versions: list[Registered]) -> None:
    promoted(tracked, versions[0])
    drop_alias(tracked, versions[0].name, "champion")
    (line,) = noticed(tracked, versions)
    assert (line["champion"], line["candidate"]) == (1, None)


def test_a_champion_that_was_deleted_is_written(tracked: Settings, versions: list[Registered]) -> None:
    promoted(tracked, versions[0])
    MlflowClient(tracked.tracking_uri).delete_model_version(versions[0].name, "1")
    (line,) = noticed(tracked, versions)
    assert (line["champion"], line["candidate"], line["training.before"]) == (1, None, "data-1")


def test_a_champion_before_any_promotion_is_written(tracked: Settings, versions: list[Registered]) -> None:
    set_alias(tracked, versions[2], "champion")
    (line,) = noticed(tracked, versions)
    assert (line["champion"], line["candidate"]) == (None, 3)


def test_a_promotion_that_was_cut_short_is_no_move_and_is_done_again(
    tracked: Settings, versions: list[Registered]
) -> None:
    promoted(tracked, versions[0], versions[1])
    # As after a crash between the line and the alias.
    set_alias(tracked, versions[0], "champion")
    set_alias(tracked, versions[1], "challenger")
    assert noticed(tracked, versions) == []
    assert promoted_before(tracked, versions[1]) == ""


def test_what_was_taken_off_is_not_promoted_again(tracked: Settings, versions: list[Registered]) -> None:
    promoted(tracked, versions[0], versions[2])
    set_alias(tracked, versions[0], "champion")
    noticed(tracked, versions)
    for same in versions[2:]:
        assert "version 3 was taken off as the champion by hand" in promoted_before(tracked, same)
    assert promoted_before(tracked, versions[1]) == ""


def test_what_another_model_replaced_is_not_promoted_again(
    tracked: Settings, versions: list[Registered]
) -> None:
    promoted(tracked, versions[2], versions[0])
    for same in versions[2:]:
        assert "version 3, of the same data and configuration, became champion" in promoted_before(
            tracked, same
        )
    assert promoted_before(tracked, versions[1]) == ""


def test_the_first_release_named_no_training(tracked: Settings, versions: list[Registered]) -> None:
    path = ledger_path(tracked, versions[0].name)
    add(path, {"event": "promoted", "candidate": 3, "champion": None})
    add(path, {"event": "promoted", "candidate": 1, "champion": 3})
    set_alias(tracked, versions[0], "champion")
    assert noticed(tracked, versions) == []
    assert all(promoted_before(tracked, version) for version in versions[2:])
    # Where a version does not name it either, the number is compared.
    assert promoted_before(tracked, replace(versions[2], tags={}))
    assert promoted_before(tracked, versions[1]) == ""
