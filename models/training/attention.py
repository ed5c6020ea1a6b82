"""Attention over the images of a unit, fitted to what a trained network sees of them.

It is the gated attention of Ilse et al. 2018, https://arxiv.org/abs/1802.04712, (9), of the network's embedding; its
softmax over the images of a unit weighs their probabilities. The network stays as it is, so that the model's
probability of one image means the same under every rule, and one process does the fit, whatever number of workers has
trained: it passes once through some of the training images, and then takes seconds.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from imaging.preprocess.slice import planes
from models.config import TrainConfig
from models.networks.layers import EmbeddingHead, head_of
from models.objectives.aggregation import EACH_IMAGE, Units
from models.objectives.protocol import Objective
from models.portable.contract import EMBEDDING
from models.training.batches import normalise

HIDDEN = 64
STEPS, UNITS_OF_STEP = 400, 32
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 0.01
MOST_IMAGES, LEAST_OF_UNIT = 50_000, 16
"""Images whose embeddings are held in memory, 100 MB of 512 numbers each; every unit may have so many of them."""
BATCH = 64


class GatedAttention(nn.Module):
    """Logits of attention (n, columns) of embeddings (n, width); before it is fitted all images weigh alike."""

    def __init__(self, embeddings: Tensor, columns: int) -> None:
        super().__init__()
        width = embeddings.shape[1]
        self.register_buffer("middle", embeddings.mean(dim=0))
        self.register_buffer("scale", embeddings.std(dim=0, correction=0).clamp(min=1e-6))
        self.seen, self.gate = nn.Linear(width, HIDDEN), nn.Linear(width, HIDDEN)
        self.weigh = nn.Linear(HIDDEN, columns, bias=False)
        nn.init.zeros_(self.weigh.weight)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the logits."""
        values = (embeddings - self.get_buffer("middle")) / self.get_buffer("scale")
        logits: Tensor = self.weigh(self.seen(values).tanh() * self.gate(values).sigmoid())
        return logits


def add_attention(
    network: nn.Module, objective: Objective, units: Units, config: TrainConfig, columns: int
) -> None:
    """Let a network that gives its embedding give attention (n, columns) too, fitted to the units of training."""
    head = network.get_submodule(head_of(network).rpartition(".")[0])
    assert isinstance(head, EmbeddingHead)
    drawn = np.random.default_rng(config.seed)
    bags, members = _some(units, drawn)
    rows = np.concatenate(members)
    embeddings, logits = _seen(network.eval(), units, rows)
    outputs = {"logits": logits, EMBEDDING: embeddings}
    probabilities = objective.aggregated(EACH_IMAGE).activate(outputs)["probabilities"]
    objective = objective.fitted(units, config)
    sizes = np.array([len(one) for one in members])
    starts, weights = np.cumsum(sizes) - sizes, objective.weights(units)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        attention = GatedAttention(embeddings, columns)
    optimizer = torch.optim.AdamW(attention.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for _ in range(STEPS):
        chosen = drawn.choice(len(bags), min(UNITS_OF_STEP, len(bags)), replace=False)
        places = np.concatenate([np.arange(starts[one], starts[one] + sizes[one]) for one in chosen])
        of_unit = torch.from_numpy(np.repeat(np.arange(len(chosen)), sizes[chosen]))
        pooled = weighted_mean(attention(embeddings[places]), probabilities[places], of_unit, len(chosen))
        targets = objective.targets(units, bags[chosen])
        tensors = {name: torch.from_numpy(array) for name, array in targets.items()}
        loss = objective.loss({"logits": objective.logits_of(pooled)}, tensors)
        optimizer.zero_grad()
        (loss / float(weights[bags[chosen]].sum())).backward()
        optimizer.step()
    head.attention = attention.requires_grad_(False).eval()


def weighted_mean(logits: Tensor, probabilities: Tensor, of_unit: Tensor, count: int) -> Tensor:
    """Return the mean of probabilities (n, k) in each unit (count, k), weighted by the softmax of logits (n, 1 or k).

    `of_unit` (n,) is the number of the unit of each row.
    """
    index = of_unit[:, None].expand_as(logits)
    highest = torch.full((count, logits.shape[1]), -torch.inf).scatter_reduce(
        0, index, logits.detach(), "amax"
    )
    weights = (logits - highest[of_unit]).exp()
    total = torch.zeros(count, logits.shape[1]).index_add(0, of_unit, weights)
    values = torch.zeros(count, probabilities.shape[1]).index_add(0, of_unit, weights * probabilities)
    return values / total


def _some(units: Units, drawn: np.random.Generator) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Return units, drawn at random, and the positions of their examples, of which all units have equally many."""
    bags = drawn.permutation(len(units))[: MOST_IMAGES // LEAST_OF_UNIT]
    share = MOST_IMAGES // len(bags)
    members = [units.members(unit) for unit in bags]
    return bags, [one if len(one) <= share else np.sort(drawn.choice(one, share, False)) for one in members]


@torch.no_grad()
def _seen(network: nn.Module, units: Units, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return the embedding and the logits of examples by their positions."""
    parts: Sequence[dict[str, Tensor]] = [
        network(normalise(torch.from_numpy(planes(units.examples.gather(rows[at : at + BATCH]))).float()))
        for at in range(0, len(rows), BATCH)
    ]
    embeddings, logits = (torch.cat([part[name] for part in parts]) for name in (EMBEDDING, "logits"))
    return embeddings, logits
