"""TexTalker's stream: it is Eq. 5 on the latents of the whole clip, motion and wrinkle styles do not mix, and any rate
lies between its frames.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_cdt
from tiny import TORCH, speech, tiny_moving, tiny_speech
from tiny_textalker import (
    DENOISER,
    MOTION,
    WRINKLE,
    face,
    tiny_autoencoder,
    tiny_decoders,
    tiny_denoiser,
    tiny_textalker,
)

from models.atlas import Anchors, join_anchors
from models.core import Waveform, frame_count
from models.errors import CheckpointError
from models.features import FEATURE_RATE_HZ
from models.mmtalker.blinks import BlinkTrack
from models.performance import Pivots
from models.puppet import MotionBatch
from models.textalker.codes import RATE_HZ
from models.textalker.decoding import GUTTER
from models.textalker.denoiser import REACH
from models.textalker.maps import MOTION_UNIT_M, MotionMaps, from_network, log_ratio
from models.textalker.streaming import TexTalkerMotion
from models.textalker.windows import LatentMotion, stream_latents


def pivots(motion: int = 0, wrinkle: int | None = 0) -> Pivots:
    """Random ones, by seed."""

    def draw(seed: int, size: int) -> np.ndarray:
        return np.random.default_rng([seed, size]).standard_normal(size, np.float32)

    return Pivots(draw(motion, MOTION.latents), None if wrinkle is None else draw(wrinkle, WRINKLE.latents))


def anchors() -> Anchors:
    return face().atlas.vertex_anchors


def stream(
    waveform: Waveform | None = None, chosen: Pivots | None = None, fps: float = 30.0, seed: int = 0
) -> Iterator[MotionBatch]:
    motion = tiny_textalker()
    query = motion.query(anchors(), face().rim_anchors)
    waveform = speech(1.3) if waveform is None else waveform
    return motion.stream(tiny_speech(), waveform, query, BlinkTrack(seed), chosen or pivots(), fps, seed)


def joined(batches: Iterator[MotionBatch]) -> dict[str, np.ndarray]:
    """The whole clip; batches follow one another."""
    every, frame = list(batches), 0
    for batch in every:
        assert batch.first == frame
        frame += len(batch.offsets)
    names = [name for name in MotionBatch._fields if name != "first" and getattr(every[0], name) is not None]
    return {name: np.concatenate([getattr(batch, name) for batch in every]) for name in names}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray], *names: str) -> bool:
    return all(one[name].tobytes() == other[name].tobytes() for name in names)


@cache
def whole() -> dict[str, np.ndarray]:
    return joined(stream())


def wrinkling() -> np.ndarray:
    """Texels that may wrinkle: the skin's, and those on no chart within GUTTER steps of it."""
    raster = face().atlas.rasterise(WRINKLE.size)
    skin = raster.covered & (face().atlas.chart[raster.face] == face().charts.index("skin"))
    steps = distance_transform_cdt(~skin, "taxicab")
    return skin | (~raster.covered & (steps <= GUTTER))


# One shot is the stream.


