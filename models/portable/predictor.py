"""Prediction with the portable model that consumers get, so that both see the same numbers; torch is not needed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from imaging.cores import available_cores
from imaging.errors import UserFault
from imaging.image.window import Window
from imaging.preprocess.slice import planes, to_modality_units
from imaging.preprocess.spec import PreprocessSpec
from imaging.release_compatibility import check_release, read_config
from models.objectives.objective_catalog import contract_of, objective_of
from models.objectives.protocol import Objective, TrainingExamples
from models.portable.contract import Contract

BATCH_BYTES = 4 * 2**20
"""The most that the input of one call may take; what the network makes of it takes many times as much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """A loaded portable model, with the objective and the preprocessing that its metadata name."""

    session: onnxruntime.InferenceSession
    objective: Objective
    spec: PreprocessSpec
    contract: Contract

    @classmethod
    def load(cls, model: Path | bytes) -> Self:
        """Load the model from a file or from its bytes; it uses every core that the process may use.

        Raises UserFault if it is not a portable model.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = available_cores()
        options.log_severity_level = 3
        source = model if isinstance(model, bytes) else str(model)
        try:
            session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class of its own for each of a dozen causes
            raise UserFault(f"not an ONNX model that can be run: {_first_line(error)}") from error
        metadata = session.get_modelmeta().custom_metadata_map
        check_release("the model", metadata.get("needs", ""))
        objective = objective_of(metadata)
        spec = read_config(PreprocessSpec, metadata["spec"], "the model")
        return cls(session=session, objective=objective, spec=spec, contract=contract_of(objective, spec))

    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Map one batch (n, channels, height, width) in modality units to the outputs of the contract.

        Raises UserFault for an array of another shape, such as one image without the axis of the batch.
        """
        if images.ndim != 4 or images.shape[1] != self.spec.channels:
            raise UserFault(
                f"the input has the shape {images.shape}: give (batch, {self.spec.channels}, height, width), a single "
                "image too"
            )
        names = [output.name for output in self.contract.outputs]
        arrays = self.session.run(names, {"image": images})
        return {name: np.asarray(array, np.float32) for name, array in zip(names, arrays, strict=True)}

    def predict_levels(
        self, levels: NDArray[np.uint8], window: Window | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Map prepared images (n, [slices,] size_px, size_px) to outputs, the network's work in bounded memory.

        `window` is the one inside the model, by default that of its spec.
        """
        window = window or self.spec.portable_window
        parts = [
            self.run(planes(to_modality_units(levels[span], window)))
            for span in _spans(len(levels), levels[0].size if len(levels) else 1)
        ]
        return self._joined(parts)

    def predict_units(self, images: Sequence[NDArray[np.float32]]) -> list[dict[str, NDArray[np.float32]]]:
        """Map images ([slices,] height, width) in modality units, each of its own size, to the outputs of each."""
        return [self.run(planes(np.asarray(image, np.float32)[None])) for image in images]

    def score(self, examples: TrainingExamples) -> NDArray[np.float32]:
        """Return what the objective keeps of each example (n, score_size), some images at a time."""
        scores = np.empty((len(examples), self.objective.score_size), np.float32)
        for span in _spans(len(examples), math.prod(self.spec.shape)):
            index = np.arange(span.start, span.stop)
            outputs = self.predict_levels(examples.gather(index))
            scores[span] = self.objective.score(outputs, self.objective.targets(examples, index))
        return scores

    def _joined(self, parts: Sequence[Mapping[str, NDArray[np.float32]]]) -> dict[str, NDArray[np.float32]]:
        if parts:
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        outputs = self.contract.outputs
        return {output.name: np.empty([size or 0 for size in output.shape], np.float32) for output in outputs}


def _spans(count: int, values: int) -> list[slice]:
    """Return spans of `count` images of so many values, each of which takes at most `BATCH_BYTES` as input."""
    step = max(1, BATCH_BYTES // (4 * max(1, values)))
    return [slice(begin, min(begin + step, count)) for begin in range(0, count, step)]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
