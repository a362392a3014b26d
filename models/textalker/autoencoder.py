"""The quantised auto-encoders of maps (TexTalker 4.2, A.1; VQGAN, Esser et al. 2021): one for motion, one for wrinkles.

A map goes through residual blocks and resizings to a grid of latents z, each of which is replaced by its nearest entry
of a codebook, and back. `paper` is the paper's network: 512² maps, five resizings, 12 residual blocks, attention at the
lowest resolution, 16×16×16 latents, 1024 × 16 codes. `compact` has the same latents and codes, from maps of 128² and
256² that enter in patches; since the atlas stays where it is, it is also told where on it a latent lies.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from models.checkpoint import config_from, load_into, read_header, read_tensors
from models.errors import CheckpointError

MODALITIES = ("motion", "wrinkle", "joint")

Image = Float[Tensor, "batch channels size size"]
Latent = Float[Tensor, "batch latent rows columns"]


@dataclass(frozen=True)
class AutoencoderConfig:
    """What the network is. widths are channels at each resolution, from the finest on, half the size from one to the
    next.
    """

    modality: str = "motion"
    size: int = 128
    channels: int = 3
    patch: int = 4
    """Texels along the side of a patch that enters as one."""
    widths: tuple[int, ...] = (48, 96)
    blocks: int = 2
    """Residual blocks at each resolution."""
    latent: int = 16
    codes: int = 1024
    placed: bool = True
    """Whether it learns what is where on the atlas; the paper's does not."""
    canvas: int = 0
    """Channels of a last stage at the map's own size, in which every texel has a gain and a shift of its own: lines lie
    nearly where they lay on other faces. 0 leaves it out, and the decoder's places at its finer resolutions."""
    atlas: str = ""
    """Fingerprint of the atlas that its maps lie on."""
    moving: int = 0
    """How many vertices move at all; the network knows which."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))  # JSON knows no tuples

    @property
    def grid(self) -> int:
        """Latents along the side of a map."""
        return self.size // self.patch // 2 ** (len(self.widths) - 1)

    @property
    def latents(self) -> int:
        """Numbers that describe a map."""
        return self.latent * self.grid**2


PAPER_WIDTHS = (64, 128, 128, 256, 256, 512)
SIZES: Mapping[str, Mapping[str, AutoencoderConfig]] = {
    "compact": {
        "motion": AutoencoderConfig("motion", size=128, patch=4),
        "wrinkle": AutoencoderConfig("wrinkle", size=256, patch=4, widths=(32, 64, 96), canvas=8),
        "joint": AutoencoderConfig("joint", size=256, channels=6, patch=4, widths=(32, 64, 96), canvas=8),
    },
    "paper": {
        name: AutoencoderConfig(name, 512, 6 if name == "joint" else 3, 1, PAPER_WIDTHS, placed=False)
        for name in MODALITIES
    },
}


class ResidualBlock(nn.Module):
    """Normalise, SiLU, convolve, twice, and add."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([_norm(entering), _norm(leaving)])
        self.convolutions = nn.ModuleList([_convolution(entering, leaving), _convolution(leaving, leaving)])
        self.skip = nn.Conv2d(entering, leaving, 1) if entering != leaving else nn.Identity()

    def forward(self, x: Image) -> Image:
        """(batch, entering, size, size) → (batch, leaving, size, size)."""
        own = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            own = convolution(functional.silu(norm(own)))
        return self.skip(x) + own


class SpatialAttention(nn.Module):
    """Every place looks at every place; added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Image) -> Image:
        """Same shape in and out."""
        # one head, since the exporter knows attention with heads only
        query, key, value = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)[:, None].chunk(3, -1)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return x + self.out(mixed[:, 0].transpose(1, 2).reshape(x.shape))


class Encoder(nn.Module):
    """Map → latents before quantisation."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths, entering = config.widths, config.channels * config.patch**2
        self.patch = config.patch
        parts: list[nn.Module] = [_convolution(entering, widths[0])]
        for level, width in enumerate(widths):
            if level:
                parts.append(nn.Conv2d(widths[level - 1], widths[level - 1], 3, stride=2, padding=1))
            before = widths[max(level - 1, 0)]
            parts += [ResidualBlock(before if k == 0 else width, width) for k in range(config.blocks)]
        parts += [SpatialAttention(widths[-1])]
        self.parts = nn.Sequential(*parts)
        self.place = _place(config, widths[-1])
        self.out = nn.Sequential(_norm(widths[-1]), nn.SiLU(), _convolution(widths[-1], config.latent))

    def forward(self, image: Image) -> Latent:
        """(batch, channels, size, size) → (batch, latent, grid, grid)."""
        return self.out(self.parts(functional.pixel_unshuffle(image, self.patch)) + self.place)


