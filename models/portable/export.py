"""Export of the portable model: one ONNX file that takes modality units of any size and gives class probabilities."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from imaging.compatibility import canonical_json, needed_release
from imaging.errors import EnvironmentFault
from imaging.preprocess.spec import LEVELS, PreprocessSpec
from models.training.batches import normalise

INPUT, OUTPUT = "image", "probabilities"
OPSET = 20
TOLERANCE = 1e-4
SHAPES = ((1, 64, 64), (3, 96, 61), (2, 13, 40))
"""Batch, height and width with which a file is verified: square, tall, and smaller than most inputs."""


class Portable(nn.Module):
    """Preprocessing, network and softmax as one graph: (batch, channels, height, width) to (batch, classes).

    The slices of a volume are its channels; their number is fixed, height and width are not.
    """

    def __init__(self, network: nn.Module, spec: PreprocessSpec) -> None:
        super().__init__()
        self.network = network
        self.lower, self.upper = spec.portable_window.bounds
        self.size_px = spec.size_px
        self.window_first = spec.order == "window-resize"

    def forward(self, image: Tensor) -> Tensor:
        """Return the probability of each class."""
        return self.network(normalise(self.levels(image))).softmax(dim=1)

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
    network: nn.Module, spec: PreprocessSpec, classes: tuple[str, ...], threshold: float | None = None
) -> onnx.ModelProto:
    """Return the portable model, weights inside: `onnx.save(model, path)` or `model.SerializeToString()`.

    Input `image`: float32 (batch, channels, height, width) in `spec.input_units`. Output `probabilities`: float32
    (batch, classes). The metadata name the classes, the spec, the input's units and the threshold.
    """
    axes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    # No size of the example equals another or the network's, so that no two axes are taken for one.
    example = torch.zeros(2, spec.channels, spec.size_px + 7, spec.size_px + 3)
    with _quiet():
        program = torch.onnx.export(
            Portable(network, spec).eval(),
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"image": axes},
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise EnvironmentFault("torch exported no ONNX program: install the pinned torch and onnxscript")
    model = _without_traces(program.model_proto)
    described = {
        "classes": json.dumps(classes),
        "spec": canonical_json(spec),
        "input_units": spec.input_units,
        "threshold": json.dumps(threshold),
    }
    if needs := needed_release(spec):
        described["needs"] = needs
    onnx.helper.set_model_props(model, described)
    return model


def set_threshold(model: onnx.ModelProto, threshold: float) -> None:
    """Write the threshold into the metadata, once it was chosen with the model's own probabilities."""
    told = {item.key: item.value for item in model.metadata_props}
    onnx.helper.set_model_props(model, told | {"threshold": json.dumps(threshold)})


def verify_export(model: onnx.ModelProto, network: nn.Module, spec: PreprocessSpec) -> float:
    """Return the largest difference of probabilities between ONNX Runtime and torch, over several shapes.

    Raises EnvironmentFault if it is more than 1e-4.
    """
    from models.portable.predictor import Predictor

    predictor, reference = Predictor.load(model.SerializeToString()), Portable(network, spec).eval()
    worst = 0.0
    for image in _samples(spec):
        with torch.no_grad():
            wanted = reference(torch.from_numpy(image)).numpy()
        worst = max(worst, float(np.abs(predictor.run(image) - wanted).max()))
    if worst > TOLERANCE:
        raise EnvironmentFault(
            f"the exported model differs from torch by {worst:.2g}, more than {TOLERANCE}: "
            "install the pinned onnxruntime, torch and onnxscript"
        )
    return worst


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
    """Hold back what the exporter tells its own developers."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logger.setLevel(before)
