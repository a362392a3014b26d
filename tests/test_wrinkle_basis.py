"""The wrinkle basis: what its textures and weights give back, and how truly it states its error."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from test_encoders import folds
from test_layout import covered, laid, mirrored
from test_textures import noise_png, pixels

from models.core import Enlarger
from models.relayout import Relayout
from service.encoders import spool, wrinkle_basis
from service.encoders.textures import TextureComposer, png, resize
from service.encoders.wrinkle_basis import MAX_TEXTURES, BasisFit, WrinkleBasis

SIZE = 16


class Creaser:
    """Enlarges bicubically, and puts fine lines where a map is dark: no sum of maps gives the sum of these."""

    large = 4 * SIZE

    def __init__(self, depth: float) -> None:
        self.lines = -depth * (np.arange(self.large) % 2)[:, None, None].astype(np.float32)

    def image(self, wrinkles: np.ndarray) -> np.ndarray:
        smooth = resize(wrinkles, self.large)
        return smooth + self.lines * np.clip(-smooth, 0, None)

    def rows(self, image: np.ndarray, size: int) -> Iterator[np.ndarray]:
        return iter(np.split(resize(image, size), 4))

    def on_atlas(self, texture: np.ndarray) -> np.ndarray:
        return texture


def fitted(
    maps: np.ndarray, size: int = SIZE, enlarger: Enlarger | None = None, neutral: bytes | None = None
) -> WrinkleBasis:
    fit = BasisFit(neutral or noise_png(), size, enlarger)
    for each in maps:
        fit.append(each)
    passes = fit.fit()
    try:
        while True:
            assert next(passes) == b""
    except StopIteration as end:
        fit.close()
        return end.value


def played(basis: WrinkleBasis) -> np.ndarray:
    """The log ratios as a reader of the file makes them."""
    fields = basis.fields()
    textures = np.stack([pixels(picture.data) for picture in basis.pictures]) / 255
    shapes = textures * np.array(fields["scale"])[:, None, None, None]
    shapes += np.array(fields["offset"])[:, None, None, None]
    return np.einsum("tk,kyxc->tyxc", np.array(fields["weights"]), shapes)


def psnr_db(given: np.ndarray, wanted: np.ndarray) -> float:
    """Of textures, over the texels that change."""
    base = TextureComposer(noise_png(), SIZE).base.astype(float)
    changing = wanted.any(axis=(0, 3))
    error = ((np.exp(given) - np.exp(wanted.astype(float))) * base)[:, changing]
    return 20 * math.log10(255 / np.sqrt((error**2).mean()))


def restless(frames: int = 60) -> np.ndarray:
    """Maps of more shapes than 8."""
    return folds(frames, rank=24)


def test_errors_are_weighed_by_the_texture_where_maps_lie() -> None:
    """Mirrored, a texture that is dark on the left, where wrinkles are, is dark on the right: they are as near."""
    maps = folds(20, 64, rank=24) * covered(64)[..., None] * (np.arange(64) < 32)[:, None]
    skin = np.full((64, 64, 3), 250, np.uint8)
    skin[:, :32] = 25
    plain = fitted(maps, 64, Relayout(laid(), None, 64), png(skin).data)
    moved = fitted(maps, 64, Relayout(laid(mirrored), None, 64), png(skin[:, ::-1]).data)
    for name in ("psnr_db", "enlarged_psnr_db"):
        assert getattr(moved, name) == pytest.approx(getattr(plain, name), abs=0.1)
    bright = fitted(maps, 64, Relayout(laid(mirrored), None, 64), png(skin).data)
    assert bright.psnr_db < plain.psnr_db - 10


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_wrinkles_of_few_shapes_come_back_up_to_rounding(rank: int) -> None:
    maps = folds(60, rank=rank)
    basis = fitted(maps)
    assert rank <= len(basis.pictures) <= MAX_TEXTURES
    assert psnr_db(played(basis), maps) > 48
    assert np.abs(played(basis) - maps).max() < 0.01


@pytest.mark.parametrize("maps", [folds(60), restless(), folds(1)], ids=["few", "many", "one frame"])
def test_the_stated_error_is_no_smaller_than_the_true_one_and_near_it(maps: np.ndarray) -> None:
    """Near it where the error is not that of storing the maps in 8 bits, some 63 dB."""
    basis = fitted(maps)
    true_db = psnr_db(played(basis), maps)
    assert basis.psnr_db is not None
    assert min(true_db, 63) - 2 < basis.psnr_db <= true_db


def test_eight_textures_come_near_the_best_eight() -> None:
    """Closed form: the truncated SVD has the smallest squared error of all sums of eight."""
    maps = restless()
    flat = maps.reshape(len(maps), -1).astype(float)
    strength = np.linalg.svd(flat, compute_uv=False)
    least = np.sqrt((strength[8:] ** 2).sum())
    basis = fitted(maps)
    assert len(basis.pictures) == MAX_TEXTURES
    assert np.linalg.norm(played(basis) - maps) < 1.1 * least


def test_texels_that_never_change_are_zero() -> None:
    assert not np.abs(played(fitted(restless()))[:, : SIZE // 4]).max() > 1e-15


def test_a_clip_without_a_wrinkle_needs_no_texture() -> None:
    basis = fitted(np.zeros((5, SIZE, SIZE, 3), np.float16))
    assert basis.weights.shape == (5, 0)
    assert basis.psnr_db is None
    assert basis.pictures == []


def test_nor_does_one_that_would_be_enlarged() -> None:
    basis = fitted(np.zeros((5, SIZE, SIZE, 3), np.float16), 64, Creaser(0.5))
    assert (basis.pictures, basis.psnr_db, basis.enlarged_psnr_db) == ([], None, None)


def test_textures_have_the_size_that_was_asked_for_and_show_the_same() -> None:
    maps = folds(40)
    large = played(fitted(maps, size=64))
    wanted = np.stack([resize(each, 64) for each in maps])
    assert large.shape == (40, 64, 64, 3)
    assert np.abs(large - wanted).max() < 0.02


def test_an_enlarger_that_interpolates_changes_next_to_nothing() -> None:
    maps = folds(40)
    plain, enlarged = played(fitted(maps, 64)), played(fitted(maps, 64, Creaser(0.0)))
    assert np.abs(enlarged - plain).max() < 0.02


def test_pictures_show_what_the_enlarger_adds_to_frames() -> None:
    """Few shapes, so that hardly anything but the enlarger's lines can differ; without them it is four times as far."""
    maps, creaser = folds(40, rank=3), Creaser(0.5)
    wanted = np.stack([creaser.image(each) for each in maps])
    enlarged, plain = (played(fitted(maps, 64, each)) for each in (creaser, Creaser(0.0)))
    assert 4 * np.abs(enlarged - wanted).mean() < np.abs(plain - wanted).mean()


