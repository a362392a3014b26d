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
from models.features import EncoderState, Samples, SpeechEncoder
from models.mmtalker.streaming import Lids
from models.performance import Pivots, Step, perform
from models.puppet import MotionBatch
from models.runtime import Runtime
from models.template import Head
from models.textalker.codes import RATE_HZ
from models.textalker.decoding import MapDecoders
from models.textalker.denoiser import Denoiser
from models.textalker.maps import MOTION_UNIT_M, MotionMaps
from models.textalker.playback import NOTHING_PLAYED, MapQuery, Playback, Timeline, play_on, timeline
from models.textalker.windows import LatentBatch, LatentMotion, LatentState, stream_latents


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
        for batch in stream_latents(encoder, self.latents, waveform, lids, seed):
            yield self.quantised(batch, pivots)

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
        performance = TexTalkerPerformance(encoder, self, query, lids, fps, seed)
        return perform(performance, performance.start(pivots), waveform)


class TexTalkerState(NamedTuple):
    """Between two pieces of sound: the style, what the encoder and the denoiser hold, and moments that frames need."""

    pivots: Pivots
    listening: EncoderState
    drawing: LatentState
    playback: Playback


@dataclass(frozen=True, eq=False)
class TexTalkerPerformance:
    """TexTalker for one clip, see `models.performance.Performance`."""

    encoder: SpeechEncoder
    motion: TexTalkerMotion
    query: MapQuery
    lids: Lids
    fps: float
    seed: int

    def start(self, pivots: Pivots) -> TexTalkerState:
        """See `Performance.start`."""
        return TexTalkerState(pivots, self.encoder.start(), self.motion.latents.start(), NOTHING_PLAYED)

    def restyle(self, state: TexTalkerState, pivots: Pivots) -> TexTalkerState:
        """See `Performance.restyle`."""
        return state._replace(pivots=pivots)

    def step(self, state: TexTalkerState, samples: Samples, duration_s: float | None) -> Step[TexTalkerState]:
        """See `Performance.step`."""
        features, listening = self.encoder.step(state.listening, samples, last=duration_s is not None)
        moments, playback = None if duration_s is None else frame_count(duration_s, RATE_HZ), state.playback
        batches, drawing = self.motion.latents.step(state.drawing, features, self.lids, self.seed, moments)
        for batch in batches:
            codes = self.motion.quantised(batch, state.pivots)
            time = self._timeline(batch.first + len(batch.contact), moments, duration_s)
            playback = yield from play_on(playback, codes, self.motion.decoders.maps, self.query, time)
        return TexTalkerState(state.pivots, listening, drawing, playback)

    def _timeline(self, came: int, moments: int | None, duration_s: float | None) -> Timeline:
        """Of the whole clip, once its length is known; before that, of what lies among the moments that came."""
        if moments is None or duration_s is None:
            return timeline(self.fps, frame_count(came / RATE_HZ, self.fps), came + 1)
        return timeline(self.fps, frame_count(duration_s, self.fps), moments)
