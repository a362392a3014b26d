"""Wrinkles answer to strain alone, and a map of one size is the average of a larger one."""

import json
from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest
from PIL import Image
from tiny import shipped_head

from models.texels import skin_texels
from training.corpus import contact_sheet as sheet
from training.corpus.face import ACTIONS, FaceRig
from training.corpus.lines import FAMILIES
from training.corpus.wrinkles import WrinkleField, WrinkleStyle, draw_wrinkle_style

STILL = np.zeros(1)


@cache
def wrinkle_field() -> WrinkleField:
    return WrinkleField(shipped_head(), WrinkleStyle())


def squeezed(*strains: float) -> np.ndarray:
    """One frame of offsets: the head, about its middle, shortened by shares along x, y and z."""
    vertices = shipped_head().atlas.vertices
    return (-(vertices - vertices.mean(0)) * strains)[None].astype(np.float32)


def folded(offsets: np.ndarray, field: WrinkleField | None = None) -> dict[str, float]:
    """How far each family has folded on the average."""
    field = field or wrinkle_field()
    families = np.repeat([line.family for line in field.lines], [len(line.knots) for line in field.lines])
    row = field.activations(offsets, np.zeros(len(offsets)))[0, : len(families)]
    return {name: float(row[families == name].mean()) for name in FAMILIES}


@pytest.mark.parametrize("frames", [1, 3, 40])
def test_a_face_at_rest_has_no_wrinkles_at_all(frames):
    field = wrinkle_field()
    activations = field.activations(
        np.zeros((frames, len(shipped_head().atlas.vertices), 3), np.float32), np.zeros(frames)
    )
    assert activations.shape == (frames, len(field.tint))
    assert not activations.any()
    assert not field.maps(activations[:1], 64).any()


def test_turning_and_shifting_the_head_wrinkles_nothing():
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))
    vertices = shipped_head().atlas.vertices.astype(np.float64)
    offsets = vertices @ (turn * np.linalg.det(turn)).T + [0.1, -0.2, 0.3] - vertices
    assert np.abs(wrinkle_field().activations(offsets[None], STILL)).max() < 1e-9


def test_lines_fold_when_pressed_across_and_not_when_pressed_along():
    upright, sideways = folded(squeezed(0, 0.2, 0)), folded(squeezed(0.2, 0, 0))
    assert upright["forehead"] > 0.15 > 0.02 > sideways["forehead"]
    assert sideways["glabella"] > 0.1 > 0.02 > upright["glabella"]
    assert sideways["lip_creases"] > 0.04 > 0.02 > upright["lip_creases"]


def test_stretching_folds_nothing():
    assert max(folded(squeezed(-0.2, -0.2, -0.2)).values()) == 0


def test_more_compression_folds_more_and_never_beyond_the_styles_depth():
    depths = [folded(squeezed(0, strain, 0))["forehead"] for strain in (0.02, 0.05, 0.1, 0.3, 0.8)]
    assert (np.diff(depths) > 0).all()
    assert depths[-1] < WrinkleStyle().depth["forehead"]


def test_twice_the_depth_is_twice_the_log_ratio_of_that_family_alone():
    style = WrinkleStyle()
    deep = WrinkleField(shipped_head(), replace(style, depth={**style.depth, "forehead": 2 * style.depth["forehead"]}))
    before, after = folded(squeezed(0, 0.1, 0)), folded(squeezed(0, 0.1, 0), deep)
    assert after == pytest.approx({**before, "forehead": 2 * before["forehead"]}, rel=1e-5)


def test_frames_do_not_know_of_one_another():
    frames = np.concatenate([squeezed(0, k / 100, 0.1) for k in range(40)])
    contact = np.linspace(0, 1, 40)
    together = wrinkle_field().activations(frames, contact)
    for k in (0, 17, 39):
        np.testing.assert_array_equal(wrinkle_field().activations(frames[[k]], contact[[k]])[0], together[k])


def test_a_map_is_the_sum_of_basis_times_activation_times_tint():
    field = wrinkle_field()
    activations = np.random.default_rng(0).random((2, len(field.tint)), np.float32)
    basis, tint = field.basis(64)
    wanted = np.stack([(basis.toarray() * row) @ tint for row in activations]).reshape(2, 64, 64, 3)
    np.testing.assert_allclose(field.maps(activations, 64), wanted, atol=1e-5)


def test_rows_are_the_rows_of_the_map():
    field = wrinkle_field()
    activations = field.activations(squeezed(0.1, 0.2, 0), STILL)
    whole = field.maps(activations, 256)[0]
    np.testing.assert_array_equal(field.rows(activations[0], 256, slice(60, 90)), whole[60:90])
    window = field.rows(activations[0], 256, slice(60, 90), slice(100, 150))
    np.testing.assert_array_equal(window, whole[60:90, 100:150])


def test_traces_are_a_share_of_the_lines_and_of_nothing_else():
    field = wrinkle_field()
    faint, strong = (field.maps(field.traces(share)[None], 256)[0] for share in (0.1, 0.2))
    np.testing.assert_allclose(strong, 2 * faint, atol=1e-6)
    deepest = max(WrinkleStyle().depth.values())
    assert 0.3 * 0.2 * deepest < -strong.min() < 2 * 0.2 * deepest
    assert field.traces(0.2)[-1] == 0


