"""Re-evaluation: the champion on the newest labelled data, beside the measure that it was promoted with."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from imaging.errors import UserFault
from imaging.quantities import quantity
from imaging.statistics.intervals import Measure
from imaging.statistics.verdict import GateConfig, gate_measure
from models.objectives.aggregation import NOUNS
from services.mlflow.registry import Registered, by_alias, describe, description, set_tags
from services.mlflow.runs import end_run, log_dataset, log_metrics, start_run
from services.settings import Settings
from tasks.evaluation import Pair, metrics_of, predict, reported_measures, versions_for
from tasks.report.outcomes import remeasured_markdown
from tasks.retry import INPUT_OUTPUT

BELOW_FLOOR = "radloop.champion.below-floor"


@dataclass(frozen=True, kw_only=True)
class Reevaluation:
    """Measures of the champion on the newest data."""

    champion: Registered
    dataset_digest: str
    measures: Mapping[str, Measure]
    measure: str
    floor: float
    useless: str = ""
    """Why the champion is of no use to anyone, as the end of a sentence."""
    units: str = "images"
    """What was judged, in the plural."""

    @property
    def reaches_floor(self) -> bool:
        """Whether the champion still reaches the floor, and is of use."""
        return not self.useless and self.measures[self.measure].value >= self.floor

    @property
    def headline(self) -> str:
        """The outcome in one sentence."""
        reached = "still reaches" if self.reaches_floor else "has fallen below"
        state = f"{reached} the floor of {self.floor:.3f}"
        if self.useless:
            state = f"is of no use ({self.useless.removesuffix('.')})"
        now, then = self.measures[self.measure], self.champion.tags.get("gate.candidate", "unknown")
        return (
            f"Version {self.champion.version} {state}: "
            f"{self.measure} {now} on {quantity(now.patients, 'patients')}; it was promoted with {then}"
        )


@task(name="measure champion again", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def remeasure(name: str, gate: GateConfig, settings: Settings) -> Reevaluation:
    """Measure the champion on all test patients of the newest version, and record it under a run of its own."""
    champion = by_alias(settings, name, "champion")
    if champion is None:
        raise UserFault(
            f"model {name!r} has no champion yet: `radloop run` trains one and lets it prove itself"
        )
    versions = versions_for(Pair(candidate=champion, champion=None), settings)
    version = versions[champion.tags["spec.digest"]]
    test = version.test_examples(f"reevaluate {champion.name}")
    predictions = predict(settings, champion, version, test)
    measures = reported_measures(predictions, gate)
    outcome = Reevaluation(
        champion=champion,
        dataset_digest=version.digest,
        measures=measures,
        measure=gate_measure(predictions.measures, gate),
        floor=gate.floor,
        useless="" if predictions.too_few_patients(gate.min_patients) else predictions.useless(),
        units=NOUNS[champion.objective.aggregation.over],
    )
    parameters = {"model.version": champion.version, "dataset.digest": version.digest}
    run_id = start_run(
        settings, name, f"reevaluate version {champion.version}", parameters, {"kind": "reevaluation"}
    )
    log_dataset(settings, run_id, version, "evaluation")
    log_metrics(settings, run_id, metrics_of(measures))
    end_run(settings, run_id)
    # Versions of earlier releases have them as tags; of others the run names the dataset, and the description the rest.
    again = {"reevaluated": str(measures[outcome.measure]), "reevaluated.dataset": version.digest}
    set_tags(settings, champion, {key: value for key, value in again.items() if key in champion.tags})
    day = datetime.now(UTC).date().isoformat()
    describe(settings, champion, remeasured_markdown(description(settings, champion), outcome, day))
    if not outcome.reaches_floor:
        # Prefect's automations can listen for this, and start a training or call a person.
        emit_event(
            BELOW_FLOOR,
            resource={"prefect.resource.id": f"radloop.model.{name}"},
            payload={"text": outcome.headline},
        )
    return outcome
