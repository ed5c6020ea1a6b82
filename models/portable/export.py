"""Export of the portable model: one ONNX file that takes modality units of any size and gives what a contract names."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from blake3 import blake3
from onnxscript.optimizer import optimize
from torch import Tensor, nn

from imaging.dataset.version.dataset_version import DatasetVersion, open_version
from imaging.errors import EnvironmentFault
from imaging.preprocess.spec import LEVELS, PreprocessSpec
from imaging.store.folder_store import FolderStore
from imaging.store.open_store import open_store
from imaging.store.protocol import Store
from models.config import TrainConfig
from models.networks.layers import with_embedding
from models.networks.weights_file import WEIGHTS_FILE
from models.objectives.aggregation import ATTENTION, Units
from models.objectives.objective_catalog import (
    VALIDATION_TAG,
    contract_of,
    file_metadata,
    objective_class,
)
from models.objectives.protocol import Objective, named_outputs
from models.portable.contract import TensorContract
from models.portable.predictor import Predictor
from models.training.attention import add_attention
from models.training.batches import normalise
from models.training.checkpoint import best_network, save_weights

OPSET, IR_VERSION = 18, 8
"""Operators and form of the file: both of ONNX 1.13, which onnxruntime runs from 1.14 on; torch writes none older."""
TOLERANCE = 1e-4
SHAPES = ((1, 64, 64), (3, 96, 61), (2, 13, 40))
"""Batch, height and width with which a file is verified: square, tall, and smaller than most inputs."""


class Portable(nn.Module):
    """Preprocessing, network and activation as one graph, from images (batch, channels, height, width).

    The slices of a volume are its channels; their number is fixed, height and width are not.
    """

    def __init__(self, network: nn.Module, spec: PreprocessSpec, objective: Objective) -> None:
        super().__init__()
        self.network = network
        self.objective = objective
        self.names = [output.name for output in objective.outputs(spec)]
        self.lower, self.upper = spec.portable_window.bounds
        self.size_px = spec.size_px
        self.window_first = spec.order == "window-resize"

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in the order of the contract."""
        outputs = self.named(image)
        return tuple(outputs[name] for name in self.names)

    def named(self, image: Tensor) -> Mapping[str, Tensor]:
        """Return the outputs by name."""
        return self.objective.activate(named_outputs(self.network(normalise(self.levels(image)))))

    def levels(self, image: Tensor) -> Tensor:
        """Return grey levels (batch, channels, size_px, size_px), as `imaging.preprocess.slice.prepare` does."""
        # Averaged in modality units and scaled afterwards, as `prepare` does: so that ties round alike.
        span = self.upper - self.lower
        shown = image - self.lower
        shown = shown.clamp(0.0, span) if self.window_first else shown
        height, width = image.shape[-2:]
        # max() would tie the graph to whichever side of the example is longer.
        side = cast(int, torch.sym_max(height, width))
        rows, columns = area_weights(height, side, self.size_px), area_weights(width, side, self.size_px)
        return ((rows @ shown @ columns.T) * (LEVELS / span)).clamp(0.0, float(LEVELS)).round()


def area_weights(length: int, side: int, size: int) -> Tensor:
    """Return (size, length) weights that average pixels, as `imaging.preprocess.area.area_weights`.

    Everything is counted in whole parts of a pixel, of which a pixel has `size` and an output has `side`, so
    that the graph holds no rounding before the last division.
    """
    start = torch.arange(size)[:, None] * side
    pixel = (torch.arange(length)[None, :] + (side - length) // 2) * size
    overlap = torch.minimum(start + side, pixel + size) - torch.maximum(start, pixel)
    return overlap.clamp(min=0).float() / side


def export_onnx(
    network: nn.Module,
    spec: PreprocessSpec,
    objective: Objective,
    graphs: Store | None = None,
    name: str = "",
) -> onnx.ModelProto:
    """Return the portable model, weights inside: `onnx.save(model, path)` or `model.SerializeToString()`.

    Its inputs and outputs are those of the contract; the metadata name what a consumer has to know. Tracing takes
    seconds: where there is a store `graphs`, the graph of the network that the catalog calls `name` is kept there.
    Raises UserFault if the network's outputs do not fit the contract.
    """
    portable = Portable(network, spec, objective).eval()
    kept = f"{_graph_digest(spec, objective, name)}.onnx"
    if graphs is not None and graphs.exists(kept):
        graph = onnx.load_from_string(graphs.read(kept))
    else:
        graph = _traced(portable, spec, objective)
        if graphs is not None:
            graphs.write(kept, graph.SerializeToString())
    model = _without_traces(optimize(_with_weights(graph, portable)))
    model.ir_version = IR_VERSION
    write_metadata(model, objective, spec)
    return model


def _graph_digest(spec: PreprocessSpec, objective: Objective, name: str) -> str:
    """Return what a graph depends on, but for its weights: the network, what is around it, our code and theirs."""
    code = [path.read_bytes() for path in sorted(Path(__file__).parent.parent.rglob("*.py"))]
    packages = [installed(package) for package in ("torch", "torchvision", "onnxscript", "onnx")]
    content = json.dumps([name, OPSET, packages, file_metadata(objective, spec)])
    return blake3(b"".join([content.encode(), *code])).hexdigest()[:16]


def _traced(portable: Portable, spec: PreprocessSpec, objective: Objective) -> onnx.ModelProto:
    """Return the graph of the portable model as it is traced, each weight in it under its own name."""
    contract = contract_of(objective, spec)
    # No size of the example equals another or the network's, so that no two axes are taken for one.
    sizes = {"batch": 2, "height": spec.size_px + 7, "width": spec.size_px + 3}
    (image,) = contract.inputs
    example = torch.zeros(image.sized(sizes))
    with torch.no_grad():
        contract.check(portable.named(example), sizes)
    with _quiet():
        program = torch.onnx.export(
            portable,
            (example,),
            dynamo=True,
            input_names=[image.name],
            output_names=portable.names,
            dynamic_shapes={image.name: _free_axes(image)},
            opset_version=OPSET,
            external_data=False,
            # Weights are folded into each other by it: afterwards, so that others can take their places.
            optimize=False,
            verbose=False,
        )
    if program is None:
        raise EnvironmentFault("torch exported no ONNX program: install the pinned torch and onnxscript")
    return program.model_proto


def _with_weights(graph: onnx.ModelProto, portable: Portable) -> onnx.ModelProto:
    """Return the graph with the weights of a network."""
    weights = portable.state_dict()
    for tensor in graph.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name].numpy(), tensor.name))
    return graph


