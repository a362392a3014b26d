"""Speech while it is spoken: sound in as it comes, frames out as soon as they can be had.

    live = engine.live(AnimateOptions(), rate_hz=48_000)
    for samples in microphone:
        for frame in live.feed(samples): …

Time is the sound's: frame k is at k / fps seconds of what was fed. Without interrupts the frames are those of the whole
clip, however it was cut. Importing this module imports no torch.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32

from models.audio import Resampler
from models.core import SAMPLE_RATE_HZ, AnimateOptions, Frame, Mesh, frame_count
from models.errors import OutOfRange
from models.performance import Performance, Pivots, Step
from models.puppet import MotionBatch

RETURN_S = 0.2
"""How long an interrupted face takes to come to rest, and how long from there into what is said next."""
MIN_RATE_HZ, MAX_RATE_HZ = 8_000, 96_000

NO_SOUND = np.zeros(0, np.float32)


def check_live(options: AnimateOptions, rate_hz: int) -> None:
    """Refuse what no live stream has: OutOfRange."""
    if options.texture is not None:
        raise OutOfRange(
            f"texture = {options.texture} in a live stream, which has positions alone; wanted none: leave it out, or "
            "ask /animate for textures",
            field="texture",
            code="impossible_combination",
        )
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise OutOfRange(
            f"sample_rate = {rate_hz}; wanted {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz: resample the sound",
            field="sample_rate",
        )


class Live:
    """One performance of one head, for one thread at a time.

    Frames are numbered without gaps, interrupts or not. `frame` is the number of the next one.
    """

    _state: Any

    def __init__(
        self,
        mesh: Mesh,
        options: AnimateOptions,
        performance: Performance[Any],
        pose: Callable[[MotionBatch], Iterable[Frame]],
        pivots: Callable[[AnimateOptions], Pivots],
        rate_hz: int = SAMPLE_RATE_HZ,
    ) -> None:
        self.mesh, self.options, self.rate_hz = mesh, options, rate_hz
        self.frame = 0
        self._performance, self._pose, self._pivots_of = performance, pose, pivots
        self._pivots, self._first = pivots(options), 0
        self._begin()

    @property
    def latency_s(self) -> float:
        """Seconds, at most, from a moment of the sound until all is heard that its frame depends on."""
        return self._performance.latency_s + self._resampler.delay_s

    def feed(self, samples: Float32[np.ndarray, " samples"]) -> list[Frame]:
        """The frames that samples, at rate_hz and within -1..1, complete."""
        self._fed += len(samples)
        return self._step(self._resampler.push(samples), None)

    def finish(self) -> list[Frame]:
        """The frames that are left when nothing more comes; frame_count of what was fed in all."""
        if not self._fed:
            return []
        duration_s = self._fed / self.rate_hz
        left = frame_count(duration_s, SAMPLE_RATE_HZ) - self._heard
        tail = self._resampler.flush()[:left]  # the filter may owe the last
        return self._step(np.pad(tail, (0, left - len(tail))), duration_s)

    def restyle(self, options: AnimateOptions) -> None:
        """Go on in the styles of `options`; `frame` is the first that may show them. Refuses as `Engine.check`."""
        self._pivots, self.options = self._pivots_of(options), options
        self._state = self._performance.restyle(self._state, self._pivots)

    def interrupt(self, shown: Frame | None) -> list[Frame]:
        """Forget what was fed and not shown: the frames in which the face comes to rest after `shown`.

        What is fed from now on is at `frame` / fps seconds, and is a performance of its own. Nothing was shown: it is
        at 0.
        """
        frames = [] if shown is None else list(self._return(shown))
        self.frame = self._first = frames[-1].index + 1 if frames else 0
        self._begin()
        return frames

    def _begin(self) -> None:
        self._resampler, self._fed, self._heard = Resampler(self.rate_hz), 0, 0
        self._state = self._performance.start(self._pivots)

    def _step(self, samples: Float32[np.ndarray, " samples"], duration_s: float | None) -> list[Frame]:
        self._heard += len(samples)
        frames = [self._placed(frame) for batch in self._taken(samples, duration_s) for frame in self._pose(batch)]
        self.frame += len(frames)
        return frames

    def _taken(self, samples: Float32[np.ndarray, " samples"], duration_s: float | None) -> Step[None]:
        self._state = yield from self._performance.step(self._state, samples, duration_s)

    def _placed(self, frame: Frame) -> Frame:
        """A frame of the performance on the stream's own clock; after an interrupt, out of the rest."""
        if self._first == 0:
            return frame
        index, rest = self._first + frame.index, self.mesh.vertices
        vertices = rest + self._ease(frame.index) * (frame.vertices - rest)
        return Frame(index, index / self.options.fps, vertices)

    def _return(self, shown: Frame) -> Iterator[Frame]:
        """The way from a frame to rest, which the last one is."""
        rest = self.mesh.vertices
        for k in range(self._steps):
            index = shown.index + 1 + k
            away = np.float32(1) - self._ease(k)
            yield Frame(index, index / self.options.fps, rest + away * (shown.vertices - rest))

    @property
    def _steps(self) -> int:
        return math.ceil(RETURN_S * self.options.fps)

    def _ease(self, k: int) -> np.float32:
        """How much of a way of `_steps` frames is behind after its frame k."""
        share = min((k + 1) / self._steps, 1.0)
        return np.float32(share * share * (3 - 2 * share))
