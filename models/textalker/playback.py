"""From codes to motion: maps of codes, what a head reads of them, and any rate. Nothing here needs torch.

It is the path of the engine and of every decoder of `codes`, so that both make the same frames.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int64, UInt16
from scipy.sparse import csr_matrix

from models.core import CodeBatch, Codes, CodeSpace
from models.graphs import in_batches
from models.puppet import MotionBatch
from models.textalker.codes import RATE_HZ
from models.textalker.maps import from_network, log_ratio

BATCH = 8
"""Maps that are decoded at a time."""

Maps = Float32[np.ndarray, "frames channels size size"]
LogRatios = Float32[np.ndarray, "frames size size 3"]
Decoder = Callable[[UInt16[np.ndarray, "frames rows columns"]], Maps]
"""G of a codebook: codes → maps, as networks see them."""


def generator_facts(space: CodeSpace, sha256: str) -> dict[str, str]:
    """What the graph of a generator says of itself, so that no other codes are decoded with it."""
    return {"talker.checkpoint": space.checkpoint, "talker.sha256": sha256, "talker.entries": str(space.entries)}


def generate(
    run: Callable[[Int64[np.ndarray, "batch rows columns"]], Maps], codes: UInt16[np.ndarray, "frames rows columns"]
) -> Maps:
    """Maps of any number of codes, by a graph that takes BATCH."""
    return in_batches(run, codes.astype(np.int64), BATCH)


class Generators:
    """G_f and G_w: codes → motion maps as networks see them and, where there are such codes, log-ratios."""

    def __init__(self, motion: Decoder, wrinkle: Decoder | None, skin: Bool[np.ndarray, "size size"]) -> None:
        self._motion, self._wrinkle = motion, wrinkle
        self._skin = skin[..., None].astype(np.float32)

    def maps(self, codes: Codes) -> tuple[Maps, LogRatios | None]:
        """Maps of codes; log-ratios are zero off the skin."""
        maps = self._motion(codes.motion)
        if codes.wrinkle is None:
            return maps, None
        assert self._wrinkle is not None
        images = self._wrinkle(codes.wrinkle)
        return maps, np.asarray(log_ratio(from_network(images.transpose(0, 2, 3, 1))) * self._skin)


@dataclass(frozen=True, eq=False)
class MapQuery:
    """Where a motion map is read: a template's points, then the rim's. reader: (points + rim, size²), in metres."""

    reader: csr_matrix
    count: int

    def read(self, maps: Float32[np.ndarray, "frames 3 size size"]) -> tuple[np.ndarray, np.ndarray]:
        """Displacements in metres: (frames, points, 3) and (frames, rim, 3)."""
        frames = len(maps)
        flat = np.ascontiguousarray(maps.reshape(frames * 3, -1).T)
        offsets = (self.reader @ flat).reshape(-1, frames, 3).transpose(1, 0, 2)
        return offsets[:, : self.count], offsets[:, self.count :]


class Timeline(NamedTuple):
    """Where frames lie among moments: frame k between low[k] and high[k], share[k] of the way."""

    fps: float
    low: Int64[np.ndarray, " frames"]
    high: Int64[np.ndarray, " frames"]
    share: Float32[np.ndarray, " frames"]


def timeline(fps: float, frames: int, moments: int) -> Timeline:
    """Frames at any rate; after the last moment, that."""
    position = np.arange(frames) * RATE_HZ / fps
    low = np.minimum((position + 1e-9).astype(int), moments - 1)
    share = np.where(position - low < 1e-6, 0, np.clip(position - low, 0, 1)).astype(np.float32)
    return Timeline(fps, low, np.minimum(low + (share > 0), moments - 1), share)


class Playback(NamedTuple):
    """Moments that later frames still need, by number, and the next frame."""

    held: "Mapping[int, Moment]"
    frame: int


NOTHING_PLAYED = Playback({}, 0)


def play(
    batches: Iterable[CodeBatch],
    maps: Callable[[Codes], tuple[Maps, LogRatios | None]],
    query: MapQuery,
    time: Timeline,
) -> Iterator[MotionBatch]:
    """All frames of a clip, as soon as the moments around them are there."""
    state = NOTHING_PLAYED
    for batch in batches:
        state = yield from play_on(state, batch, maps, query, time)


def play_on(
    state: Playback,
    batch: CodeBatch,
    maps: Callable[[Codes], tuple[Maps, LogRatios | None]],
    query: MapQuery,
    time: Timeline,
) -> Generator[MotionBatch, None, Playback]:
    """The frames that a batch completes, and the state after them. Moments that no frame needs are not decoded."""
    held, done, came = dict(state.held), state.frame, batch.first + len(batch.contact)
    ready = int(np.searchsorted(time.high, came))
    needed = np.unique(np.concatenate([time.low[done:], time.high[done:]]))
    needed = needed[(needed >= batch.first) & (needed < came)]
    for start in range(0, len(needed), BATCH):
        chosen = needed[start : start + BATCH]
        held |= zip(chosen.tolist(), _decode(batch, chosen - batch.first, maps, query), strict=True)
        known = int(np.searchsorted(time.high[:ready], chosen[-1], side="right"))
        if known > done:
            yield _joined(done, [_frame(held, time, k) for k in range(done, known)], time.fps)
            done = known
            held = {k: moment for k, moment in held.items() if done < len(time.low) and k >= time.low[done]}
    return Playback(held, done)


class Moment(NamedTuple):
    """What a head reads of the maps of one moment."""

    offsets: Float32[np.ndarray, "points 3"]
    rim: Float32[np.ndarray, "rim 3"]
    contact: np.float32
    wrinkles: Float32[np.ndarray, "size size 3"] | None


def _decode(
    batch: CodeBatch,
    rows: Int64[np.ndarray, " rows"],
    maps: Callable[[Codes], tuple[Maps, LogRatios | None]],
    query: MapQuery,
) -> list[Moment]:
    motion, wrinkle = batch.codes
    images, ratios = maps(Codes(motion[rows], None if wrinkle is None else wrinkle[rows]))
    offsets, rim = query.read(images)
    wrinkles: list[np.ndarray | None] = [None] * len(rows) if ratios is None else list(ratios)
    return [Moment(*parts) for parts in zip(offsets, rim, batch.contact[rows], wrinkles, strict=True)]


def _frame(held: dict[int, Moment], time: Timeline, k: int) -> Moment:
    one, other, share = held[int(time.low[k])], held[int(time.high[k])], time.share[k]
    if share == 0:
        return one
    mixed = [(1 - share) * a + share * b for a, b in ((one.offsets, other.offsets), (one.rim, other.rim))]
    contact = np.float32((1 - share) * one.contact + share * other.contact)
    if one.wrinkles is None or other.wrinkles is None:
        return Moment(mixed[0], mixed[1], contact, None)
    return Moment(mixed[0], mixed[1], contact, (1 - share) * one.wrinkles + share * other.wrinkles)


def _joined(first: int, frames: list[Moment], fps: float) -> MotionBatch:
    wrinkles: Float16[np.ndarray, "frames size size 3"] | None = None
    if frames[0].wrinkles is not None:
        wrinkles = np.stack([frame.wrinkles.astype(np.float16) for frame in frames if frame.wrinkles is not None])
    return MotionBatch(
        first,
        ((first + np.arange(len(frames))) / fps).astype(np.float32),
        np.stack([frame.offsets for frame in frames]).astype(np.float32),
        np.stack([frame.rim for frame in frames]).astype(np.float32),
        np.array([frame.contact for frame in frames], np.float32),
        wrinkles,
    )
