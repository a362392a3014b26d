"""A clip as it is performed: sound in by pieces, displacements out, with a state that goes in and comes out.

There is one implementation. A whole clip is the fold of its pieces (`perform`), a live stream feeds what it hears, and
a cluster computes a piece wherever there is room, again elsewhere if that fails: a step depends on nothing but its
arguments.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Float32

from models.core import SAMPLE_RATE_HZ, Waveform
from models.puppet import MotionBatch

State = TypeVar("State")
Batch = TypeVar("Batch")
Made_co = TypeVar("Made_co", covariant=True)
Step: TypeAlias = Generator[MotionBatch, None, State]
"""Batches of frames, in order; it returns the state after them."""


class Cadence(NamedTuple):
    """The grid of a performance: features (20 ms) that are heard at a time, and frames that are made at a time.

    A fine one is early and costs more. Frames of different ones agree to 1e-5 m, those of the same to the bit.
    """

    block: int
    batch: int


USUAL = Cadence(block=50, batch=16)
"""Of clips."""
LIVE = Cadence(block=10, batch=4)
"""Of sound that is still being spoken."""


@dataclass(frozen=True, eq=False)
class Pivots:
    """p_f and p_w: what the motion and the wrinkles of a clip are offsets from. wrinkle is None without textures."""

    motion: Float32[np.ndarray, " motion"]
    wrinkle: Float32[np.ndarray, " wrinkle"] | None


class Stepwise(Protocol[State, Made_co]):
    """What is made of speech in steps. States can be pickled."""

    def start(self, pivots: Pivots) -> State:
        """The state before the first sample."""
        ...

    def restyle(self, state: State, pivots: Pivots) -> State:
        """The same state in another style, from the next step on."""
        ...

    def step(
        self, state: State, samples: Float32[np.ndarray, " samples"], duration_s: float | None
    ) -> Generator[Made_co, None, State]:
        """What `samples` (16 kHz) complete, in order; with the last samples, which come with the clip's duration, all
        that is left. It returns the state after them.
        """
        ...


class Performance(Stepwise[State, MotionBatch], Protocol[State]):
    """One engine on one head at one rate."""

    @property
    def latency_s(self) -> float:
        """Seconds, at most, from a moment of the sound until all is heard that its frame depends on."""
        ...


def perform(performance: Stepwise[State, Batch], state: State, waveform: Waveform) -> Generator[Batch, None, None]:
    """All of a clip. Sound goes through in pieces of a second, so that memory does not grow with its length."""
    for start in range(0, len(waveform.samples), SAMPLE_RATE_HZ):
        piece = waveform.samples[start : start + SAMPLE_RATE_HZ]
        last = start + len(piece) == len(waveform.samples)
        state = yield from performance.step(state, piece, waveform.duration_s if last else None)


def run(step: Generator[Batch, None, State]) -> tuple[list[Batch], State]:
    """A whole step: what it made, and the state after it."""
    made: list[Batch] = []
    while True:
        try:
            made.append(next(step))
        except StopIteration as end:
            return made, end.value
