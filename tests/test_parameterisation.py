"""Surface → plane: similarities, angles, an independent solver, and no triangle upside down."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import cylinder, grid_faces, grid_plane, rotation, shipped_head

from models.parameterisation import lscm, magnify, mend_flips, signed_areas
from models.surface import boundary_mask, edge_distance

ROWS, COLUMNS = 9, 11
FACES = grid_faces(ROWS, COLUMNS)
FLAT = grid_plane(ROWS, COLUMNS) * [1.0, 0.8]


def complex_plane(plane: np.ndarray) -> np.ndarray:
    return plane[:, 0] + 1j * plane[:, 1]


def similarity_error(plane: np.ndarray, image: np.ndarray) -> float:
    """How far `image` is from a turned, scaled and moved `plane`, largest distance over the size of the image."""
    z = np.c_[complex_plane(plane), np.ones(len(plane))]
    fit = np.linalg.lstsq(z, complex_plane(image), rcond=None)[0]
    return float(np.abs(z @ fit - complex_plane(image)).max() / np.ptp(image, axis=0).max())


def angles(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corners = points[faces]
    ahead, behind = np.roll(corners, -1, 1) - corners, np.roll(corners, 1, 1) - corners
    cosine = (ahead * behind).sum(2) / np.linalg.norm(ahead, axis=2) / np.linalg.norm(behind, axis=2)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def face_patch() -> tuple[np.ndarray, np.ndarray]:
    """A curved, irregular disc: the shipped head's skin around the nose's tip."""
    atlas = shipped_head().atlas
    skin = atlas.faces[atlas.chart == 0]
    tip = np.array([np.argmax(np.where(np.isin(np.arange(len(atlas.vertices)), skin), atlas.vertices[:, 2], -1))])
    near = edge_distance(atlas.vertices.astype(float), skin, tip) < 0.04
    used, faces = np.unique(skin[near[skin].all(1)], return_inverse=True)
    return atlas.vertices[used].astype(float), faces.reshape(-1, 3)


@given(st.integers(0, 2**32 - 1))
def test_lscm_of_a_planar_patch_is_a_similarity_of_it(seed):
    """Wherever the patch lies in space, whichever two vertices are pinned, and wherever to."""
    random = np.random.default_rng(seed)
    plane = FLAT + 0.02 * random.uniform(-1, 1, FLAT.shape)
    space = np.c_[plane, np.zeros(len(plane))] @ rotation(seed).T + random.normal(size=3)
    pins = [0, len(plane) - 1 - int(random.integers(30))]
    target = np.array([[0.0, 0.0], random.normal(size=2) + 0.1])
    result = lscm(space, FACES, pins, target)
    assert similarity_error(plane, result) < 1e-7
    assert result[pins] == pytest.approx(target)


def test_lscm_unrolls_a_cylinder_and_keeps_every_angle():
    space, flat, faces = cylinder()
    result = lscm(space, faces, [0, len(flat) - 1], flat[[0, -1]])
    assert np.abs(angles(space, faces) - angles(result, faces)).max() < 1e-6
    assert result == pytest.approx(flat, abs=1e-9)


def test_lscm_equals_libigls():
    """On a curved patch, with the same pins."""
    igl = pytest.importorskip("igl", reason="the oracle is libigl")
    vertices, faces = face_patch()
    pins, target = [0, len(vertices) - 1], np.array([[0.0, 0.0], [1.0, 0.5]])
    answer = igl.lscm(vertices, faces.astype(np.int64), np.array(pins, np.int64), target)
    expected = next(part for part in answer if getattr(part, "shape", ()) == (len(vertices), 2))
    ours = lscm(vertices, faces, pins, target)
    assert np.ptp(ours, axis=0).min() > 0.1, "the patch is not degenerate"
    assert np.abs(ours - expected).max() < 1e-8


def test_signed_areas_are_half_a_cross_product():
    corners = np.array([[0.0, 0], [3, 0], [0, 2]])
    assert signed_areas(corners, np.array([[0, 1, 2], [0, 2, 1], [0, 0, 1]])).tolist() == [3, -3, 0]


def test_mend_flips_unfolds_a_planted_flip_and_keeps_the_boundary():
    planted = FLAT.copy()
    middle = (ROWS // 2) * COLUMNS + COLUMNS // 2
    planted[middle] += [0.35, 0.1]
    assert (signed_areas(planted, FACES) < 0).any()
    mended = mend_flips(planted, FACES)
    border = boundary_mask(FACES, len(FLAT))
    assert (signed_areas(mended, FACES) > 0).all()
    assert np.array_equal(mended[border], planted[border])
    assert np.array_equal(mended[[COLUMNS + 1, -COLUMNS - 2]], planted[[COLUMNS + 1, -COLUMNS - 2]]), "far off"


def test_mend_flips_beside_the_boundary_keeps_the_boundary():
    planted = FLAT.copy()
    planted[COLUMNS + 3] += [0.15, 0.0]
    assert (signed_areas(planted, FACES) < 0).any()
    mended = mend_flips(planted, FACES)
    border = boundary_mask(FACES, len(FLAT))
    assert (signed_areas(mended, FACES) > 0).all()
    assert np.array_equal(mended[border], FLAT[border])


def test_mend_flips_leaves_a_sound_plane_as_it_is():
    assert np.array_equal(mend_flips(FLAT, FACES), FLAT)


def test_mend_flips_grows_triangles_under_the_floor():
    planted = FLAT.copy()
    middle = (ROWS // 2) * COLUMNS + COLUMNS // 2
    planted[middle] = planted[middle + 1] - [0.001, 0]
    floor = 0.2 * signed_areas(FLAT, FACES).min()
    assert 0 < signed_areas(planted, FACES).min() < floor
    assert signed_areas(mend_flips(planted, FACES, floor=floor), FACES).min() > floor


def test_mend_flips_refuses_what_its_boundary_forbids():
    """One triangle, upside down: all of it is boundary."""
    with pytest.raises(ValueError, match="1 triangles are still flipped"):
        mend_flips(np.array([[0.0, 0], [1, 0], [0, 1]]), np.array([[0, 2, 1]]))


@pytest.mark.parametrize("gain", [0.5, 1.0, 2.0])
def test_magnify_moves_nothing_outside_and_folds_nothing_inside(gain):
    faces, plane = grid_faces(60, 60), grid_plane(60, 60)
    centre, radii = np.array([0.45, 0.55]), np.array([0.3, 0.2])
    result = magnify(plane, centre, radii, gain)
    outside = (((plane - centre) / radii) ** 2).sum(1) >= 1
    assert np.abs(result - plane)[outside].max() < 1e-12
    assert np.abs(result - plane)[~outside].max() > 0.01
    assert signed_areas(result, faces).min() > 0


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_magnify_enlarges_the_centre_by_its_gain(gain):
    centre, radii = np.array([0.3, 0.6]), np.array([0.2, 0.1])
    offsets = 1e-5 * np.array([[1, 0], [0, 1], [-1, -1]])
    moved = magnify(centre + offsets, centre, radii, gain) - centre
    assert moved == pytest.approx((1 + gain) * offsets, rel=1e-3)


def test_magnify_by_nothing_is_the_identity():
    assert np.abs(magnify(FLAT, np.array([0.5, 0.4]), np.array([0.3, 0.3]), 0.0) - FLAT).max() < 1e-15
