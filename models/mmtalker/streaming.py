"""MMTalker as a stream: features in, displacements out, the same however they come.

The audio half runs over blocks of a fixed grid and carries its state; frames are decoded in batches of a fixed grid, as
soon as the features that they look at are there. Shapes never vary, so neither do the bits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from models.atlas import Anchors, Atlas
from models.batching import Axes
from models.core import Waveform, frame_count
from models.features import EncoderState, Samples, SpeechEncoder
from models.lips import contact_amount
from models.mmtalker.network import (
    FEATURE_RATE_HZ,
    KEY_OFFSETS,
    LOCAL_REACH,
    ActivePoints,
    AudioFeatures,
    AudioState,
    Instants,
    MMTalker,
    active_points,
)
from models.performance import USUAL, Cadence, Pivots, Step, perform
from models.puppet import MotionBatch
from models.runtime import Runtime

POINTS = 4096
"""Points that are decoded at a time, beside the native ones."""


class MotionState(NamedTuple):
    """The style; features not yet heard; what was heard, from feature `first` on; and the next frame."""

    style: Float[Tensor, "1 style"]
    pending: Float[Tensor, "features width"]
    audio: AudioState
    heard: AudioFeatures
    first: int
    frame: int


def interpolate(values: Float[Tensor, "features ..."], position: Float[Tensor, "..."]) -> Tensor:
    """Rows of `values` at fractional positions, linearly; beyond the ends, the end's row."""
    position = position.clamp(0, len(values) - 1)
    low = position.floor().long().clamp(max=max(len(values) - 2, 0))
    share = (position - low).to(values.dtype)
    share = share.reshape(share.shape + (1,) * (values.ndim - 1))
    return torch.lerp(values[low], values[(low + 1).clamp(max=len(values) - 1)], share)


def instants_at(
    heard: AudioFeatures, first: int, time_s: Float[Tensor, " frames"], lids: Float[Tensor, " frames"]
) -> Instants:
    """What the surface decoder needs at given times. `heard` begins with the clip's feature `first`."""
    position = time_s.double() * FEATURE_RATE_HZ - first
    offsets = torch.tensor(KEY_OFFSETS, dtype=torch.float64)
    return Instants(
        time_s.float(),
        interpolate(heard.local, position),
        interpolate(heard.overall, position),
        interpolate(heard.overall, position[:, None] + offsets),
        lids,
    )


class Lids(Protocol):
    """How far the eyes are closed at given times, 0..1, asked for in order."""

    def closure(self, time_s: Float[np.ndarray, " frames"]) -> Float32[np.ndarray, " frames"]:
        """One value for each time."""
        ...


class SurfaceQuery:
    """Where displacements are asked for: a template's anchors and the rim's, sorted into what moves and how it is read.

    Where every anchor is a vertex the decoder runs on the vertices themselves; elsewhere it interpolates, in chunks of
    POINTS padded to one shape.
    """

    def __init__(self, atlas: Atlas, moving: np.ndarray, anchors: Anchors, rim: Anchors) -> None:
        both = Anchors(np.concatenate([anchors.face, rim.face]), np.concatenate([anchors.weights, rim.weights]))
        self.count, self.rim_count = len(anchors.face), len(rim.face)
        self.points: ActivePoints = active_points(atlas, moving, both)
        corner = self.points.weights.argmax(1)
        self.at_vertices = bool((self.points.weights.max(1) > 1 - 1e-6).all())
        self.vertex = self.points.corners[np.arange(len(corner)), corner]
        self.mask = self.points.mask.astype(np.float32)[None, :, None]

    def chunks(self) -> list[tuple[Tensor, Tensor]]:
        """Corners and weights, POINTS at a time, the last chunk padded."""
        spare = -len(self.points.corners) % POINTS
        corners = np.pad(self.points.corners, ((0, spare), (0, 0))).astype(np.int64)
        weights = np.pad(self.points.weights, ((0, spare), (0, 0))).astype(np.float32)
        pairs = zip(corners.reshape(-1, POINTS, 3), weights.reshape(-1, POINTS, 3), strict=True)
        return [(torch.from_numpy(a), torch.from_numpy(b)) for a, b in pairs]

    def spread(self, moved: Float32[np.ndarray, "frames active 3"]) -> tuple[np.ndarray, np.ndarray]:
        """Displacements of all points, and of the rim: those asked for times their mask, zero elsewhere."""
        full = np.zeros((len(moved), self.count + self.rim_count, 3), np.float32)
        full[:, self.points.index] = moved * self.mask
        return full[:, : self.count], full[:, self.count :]


