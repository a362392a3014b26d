"""Blinks: a seeded random process, since speech hardly tells when the eyes close.

Intervals are log-normal around 20 blinks a minute; lids fall in 75 to 100 ms and rise in 150 to 200 ms; every other
blink is partial. The state of the process at any time depends on the seed alone, so a stream may ask piece by piece.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from jaxtyping import Float, Float32

MEAN_INTERVAL_S = 3.0
INTERVAL_SPREAD = 0.55
LONGEST_BLINK_S = 0.3
SHORTEST_INTERVAL_S = 0.35
"""Between the beginnings of two blinks: they never overlap."""


@dataclass(frozen=True)
class Blink:
    """One blink: lids begin to fall at start_s, reach `depth` (1 closed) after fall_s, are open again after rise_s
    more.
    """

    start_s: float
    fall_s: float
    rise_s: float
    depth: float

    def closure(self, time_s: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " frames"]:
        """How far the lids are closed, 0..1."""
        falling = np.clip((time_s - self.start_s) / self.fall_s, 0, 1)
        rising = np.clip((time_s - self.start_s - self.fall_s) / self.rise_s, 0, 1)
        return np.asarray(self.depth * (_smooth(falling) - _smooth(rising)))


def draw_blink(random: np.random.Generator, start_s: float) -> Blink:
    """A blink that starts at `start_s`."""
    depth = 1.0 if random.random() < 0.5 else float(random.uniform(0.5, 0.85))
    return Blink(start_s, float(random.uniform(0.075, 0.1)), float(random.uniform(0.15, 0.2)), depth)


def draw_blinks(random: np.random.Generator, mean_interval_s: float = MEAN_INTERVAL_S) -> Iterator[Blink]:
    """Blinks without end, in order, none overlapping the next."""
    start_s = float(random.uniform(0.3, mean_interval_s))
    while True:
        yield draw_blink(random, start_s)
        more = float(np.exp(random.normal(-(INTERVAL_SPREAD**2) / 2, INTERVAL_SPREAD)))
        start_s += SHORTEST_INTERVAL_S + (mean_interval_s - SHORTEST_INTERVAL_S) * more


class BlinkTrack:
    """The lids of one clip: closure at any times, whatever was asked before."""

    def __init__(self, seed: int) -> None:
        self._blinks = draw_blinks(np.random.default_rng([seed, 0xB11]))
        self._drawn = [next(self._blinks)]

    def closure(self, time_s: Float[np.ndarray, " frames"]) -> Float32[np.ndarray, " frames"]:
        """How far the lids are closed at each time, in ascending order, 0..1."""
        while self._drawn[-1].start_s <= time_s[-1]:
            self._drawn.append(next(self._blinks))
        first = bisect_left(self._drawn, time_s[0] - LONGEST_BLINK_S, key=attrgetter("start_s"))
        closures = [blink.closure(time_s) for blink in self._drawn[first:] or self._drawn[-1:]]
        return np.max(closures, axis=0).astype(np.float32)


def _smooth(x: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " frames"]:
    return x * x * (3 - 2 * x)
