"""Speech and pivots → frames: what the denoiser draws, through the auto-encoders' decoders, at any rate.

f = G_f(Q_f(p_f + Δz_f)) and W = G_w(Q_w(p_w + Δz_w)) (Eq. 5): motion style and wrinkle style are added apart, after
the diffusion, so that neither reaches the other. TexTalker runs at 30 frames a second; other rates are interpolated
between its frames.
"""

from collections.abc import Generator, Iterator

import numpy as np
from scipy.sparse import diags, vstack

from models.atlas import Anchors
from models.core import CodeBatch, Waveform, frame_count
from models.errors import CheckpointError
from models.features import SpeechEncoder
from models.mmtalker.streaming import Lids
from models.puppet import MotionBatch
from models.runtime import Runtime
from models.template import Head
from models.textalker.codes import RATE_HZ
from models.textalker.decoding import MapDecoders, Pivots
from models.textalker.denoiser import Denoiser
from models.textalker.maps import MOTION_UNIT_M, MotionMaps
from models.textalker.playback import MapQuery, play, timeline
from models.textalker.windows import LatentMotion, stream_latents


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
        self._latents = LatentMotion(denoiser, runtime, sampler, sampler_steps)
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
        config = self._latents.config
        for batch in stream_latents(encoder, self._latents, waveform, lids, seed):
            offsets = np.zeros((len(batch.latents), config.motion + config.wrinkle), np.float32)
            offsets[:, config.part] = batch.latents  # what an ablation leaves out stays at its pivot
            yield CodeBatch(batch.first, batch.contact, self.decoders.quantise(offsets, pivots))

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
        frames, moments = (frame_count(waveform.duration_s, rate) for rate in (fps, RATE_HZ))
        batches = self.codes(encoder, waveform, lids, pivots, seed)
        return play(batches, self.decoders.maps, query, timeline(fps, frames, moments))