class MMTalkerMotion:
    """A compiled MMTalker. Shared by all streams; what a stream knows is in its MotionState."""

    def __init__(self, network: MMTalker, atlas: Atlas, runtime: Runtime, cadence: Cadence = USUAL) -> None:
        config, surface = network.config, network.surface
        self._network, self._atlas, self._runtime, self.cadence = network, atlas, runtime, cadence
        self._moving = surface.moving.cpu().numpy()
        self.log_density = network.log_density.detach().cpu().numpy()
        width, rows, batch = config.width, len(surface.active), cadence.batch
        padded = torch.zeros(1, cadence.block + 2 * LOCAL_REACH, config.features)
        style = torch.zeros(1, config.style_width)
        state = network.audio.start()
        instants = (
            torch.zeros(batch),
            torch.zeros(batch, config.channels, width),
            torch.zeros(batch, width),
            torch.zeros(batch, len(KEY_OFFSETS), width),
            torch.zeros(batch),
        )
        latent = torch.zeros(rows, batch, config.decoder)
        chunk = (torch.zeros(POINTS, 3, dtype=torch.int64), torch.zeros(POINTS, 3))
        moments, hearing = (0, 0, 0, 0, 0), Axes((0, 0, 1, 1), (0, 0, 0, 1, 1))
        compiled = runtime.compile
        self._hear = compiled(f"mmtalker-audio-{cadence.block}", _Hear(network), (padded, style, *state), hearing)
        self._at_vertices = compiled(f"mmtalker-vertices-{batch}", _AtVertices(network), instants, Axes(moments, (1,)))
        self._latent = compiled(f"mmtalker-latent-{batch}", _Latent(network), instants, Axes(moments, (1,)))
        # corners differ from stream to stream: points run one by one
        self._at_points = compiled(f"mmtalker-points-{batch}", _AtPoints(network), (latent, *chunk))

    def at(self, cadence: Cadence) -> "MMTalkerMotion":
        """The same network at another cadence; queries and styles serve both."""
        return MMTalkerMotion(self._network, self._atlas, self._runtime, cadence)

    def query(self, anchors: Anchors, rim: Anchors) -> SurfaceQuery:
        """Prepare to ask at anchors; once per template and resolution."""
        return SurfaceQuery(self._atlas, self._moving, anchors, rim)

    def style_of(self, pivot: Float32[np.ndarray, " pivot"]) -> Float[Tensor, "1 style"]:
        """A motion pivot's embedding."""
        with torch.inference_mode():
            return self._network.audio.style_of(torch.from_numpy(pivot).to(self._network.audio.pivot_mean))[None].cpu()

    def start(self, style: Float[Tensor, "1 style"]) -> MotionState:
        """The state before the first feature."""
        config = self._network.config
        nothing = AudioFeatures(
            torch.zeros(0, config.width), torch.zeros(0, config.channels, config.width), torch.zeros(0)
        )
        zeros = torch.zeros(1, 1, config.width)
        return MotionState(style, torch.zeros(LOCAL_REACH, config.features), AudioState(zeros, zeros), nothing, 0, 0)

    def latency_s(self, fps: float, encoded: int) -> float:
        """Seconds, at most, from a moment until the features are there that its frame depends on; `encoded` come at a
        time. The moment waits for its batch, that for what the keys see, for its block, and for what that sees.
        """
        block, batch = self.cadence
        keys = KEY_OFFSETS[-1] + 2
        return (batch - 1) / fps + (keys + block - 1 + LOCAL_REACH + encoded) / FEATURE_RATE_HZ

    def step(
        self,
        state: MotionState,
        features: Float[Tensor, "features width"],
        query: SurfaceQuery,
        lids: Lids,
        fps: float,
        frames: int | None,
    ) -> tuple[list[MotionBatch], MotionState]:
        """The frames that `features` complete. `frames` is their total number with the last features, before that
        None.
        """
        state = self._listen(state, features, last=frames is not None)
        batches, full = [], self.cadence.batch
        while (count := self._ready(state, fps, frames)) > 0:
            time_s = (state.frame + np.arange(full)) / fps
            if count < full:
                time_s[count:] = time_s[count - 1]
            batches.append(self._decode(state, time_s, query, lids, count))
            state = _forget(state._replace(frame=state.frame + count), fps)
        return batches, state

    def _listen(self, state: MotionState, features: Tensor, *, last: bool) -> MotionState:
        pending = torch.cat([state.pending, features])
        unheard = len(pending) - (LOCAL_REACH if last else 2 * LOCAL_REACH)
        audio, heard, block = state.audio, [state.heard], self.cadence.block
        padded = block + 2 * LOCAL_REACH
        while unheard >= (1 if last else block):
            window = pending[:padded]
            window = torch.nn.functional.pad(window, (0, 0, 0, padded - len(window)))
            overall, local, contact, *memory = self._hear(window[None], state.style, *audio)
            audio = AudioState(*(part.cpu() for part in memory))
            parts = (part[0, : min(block, unheard)].cpu() for part in (overall, local, contact))
            heard.append(AudioFeatures(*parts))
            pending, unheard = pending[block:], unheard - block
        joined = AudioFeatures(*(torch.cat(parts) for parts in zip(*heard, strict=True)))
        return state._replace(pending=pending, audio=audio, heard=joined)

    def _ready(self, state: MotionState, fps: float, frames: int | None) -> int:
        """How many of the next batch of frames can be decoded: all of them, or at the end those that are left."""
        batch = self.cadence.batch
        if frames is not None:
            return min(batch, frames - state.frame)
        needed = (state.frame + batch - 1) / fps * FEATURE_RATE_HZ + KEY_OFFSETS[-1] + 1
        return batch if needed <= state.first + len(state.heard.contact) - 1 else 0

    def _decode(
        self, state: MotionState, time_s: np.ndarray, query: SurfaceQuery, lids: Lids, count: int
    ) -> MotionBatch:
        closure = torch.from_numpy(lids.closure(time_s))
        instants = instants_at(state.heard, state.first, torch.from_numpy(time_s), closure)
        if query.at_vertices:
            (moved,) = self._at_vertices(*instants)
            moved = moved[query.vertex]
        else:
            (latent,) = self._latent(*instants)
            chunks = [self._at_points(latent, *chunk)[0] for chunk in query.chunks()]
            moved = torch.cat(chunks)[: len(query.vertex)]
        offsets, rim = query.spread(moved[:, :count].transpose(0, 1).cpu().numpy())
        position = torch.from_numpy(time_s[:count]) * FEATURE_RATE_HZ - state.first
        contact = interpolate(state.heard.contact, position).sigmoid().numpy()
        return MotionBatch(state.frame, time_s[:count].astype(np.float32), offsets, rim, contact_amount(contact))


