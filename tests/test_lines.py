"""Lines lie on the skin, where their family belongs, and texels see their profile blurred as a box would blur it."""

from functools import cache

import numpy as np
import pytest
from scipy.spatial import cKDTree
from tiny import shipped_head

from models.skin.relief import draw_grain
from models.texels import skin_texels
from training.corpus.canvas import Canvas
from training.corpus.lines import FAMILIES, Line, Manner, draw_lines
from training.corpus.profiles import draw_line, profile

MANNER = Manner(0.7, 0.3, 0.8, 0.35, 0.5)


@cache
def canvas() -> Canvas:
    return Canvas(shipped_head())


@cache
def lines() -> list[Line]:
    return draw_lines(canvas(), MANNER, 0)


def test_lifting_undoes_unrolling():
    drawing = np.stack([np.linspace(-40, 40, 50), np.linspace(110, 180, 50)], 1)
    points, normals = canvas().lift(drawing)
    np.testing.assert_allclose(canvas().unroll(points), drawing, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)
    assert (normals[:, 2] > 0).all()


def test_a_drawing_beside_the_head_meets_no_skin():
    assert len(canvas().lift(np.array([[0.0, 400.0], [5.0, 400.0]])).points) == 0


def test_landmarks_are_in_the_order_of_a_face():
    marks = canvas().landmarks
    assert 0 < marks.inner_eye.across < marks.outer_eye.across
    assert marks.lips.up < marks.nose.up < marks.inner_eye.up
    assert marks.inner_eye.across < marks.mouth.across + 3 < marks.outer_eye.across


def test_every_family_is_drawn():
    assert {line.family for line in lines()} == set(FAMILIES)


def test_lines_lie_on_the_skin_and_fade_at_both_ends():
    tree = cKDTree(skin_texels(shipped_head(), 512).position)
    for line in lines():
        assert tree.query(line.points)[0].max() < 1.2e-3
        assert line.depth[[0, -1]].max() < 1e-6 < line.depth.max()
        assert (line.knots[0], line.knots[-1]) == (0, len(line.points) - 1)
        np.testing.assert_allclose((line.across * line.normals).sum(1), 0, atol=1e-9)


@pytest.mark.parametrize(
    ("family", "lowest", "highest"), [("forehead", 15, 70), ("crows_feet", -25, 25), ("neck", -135, -105)]
)
def test_families_lie_where_they_belong(family, lowest, highest):
    """Heights in millimetres above the eyes."""
    eyes = canvas().landmarks.inner_eye.up
    heights = np.concatenate([canvas().unroll(line.points)[:, 1] for line in lines() if line.family == family]) - eyes
    assert lowest < heights.min() < heights.max() < highest


def test_older_manners_draw_more_lines():
    assert len(draw_lines(canvas(), MANNER._replace(finer=3.0, branching=1.0), 0)) > len(lines())


@pytest.mark.parametrize("width", [0.2, 1.0, 2.0])
def test_a_blurred_profile_is_the_profile_under_a_box(width):
    """Texels of up to two deviations of the core; to a hundredth of the depth."""
    across, box = np.linspace(-9, 9, 1801), np.linspace(-width / 2, width / 2, 201)
    one, none = np.ones_like(across), np.zeros_like(across)
    wanted = np.mean([profile(across + step, one, none, 0.5) for step in box], axis=0)
    np.testing.assert_allclose(profile(across, one, one * width**2 / 12, 0.5), wanted, atol=0.01)


def test_a_line_that_leans_swells_on_one_side():
    across = np.array([-4.0, 4.0])
    right, left = profile(across, np.ones(2), np.zeros(2), 1.0)
    assert left < -0.05 < 0.1 < right


def test_shares_between_knots_add_up_to_the_line():
    line, texels = lines()[0], skin_texels(shipped_head(), 512)
    texel, knot, value = draw_line(line, texels)
    seen = np.bincount(texel, value, len(texels.index))
    middle = cKDTree(texels.position).query(line.points[line.depth.argmax()])[1]
    assert set(knot) == set(range(len(line.knots)))
    assert 0.5 * line.depth.max() < seen[middle] < 1.05 * line.depth.max()


def test_grain_fades_as_texels_grow():
    spreads = [draw_grain(skin_texels(shipped_head(), size), 0).std() for size in (128, 512)]
    assert spreads[0] < 0.5 * spreads[1]
    assert spreads[1] == pytest.approx(0.85, abs=0.15)