def test_what_is_stated_of_enlarged_frames_is_true_of_all() -> None:
    """The frames that are checked are some of all."""
    maps, creaser = restless(), Creaser(0.5)
    basis = fitted(maps, 64, creaser)
    wanted = np.stack([creaser.image(each) for each in maps])
    base = TextureComposer(noise_png(), 64).base.astype(float)
    error = ((np.exp(played(basis)) - np.exp(wanted)) * base)[:, wanted.any(axis=(0, 3))]
    true_db = 20 * math.log10(255 / np.sqrt((error**2).mean()))
    assert basis.enlarged_psnr_db == pytest.approx(true_db, abs=2)
    assert fitted(maps).enlarged_psnr_db is None


def test_large_pictures_are_jpegs_that_leave_what_never_changes_at_zero() -> None:
    maps = folds(20, rank=1)
    basis = fitted(maps, 2048, Creaser(0.5))
    assert {each.media_type for each in basis.pictures} == {"image/jpeg"}
    moved = played(basis)
    assert np.abs(moved[:, : 2048 // 8]).max() < 1e-15
    assert np.abs(moved).max() > 0.1
    lossless = fitted(maps, 1024, Creaser(0.5))
    assert {each.media_type for each in lossless.pictures} == {"image/png"}
    assert basis.psnr_db is not None
    assert lossless.psnr_db is not None
    assert basis.psnr_db < lossless.psnr_db


def test_weights_are_at_most_about_one() -> None:
    weights = fitted(restless()).weights
    assert 0.8 < np.abs(weights).max() < 1.2
    assert (weights.sum(axis=0) > -0.2 * len(weights)).all()


def test_maps_that_outgrow_memory_give_the_same_basis(monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = fitted(restless())
    monkeypatch.setattr(spool, "MEMORY_BOUND", 1000)
    on_disk = fitted(restless())
    assert [each.data for each in in_memory.pictures] == [each.data for each in on_disk.pictures]
    assert (in_memory.weights == on_disk.weights).all()


def test_the_number_of_maps_held_at_once_changes_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted(restless())
    monkeypatch.setattr(wrinkle_basis, "_CHUNK_FRAMES", 7)
    assert np.abs(played(fitted(restless())) - played(whole)).max() < 1e-3


def test_the_spool_gives_back_what_it_said_it_stored() -> None:
    maps = restless().reshape(60, -1)
    store = spool.MapSpool()
    stored = [store.append(each) for each in maps]
    assert len(store) == 60
    assert all((read == kept).all() for read, kept in zip(store.maps(), stored, strict=True))
    assert np.abs(stored - maps).max() <= np.abs(maps).max() / 254 * 1.001
    store.close()
