"""The denoiser as a stream: features in, latents out, the same however they come.

Windows lie on a fixed grid. Each is drawn as soon as the features that it hears are there, from noise of its own, which
the seed and its number fix, after the last frames of the window before it. Shapes never vary, so neither do the bits.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from models.batching import Axes
from models.core import SAMPLE_RATE_HZ, Waveform, frame_count
from models.errors import UnknownName
from models.features import SpeechEncoder
from models.lips import contact_amount
from models.mmtalker.streaming import Lids
from models.runtime import Runtime
from models.textalker.codes import RATE_HZ
from models.textalker.denoiser import Denoiser
from models.textalker.diffusion import SAMPLERS, Schedule

NOISE_STREAM = 0x7E2
"""Keeps the noise of latents apart from what else a seed draws."""


class LatentState(NamedTuple):
    """Features that are still needed, the clip's number of the first, the next window, and the frames before it."""

    features: Float[Tensor, "features width"]
    first: int
    window: int
    previous: Float[Tensor, "1 previous D"]


class LatentBatch(NamedTuple):
    """Consecutive frames from number `first` on, 30 a second: [Δz_motion, Δz_wrinkle], and lip contact 0..1."""

    first: int
    latents: Float32[np.ndarray, "frames D"]
    contact: Float32[np.ndarray, " frames"]


def rows_between(values: Float[Tensor, "rows width"], first: int, end: int) -> Float[Tensor, "span width"]:
    """Rows `first` up to `end`; beyond either end of `values`, its end's row."""
    return values[torch.arange(first, end).clamp(0, len(values) - 1)]


class LatentMotion:
    """A compiled denoiser and its sampler. Shared by all streams; what a stream knows is in its LatentState.

    UnknownName for a sampler that there is not, OutOfRange for more steps than the schedule has.
    """

    def __init__(self, network: Denoiser, runtime: Runtime, sampler: str, sampler_steps: int) -> None:
        if sampler not in SAMPLERS:
            raise UnknownName("sampler", sampler, SAMPLERS)
        config = self.config = network.config
        self._schedule, self._sample, self._steps = Schedule(config.steps), SAMPLERS[sampler], sampler_steps
        self._schedule.jumps(sampler_steps)  # refuses here what no window could be drawn with
        self._device = runtime.device
        self._start, self._scale = network.start.detach().cpu()[None], network.scale.cpu().numpy()
        frames = config.previous + config.window
        sound = (torch.zeros(1, config.heard, config.features), torch.zeros(1, frames))
        window = (
            torch.zeros(1, config.window, config.size),
            self._start,
            torch.zeros(1, frames, config.width),
            torch.ones(1, dtype=torch.int64),
            torch.ones(1, config.window, dtype=torch.bool),
        )
        self._hear = runtime.compile("textalker-hearing", network.hearing, sound, Axes((0, 0), (0, 0)))
        # each row has a step of its own: windows need not have begun together to be drawn together
        self._denoise = runtime.compile("textalker-denoiser", network, window, Axes((0, 0, 0, 0, 0), (0,)))

    def start(self) -> LatentState:
        """The state before the first feature."""
        return LatentState(torch.zeros(0, self.config.features), 0, 0, self._start)

    def step(
        self, state: LatentState, features: Float[Tensor, "features width"], lids: Lids, seed: int, frames: int | None
    ) -> tuple[list[LatentBatch], LatentState]:
        """The windows that `features` complete. `frames` is the clip's number of frames with the last features, before
        that None.
        """
        batches = []
        state = state._replace(features=torch.cat([state.features, features]))
        while (count := self._ready(state, frames)) > 0:
            batch, state = self._draw(state, lids, seed, count)
            batches.append(batch)
        return batches, state

    def _ready(self, state: LatentState, frames: int | None) -> int:
        """How many frames the next window holds; none before all that it hears is there."""
        if frames is not None:
            return min(self.config.window, frames - state.window * self.config.window)
        needed = self._heard_from(state) + self.config.heard
        return self.config.window if needed <= state.first + len(state.features) else 0

    def _heard_from(self, state: LatentState) -> int:
        return state.window * self.config.hop - self.config.before

    def _draw(self, state: LatentState, lids: Lids, seed: int, count: int) -> tuple[LatentBatch, LatentState]:
        """The next window, of which `count` frames are the clip's; forgets the features that no later one hears."""
        config, first = self.config, state.window * self.config.window
        low = self._heard_from(state) - state.first
        frames = np.arange(first - config.previous, first + config.window)
        closure = torch.from_numpy(lids.closure(frames / RATE_HZ))
        audio, contact = self._hear(rows_between(state.features, low, low + config.heard)[None], closure[None])
        unit = self._generate(state.previous, audio, torch.arange(config.window)[None] < count, [seed, state.window])
        batch = LatentBatch(
            first,
            unit[0, :count].numpy() * self._scale,
            contact_amount(contact[0, config.previous :][:count].sigmoid().cpu().numpy()),
        )
        kept = max(low + config.hop, 0)
        return batch, LatentState(
            state.features[kept:], state.first + kept, state.window + 1, unit[:, -config.previous :]
        )

    def _generate(
        self, previous: Tensor, audio: Tensor, valid: Tensor, stream: list[int]
    ) -> Float[Tensor, "1 window D"]:
        random = np.random.default_rng([*stream, NOISE_STREAM])
        shape = (1, self.config.window, self.config.size)
        previous, valid = previous.to(self._device), valid.to(self._device)

        def draw() -> Tensor:
            return torch.from_numpy(random.standard_normal(shape, np.float32)).to(self._device)

        def denoise(noisy: Tensor, n: int) -> Tensor:
            (clean,) = self._denoise(noisy, previous, audio, torch.tensor([n]), valid)
            return clean

        return self._sample(denoise, draw, self._schedule, self._steps).cpu()


def stream_latents(
    encoder: SpeechEncoder, motion: LatentMotion, waveform: Waveform, lids: Lids, seed: int
) -> Iterator[LatentBatch]:
    """All frames of a clip. Sound goes through in pieces of a second, so that memory does not grow with its length."""
    total = frame_count(waveform.duration_s, RATE_HZ)
    listening, state = encoder.start(), motion.start()
    for start in range(0, len(waveform.samples), SAMPLE_RATE_HZ):
        piece = waveform.samples[start : start + SAMPLE_RATE_HZ]
        last = start + len(piece) == len(waveform.samples)
        features, listening = encoder.step(listening, piece, last=last)
        batches, state = motion.step(state, features, lids, seed, total if last else None)
        yield from batches
