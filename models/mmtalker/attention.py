"""Dual cross-attention (MMTalker III-C, Eq. 4 and 5)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Features = Float[Tensor, "vertices frames width"]


class DualCrossAttention(nn.Module):
    """Att = softmax(q Kᵀ / √d) V with q from f_p and K, V from f_ag; f_fa = (f_p + Att) ⊕ (f_ag + Att).

    The keys of a frame are the global audio features at fixed offsets around it, so that a stream looks ahead by a
    bounded time. Each offset has a learned bias.
    """

    def __init__(self, width: int, keys: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.offset_bias = nn.Parameter(torch.zeros(keys))

    def forward(
        self, motion: Features, audio: Float[Tensor, "frames width"], around: Float[Tensor, "frames keys width"]
    ) -> Float[Tensor, "vertices frames 2*width"]:
        """f_p, f_ag at each frame, and f_ag around it → f_fa."""
        keys = self.key(around)
        # q · k = (W_q f_p + b_q) · k: W_q acts on the few keys, not on the many vertices
        scores = motion.transpose(0, 1) @ (keys @ self.query.weight).transpose(1, 2) + (keys @ self.query.bias)[:, None]
        weights = (scores / math.sqrt(motion.shape[-1]) + self.offset_bias).softmax(-1)
        attended = (weights @ self.value(around)).transpose(0, 1)
        return torch.cat([motion + attended, audio + attended], -1)


class DirectFusion(nn.Module):
    """The paper's ablation of the attention: an MLP over f_p and f_ag, repeated for every vertex."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(2 * width, 2 * width)
        self.second = nn.Linear(2 * width, 2 * width)

    def forward(
        self, motion: Features, audio: Float[Tensor, "frames width"], around: Float[Tensor, "frames keys width"]
    ) -> Float[Tensor, "vertices frames 2*width"]:
        """f_p and f_ag at each frame → f_fa; what lies around is not used."""
        both = torch.cat([motion, audio.expand(len(motion), -1, -1)], -1)
        return self.second(functional.relu(self.first(both)))
