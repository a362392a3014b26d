"""Maps: what is drawn on the atlas is read back, and a log-ratio is a map and back."""

from functools import cache

import numpy as np
import pytest
from tiny import shipped_head, tiny_head

from models.atlas import sample
from models.textalker.maps import (
    MOTION_UNIT_M,
    STIFF,
    MotionMaps,
    bilinear,
    from_network,
    log_ratio,
    to_network,
    wrinkle_map,
)


@cache
def shipped_maps() -> MotionMaps:
    """Maps of the compact size on the shipped head."""
    return MotionMaps(shipped_head(), 128)


@cache
def tiny_maps() -> MotionMaps:
    return MotionMaps(tiny_head(), 32)


def there_and_back(maps: MotionMaps, offsets: np.ndarray) -> np.ndarray:
    """Offsets as their maps give them back."""
    images = maps.rasterise(offsets)
    flat = images.transpose(1, 2, 0, 3).reshape(maps.size**2, -1)
    return MOTION_UNIT_M * (maps.at_vertices @ flat).reshape(-1, len(offsets), 3).transpose(1, 0, 2)


def apart_mm(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(1e3 * np.linalg.norm(one - other, axis=2))


def waves(vertices: np.ndarray, frames: int, seed: int = 0) -> np.ndarray:
    """Offsets of some millimetres that change over some centimetres."""
    random = np.random.default_rng(seed)
    places = np.sin(vertices.astype(float) @ random.normal(0, 30, (3, 6)) + random.uniform(0, 6, 6))
    return np.asarray(np.einsum("vw,twc->tvc", places, random.normal(0, 0.002, (frames, 6, 3))), np.float32)


# Reading.


def test_an_image_is_read_as_the_atlas_reads_it():
    random = np.random.default_rng(0)
    points, image = random.random((200, 2)), random.random((16, 16, 3))
    read = bilinear(points, 16) @ image.reshape(-1, 3)
    assert np.allclose(read, sample(image, points), atol=1e-6)


def test_a_ramp_is_read_exactly_and_held_beyond_the_outermost_texels():
    size = 8
    ramp = np.broadcast_to((np.arange(size) + 0.5) / size, (size, size)).ravel()
    u = np.array([0.0, 0.01, 1 / 16, 0.3, 0.5, 15 / 16, 1.0])
    points = np.stack([u, np.linspace(0, 1, len(u))], 1)
    assert np.allclose(bilinear(points, size) @ ramp, np.clip(u, 1 / 16, 15 / 16))


def test_row_0_is_the_top():
    image = np.arange(16.0)
    assert (bilinear(np.array([[1 / 8, 7 / 8], [7 / 8, 1 / 8]]), 4) @ image).tolist() == [0, 15]


# Motion: the shipped head at 128².


def test_motion_comes_back_to_a_thirtieth_of_a_millimetre():
    """Waves of 4 mm, on the skin: off by 0.03 mm on the average, and nowhere by more than 0.6 mm."""
    head = shipped_head()
    offsets = waves(head.atlas.vertices, 2)
    error = apart_mm(there_and_back(shipped_maps(), offsets), offsets)[:, head.part("skin")]
    assert np.linalg.norm(offsets, axis=2).mean() > 0.003
    assert error.mean() < 1 / 30
    assert np.percentile(error, 99) < 0.3
    assert error.max() < 0.6


def test_a_head_that_turns_and_grows_comes_back_whole():
    """By 11 mm on the average, off by 0.02 mm; teeth and eyes, which are a few texels high, by 0.04 mm at most."""
    head = shipped_head()
    turned = 0.05 * head.atlas.vertices @ np.random.default_rng(0).normal(size=(3, 3)) + [0.003, -0.002, 0.001]
    error = apart_mm(there_and_back(shipped_maps(), turned[None]), turned[None])[0]
    assert np.linalg.norm(turned, axis=1).mean() > 0.01
    assert error.mean() < 0.025
    assert error.max() < 0.4
    for chart in STIFF:
        assert error[head.part(chart)].max() < 0.04


def test_nothing_bleeds_across_the_slit_of_the_mouth():
    """The upper lip stays and the lower one drops by a centimetre; neither is off by a quarter of a millimetre."""
    head = shipped_head()
    strength = np.minimum(np.asarray(head.seal.field.sum(1)).ravel(), 0)
    offsets = np.zeros((1, len(head.atlas.vertices), 3), np.float32)
    offsets[0, :, 1] = 0.01 * strength / -strength.min()
    error = apart_mm(there_and_back(shipped_maps(), offsets), offsets)[0, head.rim]
    assert np.ptp(offsets[0, head.rim, 1]) == pytest.approx(0.01, rel=0.2)
    assert error.max() < 0.25


def test_teeth_and_eyes_are_stiff_whatever_the_map_says():
    """What is read there is an affine field: of the place, nothing else."""
    head, image = shipped_head(), np.random.default_rng(0).standard_normal((128 * 128, 3))
    read = shipped_maps().at_vertices @ image
    for chart in STIFF:
        members = head.part(chart)
        place = np.c_[head.atlas.vertices[members].astype(float), np.ones(len(members))]
        fitted = place @ np.linalg.lstsq(place, read[members], rcond=None)[0]
        assert np.abs(read[members] - fitted).max() < 1e-6
        assert np.ptp(read[members], axis=0).min() > 1e-3


# Motion: any head.


def test_a_head_at_rest_is_a_black_map():
    assert not tiny_maps().rasterise(np.zeros((2, len(tiny_head().atlas.vertices), 3))).any()


def test_maps_are_linear_and_frames_and_axes_apart():
    offsets = waves(tiny_head().atlas.vertices, 3).astype(float)
    images = tiny_maps().rasterise(offsets)
    assert images.shape == (3, 32, 32, 3)
    assert images.dtype == np.float32
    mixed = tiny_maps().rasterise((2 * offsets[0] - 3 * offsets[2])[None, :, ::-1])[0, ..., ::-1]
    assert np.allclose(mixed, 2 * images[0] - 3 * images[2], atol=1e-4)


def test_a_shift_of_the_head_is_a_flat_map_of_as_many_units():
    offsets = np.broadcast_to([0.0, MOTION_UNIT_M, -2 * MOTION_UNIT_M], (1, len(tiny_head().atlas.vertices), 3))
    assert np.allclose(tiny_maps().rasterise(offsets), [0, 1, -2], atol=1e-4)


def test_a_head_without_stiff_charts_is_read_at_its_vertices():
    """The tiny head has one eye, `eye_left`, and no teeth; its skin is read bilinearly and no more."""
    read, skin = tiny_maps().at_vertices, tiny_head().part("skin")
    plain = bilinear(tiny_head().atlas.vertex_uvs, 32)
    assert abs(read[skin] - plain[skin]).max() == 0


# Wrinkles.


def test_a_neutral_texture_is_a_half_and_nothing_to_the_networks():
    neutral = wrinkle_map(np.zeros((2, 2, 3)))
    assert (neutral == 0.5).all()
    assert (to_network(neutral) == 0).all()


def test_darker_and_lighter_are_symmetric_and_in_order():
    ratios = np.linspace(0, 2, 50, dtype=np.float32)
    assert np.allclose(wrinkle_map(-ratios), 1 - wrinkle_map(ratios), atol=1e-6)
    assert (np.diff(wrinkle_map(ratios)) > 0).all()


def test_a_log_ratio_is_the_fourth_of_the_logit():
    assert wrinkle_map(np.array([np.log(3) / 4])) == pytest.approx(0.75)
    assert log_ratio(np.array([0.75, 0.25])) == pytest.approx([np.log(3) / 4, -np.log(3) / 4])


def test_log_ratios_come_back_and_stop_at_one_and_a_half():
    ratios = np.linspace(-1.4, 1.4, 99)
    assert np.allclose(log_ratio(wrinkle_map(ratios)), ratios, atol=1e-4)
    assert log_ratio(np.array([-3.0, 0.0, 1.0, 2.0])) == pytest.approx([-1.5, -1.5, 1.5, 1.5], abs=3e-3)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_all_is_float32_whatever_comes(kind):
    for function in (wrinkle_map, log_ratio, to_network, from_network):
        assert function(np.full((2, 2, 3), 0.3, kind)).dtype == np.float32


def test_networks_give_back_what_they_are_given():
    images = np.random.default_rng(0).random((4, 4, 3), np.float32)
    assert np.allclose(from_network(to_network(images)), images, atol=1e-6)


def test_eight_bits_of_a_map_are_enough():
    """Textures of lines within ±0.5 are the same to 55 dB after their maps went through 8 bits."""
    ratios = np.random.default_rng(0).uniform(-0.5, 0.5, (64, 64, 3))
    back = log_ratio(np.round(255 * wrinkle_map(ratios)) / 255)
    assert -10 * np.log10(((np.exp(back - ratios) - 1) ** 2).mean()) > 55