@cache
@torch.no_grad()
def from_the_equation() -> dict[str, np.ndarray]:
    """f = G_f(Q_f(p_f + Δz_f)) and W = G_w(Q_w(p_w + Δz_w)) of all latents at once, 30 frames a second (Eq. 5)."""
    latent_motion = LatentMotion(tiny_denoiser(), TORCH, "dpm_solver_2m", 3)
    batches = list(stream_latents(tiny_speech(), latent_motion, speech(1.3), BlinkTrack(0), 0))
    latents, split = np.concatenate([batch.latents for batch in batches]), MOTION.latents
    motion, wrinkle = tiny_autoencoder(MOTION), tiny_autoencoder(WRINKLE)
    grids = [(-1, c.latent, c.grid, c.grid) for c in (MOTION, WRINKLE)]
    maps = motion.decode(torch.from_numpy(latents[:, :split] + pivots().motion).reshape(grids[0])).numpy()
    images = wrinkle.decode(torch.from_numpy(latents[:, split:] + pivots().wrinkle).reshape(grids[1])).numpy()
    reader, vertices = MotionMaps(face(), MOTION.size).at_vertices, len(face().atlas.vertices)
    offsets = np.zeros((len(maps), vertices, 3))
    offsets[:, tiny_moving()] = [MOTION_UNIT_M * (reader @ m.reshape(3, -1).T)[tiny_moving()] for m in maps]
    wrinkles = log_ratio(from_network(images)).transpose(0, 2, 3, 1) * wrinkling()[..., None]
    contact = np.concatenate([batch.contact for batch in batches])
    return {"offsets": offsets, "rim_offsets": offsets[:, face().rim], "contact": contact, "wrinkles": wrinkles}


def test_the_stream_is_the_equation_on_the_whole_clip():
    assert {len(track) for track in whole().values()} == {39}
    for name, wanted in from_the_equation().items():
        assert np.allclose(whole()[name], wanted, atol=1e-3 if name == "wrinkles" else 1e-5), name


def test_there_is_something_to_see():
    """Untrained networks would pass laws of what stands still."""
    assert 1e3 * np.ptp(whole()["offsets"], axis=0).max() > 0.3
    assert np.ptp(whole()["wrinkles"].astype(float), axis=0).max() > 0.01


@pytest.mark.parametrize("fps", [1.0, 12.5, 24.0, 29.97, 60.0, 100 / 3])
def test_any_rate_lies_between_the_frames(fps):
    """Linearly; after the last one, the last."""
    made = joined(stream(fps=fps))
    position = np.minimum(np.arange(frame_count(1.3, fps)) * 30 / fps, 38)
    assert np.allclose(made["time_s"], np.arange(len(position)) / fps, atol=1e-6)
    low = position.astype(int)
    high, share = np.minimum(low + 1, 38), position - low
    for name in ("offsets", "rim_offsets", "contact", "wrinkles"):
        track = whole()[name].astype(float)
        weight = share.reshape(-1, *[1] * (track.ndim - 1))
        wanted = (1 - weight) * track[low] + weight * track[high]
        assert np.allclose(made[name], wanted, atol=1e-3 if name == "wrinkles" else 1e-6), name


@pytest.mark.parametrize("fps", [15.0, 60.0])
def test_frames_that_two_rates_share_are_the_same_bits(fps):
    made, step = joined(stream(fps=fps)), round(max(fps, 30) / min(fps, 30))
    for name in ("offsets", "contact", "wrinkles"):
        one, other = (made[name], whole()[name][::step]) if fps < 30 else (made[name][::step], whole()[name])
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("fps", [12.5, 30.0])
def test_later_sound_changes_no_window_that_has_left(fps):
    """Of two clips that are the same for 3 s, frames are the same up to the window that hears the difference."""
    long = speech(4.0)
    samples = long.samples.copy()
    samples[48_000:] = speech(1.0, seed=9).samples
    one, other = joined(stream(long, fps=fps)), joined(stream(Waveform(samples), fps=fps))
    differ = np.flatnonzero(np.abs(one["offsets"] - other["offsets"]).max((1, 2)) > 0) / fps
    heard_s = tiny_speech().lookahead_s + REACH / FEATURE_RATE_HZ
    assert differ[0] > 3 - heard_s - DENOISER.window / RATE_HZ


