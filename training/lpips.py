"""LPIPS, a learned distance of images (Zhang et al. 2018), by AlexNet: 0 for equal ones, below 1 for most.

AlexNet's pretrained weights are not shipped. `open_lpips` takes torchvision's file (`alexnet-*.pth`, or the same as
safetensors); the weights of the layers' channels come with torchmetrics, whose own implementation wants torchvision.
"""

from pathlib import Path

import torch
import torchmetrics
from jaxtyping import Float
from torch import Tensor, nn

from models.checkpoint import load_into
from training.perceptual import read_pretrained

HEADS = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / "alex.pth"
ALEXNET = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
"""Channels in and out, kernel, stride and padding of the convolutions; each is followed by a ReLU."""
POOLED = (0, 1)
"""Convolutions whose result is pooled before the next."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of images within -1..1, as the heads were trained."""


class Lpips(nn.Module):
    """d(x, y) = Σ_l mean_hw w_l · (φ_l(x) − φ_l(y))², φ_l a layer's features, channels at unit length (Eq. 1)."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        parts = list[nn.Module]()
        for layer, (entering, leaving, kernel, stride, padding) in enumerate(ALEXNET):
            parts += [nn.Conv2d(entering, leaving, kernel, stride, padding), nn.ReLU()]
            if layer in POOLED:
                parts.append(nn.MaxPool2d(3, 2))
        self.features = nn.Sequential(*parts)
        self.heads = nn.ParameterList(torch.zeros(leaving) for _, leaving, *_ in ALEXNET)
        self.register_buffer("shift", torch.tensor(SHIFT).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).reshape(1, 3, 1, 1), persistent=False)

    def forward(
        self, one: Float[Tensor, "batch 3 height width"], other: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, " batch"]:
        """Distances of pairs of images within 0..1, of 64 by 64 pixels or more."""
        x, y = ((2 * image - 1 - self.shift) / self.scale for image in (one, other))
        distance, heads = one.new_zeros(len(one)), iter(self.heads)
        for part in self.features:
            x, y = part(x), part(y)
            if isinstance(part, nn.ReLU):
                squared = (_unit(x) - _unit(y)).square()
                distance = distance + (squared * next(heads).reshape(1, -1, 1, 1)).sum(1).mean((1, 2))
        return distance


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


def open_lpips(alexnet: Path) -> Lpips:
    """LPIPS with pretrained weights. CheckpointError for a file that does not hold AlexNet's convolutions."""
    network = Lpips()
    own = {name for name in network.state_dict() if name.startswith("features.")}
    stored = {name: part for name, part in read_pretrained(alexnet, "AlexNet").items() if name in own}
    heads = read_pretrained(HEADS, "LPIPS' layers")
    stored |= {f"heads.{k}": heads[f"lin{k}.model.1.weight"].flatten() for k in range(len(ALEXNET))}
    load_into(network, stored, str(alexnet))
    return network.eval().requires_grad_(False)
