"""Start of a training from weights that are there: which of them a network takes, and how fast its parts learn."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from imaging.dataset.version.dataset_version import open_version
from imaging.errors import UserFault
from imaging.store.open_store import open_store
from imaging.store.protocol import Store
from models.config import StartConfig, TrainConfig
from models.networks.layers import head_of
from models.networks.weights_file import CLASSES, STORED, check_network_of, read_description, stored_name
from models.objectives.objective_catalog import objective_class

DEPTHS, SLOWER = 4, 2.6
"""Parts of a network below its head, each of which learns so many times more slowly than the next one.

The factor is that of Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, 3.2."""
COUNTER = "num_batches_tracked"
"""End of the name of a counter, which files may lack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWeights:
    """Weights of a file by name, and the file's description; `what` names the file."""

    tensors: Mapping[str, Tensor]
    description: Mapping[str, str]
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a network takes from a file; `adapted` and `drawn` name what it takes otherwise or not at all."""

    weights: Mapping[str, Tensor]
    adapted: str
    drawn: str

    def lines(self, what: str) -> list[str]:
        """Return what a person should know, line by line."""
        return [
            f"Starts from {len(self.weights)} tensors of {what}",
            *filter(None, (self.adapted, self.drawn)),
        ]


def open_start(config: TrainConfig, store: Store) -> StartWeights | None:
    """Return the weights that a configuration names, from a file or from the store; None where it names none."""
    weights = config.start.weights
    if not weights:
        return None
    path = store.local(stored_name(weights)) if weights.startswith(STORED) else Path(weights).expanduser()
    description = read_description(path)
    return StartWeights(tensors=load_file(path), description=description, what=weights)


def check_start(rank: int, size: int, meet: str, job: Mapping[str, Any]) -> list[str]:
    """Return what a training takes from the weights that it starts from; raise UserFault where they do not fit.

    It runs in a fork, as `models.training.launch.train_here` does: a process whose torch has computed has threads, and
    what is forked of it waits for them forever. No weights are drawn for it.
    """
    store = open_store(job["store"], Path(job["cache"]), job["cache_bytes"])
    config = TrainConfig.model_validate(job["train"])
    version = open_version(store, job["dataset"], job["digest"])
    objective = objective_class(config.objective).of_version(version)
    if (start := open_start(config, store)) is None:
        return []
    with torch.device("meta"):
        network = objective.build(config.network, version.spec.channels)
    return take(network, config.network, objective.metadata(), start).lines(start.what)


def begin(network: nn.Module, config: TrainConfig, metadata: Mapping[str, str], start: StartWeights) -> None:
    """Give a network the weights that it takes, and freeze what is not to be trained."""
    network.load_state_dict(dict(take(network, config.network, metadata, start).weights), strict=False)
    if config.start.mode == "frozen":
        network.requires_grad_(False)
        network.get_submodule(head_of(network)).requires_grad_(True)


def take(network: nn.Module, name: str, metadata: Mapping[str, str], start: StartWeights) -> Taken:
    """Return what a network of the catalog takes from a file; `metadata` are those of its objective.

    The head is drawn anew for other classes. The first convolution of an image with another number of channels is
    adapted: the sum over the file's channels, divided among the network's, so that an image whose channels are equal
    gives what it gave. Raises UserFault for the weights of another network.
    """
    check_network_of(start.description, name, start.what)
    own, given, head = network.state_dict(), start.tensors, f"{head_of(network)}."
    body = [key for key in own if not key.startswith(head) and not key.endswith(COUNTER)]
    if odd := [key for key in body if key not in given] or [key for key in given if key not in own]:
        raise UserFault(
            f"{start.what} does not hold the weights of {name!r}: {'it lacks' if odd[0] in own else 'it has'} "
            f"{', '.join(odd[:3])}{' and more' if len(odd) > 3 else ''}; set the network that it was trained as"
        )
    first = next((key for key in body if own[key].ndim >= 4), "")
    taken = {key: given[key] for key in own if key in given}
    adapted = ""
    if first and _differs_in_channels(own[first], given[first]):
        before, now = given[first].shape[1], own[first].shape[1]
        taken[first] = given[first].sum(dim=1, keepdim=True).expand(-1, now, -1, -1) / now
        adapted = f"The first layer is adapted from {before} to {now} channels (sum over channels / {now})"
    drawn = _other_head(own, given, head, metadata, start.description)
    taken = {key: value for key, value in taken.items() if not (drawn and key.startswith(head))}
    for key, value in taken.items():
        if value.shape != own[key].shape:
            raise UserFault(
                f"{start.what} does not hold the weights of {name!r}: {key} has the shape {tuple(value.shape)}, and "
                f"{tuple(own[key].shape)} is needed; set the network that it was trained as"
            )
        if not value.isfinite().all():
            raise UserFault(f"{start.what} has values in {key} that are no numbers: give other weights")
    return Taken(weights=taken, adapted=adapted, drawn=drawn)


def _differs_in_channels(own: Tensor, given: Tensor) -> bool:
    return (
        own.ndim == given.ndim == 4
        and own.shape[1] != given.shape[1]
        and own[:, 0].shape == given[:, 0].shape
    )


def _other_head(
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    head: str,
    metadata: Mapping[str, str],
    description: Mapping[str, str],
) -> str:
    """Return why the head is drawn anew, or nothing."""
    classes = metadata.get(CLASSES, "")
    if description.get(CLASSES, classes) != classes:
        return f"The head is drawn anew: the classes were {description[CLASSES]}, and are {classes}"
    keys = [key for key in own if key.startswith(head)]
    if any(key not in given or given[key].shape != own[key].shape for key in keys):
        return "The head is drawn anew: it has another number of outputs"
    return ""


def set_depth_rates(optimizer: torch.optim.Optimizer, network: nn.Module, config: StartConfig) -> None:
    """Part an optimizer's groups by the depth of their weights, where earlier layers shall learn more slowly.

    Each group then has a `rate`, by which the learning rate is multiplied; see `set_learning_rate`.
    """
    if config.mode != "discriminative":
        return
    head = head_of(network)
    body = [weights for name, weights in network.named_parameters() if not name.startswith(f"{head}.")]
    depth_of = {id(weights): at * DEPTHS // len(body) for at, weights in enumerate(body)}
    optimizer.param_groups = [
        {**group, "params": members, "rate": SLOWER ** (depth - DEPTHS)}
        for group in optimizer.param_groups
        for depth in range(DEPTHS + 1)
        if (members := [one for one in group["params"] if depth_of.get(id(one), DEPTHS) == depth])
    ]