def reduced(image: np.ndarray, times: int) -> np.ndarray:
    rows, columns, channels = image.shape
    return image.reshape(rows // times, times, columns // times, times, channels).mean((1, 3))


def decibels(image: np.ndarray, wanted: np.ndarray) -> float:
    """How much weaker their difference is than what is wanted."""
    return float(10 * np.log10((wanted**2).mean() / ((image - wanted) ** 2).mean()))


@pytest.mark.parametrize("strains", [(0, 0.2, 0), (0.2, 0, 0)])
def test_a_map_is_the_average_of_one_four_times_as_large(strains):
    """Within 30 dB of it (a thirtieth), on texels that the skin covers whole."""
    field, covered = wrinkle_field(), np.zeros(1024 * 1024)
    activations = field.activations(squeezed(*strains), STILL)
    covered[skin_texels(shipped_head(), 1024).index] = 1
    whole = reduced(covered.reshape(1024, 1024, 1), 4)[..., 0] == 1
    small, large = field.maps(activations, 256)[0], reduced(field.maps(activations, 1024)[0], 4)
    assert decibels(small[whole], large[whole]) > 30


def test_rows_at_8192_average_to_those_at_512():
    field = wrinkle_field()
    activations = field.activations(squeezed(0, 0.2, 0), STILL)[0]
    large = reduced(field.rows(activations, 8192, slice(1600, 1616)), 16)[0, 100:400]
    assert np.abs(large).max() > 0.02
    assert decibels(field.rows(activations, 512, slice(100, 101))[0, 100:400], large) > 30


def test_eyes_teeth_and_tongue_stay_as_they_are():
    head, field = shipped_head(), wrinkle_field()
    raster = head.atlas.rasterise(256)
    other = raster.covered & (head.atlas.chart[np.maximum(raster.face, 0)] != head.charts.index("skin"))
    activations = np.ones((1, len(field.tint)), np.float32)
    assert other.any()
    assert not field.maps(activations, 256)[0][other].any()


def test_lips_that_press_turn_pale_and_nothing_else_changes():
    field = wrinkle_field()
    pale = field.maps(field.activations(squeezed(0, 0, 0), np.ones(1)), 128)[0]
    changed = np.abs(pale).max(2) > 0
    assert 0 < changed.mean() < 0.05
    assert (pale[changed] > 0).all()
    assert pale[..., 1].max() > 2 * pale[..., 0].max()


def test_folds_are_dark_and_reddish():
    field = wrinkle_field()
    lines = sum(len(line.knots) for line in field.lines)
    activations = np.zeros((1, len(field.tint)), np.float32)
    activations[0, :lines] = 0.3
    image = field.maps(activations, 256)[0]
    row, column = np.unravel_index(image[..., 1].argmin(), image.shape[:2])
    red, green, blue = image[row, column]
    assert blue < green < red < -0.1


def test_one_seed_is_one_face():
    style = draw_wrinkle_style(np.random.default_rng(1), 0.7)
    one, same, other = (
        WrinkleField(shipped_head(), each).basis(64)[0] for each in (style, style, replace(style, seed=style.seed + 1))
    )
    np.testing.assert_array_equal(one.toarray(), same.toarray())
    assert one.shape != other.shape or (one != other).nnz


def test_a_style_survives_json():
    style = draw_wrinkle_style(np.random.default_rng(1), 0.7)
    assert WrinkleStyle(**json.loads(json.dumps(asdict(style)))) == style


def test_old_faces_fold_deeper_and_sooner_than_young_ones():
    young, old = ([draw_wrinkle_style(np.random.default_rng(k), age) for k in range(20)] for age in (0.5, 0.95))
    for name in FAMILIES:
        assert np.mean([s.depth[name] for s in old]) > 2.5 * np.mean([s.depth[name] for s in young])
    assert np.mean([s.onset for s in old]) < np.mean([s.onset for s in young])
    assert max(max(s.depth.values()) for s in old) <= 0.6


def test_the_contact_sheet_shows_every_expression(tmp_path, monkeypatch):
    monkeypatch.setattr(sheet, "TEXTURE", 64)
    monkeypatch.setattr(sheet, "FACE", 40)
    basis = np.zeros((len(ACTIONS), len(shipped_head().atlas.vertices), 3), np.float32)
    basis[ACTIONS.index("jawOpen")] = squeezed(0, 0.3, 0)[0]
    sheet.contact_sheet(shipped_head(), FaceRig(shipped_head(), basis), WrinkleStyle(), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        pixels = np.asarray(image).astype(int)
    rows = -(-len(sheet.EXPRESSIONS) // sheet.COLUMNS)
    assert pixels.shape == (rows * 40, sheet.COLUMNS * 80, 3)
    tiles = pixels.reshape(rows, 40, sheet.COLUMNS, 80, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 40, 80, 3)
    names = list(sheet.EXPRESSIONS)
    still, opened = tiles[names.index("neutral")], tiles[names.index("jaw open")]
    assert np.abs(opened - still)[20:, :40].max() > 30
    assert (still[20:, 40:] == 127).all()
    assert not (opened[20:, 40:] == 127).all()
