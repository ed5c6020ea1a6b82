"""TrainConfig refuses what cannot be trained, and names what it holds."""

from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError

from models.config import (
    LAST,
    AugmentConfig,
    ComputeConfig,
    LossConfig,
    OptimizerConfig,
    TrainConfig,
)
from models.networks.catalog import NETWORKS
from models.objectives.classification import Classification
from models.objectives.objective_catalog import OBJECTIVES
from models.training.optimization import OPTIMIZERS, SCHEDULES


def test_the_form_offers_every_network() -> None:
    assert TrainConfig.model_json_schema()["properties"]["network"]["enum"] == list(NETWORKS)


def test_a_network_of_masks_cannot_learn_classes() -> None:
    with pytest.raises(ValidationError, match="'unet' gives masks, not classes: choose one of small_cnn"):
        TrainConfig(network="unet")


def test_an_objective_of_masks_has_a_network_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = type("Masks", (Classification,), {"network_output": "masks"})
    monkeypatch.setitem(OBJECTIVES, "masks", masks)
    assert TrainConfig(objective="masks").network == "unet"
    with pytest.raises(
        ValidationError, match="'small_cnn' gives classes, not masks: choose one of unet, unet_3d"
    ):
        TrainConfig(objective="masks", network="small_cnn")


@pytest.mark.parametrize(
    ("model", "field", "table"),
    [
        (OptimizerConfig, "name", OPTIMIZERS),
        (OptimizerConfig, "schedule", SCHEDULES),
    ],
)
def test_every_choice_has_its_row_in_a_table(
    model: type[BaseModel], field: str, table: dict[str, object]
) -> None:
    assert set(get_args(model.model_fields[field].annotation)) == set(table)


def test_two_equal_configurations_have_one_digest() -> None:
    assert TrainConfig(seed=3).digest == TrainConfig(seed=3).digest


def test_another_seed_has_another_digest() -> None:
    assert TrainConfig(seed=3).digest != TrainConfig(seed=4).digest


def test_json_and_back_is_the_same_configuration() -> None:
    config = TrainConfig(optimizer=OptimizerConfig(name="sgd"), augment=AugmentConfig(flip=True))
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


def test_flipping_is_off_unless_asked_for() -> None:
    assert not TrainConfig().augment.flip


@pytest.mark.parametrize("model", [TrainConfig, OptimizerConfig, AugmentConfig, LossConfig, ComputeConfig])
def test_every_field_has_a_title_for_the_form(model: type[BaseModel]) -> None:
    assert all(field.title for field in model.model_fields.values())


@pytest.mark.parametrize(
    "values",
    [
        {"network": "vgg"},
        {"epochs": 0},
        {"workers": 0},
        {"ema_decay": 1.0},
        {"seed": -1},
        {"learning_rate": 0.1},
        {"optimizer": {"learning_rate": 0}},
        {"objective": "divination"},
        {"measure": "dice"},
        {"augment": {"shift_fraction": 0.6}},
        {"augment": "anatomy"},
        {"optimizer": {"warm_up": 1}},
        {"optimizer": {"accumulation": 0}},
        {"loss": {"label_smoothing": 1}},
    ],
)
def test_values_beyond_their_bounds_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainConfig.model_validate(values)


def test_a_batch_smaller_than_the_workers_is_refused_with_a_remedy() -> None:
    with pytest.raises(ValidationError, match="raise batch_size or lower workers"):
        TrainConfig(batch_size=1, workers=2)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        TrainConfig().epochs = 3  # type: ignore[misc]


def test_a_batch_smaller_than_its_passes_is_refused_with_a_remedy() -> None:
    with pytest.raises(ValidationError, match="workers 2 x accumulation 3, raise batch_size or lower one"):
        TrainConfig(batch_size=5, optimizer=OptimizerConfig(accumulation=3))


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"augment": {"mixup_alpha": 0.2}}, "mixup"),
        ({"loss": {"focal_gamma": 2}}, "focal loss"),
        ({"loss": {"label_smoothing": 0.1}}, "label smoothing"),
        ({"class_weights": "sampled"}, "sampled class weights"),
    ],
)
def test_a_technique_that_an_objective_does_not_follow_is_refused(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, object], name: str
) -> None:
    TrainConfig.model_validate(values)
    monkeypatch.setattr(OBJECTIVES["classification"], "techniques", frozenset())
    with pytest.raises(ValidationError, match=f"classification has no {name}: leave"):
        TrainConfig.model_validate(values)


def test_every_objective_may_take_the_last_epoch() -> None:
    assert [TrainConfig(objective=name, measure=LAST).measure for name in OBJECTIVES]
