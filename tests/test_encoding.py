"""Latents are what the encoders say, a pivot is their mean over a sequence, and statistics are of what can be seen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import shipped_head
from tiny_textalker import MOTION, WRINKLE, face, some_offsets, tiny_autoencoder, tiny_encoders

from models.examples import Example
from models.template import default_template, template_of_identity
from models.textalker.encoding import BATCH, MotionTally, WrinkleTally
from models.textalker.maps import MotionMaps

SIZE = WRINKLE.size


def some_ratios(frames: int, seed: int = 0, size: int = SIZE) -> np.ndarray:
    """Log-ratios (frames, size, size, 3), each about a level of its own."""
    random = np.random.default_rng(seed)
    level = random.normal(0, 0.3, (frames, 1, 1, 3))
    return np.asarray(level + random.normal(0, 0.05, (frames, size, size, 3)), np.float32)


def example(frames: int = 5, seed: int = 0, **more: object) -> Example:
    """The face, moving."""
    return Example(face().atlas.vertices + some_offsets(frames, seed), **more)


# Latents.


@torch.no_grad()
def test_motion_latents_are_the_encoders_of_motion_maps():
    offsets = some_offsets(3)
    maps = MotionMaps(face(), MOTION.size).rasterise(offsets).transpose(0, 3, 1, 2)
    wanted = tiny_autoencoder(MOTION).encode(torch.from_numpy(maps.copy())).flatten(1)
    latents = tiny_encoders().motion(offsets)
    assert latents.shape == (3, MOTION.latents)
    assert np.allclose(latents, wanted.numpy(), atol=1e-5)


@torch.no_grad()
def test_a_neutral_texture_is_nothing_to_the_encoder():
    """Its zero is a ratio of 1; and a fourth of the logit, times ten, is what it sees of others."""
    network = tiny_autoencoder(WRINKLE)
    zero = network.encode(torch.zeros(1, 3, SIZE, SIZE)).flatten(1)
    assert np.allclose(tiny_encoders().wrinkles(np.zeros((1, SIZE, SIZE, 3))), zero.numpy(), atol=1e-5)
    dark = network.encode(torch.full((1, 3, SIZE, SIZE), -2.5)).flatten(1)
    ratios = np.full((1, SIZE, SIZE, 3), -np.log(3) / 4)
    assert np.allclose(tiny_encoders().wrinkles(ratios), dark.numpy(), atol=1e-5)


@pytest.mark.parametrize("count", [1, BATCH, BATCH + 1, 2 * BATCH + 3])
def test_frames_do_not_know_of_one_another(count):
    offsets = some_offsets(2 * BATCH + 3)
    every = tiny_encoders().motion(offsets)
    assert np.allclose(tiny_encoders().motion(offsets[:count]), every[:count], atol=1e-5)
    assert np.ptp(every, axis=0).max() > 0.1


# Pivots (Eq. 5).


@pytest.mark.parametrize("frames", [2, BATCH, BATCH + 5])
def test_a_pivot_is_the_mean_of_an_examples_latents(frames):
    ratios = some_ratios(frames)
    pivot = tiny_encoders().pivot(example(frames, wrinkles=list(ratios)), default_template(face()), "who")
    assert np.allclose(pivot.motion, tiny_encoders().motion(some_offsets(frames)).mean(0), atol=1e-4)
    assert np.allclose(pivot.wrinkle, tiny_encoders().wrinkles(ratios).mean(0), atol=1e-4)
    assert pivot.id == "who"


def test_an_example_without_textures_has_no_wrinkles():
    pivot = tiny_encoders().pivot(example(), default_template(face()), "who")
    assert pivot.wrinkle is None
    assert not [name for name in pivot.statistics if name.startswith("wrinkle")]


def test_the_same_performance_on_another_head_is_the_same_style():
    """A head half as large again, turned: its motion is undone to the canonical head's."""
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    other = template_of_identity(face(), 1.5 * face().atlas.vertices @ turn.T, "other")
    performed = Example(other.place(some_offsets(5)))
    own = tiny_encoders().pivot(example(), default_template(face()), "who")
    theirs = tiny_encoders().pivot(performed, other, "who")
    assert np.allclose(theirs.motion, own.motion, atol=1e-3)
    assert theirs.statistics == pytest.approx(own.statistics, abs=1e-3)


def test_motion_is_from_the_examples_own_neutral_head_where_it_has_one():
    """So that somebody whose face differs from the head's at rest does not wear it as a style."""
    template, fuller = default_template(face()), 1.02 * face().atlas.vertices
    own = Example(fuller + some_offsets(5), neutral=fuller)
    plain = tiny_encoders().pivot(example(), template, "who")
    assert np.allclose(tiny_encoders().pivot(own, template, "who").motion, plain.motion, atol=1e-3)
    assert not np.allclose(
        tiny_encoders().pivot(replace(own, neutral=None), template, "who").motion, plain.motion, atol=1e-2
    )


