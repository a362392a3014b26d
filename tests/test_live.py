"""Live: what comes of sound that is still being spoken is what comes of the whole, sooner."""

from functools import cache

import numpy as np
import pytest
from tiny import noise
from tiny_engine import tiny_engine

from models.audio import Resampler
from models.core import SAMPLE_RATE_HZ, AnimateOptions, Frame, Waveform, frame_count
from models.errors import OutOfRange, UnknownName
from models.live import RETURN_S, Live

SOUND = noise(5 * SAMPLE_RATE_HZ + 1)
WAVEFORM = Waveform(SOUND)
MMTALKER, TEXTALKER = AnimateOptions(), AnimateOptions(engine="textalker")
both = pytest.mark.parametrize("options", [MMTALKER, TEXTALKER], ids=lambda options: options.engine)


@cache
def engine():
    return tiny_engine()


@cache
def whole(options: AnimateOptions) -> np.ndarray:
    return np.stack([frame.vertices for frame in engine().animate(WAVEFORM, options).frames])


def pieces(sound: np.ndarray, size: int) -> list[np.ndarray]:
    return np.split(sound, range(size, len(sound), size))


def said(live: Live, sound: np.ndarray, size: int = 1_600) -> list[Frame]:
    """Everything, to the end."""
    return [frame for piece in pieces(sound, size) for frame in live.feed(piece)] + live.finish()


def vertices(frames: list[Frame]) -> np.ndarray:
    return np.stack([frame.vertices for frame in frames])


@both
@pytest.mark.parametrize("fps", [12.5, 30.0, 59.94])
def test_live_is_the_whole_clip(options: AnimateOptions, fps: float) -> None:
    """textalker's to the bit; mmtalker's grid is a finer one: to 1e-5 m, in numbers and times alike."""
    options = AnimateOptions(engine=options.engine, fps=fps)
    frames, expected = said(engine().live(options), SOUND), list(engine().animate(WAVEFORM, options).frames)
    assert [(f.index, f.time_s) for f in frames] == [(f.index, f.time_s) for f in expected]
    if options.engine == "textalker":
        assert np.array_equal(vertices(frames), vertices(expected))
    else:
        assert np.abs(vertices(frames) - vertices(expected)).max() < 1e-5


@both
@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
@pytest.mark.parametrize("size", [37_777, 10**6])
def test_cut_anywhere_it_is_the_same_to_the_bit(options: AnimateOptions, rate_hz: int, size: int) -> None:
    sound = noise(2 * rate_hz + 7)
    once = said(engine().live(options, rate_hz=rate_hz), sound, 480)
    again = said(engine().live(options, rate_hz=rate_hz), sound, size)
    assert np.array_equal(vertices(once), vertices(again))
    assert len(once) == frame_count(len(sound) / rate_hz, 30)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_resampled_in_pieces_it_is_the_same_to_the_bit(rate_hz: int) -> None:
    sound = noise(rate_hz + 5)
    one, other = Resampler(rate_hz), Resampler(rate_hz)
    once = np.concatenate([one.push(sound), one.flush()])
    again = np.concatenate([*(other.push(piece) for piece in pieces(sound, 333)), other.flush()])
    assert np.array_equal(once, again)
    late = Resampler(rate_hz)
    assert len(late.push(sound)) >= SAMPLE_RATE_HZ * (len(sound) / rate_hz - late.delay_s)


@both
@pytest.mark.parametrize("fps", [12.5, 30.0, 59.94])
@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_no_frame_comes_later_than_the_latency(options: AnimateOptions, fps: float, rate_hz: int) -> None:
    """And some frame comes nearly as late: the bound is no guess."""
    live = engine().live(AnimateOptions(engine=options.engine, fps=fps), rate_hz=rate_hz)
    step, sound, waits = rate_hz // 100, noise(8 * rate_hz), []
    for number, piece in enumerate(pieces(sound, step)):
        waits += [(number * step) / rate_hz - frame.time_s for frame in live.feed(piece)]
    assert live.latency_s - 0.12 < max(waits) <= live.latency_s


