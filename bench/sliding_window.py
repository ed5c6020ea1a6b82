"""Speed of masks of a large volume by patches, beside MONAI's `sliding_window_inference` with the same model.

64 x 256 x 256 voxels, patches of 32 x 128 x 128 with a quarter of overlap and Gaussian weights, two at a time; the
model is our portable one with a U-Net of volumes. Ours is timed with the exported file in ONNX Runtime, as a consumer
has it, and with torch, the network in the memory format in which it trains; MONAI with torch, the network as it was
built. Rounds are interleaved; the result is the median of the ratios of neighbours in time, and the largest difference.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray

from imaging.cores import available_cores
from imaging.preprocess.spec import PreprocessSpec
from models.networks.catalog import build
from models.objectives.segmentation import Segmentation
from models.portable.export import Portable, export_onnx
from models.portable.predictor import Predictor
from models.portable.sliding_window import sliding_window

SHAPE, PATCH, OVERLAP, BATCH = (64, 256, 256), (32, 128, 128), 0.25, 2
TARGET, TOLERANCE = 1.3, 1e-4
SPEC = PreprocessSpec(kind="volume", slices=PATCH[0], size_px=PATCH[1])
OBJECTIVE = Segmentation(classes=("organ", "lesion"))

Values = NDArray[np.float32]


def portable() -> Portable:
    torch.manual_seed(0)
    return Portable(build("unet_3d", 1 + len(OBJECTIVE.classes), PATCH[0]), SPEC, OBJECTIVE).eval()


def by_torch(model: Portable) -> Callable[[Values], Values]:
    def network(patches: Values) -> Values:
        with torch.inference_mode():
            return model(torch.from_numpy(patches))[0].numpy()

    return network


def by_monai(model: Portable, volume: Values) -> Values:
    def network(patches: torch.Tensor) -> torch.Tensor:
        return model(patches[:, 0])[0]

    with torch.inference_mode():
        inputs = torch.from_numpy(volume)[None, None]
        return sliding_window_inference(inputs, PATCH, BATCH, network, OVERLAP, mode="gaussian")[0].numpy()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(available_cores())
    built, fast = portable(), portable()
    fast.network.to(memory_format=torch.channels_last_3d)
    predictor = Predictor.load(export_onnx(built.network, SPEC, OBJECTIVE).SerializeToString())
    volume = np.rint(np.random.default_rng(0).uniform(-200, 250, SHAPE)).astype(np.float32)

    def ours(network: Callable[[Values], Values]) -> Values:
        return sliding_window(volume, PATCH, network, OVERLAP, BATCH)

    sides: dict[str, Callable[[], Values]] = {
        "ours, ONNX Runtime": lambda: ours(lambda patches: predictor.run(patches)["probabilities"]),
        "ours, torch": lambda: ours(by_torch(fast)),
        "MONAI, torch": lambda: by_monai(built, volume),
    }
    took: dict[str, list[float]] = {name: [] for name in sides}
    results: dict[str, Values] = {}
    for number in range(rounds):
        names = list(sides)[:: 1 if number % 2 else -1]
        for name in names:
            start = time.perf_counter()
            results[name] = sides[name]()
            took[name].append(time.perf_counter() - start)
    reached = []
    what = " x ".join(map(str, SHAPE))
    print(f"| {what} | time, median of {rounds} | beside MONAI | largest difference |\n|---|---|---|---|")
    for name, seconds in took.items():
        ratio = statistics.median(
            other / own for own, other in zip(seconds, took["MONAI, torch"], strict=True)
        )
        difference = float(np.abs(results[name] - results["MONAI, torch"]).max())
        print(
            f"| {name} | {statistics.median(seconds):.1f} s | {ratio:.2f} x | {difference:.1e} |", flush=True
        )
        if name.startswith("ours"):
            reached.append(ratio >= TARGET and difference <= TOLERANCE)
    return 0 if any(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
