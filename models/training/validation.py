"""Validation of the averaged network after each epoch, on the validation examples of all ranks together."""

import numpy as np
import torch
from numpy.typing import NDArray

from models.objectives.protocol import TrainingExamples, named_outputs
from models.training.batches import normalise
from models.training.worker import Worker

BATCH = 256
MASK_PIXELS = 1 << 20
"""Pixels in a batch whose masks are predicted: the network holds dozens of numbers for each of them."""


def validate(worker: Worker) -> dict[str, float]:
    """Return the loss, weighted as in training, and the objective's measures, the same on every rank."""
    scores, units = score(worker, worker.data.val), worker.data.val_units
    if units is None:
        measures = worker.objective.epoch_measures(scores, worker.data.val)
    else:
        measures = worker.objective.epoch_measures(worker.objective.unit_scores(scores, units), units)
    return {f"val_{name}": value for name, value in measures.items()}


@torch.no_grad()
def score(worker: Worker, examples: TrainingExamples) -> NDArray[np.float32]:
    """Return what the objective keeps of each example (n, score_size): each rank fills in its stripe."""
    mine = np.arange(worker.ranks.rank, len(examples), worker.ranks.size)
    objective, network = worker.objective, worker.average.network.eval()
    whole = np.zeros((len(examples), objective.score_size), np.float32)
    step = BATCH
    if objective.network_output == "masks":
        step = max(1, min(BATCH, MASK_PIXELS // examples.gather(np.zeros(1, np.int64)).size))
    for begin in range(0, len(mine), step):
        index = mine[begin : begin + step]
        outputs = objective.activate(named_outputs(network(normalise(worker.levels(examples, index)))))
        arrays = {name: output.float().cpu().numpy() for name, output in outputs.items()}
        whole[index] = objective.score(arrays, objective.targets(examples, index))
    # The other stripes are zero here, so that the sum over the ranks is the whole.
    scores: NDArray[np.float32] = (
        worker.ranks.total(torch.from_numpy(whole).to(worker.ranks.device)).cpu().numpy()
    )
    return scores
