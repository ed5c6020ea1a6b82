"""The gate's rule, each way that it can go."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from pydantic import ValidationError

from imaging.errors import UserFault
from imaging.statistics.classification import MEASURES, ClassPredictions
from imaging.statistics.intervals import measure_all
from imaging.statistics.verdict import GateConfig, decide

GATE = GateConfig(draws=400)


def model(
    skill: float, n: int = 300, seed: int = 0, noise_seed: int = 1, images_each: int = 1
) -> ClassPredictions:
    """Return the predictions of a model that separates two classes by `skill` standard deviations."""
    labels = np.repeat(np.random.default_rng(seed).integers(2, size=n), images_each)
    noise = np.random.default_rng(noise_seed).normal(size=n * images_each)
    scores = 1 / (1 + np.exp(-(skill * (labels - 0.5) + noise)))
    return ClassPredictions(
        labels=labels,
        probabilities=np.stack([1 - scores, scores], axis=1),
        patients=np.repeat([f"p{i:03d}" for i in range(n)], images_each),
        classes=("normal", "lesion"),
        threshold=0.5,
    )


def test_the_first_model_above_the_floor_is_promoted() -> None:
    verdict = decide(model(3), None, GATE)
    assert verdict.promote
    assert verdict.champion is None
    assert "there is no champion yet" in verdict.reason


def test_the_first_model_below_the_floor_is_not() -> None:
    verdict = decide(model(0.2), None, GATE)
    assert not verdict.promote
    assert "does not reach the floor of 0.700" in verdict.reason
    assert verdict.headline.startswith("Not promoted: ")


def test_the_floor_is_compared_with_the_value_not_the_interval() -> None:
    candidate = model(1.2)
    measure = measure_all(candidate, ["auroc"], draws=400)["auroc"]
    floor = (measure.lower + measure.value) / 2
    assert decide(candidate, None, GateConfig(floor=floor, draws=400)).promote


def test_a_value_on_the_floor_reaches_it() -> None:
    candidate = model(1.2)
    floor = measure_all(candidate, ["auroc"], draws=10)["auroc"].value
    assert decide(candidate, None, GateConfig(floor=floor)).promote


def test_a_better_model_takes_the_champions_place() -> None:
    verdict = decide(model(3), model(1), GATE)
    assert verdict.promote
    assert verdict.difference_lower > 0
    assert verdict.headline.startswith("Promoted: ")


def test_a_clearly_worse_model_does_not() -> None:
    verdict = decide(model(1), model(3), GATE)
    assert not verdict.promote
    assert "not ruled out" in verdict.reason
    assert verdict.headline.startswith("Kept the champion: ")


def test_an_equal_model_is_promoted_within_the_margin() -> None:
    verdict = decide(model(2), model(2), GATE)
    assert (verdict.difference, verdict.difference_lower, verdict.difference_upper) == (0, 0, 0)
    assert verdict.promote


def test_without_a_margin_an_equal_model_is_not_promoted() -> None:
    assert not decide(model(2), model(2), GateConfig(margin=0, draws=400)).promote


def test_a_better_value_with_a_wide_interval_is_not_enough() -> None:
    candidate, champion = model(2.5, n=30, noise_seed=1), model(2.3, n=30, noise_seed=5)
    verdict = decide(candidate, champion, GATE)
    assert verdict.difference > 0 > verdict.difference_lower
    assert not verdict.promote


def test_the_lower_limit_is_what_the_margin_bounds() -> None:
    candidate, champion = model(2, noise_seed=2), model(2, noise_seed=1)
    lower = decide(candidate, champion, GATE).difference_lower
    assert decide(candidate, champion, GateConfig(draws=400, margin=-lower + 0.001)).promote
    assert not decide(candidate, champion, GateConfig(draws=400, margin=-lower - 0.001)).promote


def test_pairing_narrows_the_interval_of_the_difference() -> None:
    champion = model(1.5)
    generator = np.random.default_rng(7)
    shifted = np.clip(champion.probabilities[:, 1] + generator.normal(0, 0.01, 300), 0, 1)
    candidate = replace(champion, probabilities=np.stack([1 - shifted, shifted], axis=1))
    verdict = decide(candidate, champion, GATE)
    width = verdict.difference_upper - verdict.difference_lower
    assert width < (verdict.candidate.upper - verdict.candidate.lower) / 5


def test_below_the_floor_a_better_model_does_not_replace_the_champion() -> None:
    verdict = decide(model(1.5), model(0.5), GateConfig(floor=0.99, draws=400))
    assert verdict.difference_lower > 0
    assert not verdict.promote
    assert "floor of 0.990" in verdict.reason


def test_too_few_patients_of_a_class_decide_nothing() -> None:
    candidate = model(4, n=6, images_each=20)
    verdict = decide(candidate, None, GATE)
    assert not verdict.promote
    assert "the gate asks for 5 of each class" in verdict.reason


def test_patients_of_a_class_are_counted_not_images() -> None:
    candidate = model(4, n=40, images_each=3)
    fewest = min(len(np.unique(candidate.patients[candidate.labels == k])) for k in (0, 1))
    assert decide(candidate, None, GateConfig(min_patients=fewest, draws=200)).promote
    assert not decide(candidate, None, GateConfig(min_patients=fewest + 1, draws=200)).promote


def test_other_examples_are_not_compared() -> None:
    verdict = decide(model(3), model(1, seed=9), GATE)
    assert not verdict.promote
    assert verdict.difference is None
    assert "did not predict the same test examples" in verdict.reason


def test_other_patients_are_not_compared() -> None:
    champion = model(1)
    assert not decide(model(3), replace(champion, patients=champion.patients[::-1]), GATE).promote


def test_another_number_of_examples_is_not_compared() -> None:
    assert not decide(model(3), model(1, n=299), GATE).promote


def test_other_classes_are_not_compared() -> None:
    verdict = decide(model(3), replace(model(1), classes=("lesion", "normal")), GATE)
    assert not verdict.promote
    assert "register the candidate under another model name" in verdict.reason


def test_an_undefined_measure_is_never_promoted() -> None:
    silent = replace(model(3), threshold=1.0)
    verdict = decide(silent, silent, GateConfig(measure="precision", draws=200))
    assert not verdict.promote
    assert verdict.tags()["gate.difference"] == "undefined"


def test_the_verdict_counts_patients_and_examples() -> None:
    verdict = decide(model(3, n=50, images_each=2), None, GATE)
    assert (verdict.patients, verdict.examples) == (50, 100)


def test_the_same_question_has_the_same_answer() -> None:
    first, second = (asdict(decide(model(2), model(1.9, noise_seed=3), GATE)) for _ in range(2))
    assert first == second


def test_tags_are_text_and_have_the_numbers() -> None:
    verdict = decide(model(3), model(1), GATE)
    tags = verdict.tags()
    assert all(isinstance(v, str) for v in tags.values())
    assert tags["gate.promote"] == "true"
    assert tags["gate.candidate"] == str(verdict.candidate)
    assert tags["gate.difference"].startswith(f"{verdict.difference:+.3f} (")
    assert tags["gate.patients"] == "300"


def test_tags_without_a_champion_are_none() -> None:
    tags = decide(model(3), None, GATE).tags()
    assert (tags["gate.champion"], tags["gate.difference"]) == ("none", "none")


def test_the_gate_decides_on_every_measure_of_which_more_is_better() -> None:
    candidate = model(3, n=40)
    for name, measure in MEASURES.items():
        gate = GateConfig(measure=name, draws=200)
        if measure.higher_is_better:
            assert decide(candidate, None, gate).measure == name
        else:
            with pytest.raises(UserFault, match=f"cannot decide on '{name}': choose one of auroc, auprc"):
                decide(candidate, None, gate)


def test_the_first_measure_decides_where_none_is_named() -> None:
    assert decide(model(3), None, GATE).measure == "auroc"


@pytest.mark.parametrize(
    "wrong",
    [{"floor": 0.4}, {"floor": 1.1}, {"margin": -0.1}, {"measure": "Dice score"}, {"min_patients": 0}],
)
def test_a_value_outside_the_bounds_is_refused(wrong: dict[str, float | str]) -> None:
    with pytest.raises(ValidationError):
        GateConfig(**wrong)


def test_every_field_of_the_form_has_a_title_and_a_description() -> None:
    fields = GateConfig.model_json_schema()["properties"].values()
    assert all("title" in field and "description" in field for field in fields)


def called(threshold: float, **changes: object) -> ClassPredictions:
    """Return a model of AUROC 0.98 that calls positive from a threshold."""
    return replace(model(3), threshold=threshold, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("useless", "reason"),
    [
        (called(0.0), "it calls no image right that is 'normal'"),  # specificity 0
        (called(1.0), "it calls no image right that is 'lesion'"),  # sensitivity 0
        (model(-1), "no better than chance, 0.5"),
        (
            replace(model(3), probabilities=np.full((300, 2), 0.5)),
            "its AUROC of 0.500 is no better than chance",
        ),
    ],
)
def test_a_useless_model_does_not_become_the_first_champion(useless: ClassPredictions, reason: str) -> None:
    verdict = decide(useless, None, GateConfig(draws=200, measure="recall", floor=0.5))
    assert (verdict.promote, reason in verdict.reason, reason in verdict.tags()["gate.useless"]) == (
        False,
        True,
        True,
    )


def test_a_model_that_knows_two_of_three_classes_is_of_use() -> None:
    labels = np.arange(60) % 3
    known = np.where(labels == 2, 0, labels)
    predictions = ClassPredictions(
        labels=labels,
        probabilities=np.eye(3)[known] * 0.8 + np.eye(3)[labels] * 0.1 + 1 / 30,
        patients=np.array([f"p{n}" for n in range(60)]),
        classes=("a", "b", "c"),
    )
    assert predictions.useless() == ""
    assert decide(predictions, None, GATE).tags()["gate.useless"] == "no"


def test_a_model_of_no_use_in_validation_is_not_promoted() -> None:
    verdict = decide(model(3), None, GATE, doubt="its AUROC of 0.190 is no better than chance, 0.5.")
    assert (verdict.promote, "0.190" in verdict.reason) == (False, True)


def test_a_difference_without_an_interval_is_not_shown_with_one() -> None:
    one = replace(model(3, n=2), labels=np.array([0, 1]), patients=np.array(["a", "a"]))
    verdict = decide(one, one, GateConfig(draws=200, min_patients=1))
    assert (verdict.difference_text, verdict.promote) == ("+0.000 (n/a)", False)
