"""Networks that look for text: two small ones of our own, and two of rapidocr's.

All come with the installed packages: nothing is downloaded, and none writes a file. Each is loaded once in a process
and computes in one thread, for as many workers run as there are cores.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from imaging.errors import EnvironmentFault

SCREEN, PATCH_CHECK = (Path(__file__).parent / f"{name}.onnx" for name in ("screen", "patch_check"))
"""Made by `python -m bench.text_training`: 10,000 and 36,000 weights, one score for each cell of 8 x 8 pixels."""
DETECTION, RECOGNITION = "PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx"
"""In the wheel of rapidocr; its own code would read configurations and may download models."""
MULTIPLE = 32
"""Number of which the sides that the detection network takes are multiples."""
LINE_HEIGHT, LONGEST_LINE, SHORTEST_LINE = 48, 640, 96
"""Size of a line that the recognition network takes, in pixels."""


def cell_logits(network: Path, picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits of text, (rows / 8, columns / 8), by a network of ours for a picture that `leveled` made.

    The picture (rows, columns) has any size for SCREEN, and (96, 96) for PATCH_CHECK.
    """
    (scores,) = _session(network).run(None, {"x": picture[None, None]})
    return np.asarray(scores[0, 0], np.float32)


def text_map(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return how likely each pixel of a picture (rows, columns) belongs to a line of text."""
    rows, columns = picture.shape
    padded = cv2.copyMakeBorder(picture, 0, -rows % MULTIPLE, 0, -columns % MULTIPLE, cv2.BORDER_REPLICATE)
    (likely,) = _session(_packaged(DETECTION)).run(None, {"x": _three(padded)})
    return np.asarray(likely[0, 0, :rows, :columns], np.float32)


def read_line(line: NDArray[np.uint8]) -> tuple[str, NDArray[np.float32]]:
    """Return the characters of a picture of one line, left to right, and how sure each of them is."""
    width = min(max(line.shape[1] * LINE_HEIGHT // line.shape[0], 8), LONGEST_LINE)
    scaled = cv2.resize(line, (width, LINE_HEIGHT))
    padded = cv2.copyMakeBorder(
        scaled, 0, 0, 0, max(SHORTEST_LINE - width, 0), cv2.BORDER_CONSTANT, value=127
    )
    (likely,) = _session(_packaged(RECOGNITION)).run(None, {"x": _three(padded)})
    best = likely[0].argmax(1)
    # Connectionist temporal classification: 0 is nothing, and one character lasts as long as it stays the same.
    begins = (best > 0) & np.r_[True, best[1:] != best[:-1]]
    alphabet = _alphabet()
    return "".join(alphabet[number] for number in best[begins]), likely[0].max(1)[begins]


def _three(picture: NDArray[Any]) -> NDArray[np.float32]:
    """Return a grey picture as a batch of one with three channels, from -1 to 1."""
    scaled = picture.astype(np.float32) * np.float32(1 / 127.5) - 1
    return np.ascontiguousarray(np.broadcast_to(scaled, (1, 3, *scaled.shape)))


@cache
def _alphabet() -> tuple[str, ...]:
    known = _session(_packaged(RECOGNITION)).get_modelmeta().custom_metadata_map["character"]
    return ("", *known.splitlines(), " ")


@cache
def _packaged(name: str) -> Path:
    spec = find_spec("rapidocr")
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0], "models", name) if folders else None
    if path is None or not path.is_file():
        raise EnvironmentFault(f"rapidocr with its model {name} is missing: install rapidocr 3.10 or newer")
    return path


@cache
def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Kept memory would be that of the largest picture ever seen, and a worker may hold little.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
