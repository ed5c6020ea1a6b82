"""Make the first weights of a narrower network from a wider one's: `python -m bench.text_narrowing NAME WIDER OUT`.

Of each layer those channels are kept that matter most to the layer that reads them: by how much each varies over some
crops, times the weights that read it. `python -m bench.text_training NAME OUT --start ...` goes on from there.
"""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.text_crops import Images
from bench.text_training import RECIPES

CROPS = 200

Weights = Mapping[str, Tensor]


def narrowed(narrow: nn.Sequential, wider: Weights, pictures: Tensor) -> dict[str, Tensor]:
    """Return weights for `narrow`, cut out of those of the same layers with more channels."""
    wide = nn.Sequential(*(_widened(str(at), layer, wider) for at, layer in enumerate(narrow))).eval()
    wide.load_state_dict(wider)
    kept, cut, shapes = torch.arange(1), dict[str, Tensor](), narrow.state_dict()
    for at, layer in enumerate(narrow):
        if isinstance(layer, nn.Conv2d) and layer.groups == 1:
            read = kept
            kept = _chosen(wide, at, layer.out_channels, pictures)
        for name, old in wider.items():
            if name.split(".")[0] != str(at):
                continue
            new = old[kept] if old.ndim else old
            if isinstance(layer, nn.Conv2d) and layer.groups == 1 and name.endswith("weight"):
                new = new[:, read]
            assert new.shape == shapes[name].shape, name
            cut[name] = new.clone()
    return cut


def _widened(at: str, layer: nn.Module, wider: Weights) -> nn.Module:
    """Return the layer with as many channels as the weights have."""
    if isinstance(layer, nn.BatchNorm2d):
        return nn.BatchNorm2d(len(wider[f"{at}.weight"]))
    if not isinstance(layer, nn.Conv2d):
        return layer
    out, of = wider[f"{at}.weight"].shape[:2]
    groups = out if layer.groups > 1 else 1
    made = nn.Conv2d(groups * of, out, 1, groups=groups, bias=layer.bias is not None)
    made.kernel_size, made.stride = layer.kernel_size, layer.stride
    made.padding, made.dilation = layer.padding, layer.dilation
    made.weight = nn.Parameter(wider[f"{at}.weight"])
    return made


def _chosen(wide: nn.Sequential, at: int, count: int, pictures: Tensor) -> Tensor:
    """Return which channels of the layer `at` matter most to the next that mixes channels, in order."""
    for later in range(at + 1, len(wide)):
        reader = wide[later]
        if isinstance(reader, nn.Conv2d) and reader.groups == 1:
            with torch.no_grad():
                varies = wide[:later](pictures).std((0, 2, 3))
            matters = varies * reader.weight.detach().abs().sum((0, 2, 3))
            best = matters.topk(count)
            print(f"layer {at}: {count} of {len(matters)} channels, {best.values.sum() / matters.sum():.0%}")
            return best.indices.sort().values
    return torch.arange(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("wider", type=Path)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    root = Path(os.environ.get("RADLOOP_DATA", Path(__file__).parent.parent.parent / "shared/data"))
    recipe, random, images = RECIPES[asked.name], np.random.default_rng(1), Images(root)
    crops: list[np.ndarray] = []
    while len(crops) < CROPS:
        crops.extend(crop[0] for crop in recipe.crops(random, images))
    pictures = torch.from_numpy(np.stack(crops).astype(np.float32))[:, None]
    save_file(narrowed(recipe.network(), load_file(asked.wider), pictures), asked.out)


if __name__ == "__main__":
    main()
