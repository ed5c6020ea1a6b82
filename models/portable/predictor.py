"""Prediction with the portable model that consumers get, so that both see the same numbers; torch is not needed."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from imaging.compatibility import check_release, read_config
from imaging.cores import available_cores
from imaging.errors import UserFault
from imaging.image.window import Window
from imaging.preprocess.slice import planes, to_modality_units
from imaging.preprocess.spec import PreprocessSpec

BATCH_BYTES = 4 * 2**20
"""The most that the input of one call may take; what the network makes of it takes many times as much."""


class StoredRows(Protocol):
    """Prepared images by index."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def gather(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return images (k, [slices,] size_px, size_px) of grey levels."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """A loaded portable model and what it says of itself."""

    session: onnxruntime.InferenceSession
    classes: tuple[str, ...]
    spec: PreprocessSpec
    threshold: float | None

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
        told = session.get_modelmeta().custom_metadata_map
        check_release("the model", told.get("needs", ""))
        if missing := {"classes", "spec", "threshold"} - set(told):
            raise UserFault(f"the model's metadata lack {', '.join(sorted(missing))}: export it with radloop")
        return cls(
            session=session,
            classes=tuple(json.loads(told["classes"])),
            spec=read_config(PreprocessSpec, told["spec"], "the model"),
            threshold=json.loads(told["threshold"]),
        )

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map one batch (n, channels, height, width) in modality units to probabilities (n, classes)."""
        (probabilities,) = self.session.run(["probabilities"], {"image": images})
        return np.asarray(probabilities, np.float32)

    def predict_levels(self, levels: NDArray[np.uint8], window: Window | None = None) -> NDArray[np.float32]:
        """Map prepared images (n, [slices,] size_px, size_px) to probabilities (n, classes), in bounded memory.

        `window` is the one inside the model, by default that of its spec.
        """
        window = window or self.spec.portable_window
        count = max(1, BATCH_BYTES // (4 * max(1, levels[0].size if len(levels) else 1)))
        parts = [
            self.run(planes(to_modality_units(levels[begin : begin + count], window)))
            for begin in range(0, len(levels), count)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.classes)), np.float32)

    def predict_units(self, images: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Map images ([slices,] height, width) in modality units, each of its own size, to probabilities."""
        parts = [self.run(planes(np.asarray(image, np.float32)[None])) for image in images]
        return np.concatenate(parts) if parts else np.empty((0, len(self.classes)), np.float32)


def predict_rows(predictor: Predictor, rows: StoredRows) -> NDArray[np.float32]:
    """Return the probabilities (n, classes) of stored rows, some at a time."""
    count = max(1, BATCH_BYTES // (4 * math.prod(predictor.spec.shape)))
    spans = (np.arange(begin, min(begin + count, len(rows))) for begin in range(0, len(rows), count))
    parts = [predictor.predict_levels(rows.gather(span)) for span in spans]
    return np.concatenate(parts) if parts else np.empty((0, len(predictor.classes)), np.float32)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
