"""Train the networks that look for burned-in text: `python -m bench.text_training screen|patch_check OUT`.

Synthetic text on one half of the patients of ct-contrast; the patch check also on phantoms and on radiographs of
PneumoniaMNIST, at the places that the screen suspects. Writes NAME.onnx and the weights, from which another run goes on
(`--start`). Runs end by the clock, so no two give the same weights. `python -m bench.burned_in` measures them.

What is in the tree came, on two cores, from wider networks whose channels were cut (`python -m bench.text_narrowing`):
the screen, twice as wide in its first two layers, had learned for 60 minutes in four runs, and did for 18 more; the
patch check, with 16, 24, 32 and four times 48 channels, for 30 and 20 minutes, and for 24 more.
"""

import argparse
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from bench.text_crops import SCREEN_SIDE, Crop, Images, patch_crops, screen_crops
from imaging.deidentify.pixels.text_candidates import SIDE

RATE, WARM_UP_STEPS, KEEP = 3e-3, 100, 0.998
FOCUS = 1.2
"""How much the cells count that are still wrong (focal loss, Lin et al. 2017)."""


def screen() -> nn.Sequential:
    """Return a network from a picture to one logit for each cell of 8 x 8 pixels, which sees 130 pixels around."""

    def seen_wider(wide: int, by: int) -> list[nn.Module]:
        around = nn.Conv2d(wide, wide, 3, padding=by, dilation=by, groups=wide)
        return [around, nn.Conv2d(wide, wide, 1), nn.ReLU()]

    return nn.Sequential(
        *(nn.Conv2d(1, 16, 7, stride=4, padding=2), nn.ReLU(), *seen_wider(16, 1)),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(*seen_wider(32, 1), *seen_wider(32, 2), *seen_wider(32, 4)),
        nn.Conv2d(32, 1, 1),
    )


def patch_check() -> nn.Sequential:
    """Return a network from 96 x 96 pixels to one logit for each cell of 8 x 8, which sees every second pixel."""

    def layer(old: int, new: int, side: int = 3, stride: int = 1, by: int = 1) -> list[nn.Module]:
        seen = nn.Conv2d(old, new, side, stride=stride, padding=by * (side // 2), dilation=by, bias=False)
        return [seen, nn.BatchNorm2d(new), nn.ReLU()]

    return nn.Sequential(
        *(*layer(1, 8, side=5, stride=2), *layer(8, 16), *layer(16, 16, stride=2), *layer(16, 32)),
        *(*layer(32, 32, stride=2), *layer(32, 32), *layer(32, 32, by=2)),
        nn.Conv2d(32, 1, 1),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained: `bank` crops are held, each `batch` of them is drawn from these."""

    network: Callable[[], nn.Sequential]
    crops: Callable[[np.random.Generator, Images], Iterator[Crop]]
    batch: int
    bank: int
    shape: tuple[int, int]
    axes: Mapping[int, str]


RECIPES = {
    "screen": Recipe(
        network=screen,
        crops=screen_crops,
        batch=12,
        bank=6000,
        shape=(2 * SCREEN_SIDE, 2 * SCREEN_SIDE),
        axes={2: "rows", 3: "columns"},
    ),
    "patch_check": Recipe(
        network=patch_check, crops=patch_crops, batch=48, bank=25000, shape=(SIDE, SIDE), axes={0: "places"}
    ),
}


def feed(seed: int, folder: Path, name: str, queue: "multiprocessing.Queue[list[Crop]]") -> None:
    cv2.setNumThreads(1)
    random, images = np.random.default_rng(seed), Images(folder)
    while True:
        queue.put(list(RECIPES[name].crops(random, images)))


def train(model: nn.Module, folder: Path, name: str, minutes: float, peak: float, seed: int) -> None:
    """Train for a time, and leave the running mean of the weights in the model."""
    recipe = RECIPES[name]
    queue: multiprocessing.Queue[list[Crop]] = multiprocessing.Queue(64)
    feeder = multiprocessing.Process(target=feed, args=(seed, folder, name, queue), daemon=True)
    feeder.start()
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-4)
    mean = {key: value.clone() for key, value in model.state_dict().items()}
    bank: deque[Crop] = deque(maxlen=recipe.bank)
    random, began, step = np.random.default_rng(seed), time.monotonic(), 0
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        while len(bank) < 20 * recipe.batch or not queue.empty():
            bank.extend(queue.get())
        rate = peak * min(1, (step + 1) / WARM_UP_STEPS) * (0.01 + 0.99 * (1 + np.cos(np.pi * share)) / 2)
        optimizer.param_groups[0]["lr"] = rate
        drawn = random.integers(len(bank), size=recipe.batch)
        loss = learn(model, optimizer, [bank[at] for at in drawn])
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                mean[key].mul_(KEEP).add_(value, alpha=1 - KEEP)
        step += 1
        if step % 500 == 0:
            print(f"{share:4.0%} step {step}, loss {loss:.3f}", flush=True)
    feeder.terminate()
    model.load_state_dict(mean)


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, batch: list[Crop]) -> float:
    stacked = (np.stack(part).astype(np.float32) for part in zip(*batch, strict=True))
    pictures, text, counts = map(torch.from_numpy, stacked)
    logits = model(pictures[:, None])[:, 0]
    wrong = torch.where(text > 0, 1 - logits.sigmoid(), logits.sigmoid()) ** FOCUS
    each = binary_cross_entropy_with_logits(logits, text, reduction="none") * wrong * counts
    loss = each.sum() / (text.sum() + 50)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("out", type=Path, help="folder for the network and its weights")
    parser.add_argument("--minutes", type=float, default=16)
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--rate", type=float, default=RATE, help="the highest rate of learning")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    root = Path(os.environ.get("RADLOOP_DATA", Path(__file__).parent.parent.parent / "shared/data"))
    torch.manual_seed(asked.seed)
    torch.set_num_threads(1)
    recipe = RECIPES[asked.name]
    model = recipe.network()
    if asked.start:
        model.load_state_dict(load_file(asked.start))
    train(model, root, asked.name, asked.minutes, asked.rate, asked.seed)
    save_file(model.state_dict(), asked.out / f"{asked.name}.safetensors")
    torch.onnx.export(
        model.eval(),
        (torch.zeros(1, 1, *recipe.shape),),
        asked.out / f"{asked.name}.onnx",
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": dict(recipe.axes), "y": {axis: f"cell_{of}" for axis, of in recipe.axes.items()}},
        dynamo=False,
    )


if __name__ == "__main__":
    main()