@both
def test_an_interrupt_brings_the_face_to_rest_and_begins_anew(options: AnimateOptions) -> None:
    live, other = engine().live(options), noise(4 * SAMPLE_RATE_HZ, 9)
    frames = live.feed(SOUND)
    shown = frames[10]
    back = live.interrupt(shown)
    assert [frame.index for frame in back] == list(range(11, 11 + round(RETURN_S * 30)))
    assert np.array_equal(back[-1].vertices, live.mesh.vertices)
    away = [np.abs(frame.vertices - live.mesh.vertices).max() for frame in [shown, *back]]
    assert sorted(away, reverse=True) == away
    start = live.frame
    assert start == back[-1].index + 1
    later, alone = said(live, other), said(engine().live(options), other)
    assert [frame.index for frame in later] == [start + k for k in range(len(alone))]
    assert [frame.time_s for frame in later] == [frame.index / 30 for frame in later]
    calm = round(RETURN_S * 30)
    np.testing.assert_allclose(vertices(later)[calm:], vertices(alone)[calm:], atol=1e-7)
    rise = np.abs(vertices(later)[:calm] - live.mesh.vertices).max((1, 2))
    assert (rise < np.abs(vertices(alone)[:calm] - live.mesh.vertices).max((1, 2)) + 1e-7).all()


def test_interrupted_before_anything_was_shown_it_begins_at_zero() -> None:
    live = engine().live(MMTALKER)
    assert live.feed(SOUND)
    assert live.interrupt(None) == []
    assert live.frame == 0
    assert np.array_equal(vertices(said(live, SOUND)), vertices(said(engine().live(MMTALKER), SOUND)))


@both
def test_a_style_changes_no_frame_that_came(options: AnimateOptions) -> None:
    lively = AnimateOptions(engine=options.engine, motion_style="lively")
    live, half = engine().live(options), len(SOUND) - SAMPLE_RATE_HZ // 2
    before = live.feed(SOUND[:half])
    live.restyle(lively)
    assert live.frame == len(before)
    after = live.feed(SOUND[half:]) + live.finish()
    plain = vertices(said(engine().live(options), SOUND))
    assert np.array_equal(vertices(before), plain[: len(before)])
    assert not np.array_equal(vertices(after)[-1], plain[-1])
    assert len(before) + len(after) == len(plain)


def test_a_style_outlasts_an_interrupt() -> None:
    lively = AnimateOptions(motion_style="lively")
    live = engine().live(MMTALKER)
    live.restyle(lively)
    live.interrupt(None)
    assert np.array_equal(vertices(said(live, SOUND)), vertices(said(engine().live(lively), SOUND)))


def test_a_style_of_one_stream_is_refused_as_any_other() -> None:
    live = engine().live(MMTALKER)
    with pytest.raises(UnknownName, match="clam"):
        live.restyle(AnimateOptions(motion_style="clam"))


@both
def test_of_no_sound_there_is_no_frame(options: AnimateOptions) -> None:
    live = engine().live(options)
    assert live.feed(SOUND[:0]) == []
    assert live.finish() == []


@pytest.mark.parametrize(
    ("options", "rate_hz", "field"),
    [
        (AnimateOptions(engine="textalker", texture=512), 16_000, "texture"),
        (MMTALKER, 7_999, "sample_rate"),
        (MMTALKER, 192_000, "sample_rate"),
    ],
)
def test_what_is_not_made_live_is_refused(options: AnimateOptions, rate_hz: int, field: str) -> None:
    with pytest.raises(OutOfRange) as refused:
        engine().live(options, rate_hz=rate_hz)
    assert refused.value.field == field


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(UnknownName, match="clam"):
        engine().live(AnimateOptions(motion_style="clam"))
