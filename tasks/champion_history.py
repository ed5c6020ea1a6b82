"""History of the champion: aliases that were moved by hand are noticed, and who was champion is not promoted again."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from services.ledger import MOVED_BY_HAND, PROMOTED, Line, add, champion_changes, entries, ledger_path, locked
from services.mlflow.registry import Registered, by_alias, by_version
from services.settings import Settings
from tasks.retry import INPUT_OUTPUT

TRAINING_TAG = "training.key"
"""Of a model version: its data and configuration."""
REMEDY = "train on other data or with another configuration, or point the alias 'champion' at it yourself."


@task(name="look for a champion moved by hand", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def notice_move(name: str, settings: Settings) -> None:
    """Write into the ledger where the alias is not at the champion that the ledger names; nothing is moved back."""
    if not settings.has_registry:
        return
    with locked(settings, name) as ledger:
        current, changes = by_alias(settings, name, "champion"), _completed(settings, name)
        before = changes[-1]["candidate"] if changes else None
        after = current.version if current else None
        if after == before:
            return
        entry = {
            "event": MOVED_BY_HAND,
            "model": name,
            "who": "unknown",
            "candidate": after,
            "champion": before,
            "training": current.tags.get(TRAINING_TAG) if current else None,
            "training.before": _training_of(settings, name, changes[-1]) if changes else None,
        }
        add(ledger, entry)
    print(
        f"The champion of {name!r} was moved by hand, from {_named(before)} to {_named(after)}: it is written into the "
        "ledger and stays so"
    )


def promoted_before(settings: Settings, candidate: Registered) -> str:
    """Return why a candidate that was champion before is not promoted again, as the end of a sentence, or nothing.

    Versions of the same data and configuration count as one: whoever took one off gets no other like it.
    """
    training, version = candidate.tags.get(TRAINING_TAG), candidate.version
    for line in reversed(_completed(settings, candidate.name)):
        of_move, before, after = line["event"] == MOVED_BY_HAND, line["champion"], line["candidate"]
        if of_move and _is_same(line.get("training.before"), before, training, version):
            return (
                f"version {before} was taken off as the champion by hand (noticed {line['time']}): neither it nor "
                f"another of its data and configuration is promoted again; {REMEDY}"
            )
        if _is_same(_training_of(settings, candidate.name, line), after, training, version):
            return (
                f"version {after}, of the same data and configuration, became champion before ({line['time']}): "
                f"nothing is promoted twice; {REMEDY}"
            )
    return ""


def _is_same(training: str | None, number: int | None, candidate_training: str | None, version: int) -> bool:
    # By the training where both have it: numbers begin again after a model was deleted.
    return training == candidate_training if training and candidate_training else number == version


def _completed(settings: Settings, name: str) -> list[Line]:
    """Return the lines that changed the champion, without a promotion that was cut short before the alias moved.

    The challenger's alias says so: it is taken away last.
    """
    changes = champion_changes(entries(ledger_path(settings, name)))
    if changes and changes[-1]["event"] == PROMOTED:
        last, challenger = changes[-1], by_alias(settings, name, "challenger")
        champion = by_alias(settings, name, "champion")
        still_before = (champion.version if champion else None) == last["champion"]
        if still_before and challenger is not None and challenger.version == last["candidate"]:
            return changes[:-1]
    return changes


def _training_of(settings: Settings, name: str, line: Line) -> str | None:
    """Return the training of the version that a line made champion; lines of release 0.1.0 do not say."""
    if "training" in line or line["candidate"] is None:
        return line.get("training")
    version = by_version(settings, name, line["candidate"])
    return version.tags.get(TRAINING_TAG) if version else None


def _named(version: int | None) -> str:
    return "none" if version is None else f"version {version}"
