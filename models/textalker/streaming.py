"""Speech and pivots → frames: what the denoiser draws, through the auto-encoders' decoders, at any rate.

f = G_f(Q_f(p_f + Δz_f)) and W = G_w(Q_w(p_w + Δz_w)) (Eq. 5): motion style and wrinkle style are added apart, after
the diffusion, so that neither reaches the other. TexTalker runs at 30 frames a second; other rates are interpolated
between its frames.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import diags, vstack

from models.atlas import Anchors
from models.core import CodeBatch, Waveform, frame_count
from models.errors import CheckpointError
from models.features import FEATURE_RATE_HZ, EncoderState, Samples, SpeechEncoder
from models.mmtalker.streaming import Lids
from models.performance import Pivots, Step, perform
from models.puppet import MotionBatch
from models.runtime import Runtime
from models.template import Head
from models.textalker.codes import RATE_HZ
from models.textalker.decoding import MapDecoders
from models.textalker.denoiser import REACH, Denoiser
from models.textalker.maps import MOTION_UNIT_M, MotionMaps
from models.textalker.playback import NOTHING_PLAYED, MapQuery, Playback, Timeline, play_on, timeline
from models.textalker.windows import LatentBatch, LatentMotion, LatentState


class TexTalkerMotion:
    """A compiled TexTalker: denoiser and decoders. Shared by all streams."""

    def __init__(
        self,
        head: Head,
        denoiser: Denoiser,
        decoders: MapDecoders,
        runtime: Runtime,
        sampler: str,
        sampler_steps: int,
    ) -> None:
        if (denoiser.config.motion, denoiser.config.wrinkle) != decoders.latents:
            raise CheckpointError(
                f"a denoiser of {denoiser.config.motion} and {denoiser.config.wrinkle} latents; the auto-encoders have "
                f"{decoders.latents[0]} and {decoders.latents[1]}: train it again"
            )
        self._head, self.decoders = head, decoders
        self.latents = LatentMotion(denoiser, runtime, sampler, sampler_steps)
        self._maps = MotionMaps(head, decoders.motion_size)
        self._moving = np.zeros(len(head.atlas.vertices), np.float32)
        self._moving[decoders.moving] = 1

    def query(self, anchors: Anchors, rim: Anchors) -> MapQuery:
        """Prepare to read at anchors; once per template and resolution. What never moves reads zero."""
        read = diags(self._moving) @ self._maps.at_vertices * MOTION_UNIT_M
        weights = vstack([self._head.atlas.weights_matrix(part) for part in (anchors, rim)])
        return MapQuery((weights @ read).tocsr().astype(np.float32), len(anchors.face))

    def codes(
        self, encoder: SpeechEncoder, waveform: Waveform, lids: Lids, pivots: Pivots, seed: int
    ) -> Generator[CodeBatch, None, None]:
        """Both maps' codes of every moment of a clip, a window as soon as it is drawn."""
        coding = TexTalkerCoding(encoder, self, lids, seed)
        return perform(coding, coding.start(pivots), waveform)

    def quantised(self, batch: LatentBatch, pivots: Pivots) -> CodeBatch:
        """Codes of what was drawn, in a style."""
        config = self.latents.config
        offsets = np.zeros((len(batch.latents), config.motion + config.wrinkle), np.float32)
        offsets[:, config.part] = batch.latents  # what an ablation leaves out stays at its pivot
        return CodeBatch(batch.first, batch.contact, self.decoders.quantise(offsets, pivots))

    def stream(
        self,
        encoder: SpeechEncoder,
        waveform: Waveform,
        query: MapQuery,
        lids: Lids,
        pivots: Pivots,
        fps: float,
        seed: int,
    ) -> Iterator[MotionBatch]:
        """All frames of a clip: its codes, decoded."""
        performance = TexTalkerPerformance(TexTalkerCoding(encoder, self, lids, seed), query, fps)
        return perform(performance, performance.start(pivots), waveform)


class CodingState(NamedTuple):
    """Between two pieces of sound: the style, and what the encoder and the denoiser hold."""

    pivots: Pivots
    listening: EncoderState
    drawing: LatentState


@dataclass(frozen=True, eq=False)
class TexTalkerCoding:
    """TexTalker for one clip up to its codes, see `models.performance.Stepwise`."""

    encoder: SpeechEncoder
    motion: TexTalkerMotion
    lids: Lids
    seed: int

    def start(self, pivots: Pivots) -> CodingState:
        """See `Stepwise.start`."""
        return CodingState(pivots, self.encoder.start(), self.motion.latents.start())

    def restyle(self, state: CodingState, pivots: Pivots) -> CodingState:
        """See `Stepwise.restyle`."""
        return state._replace(pivots=pivots)

    def step(
        self, state: CodingState, samples: Samples, duration_s: float | None
    ) -> Generator[CodeBatch, None, CodingState]:
        """See `Stepwise.step`."""
        batches, after = self.draw(state, samples, duration_s)
        for batch in batches:
            yield self.motion.quantised(batch, state.pivots)
        return after

    def draw(
        self, state: CodingState, samples: Samples, duration_s: float | None
    ) -> tuple[list[LatentBatch], CodingState]:
        """What a step draws, before it is quantised, and the state after it."""
        features, listening = self.encoder.step(state.listening, samples, last=duration_s is not None)
        moments = None if duration_s is None else frame_count(duration_s, RATE_HZ)
        batches, drawing = self.motion.latents.step(state.drawing, features, self.lids, self.seed, moments)
        return batches, CodingState(state.pivots, listening, drawing)


class TexTalkerState(NamedTuple):
    """Between two pieces of sound: what coding holds, and the moments that frames still need."""

    coding: CodingState
    playback: Playback


@dataclass(frozen=True, eq=False)
class TexTalkerPerformance:
    """TexTalker for one clip, see `models.performance.Performance`."""

    coding: TexTalkerCoding
    query: MapQuery
    fps: float

    @property
    def latency_s(self) -> float:
        """See `Performance.latency_s`: a window, and a moment more for frames between it and the next."""
        encoder, config = self.coding.encoder, self.coding.motion.latents.config
        heard = (config.hop + REACH + encoder.block) / FEATURE_RATE_HZ
        return 1 / RATE_HZ + heard + encoder.lookahead_s

    def start(self, pivots: Pivots) -> TexTalkerState:
        """See `Stepwise.start`."""
        return TexTalkerState(self.coding.start(pivots), NOTHING_PLAYED)

    def restyle(self, state: TexTalkerState, pivots: Pivots) -> TexTalkerState:
        """See `Stepwise.restyle`."""
        return state._replace(coding=self.coding.restyle(state.coding, pivots))

    def step(self, state: TexTalkerState, samples: Samples, duration_s: float | None) -> Step[TexTalkerState]:
        """See `Stepwise.step`."""
        motion, playback = self.coding.motion, state.playback
        batches, coding = self.coding.draw(state.coding, samples, duration_s)
        for batch in batches:
            codes = motion.quantised(batch, state.coding.pivots)
            time = self._timeline(batch.first + len(batch.contact), duration_s)
            playback = yield from play_on(playback, codes, motion.decoders.maps, self.query, time)
        return TexTalkerState(coding, playback)

    def _timeline(self, came: int, duration_s: float | None) -> Timeline:
        """Of the whole clip, once its length is known; before that, of what lies among the moments that came."""
        if duration_s is None:
            return timeline(self.fps, frame_count(came / RATE_HZ, self.fps), came + 1)
        return timeline(self.fps, frame_count(duration_s, self.fps), frame_count(duration_s, RATE_HZ))
