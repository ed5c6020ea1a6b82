"""Features: the embedding is a second output of the portable file, and of every example a row in the store."""

from pathlib import Path

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from imaging.errors import UserFault
from imaging.preprocess.slice import planes
from imaging.store.folder_store import FolderStore
from models.config import TrainConfig
from models.explain.features import embedding_width, features_name, write_features
from models.networks.catalog import NETWORKS, build
from models.networks.layers import head_of, with_embedding
from models.objectives.classification import Classification
from models.objectives.objective_catalog import OBJECTIVES, contract_of, file_metadata, objective_of
from models.portable.export import export_onnx, verify_export
from models.portable.predictor import Predictor
from models.training.batches import normalise
from services.flow_requests import FeaturesRequest
from services.mlflow.registry import model_tags, register, set_alias, signature
from services.mlflow.runs import start_run
from services.settings import Settings
from tasks.features import embed_dataset
from tests.synthetic import GREY, bright_model, version_of

PLAIN = Classification(classes=("dark", "bright"), threshold=0.5)
SMALL = ["small_cnn", "residual_small", "residual_small_3d"]
CLASSIFIERS = [name for name, row in NETWORKS.items() if row.output == "classes"]


@pytest.mark.parametrize(
    "name", [name if name in SMALL else pytest.param(name, marks=pytest.mark.slow) for name in CLASSIFIERS]
)
def test_every_network_of_classes_gives_what_its_head_sees(name: str) -> None:
    torch.set_num_threads(1)
    network, image = build(name, 3, 4).eval(), torch.randn(2, 4, 32, 32)
    with torch.no_grad():
        logits = network(image)
        width = with_embedding(network)
        outputs = network(image)
        linear = network.get_submodule(f"{head_of(network)}")
        assert isinstance(linear, nn.Linear)
        torch.testing.assert_close(outputs["logits"], logits)
        torch.testing.assert_close(linear(outputs["embedding"]), logits)
    assert outputs["embedding"].shape == (2, width)


def test_a_model_without_embedding_is_described_as_ever() -> None:
    assert file_metadata(PLAIN, GREY).keys() == {"classes", "spec", "input_units", "threshold"}
    assert [output.name for output in PLAIN.outputs(GREY)] == ["probabilities"]


def test_the_embedding_comes_second_and_is_read_back() -> None:
    embedded = PLAIN.embedded(64)
    assert objective_of(file_metadata(embedded, GREY)) == embedded
    outputs = signature(contract_of(embedded, GREY)).outputs.to_dict()
    assert [(one["name"], one["tensor-spec"]["shape"]) for one in outputs] == [
        ("probabilities", (-1, 2)),
        ("embedding", (-1, 64)),
    ]


def test_an_objective_without_embedding_refuses_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "bare", type("Bare", (Classification,), {"has_embedding": False}))
    with pytest.raises(ValidationError, match="models of bare have no embedding"):
        TrainConfig(objective="bare", embedding=True)


def test_a_file_without_embedding_is_refused_with_the_remedy() -> None:
    with pytest.raises(UserFault, match=r"version 3 gives no embedding: train it with .*embedding: true"):
        embedding_width(Predictor.load(bright_model().SerializeToString()), "version 3")


@pytest.fixture(scope="module")
def embedding_file() -> tuple[nn.Module, onnx.ModelProto]:
    torch.manual_seed(0)
    network = build("small_cnn", 2).eval()
    objective = PLAIN.embedded(with_embedding(network))
    model = export_onnx(network, GREY, objective)
    assert verify_export(model, network, GREY, objective) <= 1e-4
    return network, model


@pytest.mark.slow
def test_every_example_has_its_embedding_in_parquet(
    embedding_file: tuple[nn.Module, onnx.ModelProto], tmp_path: Path
) -> None:
    network, model = embedding_file
    version = version_of(FolderStore(tmp_path / "store"))
    rows = write_features(
        Predictor.load(model.SerializeToString()), version, tmp_path / "f.parquet", {"model": "models:/d/1"}
    )
    table, known = pq.read_table(tmp_path / "f.parquet"), version.table("examples")
    assert (rows, table.column_names) == (len(known), ["instance_key", "patient_key", "split", "embedding"])
    assert table["instance_key"].equals(known["instance_key"])
    assert table.schema.metadata[b"model"] == b"models:/d/1"
    images = version.examples_of(table["instance_key"].to_pylist()).gather(np.arange(rows))
    with torch.no_grad():
        wanted = network(normalise(torch.from_numpy(planes(images)).float()))["embedding"].numpy()
    np.testing.assert_allclose(np.stack(table["embedding"].to_numpy()), wanted, atol=1e-4)


@pytest.mark.slow
def test_features_are_named_by_model_and_dataset_and_written_once(
    embedding_file: tuple[nn.Module, onnx.ModelProto], tracked: Settings
) -> None:
    version, objective = version_of(tracked.dataset_store, name="embedded"), PLAIN.embedded(64)
    run_id = start_run(tracked, "embedded", "run", {}, {})
    tags = model_tags(GREY, TrainConfig(network="small_cnn", embedding=True), objective)
    set_alias(tracked, register(tracked, "embedded", run_id, embedding_file[1], tags), "champion")
    first, again = (embed_dataset.fn(FeaturesRequest(dataset="embedded"), tracked) for _ in range(2))
    assert first.place == again.place == features_name("embedded", 1, version.digest)
    assert (first.known, again.known, first.width) == (False, True, 64)
    assert first.rows == again.rows == len(version.table("examples"))
