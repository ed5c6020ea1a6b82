"""Speed of masks of a large volume by patches, beside MONAI's `sliding_window_inference` with the same model.

64 x 256 x 256 voxels, patches of 32 x 128 x 128 with a quarter of overlap and Gaussian weights; the model is our
portable one with a U-Net of volumes. Ours makes one call on each core, with the exported file in ONNX Runtime, as a
consumer has it, and with torch, the network in the memory format in which it trains; MONAI makes one call on all cores,
with torch, the network as it was built. Rounds are interleaved; the result is the median of the ratios of neighbours
in time, and the largest difference. With `--patches` two patches for each core are all, without overlap: minutes
instead of hours on a busy machine.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import onnxruntime
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray

from imaging.cores import available_cores
from imaging.preprocess.spec import PreprocessSpec
from models.networks.catalog import build
from models.objectives.segmentation import Segmentation
from models.portable.export import Portable, export_onnx
from models.portable.sliding_window import PatchGrid, sliding_window

SHAPE, PATCH, OVERLAP, BATCH = (64, 256, 256), (32, 128, 128), 0.25, 2
TARGET, TOLERANCE = 1.3, 1e-4
CORES = available_cores()
SPEC = PreprocessSpec(kind="volume", slices=PATCH[0], size_px=PATCH[1])
OBJECTIVE = Segmentation(classes=("organ", "lesion"))

Values = NDArray[np.float32]


def portable() -> Portable:
    torch.manual_seed(0)
    return Portable(build("unet_3d", 1 + len(OBJECTIVE.classes), PATCH[0]), SPEC, OBJECTIVE).eval()


def by_torch(model: Portable) -> Callable[[Values], Values]:
    def network(patches: Values) -> Values:
        torch.set_num_threads(1)
        with torch.inference_mode():
            return model(torch.from_numpy(patches))[0].numpy()

    return network


def by_onnx(model: Portable) -> Callable[[Values], Values]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    exported = export_onnx(model.network, SPEC, OBJECTIVE).SerializeToString()
    session = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    return lambda patches: session.run(None, {"image": patches})[0]


def by_monai(model: Portable, volume: Values, overlap: float) -> Values:
    def network(patches: torch.Tensor) -> torch.Tensor:
        return model(patches[:, 0])[0]

    torch.set_num_threads(CORES)
    with torch.inference_mode():
        inputs = torch.from_numpy(volume)[None, None]
        return sliding_window_inference(inputs, PATCH, BATCH, network, overlap, mode="gaussian")[0].numpy()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patches", action="store_true")
    asked = parser.parse_args()
    rounds = asked.rounds
    built, fast = portable(), portable()
    fast.network.to(memory_format=torch.channels_last_3d)
    shape = (PATCH[0], PATCH[1], PATCH[2] * CORES * BATCH) if asked.patches else SHAPE
    overlap = 0.0 if asked.patches else OVERLAP
    grid = PatchGrid(patch=PATCH, overlap=overlap, batch=BATCH, workers=CORES)
    volume = np.rint(np.random.default_rng(0).uniform(-200, 250, shape)).astype(np.float32)

    def ours(network: Callable[[Values], Values]) -> Callable[[], Values]:
        return lambda: sliding_window(volume, network, grid)

    sides: dict[str, Callable[[], Values]] = {
        "ours, ONNX Runtime": ours(by_onnx(built)),
        "ours, torch": ours(by_torch(fast)),
        "MONAI, torch": lambda: by_monai(built, volume, overlap),
    }
    took: dict[str, list[float]] = {name: [] for name in sides}
    worked: dict[str, list[float]] = {name: [] for name in sides}
    results: dict[str, Values] = {}
    for number in range(rounds):
        names = list(sides)[:: 1 if number % 2 else -1]
        for name in names:
            start, busy = time.perf_counter(), time.process_time()
            results[name] = sides[name]()
            took[name].append(time.perf_counter() - start)
            worked[name].append(time.process_time() - busy)
    reached = []
    what = " x ".join(map(str, shape))
    print(
        f"| {what} | time, median of {rounds} | beside MONAI | processor time beside MONAI | largest difference |\n"
        "|---|---|---|---|---|"
    )
    for name, seconds in took.items():
        ratio, work = (
            statistics.median(
                other / own for own, other in zip(times[name], times["MONAI, torch"], strict=True)
            )
            for times in (took, worked)
        )
        difference = float(np.abs(results[name] - results["MONAI, torch"]).max())
        figures = [
            f"{statistics.median(seconds):.1f} s",
            f"{ratio:.2f} x",
            f"{work:.2f} x",
            f"{difference:.1e}",
        ]
        print(f"| {' | '.join([name, *figures])} |", flush=True)
        if name.startswith("ours"):
            reached.append(ratio >= TARGET and difference <= TOLERANCE)
    return 0 if any(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
