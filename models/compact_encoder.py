"""The shipped speech encoder: a small HuBERT-shaped network on log-mel features.

HuBERT's shape (Hsu et al. 2021) at a fiftieth of its size: a convolutional stem, a convolutional position embedding,
and a transformer; but every layer sees a bounded number of frames to either side. So the feature of an instant depends
on a bounded stretch of sound, wherever in the clip it lies, and streaming equals one-shot. Heads for visemes, phones,
the mouth's curves and lip contact exist for training and for the contact gate; the hidden layer is what engines read.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from models.core import SAMPLE_RATE_HZ

HOP = 160
"""Samples between log-mel frames: 10 ms."""
WINDOW = 400
"""Samples under one analysis window: 25 ms."""
FFT = 512
MEL_BINS = 80
POWER_FLOOR = 1e-7
"""Mel power under which a frame counts as silence, full scale being 1: -70 dB."""


@dataclass(frozen=True)
class CompactConfig:
    """What the network is."""

    width: int = 144
    layers: int = 5
    heads: int = 4
    feed_forward: int = 432
    past: int = 24
    """Frames (20 ms) that a layer's attention reaches back."""
    future: int = 2
    """Frames that it reaches ahead."""
    kernel: int = 7
    """Taps of a layer's depthwise convolution, one of them ahead."""
    visemes: int = 15
    phones: int = 45

    @property
    def receptive_past(self) -> int:
        """Frames before an instant that its feature depends on."""
        return self.layers * (self.past + self.kernel - 2) + 16

    @property
    def receptive_future(self) -> int:
        """Frames after an instant that its feature depends on."""
        return self.layers * (self.future + 1) + 3


MEAN_PAST = 250
MEAN_FUTURE = 20
"""The running mean of the log-mel spectrum reaches 2.5 s back and 0.2 s ahead."""


def mel_filters(warp: float = 1.0) -> np.ndarray:
    """Triangular mel filters (HTK scale, 20 Hz to 7.6 kHz) on the FFT's power bins, (FFT / 2 + 1, MEL_BINS).

    `warp` scales the frequency axis: vocal tract length perturbation, for training.
    """

    def mel(hertz: np.ndarray | float) -> np.ndarray:
        return np.asarray(2595 * np.log10(1 + np.asarray(hertz) / 700))

    edges = 700 * (10 ** (np.linspace(mel(20.0), mel(7600.0), MEL_BINS + 2) / 2595) - 1)
    bins = np.arange(FFT // 2 + 1) * SAMPLE_RATE_HZ / FFT * warp
    rising = (bins[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[None, 2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


class PowerSpectrum(nn.Module):
    """Samples → power spectra, as a matrix product, so that it exports to ONNX as it is.

    Frame i is centred on sample i · HOP of the window that follows the first WINDOW / 2 samples.
    """

    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        n = np.arange(WINDOW)
        taper = 0.5 - 0.5 * np.cos(2 * np.pi * n / WINDOW)
        phase = 2 * np.pi * np.outer(n, np.arange(FFT // 2 + 1)) / FFT
        basis = np.concatenate([np.cos(phase), np.sin(phase)], 1) * taper[:, None] / taper.sum() * 2
        self.register_buffer("basis", torch.from_numpy(basis.astype(np.float32)), persistent=False)

    def forward(self, samples: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch frames bins"]:
        """Power per bin, 1 for a full-scale sine."""
        count = (samples.shape[1] - WINDOW) // HOP + 1
        # WINDOW = 2.5 HOP: a frame is five half hops, so framing is five shifted slices of one reshape
        half = HOP // 2
        pieces = samples[:, : (count * 2 + 3) * half].reshape(samples.shape[0], -1, half)
        frames = torch.cat([pieces[:, k : k + 2 * count - 1 : 2] for k in range(5)], 2)
        real, imaginary = (frames @ self.basis).chunk(2, -1)
        return real.square() + imaginary.square()


def normalise(
    log_mel: Float[Tensor, "batch frames bins"], valid: Float[Tensor, "batch frames"]
) -> Float[Tensor, "batch frames bins"]:
    """Subtract the running mean over the valid frames around each frame; frames that are not valid become 0."""
    weight = valid[..., None]
    sums = torch.cat([log_mel * weight, weight], -1).cumsum(1)
    sums = functional.pad(sums, (0, 0, MEAN_PAST + 1, 0))
    ahead = functional.pad(sums[:, MEAN_PAST + 1 :].transpose(1, 2), (0, MEAN_FUTURE), mode="replicate").transpose(1, 2)
    around = ahead[:, MEAN_FUTURE:] - sums[:, : log_mel.shape[1]]
    mean = around[..., :-1] / around[..., -1:].clamp_min(1)
    return (log_mel - mean) * weight / 4


class Layer(nn.Module):
    """Banded self-attention, a depthwise convolution, and a feed-forward pair; each normalised before and added."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.kernel = config.heads, config.kernel
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.distance = nn.Parameter(torch.zeros(config.heads, config.past + config.future + 1))
        self.depthwise = nn.Conv1d(width, width, config.kernel, groups=width)
        self.pointwise = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, config.feed_forward), nn.GELU(), nn.Linear(config.feed_forward, width)
        )
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, band: Tensor, offset: Tensor) -> Tensor:
        """One layer: (batch, frames, width) in and out; band masks, offset indexes the distances."""
        batch, count, width = x.shape
        qkv = (
            self.qkv(self.norms[0](x)).reshape(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )
        scores = qkv[0] @ qkv[1].transpose(-1, -2) / math.sqrt(width // self.heads)
        scores = scores + self.distance[:, offset] + band
        mixed = (scores.softmax(-1) @ qkv[2]).transpose(1, 2).reshape(batch, count, width)
        x = x + self.dropout(self.out(mixed))
        padded = functional.pad(self.norms[1](x).transpose(1, 2), (self.kernel - 2, 1))
        x = x + self.dropout(self.pointwise(functional.gelu(self.depthwise(padded).transpose(1, 2))))
        return x + self.dropout(self.feed_forward(self.norms[2](x)))


class CompactEncoder(nn.Module):
    """Normalised log-mel at 100 Hz → hidden features at 50 Hz, and the heads that train them."""

    def __init__(self, config: CompactConfig = CompactConfig()) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        width = config.width
        self.stem = nn.ModuleList([nn.Conv1d(MEL_BINS, width, 5, padding=2), nn.Conv1d(width, width, 3, stride=2)])
        self.position = nn.Conv1d(width, width, 15, groups=16)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.viseme = nn.Linear(width, config.visemes)
        self.phone = nn.Linear(width, config.phones)
        self.curves = nn.Linear(width, 2)
        self.contact = nn.Linear(width, 1)

    def forward(self, mel: Float[Tensor, "batch frames bins"]) -> Float[Tensor, "batch half_frames width"]:
        """Frame j of the result is centred on frame 2 j of `mel`."""
        x = functional.gelu(self.stem[0](mel.transpose(1, 2)))
        x = functional.gelu(self.stem[1](functional.pad(x, (1, 1))))
        x = (x + functional.gelu(self.position(functional.pad(x, (14, 0))))).transpose(1, 2)
        steps = torch.arange(x.shape[1], device=x.device)
        ahead = steps[None, :] - steps[:, None]
        outside = (ahead > self.config.future) | (ahead < -self.config.past)
        band = torch.where(outside, -1e4, 0.0)
        offset = (ahead + self.config.past).clamp(0, self.config.past + self.config.future)
        for layer in self.layers:
            x = layer(x, band, offset)
        return self.norm(x)