def test_frames_leave_before_the_end_is_heard():
    heard = []

    class Watched:
        width = DENOISER.features

        def start(self):
            return tiny_speech().start()

        def step(self, state, samples, *, last):
            heard.append(len(samples))
            return tiny_speech().step(state, samples, last=last)

    motion = tiny_textalker()
    query = motion.query(anchors(), face().rim_anchors)
    frames = motion.stream(Watched(), speech(6.0), query, BlinkTrack(0), pivots(), 12.5, 0)
    next(frames)
    assert sum(heard) <= 3 * 16_000
    frames.close()


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.2])
def test_a_clip_of_any_length_has_all_its_frames(seconds):
    """None of nothing; one of less than a frame."""
    batches = list(stream(speech(seconds), fps=25.0))
    assert sum(len(batch.offsets) for batch in batches) == frame_count(seconds, 25.0)


def test_the_seed_decides():
    """The same, the same bits; another, another motion and other wrinkles."""
    again, other = joined(stream()), joined(stream(seed=1))
    assert same(whole(), again, "offsets", "rim_offsets", "contact", "wrinkles")
    assert not same(whole(), other, "offsets")
    assert not same(whole(), other, "wrinkles")


# Styles.


def test_a_wrinkle_style_moves_no_vertex():
    """Another one, or none at all: the same bits."""
    other, none = joined(stream(chosen=pivots(0, 1))), joined(stream(chosen=pivots(0, None)))
    assert same(whole(), other, "offsets", "rim_offsets", "contact")
    assert same(whole(), none, "offsets", "rim_offsets", "contact")
    assert not same(whole(), other, "wrinkles")
    assert "wrinkles" not in none


def test_a_motion_style_changes_no_wrinkle():
    other = joined(stream(chosen=pivots(1, 0)))
    assert same(whole(), other, "wrinkles", "contact")
    assert not same(whole(), other, "offsets")


# Places.


def test_what_never_moves_stays_where_it_is():
    """Exactly; and what moves does."""
    still = np.setdiff1d(np.arange(len(face().atlas.vertices)), tiny_moving())
    assert not whole()["offsets"][:, still].any()
    assert (np.abs(whole()["offsets"][:, tiny_moving()]).max((0, 2)) > 0).all()


def test_only_skin_wrinkles():
    """And a few texels around it; not the eye, however near, and nothing further off."""
    covered = face().atlas.rasterise(WRINKLE.size).covered
    assert (covered & ~wrinkling()).any()
    assert (wrinkling() & ~covered).any()
    assert not whole()["wrinkles"][:, ~wrinkling()].any()
    assert (whole()["wrinkles"][:, wrinkling()] != 0).any((0, 2)).all()
    assert whole()["wrinkles"].dtype == np.float16


def test_places_between_vertices_move_as_vertices_do():
    """Whatever points a template or a resolution asks for, they lie on the moving surface."""
    random, atlas = np.random.default_rng(0), face().atlas
    count = 50
    places = Anchors(
        random.integers(0, len(atlas.faces), count).astype(np.int32),
        random.dirichlet(np.ones(3), count).astype(np.float32),
    )
    motion = tiny_textalker()
    images = random.standard_normal((2, 3, MOTION.size, MOTION.size)).astype(np.float32)
    vertices, rim = motion.query(anchors(), face().rim_anchors).read(images)
    between, same_rim = motion.query(places, face().rim_anchors).read(images)
    assert np.allclose(between, [atlas.interpolate(frame, places) for frame in vertices], atol=1e-7)
    assert np.array_equal(rim, same_rim)
    assert np.allclose(rim, vertices[:, face().rim])
    both, _ = motion.query(join_anchors(places, anchors()), face().rim_anchors).read(images)
    assert np.allclose(both, np.concatenate([between, vertices], 1), atol=1e-7)


# Refusals.


@pytest.mark.parametrize("part", ["motion", "wrinkle"])
def test_a_denoiser_of_other_latents_is_refused(part):
    other = tiny_denoiser(replace(DENOISER, **{part: 12}))
    with pytest.raises(CheckpointError, match=f"a denoiser of .*12.* latents; the auto-encoders have {MOTION.latents}"):
        TexTalkerMotion(face(), other, tiny_decoders(), TORCH, "ddim", 2)
