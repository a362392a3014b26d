"""Speech and pivots → frames: what the denoiser draws, through the auto-encoders' decoders, at any rate.

f = G_f(Q_f(p_f + Δz_f)) and W = G_w(Q_w(p_w + Δz_w)) (Eq. 5): motion style and wrinkle style are added apart, after
the diffusion, so that neither reaches the other. TexTalker runs at 30 frames a second; other rates are interpolated
between its frames.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, Float32
from scipy.sparse import csr_matrix, diags, vstack

from models.atlas import Anchors
from models.core import Waveform, frame_count
from models.errors import CheckpointError
from models.features import SpeechEncoder
from models.mmtalker.streaming import Lids, MotionBatch
from models.runtime import Runtime
from models.template import Head
from models.textalker.decoding import BATCH, MapDecoders, Pivots
from models.textalker.denoiser import RATE_HZ, Denoiser
from models.textalker.maps import MOTION_UNIT_M, MotionMaps
from models.textalker.windows import LatentMotion, stream_latents


@dataclass(frozen=True, eq=False)
class MapQuery:
    """Where a motion map is read: a template's anchors, then the rim's."""

    reader: csr_matrix
    count: int

    def read(self, maps: Float32[np.ndarray, "frames 3 size size"]) -> tuple[np.ndarray, np.ndarray]:
        """Displacements in metres: (frames, points, 3) and (frames, rim, 3)."""
        frames = len(maps)
        flat = np.ascontiguousarray(maps.reshape(frames * 3, -1).T)
        offsets = (self.reader @ flat).reshape(-1, frames, 3).transpose(1, 0, 2)
        return offsets[:, : self.count], offsets[:, self.count :]


@dataclass(frozen=True, eq=False)
class _Moment:
    """One of TexTalker's own frames."""

    offsets: Float32[np.ndarray, "points 3"]
    rim: Float32[np.ndarray, "rim 3"]
    contact: np.float32
    wrinkles: Float32[np.ndarray, "size size 3"] | None


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
        """All frames of a clip, each as soon as its window is drawn."""
        total, own = frame_count(waveform.duration_s, fps), frame_count(waveform.duration_s, RATE_HZ)
        position = np.arange(total) * RATE_HZ / fps
        low = np.minimum((position + 1e-9).astype(int), own - 1)
        share = np.where(position - low < 1e-6, 0, np.clip(position - low, 0, 1)).astype(np.float32)
        high = np.minimum(low + (share > 0), own - 1)
        held, done = dict[int, _Moment](), 0
        for batch in stream_latents(encoder, self._latents, waveform, lids, seed):
            heard = batch.first + len(batch.latents)
            ready = int(np.searchsorted(high, heard))
            needed = np.unique(np.concatenate([low[done:], high[done:]]))
            needed = needed[(needed >= batch.first) & (needed < heard)] - batch.first
            for start in range(0, len(needed), BATCH):
                chosen = needed[start : start + BATCH]
                moments = self._decode(batch.latents[chosen], batch.contact[chosen], query, pivots)
                held |= zip((chosen + batch.first).tolist(), moments, strict=True)
                known = int(np.searchsorted(high[:ready], chosen[-1] + batch.first, side="right"))
                if known > done:
                    frames = [_between(held[low[k]], held[high[k]], share[k]) for k in range(done, known)]
                    yield _joined(done, np.arange(done, known) / fps, frames)
                    done = known
                    held = {k: moment for k, moment in held.items() if done < total and k >= low[done]}

    def _decode(
        self, latents: Float32[np.ndarray, "frames D"], contact: np.ndarray, query: MapQuery, pivots: Pivots
    ) -> list[_Moment]:
        config = self._latents.config
        offsets = np.zeros((len(latents), config.motion + config.wrinkle), np.float32)
        offsets[:, config.part] = latents  # what an ablation leaves out stays at its pivot
        maps, ratios = self.decoders.decode(offsets, pivots)
        moved, rim = query.read(maps)
        wrinkles: list[np.ndarray | None] = [None] * len(latents) if ratios is None else list(ratios)
        return [_Moment(*parts) for parts in zip(moved, rim, contact, wrinkles, strict=True)]


def _between(one: _Moment, other: _Moment, share: np.float32) -> _Moment:
    if share == 0:
        return one
    mixed = [(1 - share) * a + share * b for a, b in ((one.offsets, other.offsets), (one.rim, other.rim))]
    contact = np.float32((1 - share) * one.contact + share * other.contact)
    if one.wrinkles is None or other.wrinkles is None:
        return _Moment(mixed[0], mixed[1], contact, None)
    return _Moment(mixed[0], mixed[1], contact, (1 - share) * one.wrinkles + share * other.wrinkles)


def _joined(first: int, time_s: np.ndarray, frames: list[_Moment]) -> MotionBatch:
    wrinkles: Float16[np.ndarray, "frames size size 3"] | None = None
    if frames[0].wrinkles is not None:
        wrinkles = np.stack([frame.wrinkles.astype(np.float16) for frame in frames if frame.wrinkles is not None])
    return MotionBatch(
        first,
        time_s.astype(np.float32),
        np.stack([frame.offsets for frame in frames]).astype(np.float32),
        np.stack([frame.rim for frame in frames]).astype(np.float32),
        np.array([frame.contact for frame in frames], np.float32),
        wrinkles,
    )
