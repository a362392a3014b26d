"""Larger maps: what they show stays, what is finer is the network's, and strips are the whole."""

import numpy as np
import pytest
from test_upsampler import network, wrinkles
from tiny import TORCH

from models.errors import OutOfRange
from models.textalker.detail import rows_at, upsample_map
from models.textalker.upsampler import MapUpsampler, guide_of

UPSAMPLER = MapUpsampler(network(), TORCH)
"""From 32² to 128²; it adds noise."""


def smooth(size: int, seed: int = 0) -> np.ndarray:
    """A map of log-ratios that 8² texels can hold."""
    coarse = np.random.default_rng(seed).normal(0, 0.1, (8, 8, 3)).astype(np.float32)
    return rows_at(coarse, size, slice(0, size))


def whole(image: np.ndarray, size: int, neutral: np.ndarray | None = None) -> np.ndarray:
    return np.concatenate(list(upsample_map(UPSAMPLER, image, size, neutral)))


def skin(size: int) -> np.ndarray:
    return np.random.default_rng(2).integers(90, 200, (size, size, 3), np.uint8)


def test_a_map_of_the_networks_own_size_is_what_the_network_makes_of_it() -> None:
    made = np.concatenate(list(UPSAMPLER.rows(wrinkles(), 512, guide_of(skin(64), 128))))
    np.testing.assert_array_equal(whole(wrinkles(), 512, skin(64)), made)


@pytest.mark.parametrize("own", [8, 32, 50, 64, 128, 256, 300])
@pytest.mark.parametrize("size", [128, 256])
def test_a_neutral_map_stays_neutral(own: int, size: int) -> None:
    assert not whole(np.zeros((own, own, 3), np.float16), size, skin(64)).any()


@pytest.mark.parametrize("own", [256, 512])
def test_a_map_that_is_large_enough_is_not_touched(own: int) -> None:
    """It comes back itself, or as the means of its texels."""
    image = np.random.default_rng(0).normal(0, 0.1, (own, own, 3)).astype(np.float32)
    means = image.reshape(256, own // 256, 256, own // 256, 3).mean((1, 3))
    np.testing.assert_allclose(whole(image, 256), means, atol=1e-6)


@pytest.mark.parametrize("own", [64, 128, 250])
def test_what_a_larger_map_shows_stays(own: int) -> None:
    """At half its resolution hardly any of the noise is left that the network adds there."""
    image, half = smooth(own), own // 2
    alone = np.concatenate(list(UPSAMPLER.rows(rows_at(image, 32, slice(0, 32)), 512)))
    wanted, kept, lost = (rows_at(map_, half, slice(0, half)) for map_ in (image, whole(image, 512), alone))
    assert (kept - wanted).std() < 0.15 * (lost - wanted).std()


def test_what_is_finer_is_the_networks() -> None:
    result, enlarged = whole(smooth(64), 512), rows_at(smooth(64), 512, slice(0, 512))
    assert (result - enlarged).std() > 0.01


def test_the_guide_is_seen() -> None:
    assert np.abs(whole(smooth(64), 256, skin(64)) - whole(smooth(64), 256)).max() > 1e-3


@pytest.mark.parametrize(("own", "size"), [(64, 512), (100, 256), (300, 128), (512, 128), (64, 64)])
def test_rows_are_the_same_whichever_are_asked_for(own: int, size: int) -> None:
    image = np.random.default_rng(0).normal(0, 1, (own, own, 3)).astype(np.float32)
    at_once = rows_at(image, size, slice(0, size))
    for start, stop in ((0, 8), (3, 29), (size - 7, size)):
        np.testing.assert_allclose(rows_at(image, size, slice(start, stop)), at_once[start:stop], atol=1e-5)


@pytest.mark.parametrize("own", [32, 64, 9000])
def test_a_size_that_cannot_be_had_is_refused_at_once(own: int) -> None:
    with pytest.raises(OutOfRange, match="a map of 3000 texels; wanted one of"):
        upsample_map(UPSAMPLER, np.broadcast_to(np.float16(0), (own, own, 3)), 3000)
