"""A performance is a fold: however the sound is cut, wherever its steps are computed, and however often."""

import pickle
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from test_textalker import anchors, pivots
from tiny import noise, tiny_head, tiny_motion, tiny_speech
from tiny_textalker import face, tiny_textalker

from models.core import SAMPLE_RATE_HZ, Waveform, frame_count
from models.mmtalker.blinks import BlinkTrack
from models.mmtalker.streaming import MMTalkerPerformance
from models.performance import Performance, perform, run
from models.puppet import MotionBatch
from models.textalker.streaming import TexTalkerCoding, TexTalkerPerformance

SOUND = noise(5 * SAMPLE_RATE_HZ + 1)
DURATION_S = len(SOUND) / SAMPLE_RATE_HZ


def mmtalker(fps: float = 30.0) -> Performance[Any]:
    query = tiny_motion().query(tiny_head().atlas.vertex_anchors, tiny_head().rim_anchors)
    return MMTalkerPerformance(tiny_speech(), tiny_motion(), query, BlinkTrack(3), fps)


def textalker(fps: float = 30.0) -> Performance[Any]:
    motion = tiny_textalker()
    query = motion.query(anchors(), face().rim_anchors)
    return TexTalkerPerformance(TexTalkerCoding(tiny_speech(), motion, BlinkTrack(3), 3), query, fps)


both = pytest.mark.parametrize("make", [mmtalker, textalker])


@cache
def whole(make: Any, fps: float = 30.0) -> list[bytes]:
    performance = make(fps)
    return frames(list(perform(performance, performance.start(pivots()), Waveform(SOUND))))


def frames(batches: Sequence[MotionBatch]) -> list[bytes]:
    """Each frame as bytes; batches may be cut differently."""
    parts = [name for name in MotionBatch._fields if name != "first" and getattr(batches[0], name) is not None]
    return [b"".join(getattr(b, name)[k].tobytes() for name in parts) for b in batches for k in range(len(b.contact))]


@both
@pytest.mark.parametrize("fps", [12.5, 30.0, 59.94])
@pytest.mark.parametrize("size", [1_600, 16_001, len(SOUND)])
def test_cut_anywhere_the_frames_are_the_same(make: Any, fps: float, size: int) -> None:
    performance, batches = make(fps), []
    state = performance.start(pivots())
    pieces = np.split(SOUND, range(size, len(SOUND), size))
    for number, piece in enumerate(pieces):
        made, state = run(performance.step(state, piece, DURATION_S if number == len(pieces) - 1 else None))
        batches += made
    assert frames(batches) == whole(make, fps)
    assert len(whole(make, fps)) == frame_count(DURATION_S, fps)


@both
def test_a_step_may_be_computed_again_elsewhere(make: Any) -> None:
    """Every step by a performance of its own, from a state that was pickled, twice: a cluster does so."""
    batches, state = [], pickle.dumps(make().start(pivots()))
    pieces = np.split(SOUND, range(16_000, len(SOUND), 16_000))
    for number, piece in enumerate(pieces):
        once, again = (
            run(make().step(pickle.loads(state), piece, DURATION_S if number == len(pieces) - 1 else None))
            for _ in "12"
        )
        if once[0]:
            assert frames(once[0]) == frames(again[0])
        batches += once[0]
        state = pickle.dumps(again[1])
    assert frames(batches) == whole(make)


@both
def test_a_style_changes_what_comes_and_not_what_came(make: Any) -> None:
    """As soon as the next block or window, and the other half of the performance goes on as it was."""
    performance, early = make(), slice(4 * SAMPLE_RATE_HZ)
    before, state = run(performance.step(performance.start(pivots()), SOUND[early], None))
    state = performance.restyle(state, pivots(1, 1))
    after, _ = run(performance.step(state, SOUND[early.stop :], DURATION_S))
    assert frames(before) == whole(make)[: len(frames(before))]
    assert frames(after)[-1] != whole(make)[-1]
    assert len(frames([*before, *after])) == len(whole(make))


def test_blinks_may_be_asked_for_again() -> None:
    track, times = BlinkTrack(7), np.arange(3000) / 30
    late, early = track.closure(times[2000:2016]), track.closure(times[:16])
    whole = BlinkTrack(7).closure(times)
    assert np.array_equal(late, whole[2000:2016])
    assert np.array_equal(early, whole[:16])