class MMTalkerState(NamedTuple):
    """Between two pieces of sound: what the encoder and what the motion network hold."""

    listening: EncoderState
    moving: MotionState


@dataclass(frozen=True, eq=False)
class MMTalkerPerformance:
    """MMTalker for one clip, see `models.performance.Performance`."""

    encoder: SpeechEncoder
    motion: MMTalkerMotion
    query: SurfaceQuery
    lids: Lids
    fps: float

    @property
    def latency_s(self) -> float:
        """See `Performance.latency_s`."""
        return self.motion.latency_s(self.fps, self.encoder.block) + self.encoder.lookahead_s

    def start(self, pivots: Pivots) -> MMTalkerState:
        """See `Performance.start`."""
        return self.start_in(self.motion.style_of(pivots.motion))

    def start_in(self, style: Float[Tensor, "1 style"]) -> MMTalkerState:
        """The state before the first sample, in a style that is embedded already."""
        return MMTalkerState(self.encoder.start(), self.motion.start(style))

    def restyle(self, state: MMTalkerState, pivots: Pivots) -> MMTalkerState:
        """See `Performance.restyle`."""
        return state._replace(moving=state.moving._replace(style=self.motion.style_of(pivots.motion)))

    def step(self, state: MMTalkerState, samples: Samples, duration_s: float | None) -> Step[MMTalkerState]:
        """See `Performance.step`."""
        features, listening = self.encoder.step(state.listening, samples, last=duration_s is not None)
        frames = None if duration_s is None else frame_count(duration_s, self.fps)
        batches, moving = self.motion.step(state.moving, features, self.query, self.lids, self.fps, frames)
        yield from batches
        return MMTalkerState(listening, moving)


def stream_motion(
    encoder: SpeechEncoder,
    motion: MMTalkerMotion,
    waveform: Waveform,
    query: SurfaceQuery,
    lids: Lids,
    fps: float,
    style: Float[Tensor, "1 style"],
) -> Iterator[MotionBatch]:
    """All frames of a clip."""
    performance = MMTalkerPerformance(encoder, motion, query, lids, fps)
    return perform(performance, performance.start_in(style), waveform)


def _forget(state: MotionState, fps: float) -> MotionState:
    """Drop what no later frame looks at."""
    oldest = int(state.frame / fps * FEATURE_RATE_HZ) + KEY_OFFSETS[0] - 1
    drop = min(max(oldest - state.first, 0), len(state.heard.contact))
    return state._replace(heard=AudioFeatures(*(part[drop:] for part in state.heard)), first=state.first + drop)


class _Part(nn.Module):
    def __init__(self, network: MMTalker) -> None:
        super().__init__()
        self.network = network


class _Hear(_Part):
    def forward(self, features: Tensor, style: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
        heard, state = self.network.audio(features, style, AudioState(hidden, cell))
        return (*heard, *state)


class _Latent(_Part):
    def forward(self, time_s: Tensor, local: Tensor, overall: Tensor, around: Tensor, lids: Tensor) -> Tensor:
        return self.network.surface.latent(Instants(time_s, local, overall, around, lids))


class _AtVertices(_Part):
    def forward(self, time_s: Tensor, local: Tensor, overall: Tensor, around: Tensor, lids: Tensor) -> Tensor:
        surface = self.network.surface
        return surface.decode(surface.latent(Instants(time_s, local, overall, around, lids)))


class _AtPoints(_Part):
    def forward(self, latent: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
        surface = self.network.surface
        return surface.decode(surface.interpolate(latent, corners, weights))
