"""Train the screen that looks for burned-in text in every frame: synthetic text on half of the patients of ct-contrast.

Writes `screen.onnx` and the weights, from which another run goes on (`--start`). What is in the tree came from three
runs of 14, 15 and 12 minutes on two cores: the first two before `burn` asked that text stands out from noise, the last
with `--rate 1.5e-3`. Runs end by the clock, so no two give the same weights. `python -m bench.burned_in` measures it.
"""

import argparse
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydicom import dcmread
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from bench.overlays import burn
from imaging.deidentify.burned_in.pictures import leveled

SIDE, CELL, BATCH, BANK = 256, 8, 12, 6000
RATE, WARM_UP_STEPS, KEEP = 3e-3, 100, 0.998
FOCUS = 1.2
"""How much the cells count that are still wrong (focal loss, Lin et al. 2017)."""
Crop = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""A picture, which cells hold text, and how much each cell counts."""


def network(wide: int = 32) -> nn.Sequential:
    """Return a network from a picture to one logit for each cell of 8 x 8 pixels, which sees 130 pixels around."""

    def seen_wider(by: int) -> list[nn.Module]:
        around = nn.Conv2d(wide, wide, 3, padding=by, dilation=by, groups=wide)
        return [around, nn.Conv2d(wide, wide, 1), nn.ReLU()]

    return nn.Sequential(
        *(nn.Conv2d(1, wide, 7, stride=4, padding=2), nn.ReLU(), *seen_wider(1)),
        *(nn.Conv2d(wide, wide, 3, stride=2, padding=1), nn.ReLU()),
        *(*seen_wider(1), *seen_wider(2), *seen_wider(4)),
        nn.Conv2d(wide, 1, 1),
    )


def trained_on(folder: Path) -> list[NDArray[np.int16]]:
    """Return the slices of every second patient: the others are what false alarms are counted on."""
    datasets = [dcmread(path) for path in sorted((folder / "ct-contrast").glob("*.dcm"))]
    held_out = set(sorted({one.PatientID for one in datasets})[::2])
    return [one.pixel_array.astype(np.int16) for one in datasets if one.PatientID not in held_out]


def varied(random: np.random.Generator, image: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return an image turned, windowed, inverted, resized and noisy, as other devices and programs make them."""
    made = np.rot90(image.astype(np.float32), random.integers(4))[:, :: random.choice((-1, 1))]
    if random.random() < 0.2:
        low, high = sorted(np.percentile(made[::3, ::3], random.uniform((0, 60), (50, 100))))
        made = np.clip(made, low, max(high, low + 50))
    if random.random() < 0.4:
        made = made.max() + made.min() - made
    if random.random() < 0.3:
        by = random.uniform(0.7, 1.6)
        way = cv2.INTER_LINEAR if by > 1 else cv2.INTER_AREA
        made = cv2.resize(np.ascontiguousarray(made), None, fx=by, fy=by, interpolation=way)
    if random.random() < 0.3:
        made = made + random.normal(0, random.uniform(5, 60), made.shape)
    return np.rint(np.clip(made, -2048, 4095)).astype(np.int16)


def cells(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return which cells hold text, and how much each counts: those at its edge not at all."""
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    blocks = (SIDE // CELL, CELL, SIDE // CELL, CELL)
    near = cv2.dilate(closed, np.ones((9, 9), np.uint8)).reshape(blocks).max((1, 3)) > 0
    text = closed.reshape(blocks).mean((1, 3)) > 0.35
    counts = text | ~near if mask.sum() >= 40 else ~near
    return text.astype(np.float32), counts.astype(np.float32)


def crops(random: np.random.Generator, images: list[NDArray[np.int16]]) -> Iterator[Crop]:
    """Yield crops of one image, with and without text."""
    image = varied(random, images[random.integers(len(images))])
    if min(image.shape) < SIDE:
        return
    for _ in range(3):
        overlay = burn(random, image, 13)
        inked = np.argwhere(overlay.mask)
        picture = leveled(overlay.stored.astype(np.float32))
        for _ in range(2 if len(inked) else 0):
            corner = inked[random.integers(len(inked))] - random.integers(SIDE, size=2)
            top, left = np.clip(corner, 0, np.subtract(image.shape, SIDE))
            place = np.s_[top : top + SIDE, left : left + SIDE]
            yield picture[place], *cells(overlay.mask[place])
    picture, none = leveled(image.astype(np.float32)), np.zeros((SIDE // CELL,) * 2, np.float32)
    for _ in range(3):
        top, left = random.integers(np.subtract(image.shape, SIDE) + 1)
        yield picture[top : top + SIDE, left : left + SIDE], none, none + 1


def feed(seed: int, folder: Path, queue: "multiprocessing.Queue[list[Crop]]") -> None:
    cv2.setNumThreads(1)
    random, images = np.random.default_rng(seed), trained_on(folder)
    while True:
        queue.put(list(crops(random, images)))


def train(model: nn.Module, folder: Path, minutes: float, peak: float, seed: int) -> None:
    """Train for a time, and leave the running mean of the weights in the model."""
    queue: multiprocessing.Queue[list[Crop]] = multiprocessing.Queue(64)
    feeder = multiprocessing.Process(target=feed, args=(seed, folder, queue), daemon=True)
    feeder.start()
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-4)
    mean = {name: value.clone() for name, value in model.state_dict().items()}
    bank: deque[Crop] = deque(maxlen=BANK)
    random, began, step = np.random.default_rng(seed), time.monotonic(), 0
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        while len(bank) < 10 * BATCH or not queue.empty():
            bank.extend(queue.get())
        rate = peak * min(1, (step + 1) / WARM_UP_STEPS) * (0.01 + 0.99 * (1 + np.cos(np.pi * share)) / 2)
        optimizer.param_groups[0]["lr"] = rate
        loss = learn(model, optimizer, [bank[at] for at in random.integers(len(bank), size=BATCH)])
        for name, value in model.state_dict().items():
            mean[name].mul_(KEEP).add_(value, alpha=1 - KEEP)
        step += 1
        if step % 500 == 0:
            print(f"{share:4.0%} step {step}, loss {loss:.3f}", flush=True)
    feeder.terminate()
    model.load_state_dict(mean)


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, batch: list[Crop]) -> float:
    pictures, text, counts = (torch.from_numpy(np.stack(part)) for part in zip(*batch, strict=True))
    logits = model(pictures[:, None])[:, 0]
    wrong = torch.where(text > 0, 1 - logits.sigmoid(), logits.sigmoid()) ** FOCUS
    each = binary_cross_entropy_with_logits(logits, text, reduction="none") * wrong * counts
    loss = each.sum() / (text.sum() + 50)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for screen.onnx and screen.safetensors")
    parser.add_argument("--minutes", type=float, default=16)
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--rate", type=float, default=RATE, help="the highest rate of learning")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    root = Path(os.environ.get("RADLOOP_DATA", Path(__file__).parent.parent.parent / "shared/data"))
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    model = network()
    if arguments.start:
        model.load_state_dict(load_file(arguments.start))
    train(model, root, arguments.minutes, arguments.rate, arguments.seed)
    save_file(model.state_dict(), arguments.out / "screen.safetensors")
    torch.onnx.export(
        model.eval(),
        (torch.zeros(1, 1, 512, 512),),
        arguments.out / "screen.onnx",
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {2: "rows", 3: "columns"}, "y": {2: "cell_rows", 3: "cell_columns"}},
        dynamo=False,
    )


if __name__ == "__main__":
    main()
