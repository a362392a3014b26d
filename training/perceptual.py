"""How alike two maps look: VGG-19's features where its weights are at hand, or a stand-in that needs none; and a patch
critic (TexTalker A.1).

Pretrained VGG weights are not shipped. `open_perceptual` takes torchvision's file (`vgg19-*.pth`, or the same as
safetensors). Without one the loss is the L1 distance of the maps' gradients at four scales, which asks for sharp lines
in their places, and model cards say so.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from models.checkpoint import load_into
from models.errors import CheckpointError

Images = Float[Tensor, "batch channels size size"]
Perceptual = Callable[[Images, Images], Tensor]

STAND_IN = "multi-scale gradients, in place of VGG-19"
SCALES = 4
VGG_LAYERS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, 256, "pool", 512, 512, 512, 512, "pool", 512)
VGG_TAPS = (1, 6, 11, 20, 29)
"""conv1_1 … conv5_1, after their ReLU."""
UNREADABLE = (SafetensorError, UnpicklingError, OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError)
"""What reading a file of another kind, or a damaged one, raises."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def gradient_distance(one: Images, other: Images) -> Tensor:
    """L1 between finite differences, averaged over four scales."""
    total = one.new_zeros(())
    difference = one - other
    for scale in range(SCALES):
        if scale:
            difference = functional.avg_pool2d(difference, 2)
        total = total + difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
    return total / SCALES


class VggDistance(nn.Module):
    """L1 between VGG-19's features of maps, averaged over five layers. Maps of 6 channels count as two.

    Maps come as auto-encoders see them, about 0 and within ±5, and are brought to 0..1.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        parts, entering = list[nn.Module](), 3
        for layer in VGG_LAYERS:
            if isinstance(layer, int):
                parts += [nn.Conv2d(entering, layer, 3, padding=1), nn.ReLU()]
                entering = layer
            else:
                parts.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*parts)
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, one: Images, other: Images) -> Tensor:
        """A scalar; gradients reach the maps, and not the network."""
        x, y = (
            (image.unflatten(1, (-1, 3)).flatten(0, 1) / 10 + 0.5 - self.mean) / self.deviation
            for image in (one, other)
        )
        total = x.new_zeros(())
        for number, part in enumerate(self.features):
            x, y = part(x), part(y)
            if number in VGG_TAPS:
                total = total + (x - y).abs().mean()
        return total / len(VGG_TAPS)


def open_perceptual(weights: Path | None) -> tuple[Perceptual, str]:
    """The loss and its name. CheckpointError for a file that does not hold VGG-19's convolutions."""
    if weights is None:
        return gradient_distance, STAND_IN
    network = VggDistance()
    own = network.state_dict().keys()
    stored = {name: tensor for name, tensor in read_pretrained(weights, "VGG-19").items() if name in own}
    load_into(network, stored, str(weights))
    return network.eval().requires_grad_(False), f"VGG-19 of {weights.name}"


def read_pretrained(path: Path, network: str) -> Mapping[str, Tensor]:
    """Tensors of a network's file, of torch's format or safetensors. CheckpointError if it cannot be read."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except UNREADABLE as error:
        raise CheckpointError(f"{path} cannot be read as weights of {network} ({error}); give torchvision's") from error


class PatchCritic(nn.Module):
    """Tells patches of true maps from reconstructed ones: logits over a grid (Isola et al. 2017)."""

    def __init__(self, channels: int, patch: int, width: int = 64, levels: int = 2) -> None:
        super().__init__()
        self.patch = patch
        entering, parts = channels * patch**2, list[nn.Module]()
        for level in range(levels):
            leaving = width * 2**level
            parts += [nn.Conv2d(entering, leaving, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            entering = leaving
        self.parts = nn.Sequential(*parts, nn.Conv2d(entering, 1, 3, padding=1))

    def forward(self, image: Images) -> Float[Tensor, "batch 1 rows columns"]:
        """Positive where a patch looks true."""
        return self.parts(functional.pixel_unshuffle(image, self.patch))
