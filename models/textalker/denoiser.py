"""TexTalker's denoiser (4.3): noisy latents of a window, what came before it, and its sound → clean latents.

A transformer decoder over one token for the diffusion step, `previous` clean frames and `window` noisy ones, at 30
frames a second. A frame is X⁰ = [Δz_motion, Δz_wrinkle], flat: latents less their pivots, so that style never enters.
Everything here is in units of `scale`, the spread of each number over the corpus.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from models.checkpoint import config_from, load_into, read_header, read_tensors
from models.errors import CheckpointError
from models.features import FEATURE_RATE_HZ
from models.textalker.codes import RATE_HZ

GRID = 3
"""Every third frame lies on a feature: windows begin at multiples of it."""
REACH = 2
"""Features to either side that a frame's sound is read from."""


@dataclass(frozen=True)
class DenoiserConfig:
    """What the network is. `modalities` leaves motion or wrinkles out, for the paper's ablations."""

    motion: int = 1024
    """Numbers in a motion latent."""
    wrinkle: int = 1024
    """Numbers in a wrinkle latent."""
    features: int = 144
    width: int = 256
    layers: int = 4
    heads: int = 4
    mlp: int = 2
    """Width of a layer's feed-forward pair, over `width`."""
    window: int = 90
    previous: int = 10
    steps: int = 500
    encoder: str = "compact"
    """Whose features it hears, as in `MMTalkerConfig`."""
    encoder_sha256: str = ""
    """Of the compact encoder's checkpoint."""
    autoencoders: str = ""
    """Of the auto-encoders' checkpoints whose latents it makes."""
    modalities: Literal["both", "motion", "wrinkle"] = "both"

    def __post_init__(self) -> None:
        if self.modalities not in ("both", "motion", "wrinkle"):
            raise CheckpointError(f"modalities {self.modalities!r}; wanted both, motion or wrinkle; train it again")
        if self.width % (2 * self.heads):
            raise CheckpointError(f"{self.heads} heads for a width of {self.width}; wanted an even width for each head")
        if self.window % GRID:
            raise CheckpointError(f"a window of {self.window} frames; wanted a multiple of {GRID}")

    @property
    def part(self) -> slice:
        """Which numbers of [Δz_motion, Δz_wrinkle] it makes."""
        return slice(
            self.motion if self.modalities == "wrinkle" else 0,
            self.motion if self.modalities == "motion" else self.motion + self.wrinkle,
        )

    @property
    def size(self) -> int:
        """D: numbers in a frame."""
        return self.part.stop - self.part.start

    @property
    def hop(self) -> int:
        """Features from one window to the next."""
        return self.window * FEATURE_RATE_HZ // RATE_HZ

    @property
    def before(self) -> int:
        """Features before a window that it hears."""
        return -(-self.previous * FEATURE_RATE_HZ // RATE_HZ) + REACH

    @property
    def heard(self) -> int:
        """Features that it hears, from `before` on."""
        return self.before + self.hop + REACH


SIZES: Mapping[str, DenoiserConfig] = {
    "compact": DenoiserConfig(),
    "paper": DenoiserConfig(motion=4096, wrinkle=4096, features=768, width=1024, layers=8, heads=8, mlp=4),
}


class Hearing(nn.Module):
    """Features at 50 Hz and the closure of the lids at 30 Hz → what each frame hears, and the logit of lip contact.

    Blinks are drawn, not heard, so the lids are a condition like the sound.
    """

    low: Tensor
    share: Tensor

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        width = config.width
        self.convolution = nn.Conv1d(config.features, width, 2 * REACH + 1)
        self.linear = nn.Linear(width, width)
        self.lids = nn.Parameter(torch.randn(width) * 0.1)
        self.contact = nn.Linear(width, 1)
        frames = torch.arange(config.previous + config.window, dtype=torch.float64) - config.previous
        position = frames * FEATURE_RATE_HZ / RATE_HZ + config.before - REACH
        self.register_buffer("low", position.floor().long(), persistent=False)
        self.register_buffer("share", (position - position.floor()).float()[:, None], persistent=False)

    def forward(
        self, features: Float[Tensor, "batch heard features"], lids: Float[Tensor, "batch frames"]
    ) -> tuple[Float[Tensor, "batch frames width"], Float[Tensor, "batch frames"]]:
        """`features` are `config.heard` ones, of which number `config.before` is at the window's first frame; frames
        are the previous ones and the window's.
        """
        hidden = functional.gelu(self.convolution(features.transpose(1, 2)).transpose(1, 2))
        at_frames = torch.lerp(hidden[:, self.low], hidden[:, self.low + 1], self.share)
        return self.linear(at_frames) + lids[..., None] * self.lids, self.contact(at_frames)[..., 0]


class Layer(nn.Module):
    """A decoder layer, normalised before: self-attention, the sound, a feed-forward pair.

    The paper's cross-attention has an alignment mask: frame t may look at frame t's sound only. The softmax over one
    key is 1, so queries and keys drop out and what is left is one linear map of that sound: `hear`. The step token
    stands for no frame and hears nothing.
    """

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.attend_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.hear = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, config.mlp * width), nn.GELU(), nn.Linear(config.mlp * width, width))

    def forward(
        self,
        x: Float[Tensor, "batch 1+frames width"],
        audio: Float[Tensor, "batch frames width"],
        mask: Bool[Tensor, "batch 1 1 1+frames"],
    ) -> Float[Tensor, "batch 1+frames width"]:
        """`mask` is False for tokens that nobody may look at."""
        q, k, v = self.qkv(self.attend_norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, mask)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        x = x + functional.pad(self.hear(audio), (0, 0, 1, 0))
        return x + self.feed(self.feed_norm(x))


class Denoiser(nn.Module):
    """Predicts x_0. `scale` (D,) turns its unit latents into the auto-encoders'; the recipe sets it."""

    scale: Tensor
    frequencies: Tensor

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        tokens = 1 + config.previous + config.window
        self.hearing = Hearing(config)
        self.embed = nn.Linear(config.size, width)
        self.step = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.positions = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.start = nn.Parameter(torch.zeros(config.previous, config.size))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, config.size)
        )
        self.register_buffer("scale", torch.ones(config.size))
        half = width // 2
        frequencies = torch.exp(torch.arange(half) * (-math.log(10_000) / half))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(
        self,
        noisy: Float[Tensor, "batch window D"],
        previous: Float[Tensor, "batch previous D"],
        audio: Float[Tensor, "batch previous+window width"],
        step: Int[Tensor, " batch"],
        valid: Bool[Tensor, "batch window"],
    ) -> Float[Tensor, "batch window D"]:
        """x_0 of a window from x_n, in unit latents.

        previous: the clean frames before it, or `start` where there are none; audio: what `hearing` made; step: n;
        valid: which frames are of the clip. The others are seen by no one.
        """
        mask = functional.pad(valid, (1 + self.config.previous, 0), value=True)[:, None, None]
        x = torch.cat([self._step_token(step), self.embed(torch.cat([previous, noisy], 1))], 1) + self.positions
        for layer in self.layers:
            x = layer(x, audio, mask)
        return self.head(x[:, 1 + self.config.previous :])

    def _step_token(self, step: Tensor) -> Float[Tensor, "batch 1 width"]:
        angle = step[:, None] * self.frequencies
        return self.step(torch.cat([angle.cos(), angle.sin()], 1))[:, None]


def load_denoiser(path: Path) -> Denoiser:
    """A trained network. CheckpointError if the file does not fit this code."""
    network = Denoiser(config_from(DenoiserConfig, read_header(path)))
    load_into(network, read_tensors(path), str(path))
    return network.eval()
