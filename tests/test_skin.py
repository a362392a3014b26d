"""The neutral skin: strips are the whole, large images average to small ones, pores are where faces have them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import shipped_head

from models.errors import OutOfRange
from models.skin.cabinet import skin_file
from models.skin.marks import Marks, draw
from models.skin.neutral import PORE_M, NeutralSkin
from models.skin.relief import draw_grain, furrows
from models.texels import Surface, skin_texels


@cache
def skin() -> NeutralSkin:
    return NeutralSkin(shipped_head())


@cache
def whole(size: int = 256) -> np.ndarray:
    return np.concatenate(list(skin().rows(size)))


def covered(size: int) -> np.ndarray:
    mask = np.zeros(size * size, bool)
    mask[skin_texels(shipped_head(), size).index] = True
    return mask.reshape(size, size)


def decibels(image: np.ndarray, wanted: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(image.astype(float) - wanted).mean()))


def test_strips_and_windows_are_parts_of_the_whole():
    np.testing.assert_array_equal(np.concatenate(list(skin().rows(256, 100))), whole())
    np.testing.assert_array_equal(skin().window(256, slice(90, 130), slice(100, 170)), whole()[90:130, 100:170])


def test_several_workers_paint_what_one_does():
    np.testing.assert_array_equal(np.concatenate(list(skin().rows(256, 20, workers=3))), whole())


def test_workers_stop_when_nobody_reads_on():
    rows = skin().rows(256, 16, workers=2)
    np.testing.assert_array_equal(next(rows), whole()[:16])
    rows.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("skin")]


def test_the_skin_is_always_the_same():
    again = NeutralSkin(shipped_head()).window(256, slice(90, 130), slice(100, 170))
    np.testing.assert_array_equal(again, whole()[90:130, 100:170])


def test_a_large_skin_averages_to_a_small_one():
    large = np.concatenate(list(skin().rows(1024))).reshape(256, 4, 256, 4, 3).mean((1, 3))
    mask = covered(256)
    assert decibels(large[mask], whole()[mask]) > 36


def test_it_stays_near_the_small_base_colour():
    with Image.open(BytesIO(shipped_head().base_color_png)) as image:
        small = np.asarray(image.convert("RGB").resize((256, 256), Image.Resampling.BOX))
    mask = covered(256)
    assert decibels(whole()[mask], small[mask]) > 32


def test_pores_are_of_a_size_and_none_is_on_the_lips():
    """Deviations of 0.06 to 0.13 mm: 0.1 to 0.3 mm across. Most are on the nose."""
    pores, looks = skin()._pores, skin()._complexion
    position = shipped_head().atlas.vertices[shipped_head().atlas.faces[pores.face]].mean(1)
    assert PORE_M[0] <= pores.sigma_m.min() <= pores.sigma_m.max() <= PORE_M[1]
    on_lips = (np.abs(position[:, 0]) < 0.6 * looks.middle[0]) & (np.abs(position[:, 1] - looks.middle[1]) < 0.005)
    assert not (on_lips & (position[:, 2] > 0.09)).any()
    nose = np.linalg.norm(position - looks.nose, axis=1) < 0.012
    assert pores.amount[nose].mean() > 1.3 * pores.amount[~nose].mean()


@pytest.mark.parametrize("size", [0, 63, 20000])
def test_other_sizes_are_refused(size):
    with pytest.raises(OutOfRange, match=f"a skin of {size} texels; wanted 64 to 16384"):
        skin().rows(size)


def test_another_seed_moves_the_grain_and_nothing_else():
    window = slice(60, 124), slice(96, 160)
    own, other, none = (
        NeutralSkin(shipped_head(), *how).window(256, *window).astype(int) for how in ((0,), (5,), (0, 0.0))
    )
    assert 0.5 < (other - own).std() < 8
    np.testing.assert_allclose([own.mean(), other.mean()], none.mean(), atol=1)


def test_a_mark_is_round_on_the_skin_and_as_dark_as_it_says():
    """Its integral over the skin is 2π σ² · amount, in square metres, at any size."""
    head, size = shipped_head(), 1024
    face = head.faces_of("skin")
    number = int(np.flatnonzero(head.atlas.chart == head.charts.index("skin"))[len(face) // 3])
    mark = Marks(np.array([number]), head.atlas.corners[[number]].mean(1), np.array([4e-4]), np.array([0.5]))
    surface = Surface.of(head, size)
    image = draw(mark, surface, size, slice(0, size), slice(0, size))
    area = np.linalg.norm(np.cross(*surface.extent[number].T))
    np.testing.assert_allclose(image.sum() * area, 2 * np.pi * 4e-4**2 * 0.5, rtol=0.03)
    assert 0.2 < image.max() <= 0.5


def test_marks_of_a_window_are_those_of_the_whole():
    surface = Surface.of(shipped_head(), 128)
    everything = draw(skin()._freckles, surface, 128, slice(0, 128), slice(0, 128))
    part = draw(skin()._freckles, surface, 128, slice(30, 50), slice(20, 100))
    np.testing.assert_allclose(part, everything[30:50, 20:100], atol=1e-6)


def test_relief_is_level_on_average_and_fades_as_texels_grow():
    texels = {size: skin_texels(shipped_head(), size) for size in (128, 512)}
    for noise in (draw_grain, furrows):
        coarse, fine = (noise(own, 3) for own in texels.values())
        assert coarse.std() < 0.6 * fine.std()
        assert abs(fine.mean()) < 0.1 * max(fine.std(), 1e-3) + 0.02


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes that were painted; the brush is dry, and takes its colour from the head."""
    sizes: list[int] = []

    class Plain:
        def __init__(self, head) -> None:
            self._level = len(head.base_color_png) % 256

        def rows(self, size: int, workers: int):
            sizes.append(size)
            return (np.full((16, size, 3), self._level, np.uint8) for _ in range(size // 16))

    monkeypatch.setattr("models.skin.cabinet.NeutralSkin", Plain)
    return sizes


def test_a_skin_is_kept_as_a_png(tmp_path):
    with Image.open(skin_file(shipped_head(), 256, tmp_path)) as image:
        np.testing.assert_array_equal(np.asarray(image), whole())


def test_a_skin_is_painted_once_for_each_size(tmp_path: Path, painted):
    paths = [skin_file(shipped_head(), size, tmp_path) for size in (64, 128, 64)]
    assert painted == [64, 128]
    assert paths[0] == paths[2]
    assert sorted(tmp_path.rglob("*.*")) == sorted(set(paths))


def test_a_skin_that_is_damaged_or_missing_is_painted_again(tmp_path: Path, painted):
    path = skin_file(shipped_head(), 64, tmp_path)
    wanted = path.read_bytes()
    for broken in (wanted[:-1], wanted[:40], b""):
        path.write_bytes(broken)
        assert skin_file(shipped_head(), 64, tmp_path).read_bytes() == wanted
    path.unlink()
    assert skin_file(shipped_head(), 64, tmp_path).read_bytes() == wanted
    assert painted == [64] * 5


def test_another_head_has_another_skin(tmp_path: Path, painted):
    other = replace(shipped_head(), base_color_png=shipped_head().base_color_png + b" ")
    assert skin_file(other, 64, tmp_path) != skin_file(shipped_head(), 64, tmp_path)
    assert painted == [64, 64]


def test_threads_that_want_the_same_skin_paint_it_once(tmp_path: Path, painted):
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: skin_file(shipped_head(), 64, tmp_path), range(8)))
    assert len(paths) == 1
    assert painted == [64]


def test_a_skin_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("models.skin.neutral.NeutralSkin.window", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        skin_file(shipped_head(), 64, tmp_path, workers=2)
    assert not list(tmp_path.rglob("*.*"))


def test_the_cabinet_refuses_what_the_skin_does(tmp_path: Path):
    with pytest.raises(OutOfRange, match="a skin of 20000 texels; wanted 64 to 16384"):
        skin_file(shipped_head(), 20000, tmp_path)