def export_best(job: Mapping[str, Any], checkpoint: str, target: str, graphs: str) -> dict[str, str]:
    """Write the portable model of a checkpoint's best epoch to a file, its weights beside it; return its metadata.

    It is proved equal to torch, and calibrated on the validation examples with its own outputs. `job` is the one of the
    training, see `models.training.launch.opened`.
    """
    version = open_version(
        open_store(job["store"], Path(job["cache"]), job["cache_bytes"]), job["dataset"], job["digest"]
    )
    config, spec = TrainConfig.model_validate(job["train"]), version.spec
    objective = objective_class(config.objective).of_version(version)
    network = best_network(Path(checkpoint), objective, config.network, spec.channels)
    weights = copy(network.state_dict())
    if config.embedding or config.aggregate.learned:
        width = with_embedding(network)
        objective = objective.embedded(width) if config.embedding else objective
    objective = objective.aggregated(config.aggregate)
    if config.aggregate.learned:
        units = Units.of_version(version, version.examples("train"), config.aggregate.over)
        add_attention(network, objective, units, config, _columns(objective, spec))
    model = export_onnx(network, spec, objective, FolderStore(Path(graphs)), config.network)
    verify_export(model, network, spec, objective)
    objective, validated = calibrated_by_file(model, objective, version)
    write_metadata(model, objective, spec)
    onnx.save(model, target)
    metadata = file_metadata(objective, spec)
    save_weights(weights, Path(target).with_name(WEIGHTS_FILE), config.network, metadata)
    return metadata | validated


def calibrated_by_file(
    model: onnx.ModelProto, objective: Objective, version: DatasetVersion
) -> tuple[Objective, dict[str, str]]:
    """Return the objective with what is chosen on the validation examples, or on their units.

    Beside it are their measures, as tags of the version, where those of the epoch do not know the rule yet.
    """
    predictor, val = Predictor.load(model.SerializeToString()), version.examples("val")
    if not objective.aggregation.is_on:
        return objective.calibrated(predictor.score, val), {}
    units = Units.of_version(version, val, objective.aggregation.over)
    scores = objective.unit_scores(predictor.score(val), units)
    calibrated = objective.calibrated(lambda _: scores, units)
    if not objective.aggregation.learned:
        return calibrated, {}
    measures = objective.epoch_measures(scores, units)
    return calibrated, {f"{VALIDATION_TAG}{name}": f"{measures[name]:.4f}" for name in objective.epoch_titles}


def _columns(objective: Objective, spec: PreprocessSpec) -> int:
    """Return how many logits of attention an image has."""
    return {output.name: output.shape for output in objective.outputs(spec)}[ATTENTION][1] or 0


def write_metadata(model: onnx.ModelProto, objective: Objective, spec: PreprocessSpec) -> None:
    """Write what a file says of itself; again where the objective was calibrated with the file's own outputs."""
    onnx.helper.set_model_props(model, file_metadata(objective, spec))


def verify_export(
    model: onnx.ModelProto, network: nn.Module, spec: PreprocessSpec, objective: Objective
) -> float:
    """Return the largest difference of outputs between ONNX Runtime and torch, over several shapes.

    Raises EnvironmentFault if it is more than 1e-4 of an output's largest value, or of 1.
    """
    predictor, reference = (
        Predictor.load(model.SerializeToString()),
        Portable(network, spec, objective).eval(),
    )
    worst = 0.0
    for image in _samples(spec):
        with torch.no_grad():
            expected = {
                name: output.numpy() for name, output in reference.named(torch.from_numpy(image)).items()
            }
        given = predictor.run(image)
        for name, values in expected.items():
            worst = max(worst, float(np.abs(given[name] - values).max() / max(1.0, np.abs(values).max())))
    if worst > TOLERANCE:
        raise EnvironmentFault(
            f"the exported model differs from torch by {worst:.2g}, more than {TOLERANCE}: "
            "install the pinned onnxruntime, torch and onnxscript"
        )
    return worst


def _free_axes(tensor: TensorContract) -> dict[int, Any]:
    return {n: torch.export.Dim(axis.name) for n, axis in enumerate(tensor.axes) if axis.size is None}


def _samples(spec: PreprocessSpec) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """Yield images of whole modality units that fill the window and a little more."""
    draw, (lower, upper) = np.random.default_rng(0), spec.portable_window.bounds
    for batch, height, width in SHAPES:
        yield np.rint(draw.uniform(lower - 20, upper + 20, (batch, spec.channels, height, width))).astype(
            np.float32
        )


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes on each node: they name files of this machine and change with its paths."""
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the exporter's lines to its own developers."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logger.setLevel(before)