PLACE_RATE = 8.0
"""Adam's steps are small against what a line needs: places learn so much faster."""


class Place(nn.Module):
    """Every place of a grid has a gain and a shift of its own."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.randn(1, width, size, size) * 0.005)
        self.shift = nn.Parameter(torch.randn(1, width, size, size) * 0.005)

    def forward(self, x: Image) -> Image:
        """Same shape in and out."""
        return x * (1 + PLACE_RATE * self.gain) + PLACE_RATE * self.shift


class Decoder(nn.Module):
    """Quantised latents → map."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        self.patch = config.patch
        self.enter = _convolution(config.latent, widths[0])
        self.place = _place(config, widths[0])
        parts: list[nn.Module] = [SpatialAttention(widths[0])]
        for level, width in enumerate(widths):
            if level:
                parts += [nn.Upsample(scale_factor=2), _convolution(widths[level - 1], widths[level - 1])]
                parts += [Place(widths[level - 1], config.grid * 2**level)] if config.canvas else []
            before = widths[max(level - 1, 0)]
            parts += [ResidualBlock(before if k == 0 else width, width) for k in range(config.blocks)]
        leaving = (config.canvas or config.channels) * config.patch**2
        self.parts = nn.Sequential(*parts, _norm(widths[-1]), nn.SiLU(), _convolution(widths[-1], leaving))
        self.canvas = (
            nn.Sequential(Place(config.canvas, config.size), nn.SiLU(), _convolution(config.canvas, config.channels))
            if config.canvas
            else nn.Identity()
        )

    def forward(self, latent: Latent) -> Image:
        """(batch, latent, grid, grid) → (batch, channels, size, size)."""
        return self.canvas(functional.pixel_shuffle(self.parts(self.enter(latent) + self.place), self.patch))


class Quantised(NamedTuple):
    """The nearest codes: entries in place of the latents, and their numbers."""

    latent: Latent
    codes: Int[Tensor, "batch rows columns"]


class Codebook(nn.Module):
    """Q: each latent → its nearest entry."""

    def __init__(self, codes: int, latent: int) -> None:
        super().__init__()
        self.entries = nn.Parameter(torch.randn(codes, latent) / latent**0.5)

    def forward(self, latent: Latent) -> Quantised:
        """Nearest by Euclidean distance; of equals, the first."""
        flat = latent.permute(0, 2, 3, 1)
        distance = self.entries.square().sum(1) - 2 * flat @ self.entries.T
        codes = distance.argmin(-1)
        return Quantised(self.look_up(codes), codes)

    def look_up(self, codes: Int[Tensor, "batch rows columns"]) -> Latent:
        """Entries by number."""
        return functional.embedding(codes, self.entries).permute(0, 3, 1, 2)


class Autoencoder(nn.Module):
    """E, Q and G of one modality. `moving`: the vertices that motion moves at all, for whom reads its maps."""

    moving: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("moving", torch.zeros(config.moving, dtype=torch.int64))
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.codebook = Codebook(config.codes, config.latent)

    def encode(self, image: Image) -> Latent:
        """z = E(image), before quantisation: what pivots are means of, and what is diffused."""
        return self.encoder(image)

    def decode(self, latent: Latent) -> Image:
        """G(Q(z)) (Eq. 5)."""
        return self.decoder(self.codebook(latent).latent)

    def forward(self, image: Image) -> Image:
        """There and back."""
        return self.decode(self.encode(image))


def load_autoencoder(path: Path, modality: str, atlas: str) -> Autoencoder:
    """A trained auto-encoder. CheckpointError if the file is of another modality or atlas, or does not fit."""
    header = read_header(path)
    config = config_from(AutoencoderConfig, header)
    if header.kind != "autoencoder" or (config.modality, config.atlas) != (modality, atlas):
        raise CheckpointError(
            f"{path} holds a {header.kind} of {config.modality} on atlas {config.atlas or 'unknown'}; wanted an "
            f"autoencoder of {modality} on {atlas}: train it again"
        )
    network = Autoencoder(config)
    load_into(network, read_tensors(path), str(path))
    return network.eval()


def _convolution(entering: int, leaving: int) -> nn.Conv2d:
    return nn.Conv2d(entering, leaving, 3, padding=1)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, width // 4), width, eps=1e-6)


def _place(config: AutoencoderConfig, width: int) -> nn.Parameter:
    """What is where; fixed to nothing where the network is not told."""
    shape = (1, width, config.grid, config.grid) if config.placed else (1, 1, 1, 1)
    return nn.Parameter(torch.randn(shape) * 0.02 if config.placed else torch.zeros(shape), config.placed)
