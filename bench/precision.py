"""Training step of networks in fp32 and in bf16, in turn, one process on one core: what `precision: auto` rests on."""

import argparse
import statistics
from functools import partial

import numpy as np
import torch

from bench.interleaved import interleave, ratio
from bench.step_time import synthetic
from models.config import TrainConfig
from models.training.loop import train_step
from models.training.ranks import Ranks
from models.training.worker import Worker

CASES = (("residual_small", 28, 16), ("residual_small", 224, 4), ("resnet18", 64, 4), ("mobilenet_v2", 64, 4))
"""Network, side in pixels, batch."""


def step_of(worker: Worker, step: int) -> None:
    train_step(worker, 0, step, np.arange(worker.config.batch_size))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=15)
    rounds = options.parse_args().rounds
    torch.set_num_threads(1)
    print(f"AMX: {torch.cpu.get_capabilities().get('amx_bf16', False)}")
    print("| network | side, batch | fp32 | bf16 | speed of bf16 |\n|---|---|---|---|---|")
    for network, size_px, batch in CASES:
        data, steps = synthetic(4 * batch, size_px), {}
        for chosen in ("fp32", "bf16"):
            config = TrainConfig.model_validate(
                {"network": network, "batch_size": batch, "workers": 1, "precision": chosen}
            )
            worker = Worker.start(config, data, Ranks(), None)
            worker.network.train()
            steps[chosen] = partial(step_of, worker)
        interleave(steps, 2, 1)
        took = interleave(steps, 3, rounds)
        cells = " | ".join(f"{statistics.median(took[one]):.1f} ms" for one in steps)
        speed = ratio(took["fp32"], took["bf16"])
        print(f"| {network} | {size_px} px, {batch} | {cells} | {speed:.2f} x |", flush=True)


if __name__ == "__main__":
    main()
