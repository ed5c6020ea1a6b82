"""Promotion of a candidate: the only place that moves the champion's alias, in one process at a time."""

from dataclasses import dataclass

from prefect import task
from prefect.cache_policies import NO_CACHE

from imaging.errors import EnvironmentFault
from imaging.statistics.verdict import Verdict
from services.ledger import KEPT, PROMOTED, add, ledger_path, locked
from services.mlflow.registry import Registered, add_facts, by_alias, describe, drop_alias, set_alias
from services.settings import Settings
from tasks.champion_history import TRAINING_TAG
from tasks.evaluation import Evaluation
from tasks.report.outcomes import version_markdown


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """Champion after a verdict, and whether it changed."""

    promoted: bool
    champion: int | None
    before: int | None


@task(name="promote", cache_policy=NO_CACHE)
def promote_candidate(evaluation: Evaluation, settings: Settings) -> Promotion:
    """Let the verdict take effect; a champion that met itself stays, without an entry in the ledger."""
    candidate = evaluation.candidate
    if evaluation.already_champion:
        return Promotion(promoted=False, champion=candidate.version, before=candidate.version)
    promotion = promote(settings, candidate, evaluation.champion, evaluation.verdict)
    describe(settings, candidate, version_markdown(evaluation))
    return promotion


def promote(
    settings: Settings, candidate: Registered, champion: Registered | None, verdict: Verdict
) -> Promotion:
    """Write the verdict on the candidate and, where it may, move the champion's alias to it.

    MLflow's aliases know no compare-and-swap, so the move is fenced here: it is refused when the champion is
    no longer the one that the verdict was about.
    """
    add_facts(settings, candidate, verdict.tags())
    if not verdict.promote:
        add(ledger_path(settings, candidate.name), _entry(KEPT, candidate, champion, verdict))
        return Promotion(promoted=False, champion=_number(champion), before=_number(champion))
    with locked(settings, candidate.name) as ledger:
        current = by_alias(settings, candidate.name, "champion")
        if _number(current) not in (_number(champion), candidate.version):
            raise EnvironmentFault(
                f"the champion of {candidate.name!r} became version {_number(current)} while version "
                f"{candidate.version} was compared with version {_number(champion)}: nothing was moved; evaluate again"
            )
        # Written first: a crash in between leaves a decision to repeat, never a move without a record.
        add(ledger, _entry(PROMOTED, candidate, champion, verdict))
        set_alias(settings, candidate, "champion")
        drop_alias(settings, candidate.name, "challenger")
    return Promotion(promoted=True, champion=candidate.version, before=_number(champion))


def _number(model: Registered | None) -> int | None:
    return model.version if model else None


def _entry(
    event: str, candidate: Registered, champion: Registered | None, verdict: Verdict
) -> dict[str, str | int | None]:
    return {
        "event": event,
        "model": candidate.name,
        "candidate": candidate.version,
        "champion": _number(champion),
        "training": candidate.tags.get(TRAINING_TAG),
        **verdict.tags(),
    }
