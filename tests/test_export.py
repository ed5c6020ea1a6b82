"""The portable file: modality units of any size in, class probabilities out, one file, nothing of this machine."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import imaging.preprocess.area
from imaging.errors import EnvironmentFault
from imaging.image.image import Image
from imaging.image.window import IDENTITY, Window
from imaging.preprocess.slice import prepare
from imaging.preprocess.spec import PreprocessSpec
from imaging.store.folder_store import FolderStore
from models.networks.catalog import build
from models.objectives.classification import Classification
from models.objectives.objective_catalog import OBJECTIVES
from models.objectives.protocol import Objective
from models.portable.contract import Axis, TensorContract
from models.portable.export import (
    Portable,
    _graph_digest,
    area_weights,
    export_onnx,
    verify_export,
    write_metadata,
)
from models.portable.predictor import Predictor
from models.training.batches import normalise

CT = PreprocessSpec(window=Window(center=40, width=400), size_px=16)
OBJECTIVE = Classification(classes=("plain", "contrast"), threshold=0.3)
GREY, OF_THREE = PreprocessSpec.grey_levels(28), Classification(classes=("a", "b", "c"))
SHAPES = [
    (1, 16, 16),
    (2, 16, 16),
    (3, 64, 64),
    (1, 50, 31),
    (2, 31, 50),
    (1, 9, 12),
    (5, 16, 100),
    (1, 33, 1),
]


def sharp(name: str, classes: int = 2) -> nn.Module:
    """Return a network whose answer depends on every pixel; fresh ones answer nearly the same to all."""
    torch.manual_seed(0)
    network = build(name, classes).eval()
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    nn.init.normal_(last.weight, std=3.0)
    return network


def units(spec: PreprocessSpec, shape: tuple[int, ...]) -> np.ndarray:
    lower, upper = spec.portable_window.bounds
    return np.rint(np.random.default_rng(3).uniform(lower - 50, upper + 50, shape)).astype(np.float32)


@cache
def exported(name: str) -> tuple[nn.Module, onnx.ModelProto]:
    """Return a network and its export, which takes seconds."""
    network = sharp(name, 3)
    return network, export_onnx(network, GREY, OF_THREE)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return sharp("small_cnn")


@pytest.fixture(scope="module")
def model(network: nn.Module) -> onnx.ModelProto:
    return export_onnx(network, CT, OBJECTIVE)


@pytest.mark.parametrize("shape", SHAPES)
def test_any_batch_height_and_width_equals_prepare_and_torch(
    model: onnx.ModelProto, network: nn.Module, shape: tuple[int, int, int]
) -> None:
    images = units(CT, shape)
    levels = np.stack([prepare(Image(stored=image), CT) for image in images])
    with torch.no_grad():
        wanted = network(normalise(torch.from_numpy(levels)[:, None].float())).softmax(1).numpy()
    given = Predictor.load(model.SerializeToString()).run(images[:, None])["probabilities"]
    assert np.abs(given - wanted).max() <= 1e-4


def test_the_answers_compared_above_are_not_all_alike(network: nn.Module) -> None:
    with torch.no_grad():
        probabilities = Portable(network, CT, OBJECTIVE).named(torch.from_numpy(units(CT, (20, 1, 16, 16))))[
            "probabilities"
        ]
    assert probabilities[:, 1].std() > 0.02


# bench/networks.py exports every network of the catalog, in some minutes.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["residual_small", "resnet18", "mobilenet_v3_small"])
def test_every_network_survives_the_export(name: str) -> None:
    network, traced = exported(name)
    assert verify_export(traced, network, GREY, OF_THREE) <= 1e-4


@dataclass(frozen=True, kw_only=True)
class Masks(Objective):
    """The probability of each class for each pixel or voxel, as a file gives it; nothing learns it here."""

    name: ClassVar = "masks-of-a-test"
    network_output: ClassVar = "masks"

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        return cls()

    def outputs(self, spec: PreprocessSpec) -> tuple[TensorContract, ...]:
        places = [Axis(name=f"place {axis}", size=size) for axis, size in enumerate(spec.shape)]
        axes = (Axis(name="batch"), Axis(name="class", size=2), *places)
        return (TensorContract(name="masks", axes=axes, units="1", meaning="probability of each class"),)

    def activate(self, outputs: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        return {"masks": outputs["logits"].softmax(dim=1)}


@pytest.mark.slow
def test_a_u_net_survives_the_export_on_a_grid_of_odd_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, Masks.name, Masks)
    spec = PreprocessSpec(modality="OT", window=IDENTITY, size_px=27, kind="volume", slices=9)
    torch.manual_seed(0)
    network = build("unet_3d", 2, spec.channels).eval()
    assert verify_export(export_onnx(network, spec, Masks()), network, spec, Masks()) <= 1e-4


@pytest.mark.parametrize("length", [5, 16, 31, 64, 100])
@pytest.mark.parametrize("more", [0, 1, 40])
def test_area_weights_equal_the_preparations(length: int, more: int) -> None:
    inside = area_weights(length, length + more, 16).numpy()
    assert np.allclose(inside, imaging.preprocess.area.area_weights(length, length + more, 16), atol=1e-6)


@pytest.mark.parametrize("spec", [CT, PreprocessSpec(window=IDENTITY, size_px=16)])
@pytest.mark.parametrize("shape", [(32, 32), (40, 25), (7, 11)])
def test_levels_in_the_graph_equal_the_preparations(spec: PreprocessSpec, shape: tuple[int, int]) -> None:
    image = units(spec, shape)
    inside = (
        Portable(nn.Identity(), spec, OBJECTIVE).levels(torch.from_numpy(image)[None, None])[0, 0].numpy()
    )
    assert np.array_equal(inside, prepare(Image(stored=image), spec))


def test_probabilities_add_up_to_one(model: onnx.ModelProto) -> None:
    given = Predictor.load(model.SerializeToString()).run(units(CT, (4, 1, 20, 20)))["probabilities"]
    assert np.allclose(given.sum(axis=1), 1, atol=1e-6)


def test_the_signature_leaves_batch_height_and_width_open(model: onnx.ModelProto) -> None:
    (given,) = model.graph.input
    sizes = [axis.dim_param or axis.dim_value for axis in given.type.tensor_type.shape.dim]
    assert (given.name, sizes) == ("image", ["batch", 1, "height", "width"])
    assert given.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [output.name for output in model.graph.output] == ["probabilities"]


def test_the_file_is_one_of_onnx_1_13_which_onnxruntime_runs_from_1_14_on(model: onnx.ModelProto) -> None:
    # onnxruntime.ai/docs/reference/compatibility.html: 1.14 has ONNX 1.13; its operators and form are in onnx's table.
    release, form, operators = next(row for row in onnx.helper.VERSION_TABLE if row[0] == "1.13.0")[:3]
    assert (release, model.ir_version) == ("1.13.0", form)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", operators)]
    onnx.checker.check_model(model, full_check=True)
    assert not model.functions


def test_all_weights_are_inside_the_file(model: onnx.ModelProto) -> None:
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_the_metadata_describes_input_and_output(model: onnx.ModelProto) -> None:
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["classes"]) == ["plain", "contrast"]
    assert PreprocessSpec.model_validate_json(metadata["spec"]) == CT
    assert metadata["input_units"] == "Hounsfield units"
    assert json.loads(metadata["threshold"]) == 0.3


def test_the_threshold_can_be_written_later_and_leaves_the_rest(network: nn.Module) -> None:
    model = export_onnx(network, CT, replace(OBJECTIVE, threshold=None))
    before = Predictor.load(model.SerializeToString())
    write_metadata(model, replace(OBJECTIVE, threshold=0.7), CT)
    after = Predictor.load(model.SerializeToString())
    assert before.objective == replace(OBJECTIVE, threshold=None)
    assert (after.objective, after.spec) == (replace(OBJECTIVE, threshold=0.7), before.spec)


def test_the_file_names_no_file_of_this_machine(model: onnx.ModelProto) -> None:
    assert b".py" not in model.SerializeToString()


@pytest.mark.slow
def test_exporting_twice_gives_the_same_bytes(model: onnx.ModelProto, network: nn.Module) -> None:
    again = export_onnx(network, CT, OBJECTIVE)
    assert again.SerializeToString() == model.SerializeToString()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["residual_small", "mobilenet_v3_small"])
def test_a_kept_graph_gives_the_same_bytes_with_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    graphs, (other, traced) = FolderStore(tmp_path), exported(name)
    export_onnx(OF_THREE.build(name, 1).eval(), GREY, OF_THREE, graphs, name)
    with monkeypatch.context() as patch:
        patch.delattr(torch.onnx, "export")
        again = export_onnx(other, GREY, OF_THREE, graphs, name)
    assert again.SerializeToString() == traced.SerializeToString()


def test_another_preprocessing_or_objective_has_a_graph_of_its_own() -> None:
    digests = {
        _graph_digest(spec, objective, "small_cnn")
        for spec in (CT, CT.model_copy(update={"size_px": 96}))
        for objective in (OBJECTIVE, replace(OBJECTIVE, classes=("a", "b", "c"), threshold=None))
    }
    assert len(digests) == 4


@pytest.mark.slow
def test_exporting_prints_nothing(network: nn.Module, capfd: pytest.CaptureFixture[str]) -> None:
    export_onnx(network, CT, replace(OBJECTIVE, threshold=None))
    assert capfd.readouterr() == ("", "")


def test_a_file_that_differs_from_its_network_is_refused(model: onnx.ModelProto, network: nn.Module) -> None:
    other = sharp("small_cnn")
    nn.init.normal_(other[0].weight)  # type: ignore[index, arg-type]
    with pytest.raises(EnvironmentFault, match="differs from torch"):
        verify_export(model, other, CT, OBJECTIVE)


def test_an_export_leaves_the_network_as_it_was(network: nn.Module) -> None:
    assert not network.training
