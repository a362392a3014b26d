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

    def __init__(self, *, timed: bool = True) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.ones(()), requires_grad=timed)
        self.timed = timed

    def forward(
        self, time_s: Float[Tensor, " frames"], cosine: Float[Tensor, "vertices n"], sine: Float[Tensor, "vertices n"]
    ) -> Float[Tensor, "vertices frames n"]:
        """The encoding at each time, from `chebyshev_tables` or from any linear combination of their rows."""
        if not self.timed:
            return cosine[:, None].expand(-1, len(time_s), -1)
        phase = self.frequency * back_and_forth(time_s)
        return cosine[:, None] * phase.cos()[:, None] - sine[:, None] * phase.sin()[:, None]


def chebyshev_tables(
    uvs: Float[Tensor, "vertices 2"], degrees: int
) -> tuple[Float[Tensor, "vertices 2*degrees"], Float[Tensor, "vertices 2*degrees"]]:
    """cos(i · arccos s) and sin(i · arccos s), i = 1..degrees, of uvs in 0..1: u's degrees, then v's."""
    angle = torch.arccos((2 * uvs.double() - 1).clamp(-1, 1))[..., None] * torch.arange(1, degrees + 1)
    return angle.cos().flatten(1).float(), angle.sin().flatten(1).float()


def back_and_forth(time_s: Float[Tensor, " frames"]) -> Float[Tensor, " frames"]:
    """A triangle wave of time: 0 to 1 and back, one way in PERIOD_S."""
    return 1 - (torch.remainder(time_s / PERIOD_S, 2) - 1).abs()
