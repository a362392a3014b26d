"""Spatio-temporal vertex encoding (MMTalker III-C, Eq. 1)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

PERIOD_S = 1.0
"""Time runs from 0 to 1 and back in twice this, so that the encoding neither depends on a clip's length nor jumps."""


class VertexEncoding(nn.Module):
    """STE(s, t) = { cos(i · arccos(s) + ω t / T) }, i = 1..L, for each coordinate of s = (u, v) in -1..1.

    cos(i · arccos s) is the Chebyshev polynomial of degree i; ω is learned. T is PERIOD_S, and t runs back and forth in
    it. Without `timed` the encoding is of the place alone (the paper's ablation).
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, uvs: Float[Tensor, "vertices 2"], degrees: int, *, timed: bool = True) -> None:
        super().__init__()
        angle = torch.arccos((2 * uvs.double() - 1).clamp(-1, 1))[..., None] * torch.arange(1, degrees + 1)
        self.register_buffer("cosine", angle.cos().flatten(1).float(), persistent=False)
        self.register_buffer("sine", angle.sin().flatten(1).float(), persistent=False)
        self.frequency = nn.Parameter(torch.ones(()), requires_grad=timed)
        self.timed = timed

    def forward(self, time_s: Float[Tensor, " frames"]) -> Float[Tensor, "vertices frames 2*degrees"]:
        """The encoding of every vertex at each time."""
        if not self.timed:
            return self.cosine[:, None].expand(-1, len(time_s), -1)
        phase = self.frequency * back_and_forth(time_s)
        return self.cosine[:, None] * phase.cos()[:, None] - self.sine[:, None] * phase.sin()[:, None]


def back_and_forth(time_s: Float[Tensor, " frames"]) -> Float[Tensor, " frames"]:
    """A triangle wave of time: 0 to 1 and back, one way in PERIOD_S."""
    return 1 - (torch.remainder(time_s / PERIOD_S, 2) - 1).abs()
