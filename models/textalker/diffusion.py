"""Denoising diffusion in latents (TexTalker 4.3): the schedule, and three samplers over one grid of steps.

x_n = √ᾱ_n x_0 + √(1 − ᾱ_n) ε, from x_0, clean, to x_N, noise. The network predicts x_0. `ancestral` with all N steps is
the paper's sampler (DDPM) and the reference. `ddim` and `dpm_solver_2m` are deterministic once x_N is drawn and take a
few steps; the second is DPM-Solver++(2M), which is of second order.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from torch import Tensor

from models.errors import OutOfRange

OFFSET, LARGEST_BETA = 0.008, 0.999
CROWDING = 1.5
"""Power by which a few jumps crowd towards n = 0: what the sound leaves open is narrow, and is settled there."""

Denoise = Callable[[Tensor, int], Tensor]
"""x_n and n → the predicted x_0, of the same shape."""
Draw = Callable[[], Tensor]
"""A fresh sample of standard normal noise, of x's shape."""


@dataclass(frozen=True)
class Schedule:
    """The cosine schedule of Nichol & Dhariwal 2021, Eq. 17: ᾱ_n for n = 0..N, from 1 to almost 0."""

    steps: int = 500

    @cached_property
    def alpha_bar(self) -> Float[np.ndarray, " N+1"]:
        """ᾱ_n, the share of the signal in the variance of x_n."""
        n = np.arange(self.steps + 1) / self.steps
        f = np.cos((n + OFFSET) / (1 + OFFSET) * np.pi / 2) ** 2
        beta = np.minimum(1 - f[1:] / f[:-1], LARGEST_BETA)
        return np.concatenate([[1.0], np.cumprod(1 - beta)])

    def signal(self, n: int) -> float:
        """√ᾱ_n."""
        return math.sqrt(self.alpha_bar[n])

    def noise(self, n: int) -> float:
        """√(1 − ᾱ_n)."""
        return math.sqrt(1 - self.alpha_bar[n])

    def log_ratio(self, n: int) -> float:
        """λ_n: the logarithm of signal over noise, infinite at n = 0."""
        return math.log(self.signal(n) / self.noise(n)) if n else math.inf

    def jumps(self, count: int) -> Iterator[tuple[int, int]]:
        """The way from N to 0 in `count` jumps (n, next n), shorter towards 0; with N of them, every step.

        OutOfRange for more than N, or none.
        """
        if not 1 <= count <= self.steps:
            raise OutOfRange(f"{count} sampler steps; wanted 1 to {self.steps}", field="sampler_steps")
        left = np.arange(count, -1, -1)
        grid = np.maximum((self.steps * (left / count) ** CROWDING).round().astype(int), left)
        return itertools.pairwise(grid.tolist())


Sampler = Callable[[Denoise, Draw, Schedule, int], Tensor]
"""A network, noise, the schedule and how many steps → a sample of x_0."""


def ancestral(denoise: Denoise, draw: Draw, schedule: Schedule, steps: int) -> Tensor:
    """DDPM (Ho et al. 2020, Eq. 6 and 7): each jump draws from q(x_s | x_n, x_0)."""
    x = draw()
    for n, s in schedule.jumps(steps):
        total, left = 1 - schedule.alpha_bar[n], 1 - schedule.alpha_bar[s]
        kept = schedule.alpha_bar[n] / schedule.alpha_bar[s]
        x = schedule.signal(s) * (1 - kept) / total * denoise(x, n) + math.sqrt(kept) * left / total * x
        if s > 0:
            x = x + math.sqrt((1 - kept) * left / total) * draw()
    return x


def ddim(denoise: Denoise, draw: Draw, schedule: Schedule, steps: int) -> Tensor:
    """Song et al. 2021, Eq. 12 with η = 0."""
    x = draw()
    for n, s in schedule.jumps(steps):
        x = _jump(x, denoise(x, n), schedule, n, s)
    return x


def dpm_solver_2m(denoise: Denoise, draw: Draw, schedule: Schedule, steps: int) -> Tensor:
    """Lu et al. 2022, Algorithm 2: DDIM towards an x_0 that is extrapolated, in λ, from the last two predictions."""
    x, before = draw(), None
    for n, s in schedule.jumps(steps):
        x_0 = target = denoise(x, n)
        h = schedule.log_ratio(s) - schedule.log_ratio(n)
        if before is not None and s > 0:  # the last h is infinite: that jump lands on the prediction itself
            x_last, h_last = before
            target = x_0 + h / (2 * h_last) * (x_0 - x_last)
        x, before = _jump(x, target, schedule, n, s), (x_0, h)
    return x


def _jump(x: Tensor, x_0: Tensor, schedule: Schedule, n: int, s: int) -> Tensor:
    """x_s with the noise that x_n holds if its signal is x_0."""
    share = schedule.noise(s) / schedule.noise(n)
    return share * x + (schedule.signal(s) - share * schedule.signal(n)) * x_0


SAMPLERS: Mapping[str, Sampler] = {"ancestral": ancestral, "ddim": ddim, "dpm_solver_2m": dpm_solver_2m}
