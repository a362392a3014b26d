"""Textures: neutral · exp(log ratio), and nothing else changes."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from service.encoders.textures import PLAIN, TextureComposer, png, resize


def noise_png(size: int = 32) -> bytes:
    return png(np.random.default_rng(1).integers(20, 236, (size, size, 3), np.uint8)).data


def pixels(data: bytes) -> np.ndarray:
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("size", [32, 96])
def test_a_map_of_zeros_gives_the_neutral_texture_value_for_value(size: int) -> None:
    composer = TextureComposer(noise_png(), size)
    assert composer.base.shape == (size, size, 3)
    assert (composer.compose(np.zeros((16, 16, 3), np.float16)) == composer.base).all()


def test_texels_two_texels_of_the_map_away_from_a_wrinkle_keep_the_neutral_value() -> None:
    maps = np.zeros((16, 16, 3), np.float16)
    maps[8, 8] = -0.5
    composer = TextureComposer(noise_png(), 96)
    changed = (composer.compose(maps) != composer.base).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert changed[8 * 6 + 3, 8 * 6 + 3]
    assert min(rows.min(), columns.min()) >= 6 * 6
    assert max(rows.max(), columns.max()) < 11 * 6


@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.25])
def test_a_constant_log_ratio_scales_the_neutral_texture(ratio: float) -> None:
    """Closed form, within the half value that rounding takes; nothing wraps around past white."""
    composer = TextureComposer(noise_png(), 64)
    texture = composer.compose(np.full((16, 16, 3), np.log(ratio), np.float16))
    assert np.abs(texture - np.clip(composer.base * ratio, 0, 255)).max() < 0.7


def test_a_neutral_texture_of_the_size_asked_for_is_the_meshs_own() -> None:
    assert (TextureComposer(noise_png(32), 32).base == pixels(noise_png(32))).all()
    assert (pixels(TextureComposer(noise_png(32), 32).neutral().data) == pixels(noise_png(32))).all()


def test_a_head_without_a_texture_has_the_grey_of_its_material() -> None:
    """0.8 in linear light."""
    composer = TextureComposer(None, 16)
    assert (composer.base == PLAIN).all()
    linear = ((PLAIN[0] / 255 + 0.055) / 1.055) ** 2.4
    assert linear == pytest.approx(0.8, abs=0.005)


def test_resizing_to_its_own_size_changes_nothing_and_a_ramp_stays_a_ramp() -> None:
    """Bicubic keeps straight lines, and puts texel centres where the atlas has them."""
    ramp = np.tile(((np.arange(16) + 0.5) / 16)[:, None, None], (1, 16, 3)).astype(np.float32)
    assert (resize(ramp, 16) == ramp).all()
    inner = slice(16, -16)  # where the kernel does not meet the border
    np.testing.assert_allclose(resize(ramp, 64)[inner, 0, 0], ((np.arange(64) + 0.5) / 64)[inner], atol=1e-6)


def test_a_picture_is_a_jpeg_near_the_texture_without_chroma_subsampling() -> None:
    smooth = resize(np.random.default_rng(2).integers(60, 200, (6, 6, 3)).astype(np.float32), 64)
    composer = TextureComposer(png(np.clip(smooth, 0, 255).astype(np.uint8)).data, 64)
    maps = np.zeros((16, 16, 3), np.float16)
    maps[5:9] = -0.3
    picture = composer.picture(maps)
    assert picture.media_type == "image/jpeg"
    with Image.open(BytesIO(picture.data)) as image:
        assert image.format == "JPEG"
        assert [(horizontal, vertical) for _, horizontal, vertical, _ in image.layer] == [(1, 1)] * 3
    assert np.abs(pixels(picture.data).astype(int) - composer.compose(maps)).mean() < 1.5


def test_a_grey_png_with_alpha_is_read_as_colour() -> None:
    file = BytesIO()
    Image.new("LA", (8, 8), (90, 128)).save(file, "png")
    assert (TextureComposer(file.getvalue(), 8).base == 90).all()