# What a style looks like.


def tallied(*frames: np.ndarray) -> dict[str, float]:
    tally = MotionTally(shipped_head())
    tally.add(np.stack(frames).astype(np.float32))
    return dict(tally.statistics())


def still() -> np.ndarray:
    return np.zeros_like(shipped_head().atlas.vertices)


def test_a_head_at_rest_has_nothing_to_tell():
    assert set(tallied(still()).values()) == {0.0}


def test_a_head_that_is_carried_away_only_rises():
    """By 2 mm: corners and brows lie higher; lips neither part nor widen."""
    looks = tallied(still() + np.array([0.005, 0.002, -0.001]))
    assert looks["corner_lift_mm"] == pytest.approx(2, abs=1e-4)
    assert looks["brow_lift_mm"] == pytest.approx(2, abs=1e-4)
    assert looks["lip_opening_mm"] == pytest.approx(0, abs=1e-4)
    assert looks["mouth_widening_mm"] == pytest.approx(0, abs=1e-4)


def test_a_mouth_that_is_stretched_is_wider_by_as_much():
    head, moved = shipped_head(), still()
    across = head.atlas.vertices[head.rim, 0]
    moved[head.rim, 0] = 0.1 * across
    assert tallied(moved)["mouth_widening_mm"] == pytest.approx(100 * np.ptp(across), rel=1e-3)


def test_lips_that_part_are_open_and_lips_that_cross_are_not():
    """A lower lip that drops by 4 mm, or rises into the upper one: means and the deviation over both frames."""
    head, moved = shipped_head(), still()
    lower = head.rim[(head.seal.gaps > 0).any(0) & ~(head.seal.gaps < 0).any(0)]
    moved[lower, 1] = -0.004
    open_mm = tallied(moved)["lip_opening_mm"]
    assert 3 < open_mm <= 4
    assert tallied(-moved)["lip_opening_mm"] == 0
    both = tallied(moved, -moved)
    assert both["lip_opening_mm"] == pytest.approx(open_mm / 2)
    assert both["lip_opening_deviation_mm"] == pytest.approx(open_mm / 2)


def test_brows_lie_between_the_eyes_and_the_forehead():
    """Raising what is 12 to 35 mm above the eyes raises the brows, and nothing else that is told."""
    head, moved = shipped_head(), still()
    eyes = head.atlas.vertices[head.regions["eyes"], 1].mean()
    above = (head.atlas.vertices[:, 1] > eyes + 0.012) & (head.atlas.vertices[:, 1] < eyes + 0.035)
    moved[above, 1] = 0.003
    looks = tallied(moved)
    assert looks.pop("brow_lift_mm") == pytest.approx(3, abs=1e-4)
    assert set(looks.values()) == {0.0}


def test_frames_count_alike_however_they_come():
    frames = np.stack([still() + 0.001 * k for k in range(5)]).astype(np.float32)
    once, twice = MotionTally(shipped_head()), MotionTally(shipped_head())
    once.add(frames)
    twice.add(frames[:2])
    twice.add(frames[2:])
    assert once.statistics() == pytest.approx(twice.statistics())


def looks_of(*frames: np.ndarray) -> dict[str, float]:
    tally = WrinkleTally(face(), SIZE)
    for frame in frames:
        tally.add(frame[None].astype(np.float32))
    return dict(tally.statistics())


def test_an_even_shade_is_as_deep_everywhere():
    looks = looks_of(np.full((SIZE, SIZE, 3), -0.2), np.zeros((SIZE, SIZE, 3)))
    assert set(looks) == {"wrinkle_face", *(f"wrinkle_{name}" for name in face().regions), "wrinkle_deepest"}
    assert looks == pytest.approx(dict.fromkeys(looks, 0.1), abs=1e-6)


def test_light_counts_as_much_as_dark_but_is_no_line():
    looks = looks_of(np.full((SIZE, SIZE, 3), 0.2))
    assert looks["wrinkle_face"] == pytest.approx(0.2)
    assert looks["wrinkle_deepest"] == pytest.approx(-0.2)


def test_a_region_tells_of_itself():
    """Only the upper half of the atlas is dark, where the upper face lies and no lips."""
    half = np.zeros((SIZE, SIZE, 3))
    half[: SIZE // 3] = -0.3
    looks = looks_of(half)
    assert looks["wrinkle_lips"] == 0
    assert looks["wrinkle_upper_face"] > looks["wrinkle_face"] > 0.05
