"""Networks of the catalog: what each exports to beside torch, and the U-Nets beside MONAI's DynUNet in turn.

`python -m bench.networks --only unet_3d resnet50` takes some of them; all take some minutes.
"""

import argparse
import statistics
import sys

import torch
from monai.networks.nets import DynUNet
from torch import nn

from bench.interleaved import interleave, ratio
from imaging.image.window import IDENTITY
from imaging.preprocess.spec import PreprocessSpec
from models.networks.catalog import NETWORKS, build
from models.networks.unet import WIDTHS, kernels_of, strides_of
from models.objectives.classification import Classification
from models.portable.export import TOLERANCE, export_onnx, verify_export

SLICES, SIDE = 10, 96
"""Those of a cardiac stack."""
ROUNDS = 5


def warmed(name: str, spec: PreprocessSpec) -> nn.Module:
    """Return a network whose answer depends on its input; running statistics of fresh ones make it a constant."""
    torch.manual_seed(0)
    network = build(name, 3, spec.channels).train()
    with torch.no_grad():
        for _ in range(8):
            network(torch.randn(4, spec.channels, spec.size_px, spec.size_px))
    return network.eval()


def exported(name: str) -> float:
    """Return the largest difference between the portable file and torch, of a network of classes."""
    row = NETWORKS[name]
    kind = "volume" if row.dimensions == 3 else "slice"
    # Odd where a network takes it: no side is halved without a rest.
    side = 64 if row.least_px > 16 else 27
    spec = PreprocessSpec(modality="OT", window=IDENTITY, size_px=side, kind=kind, slices=9)
    network, objective = warmed(name, spec), Classification(classes=("a", "b", "c"))
    return verify_export(export_onnx(network, spec, objective), network, spec, objective)


def step(network: nn.Module, image: torch.Tensor) -> None:
    outputs = network(image)
    tensors = outputs.values() if isinstance(outputs, dict) else outputs.unbind(1)
    torch.stack([one.float().square().mean() for one in tensors]).sum().backward()


def beside_dynunet(dimensions: int) -> str:
    """Return a line of a table: parameters and the time of a training step, batch 2, of both."""
    strides = strides_of(SLICES) if dimensions == 3 else [(2, 2)] * (len(WIDTHS) - 1)
    other = DynUNet(
        spatial_dims=dimensions,
        in_channels=1,
        out_channels=2,
        kernel_size=kernels_of(strides),
        strides=[(1,) * dimensions, *strides],
        upsample_kernel_size=strides,
        filters=WIDTHS,
        res_block=True,
        deep_supervision=True,
        deep_supr_num=2,
    ).train()
    name = "unet_3d" if dimensions == 3 else "unet"
    ours = build(name, 2, SLICES if dimensions == 3 else 1).train()
    image = torch.randn(2, SLICES if dimensions == 3 else 1, SIDE, SIDE)
    theirs = image.unsqueeze(1) if dimensions == 3 else image
    last = torch.channels_last_3d if dimensions == 3 else torch.channels_last
    ours, other = ours.to(memory_format=last), other.to(memory_format=last)
    took = interleave(
        {"ours": lambda _: step(ours, image), "DynUNet": lambda _: step(other, theirs)}, 1, ROUNDS + 1
    )
    measured = {side: times[1:] for side, times in took.items()}
    sizes = [sum(weights.numel() for weights in network.parameters()) for network in (ours, other)]
    medians = [statistics.median(times) for times in measured.values()]
    return (
        f"| {name} | {sizes[0]:,} | {sizes[1]:,} | {medians[0]:.0f} ms | {medians[1]:.0f} ms | "
        f"{ratio(measured['DynUNet'], measured['ours']):.2f} x |"
    )


def main() -> int:
    classifiers = [name for name, row in NETWORKS.items() if row.output == "classes"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[*classifiers, "unet", "unet_3d"])
    chosen = parser.parse_args().only
    torch.set_num_threads(1)
    worst = 0.0
    for name in filter(classifiers.__contains__, chosen):
        difference = exported(name)
        print(f"{name}: the portable file differs from torch by {difference:.1e}", flush=True)
        worst = max(worst, difference)
    print("| U-Net | parameters | of DynUNet | step | of DynUNet | as fast |\n|---|---|---|---|---|---|")
    for dimensions, name in ((2, "unet"), (3, "unet_3d")):
        if name in chosen:
            print(beside_dynunet(dimensions), flush=True)
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
