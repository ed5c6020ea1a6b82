"""Registry: one version per training, aliases and tags, and nothing that unpickles."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from imaging.errors import UserFault
from models.config import TrainConfig
from models.objectives.classification import Classification
from models.objectives.objective_catalog import DEFAULT, OBJECTIVES
from models.portable.predictor import Predictor
from services.mlflow.registry import (
    DESCRIPTION_LIMIT,
    FACTS_AS_TAGS,
    Registered,
    add_facts,
    by_alias,
    by_version,
    check_files,
    describe,
    description,
    drop_alias,
    model_file,
    model_tags,
    newest,
    register,
    set_alias,
    set_tags,
    with_facts,
)
from services.mlflow.runs import start_run
from services.settings import Settings
from tests.synthetic import GREY, bright_model, register_bright


@pytest.fixture(scope="module")
def first() -> dict[str, Registered]:
    return {}


@pytest.fixture
def model(tracked: Settings, first: dict[str, Registered]) -> Registered:
    """Return one version that the tests of this module read; registering takes a second."""
    if not first:
        first["model"] = register_bright(tracked, "registry-read")
    return first["model"]


def artifacts(settings: Settings, model: Registered) -> list[Path]:
    folder = model_file(settings, model).parent
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_registered_model_is_version_one(model: Registered) -> None:
    assert (model.name, model.version, model.uri) == ("registry-read", 1, "models:/registry-read/1")


def test_a_version_has_its_spec_and_objective(model: Registered) -> None:
    assert model.spec == GREY
    assert model.objective == Classification(classes=("dark", "bright"), threshold=0.5)


@pytest.mark.parametrize("classes", [("a", "b", "c"), ("a|b", 'c"d')])
def test_classes_without_threshold_and_with_any_sign_come_back(classes: tuple[str, ...]) -> None:
    objective = Classification(classes=classes)
    tags = model_tags(GREY, TrainConfig(), objective)
    assert tags["threshold"] == ""
    assert Registered(name="n", version=1, run_id="r", tags=tags).objective == objective


def test_tags_are_on_the_version_itself(tracked: Settings, model: Registered) -> None:
    version = MlflowClient(tracked.tracking_uri).get_model_version(model.name, "1")
    assert version.tags["spec.digest"] == GREY.digest
    assert version.tags["input.units"] == "grey levels 0..255"
    assert json.loads(version.tags["classes"]) == ["dark", "bright"]


def test_the_signature_leaves_batch_height_and_width_open(tracked: Settings, model: Registered) -> None:
    mlflow.set_tracking_uri(tracked.tracking_uri)
    signature = mlflow.models.get_model_info(model.uri).signature
    assert [(spec.name, spec.shape) for spec in signature.inputs] == [("image", (-1, 1, -1, -1))]
    assert [(spec.name, spec.shape) for spec in signature.outputs] == [("probabilities", (-1, 2))]


def test_an_example_of_the_input_lies_beside_the_model(tracked: Settings, model: Registered) -> None:
    assert "input_example.json" in [path.name for path in artifacts(tracked, model)]


def test_nothing_among_the_files_can_be_unpickled(tracked: Settings, model: Registered) -> None:
    pickled = (".pkl", ".pickle", ".pt", ".pth", ".pt2", ".joblib", ".npy")
    files = artifacts(tracked, model)
    assert [path.name for path in files if path.suffix in pickled] == []
    # The first bytes of a pickle and of the zip that torch.save writes.
    assert not any(path.read_bytes().startswith((b"\x80\x04", b"\x80\x05", b"PK")) for path in files)


def test_requirements_name_no_torch_and_nothing_of_ours(tracked: Settings, model: Registered) -> None:
    (file,) = [path for path in artifacts(tracked, model) if path.name == "requirements.txt"]
    names = {line.partition("==")[0] for line in file.read_text().split()}
    assert names <= {"mlflow", "onnx", "onnxruntime", "numpy"}
    assert "onnxruntime" in names


def test_the_fetched_file_predicts(tracked: Settings, model: Registered) -> None:
    prediction = Predictor.load(model_file(tracked, model)).predict_levels(np.full((1, 16, 16), 51, np.uint8))
    assert prediction["probabilities"] == pytest.approx(np.array([[0.8, 0.2]]))


def test_mlflow_predicts_at_any_size(tracked: Settings, model: Registered) -> None:
    mlflow.set_tracking_uri(tracked.tracking_uri)
    loaded = mlflow.pyfunc.load_model(model.uri)
    for shape in ((1, 1, 8, 8), (3, 1, 20, 31)):
        probabilities = loaded.predict({"image": np.full(shape, 51, np.float32)})["probabilities"]
        assert probabilities == pytest.approx(np.array([[0.8, 0.2]] * shape[0]))


def test_registering_twice_makes_one_version(tracked: Settings, model: Registered) -> None:
    again = register(tracked, model.name, model.run_id, bright_model(gain=2), model.tags)
    assert again.version == model.version
    assert len(MlflowClient(tracked.tracking_uri).search_model_versions(f"name = '{model.name}'")) == 1


def test_another_training_makes_another_version(tracked: Settings) -> None:
    versions = [register_bright(tracked, "registry-two").version for _ in range(2)]
    assert versions == [1, 2]


def test_the_newest_is_returned_from_more_than_a_few(tracked: Settings) -> None:
    client = MlflowClient(tracked.tracking_uri)
    client.create_registered_model("registry-many")
    for number in range(12):
        client.create_model_version("registry-many", "s3://none/none", tags={"odd": str(number % 2)})
    newest_models = newest(tracked, "registry-many"), newest(tracked, "registry-many", odd="0")
    assert [model.version for model in newest_models if model] == [12, 11]


def test_a_model_that_is_not_there_is_none(tracked: Settings) -> None:
    assert newest(tracked, "registry-none") is None
    assert by_alias(tracked, "registry-none", "champion") is None


def test_an_alias_that_is_not_set_is_none(tracked: Settings, model: Registered) -> None:
    assert by_alias(tracked, model.name, "champion") is None


def test_an_alias_is_set_and_dropped(tracked: Settings, model: Registered) -> None:
    set_alias(tracked, model, "challenger")
    aliased = by_alias(tracked, model.name, "challenger")
    assert aliased is not None
    assert aliased.version == model.version
    drop_alias(tracked, model.name, "challenger")
    assert by_alias(tracked, model.name, "challenger") is None


def test_dropping_an_alias_that_is_not_set_does_nothing(tracked: Settings, model: Registered) -> None:
    drop_alias(tracked, model.name, "champion")


def test_tags_can_be_added(tracked: Settings, model: Registered) -> None:
    set_tags(tracked, model, {"gate.promote": "true"})
    tagged = newest(tracked, model.name)
    assert tagged is not None
    assert tagged.tags["gate.promote"] == "true"


def test_a_version_whose_file_is_gone_is_named_with_its_place(tracked: Settings) -> None:
    model = register_bright(tracked, "registry-gone")
    folder = model_file(tracked, model).parent
    shutil.rmtree(folder)
    for use in (check_files, model_file):
        with pytest.raises(
            UserFault, match=rf"version 1 of 'registry-gone' is gone from .*{folder.parent.name}"
        ):
            use(tracked, model)


@pytest.mark.parametrize("use", [check_files, lambda *given: set_alias(*given, "champion")])
def test_a_version_that_was_deleted_by_hand_is_named(
    tracked: Settings, use: Callable[[Settings, Registered], object]
) -> None:
    model = register_bright(tracked, "registry-deleted")
    MlflowClient(tracked.tracking_uri).delete_model_version(model.name, str(model.version))
    with pytest.raises(UserFault, match=f"version {model.version} of 'registry-deleted' .it was deleted"):
        use(tracked, model)


def test_a_model_that_was_deleted_by_hand_is_named(tracked: Settings) -> None:
    model = register_bright(tracked, "registry-no-model")
    MlflowClient(tracked.tracking_uri).delete_registered_model(model.name)
    with pytest.raises(UserFault, match=r"the model 'registry-no-model' .it was deleted"):
        set_tags(tracked, model, {"a": "b"})


VERDICT = {
    "gate.promote": "true",
    "gate.candidate": "0.9 (0.8-1.0)",
    "gate.reason": "it is good",
    "gate.floor": "0.7",
}
"""Two facts that are tags, and two that are not."""


def tags_of(settings: Settings, model: Registered) -> dict[str, str]:
    return dict(MlflowClient(settings.tracking_uri).get_model_version(model.name, str(model.version)).tags)


def test_a_person_reads_ten_tags_at_most_and_the_rest_is_one_file(tracked: Settings) -> None:
    made = register_bright(tracked, "registry-facts")
    add_facts(tracked, made, VERDICT)
    tags = tags_of(tracked, made)
    assert len(tags) <= 10
    assert set(tags) <= FACTS_AS_TAGS | {"classes", "threshold"}
    assert {"gate.promote", "gate.candidate", "spec", "classes", "threshold", "input.units"} <= set(tags)
    known = by_version(tracked, made.name, 1)
    assert known is not None
    assert with_facts(tracked, known).tags == {**made.tags, **VERDICT}
    assert made.tags["network"] == "small_cnn"
    assert "network" not in tags


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_kind_of_model_has_more_than_ten_tags(name: str) -> None:
    # A classifier's contract follows from its classes; a model that aggregates has one more, to be seen at once.
    without = {"aggregate"} | ({"contract"} if name == DEFAULT else set())
    assert len(FACTS_AS_TAGS.union(OBJECTIVES[name].metadata_keys) - without) <= 10


def test_the_tags_of_a_version_of_an_earlier_release_are_read_and_kept_up_to_date(tracked: Settings) -> None:
    client, name = MlflowClient(tracked.tracking_uri), "registry-earlier"
    run_id = start_run(tracked, name, "run", {}, {})
    client.create_registered_model(name)
    earlier = {
        "network": "resnet18",
        "validation.auroc": "0.9",
        "gate.reason": "it was good",
        "gate.promote": "true",
    }
    client.create_model_version(name, "s3://none/none", run_id=run_id, tags=earlier)
    known = by_version(tracked, name, 1)
    assert known is not None
    assert with_facts(tracked, known).tags == earlier
    add_facts(tracked, known, {**VERDICT, "gate.promote": "false"})
    # What stood in a tag is not out of date now.
    assert tags_of(tracked, known) == earlier | {
        "gate.promote": "false",
        "gate.reason": "it is good",
        "gate.candidate": "0.9 (0.8-1.0)",
    }


def test_a_description_that_is_too_long_loses_its_end(tracked: Settings, model: Registered) -> None:
    describe(tracked, model, "\n".join(["**Promoted**", *["a row of a table"] * 1000]))
    kept = description(tracked, model)
    assert kept.startswith("**Promoted**\na row of a table\n")
    assert DESCRIPTION_LIMIT - 20 < len(kept) <= DESCRIPTION_LIMIT
