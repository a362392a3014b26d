"""Strain: the derivative of a known field is known, wherever it is asked."""

import numpy as np
from tiny import grid_faces, grid_plane, shipped_head

from training.corpus.strain import Patches, Surface, apply, derivative, length, skin_patches, skin_surface

SIGMA_M = 0.01


def sheet() -> tuple[np.ndarray, Surface]:
    """A flat sheet of 0.1 m × 0.1 m in the plane of x and y, facing z: vertices and surface."""
    vertices, faces = np.c_[0.1 * grid_plane(11, 11), np.zeros(121)], grid_faces(11, 11)
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    doubled = np.linalg.norm(normals, axis=1, keepdims=True)
    normals /= doubled
    gradients = np.cross(normals[:, None], np.roll(corners, -2, 1) - np.roll(corners, -1, 1)) / doubled[:, None]
    return vertices, Surface(faces, corners.mean(1), normals, doubled[:, 0] / 2, gradients, 121)


def test_the_derivative_of_an_affine_field_is_its_matrix_times_the_direction():
    vertices, surface = sheet()
    random = np.random.default_rng(0)
    matrix, places = random.standard_normal((3, 3)), np.c_[random.uniform(0.02, 0.08, (5, 2)), np.zeros(5)]
    directions = np.c_[random.standard_normal((5, 2)), np.zeros(5)]
    asked = derivative(surface, places, np.tile([0.0, 0.0, 1.0], (5, 1)), directions, np.full(5, SIGMA_M))
    np.testing.assert_allclose(asked @ (vertices @ matrix.T + 1), directions @ matrix.T, atol=1e-9)


def test_skin_that_faces_the_other_way_is_not_felt():
    vertices, surface = sheet()
    behind = derivative(
        surface, np.array([[0.05, 0.05, 0]]), *np.array([[[0.0, 0, -1]], [[1.0, 0, 0]]]), np.full(1, 0.01)
    )
    assert not (behind @ vertices).any()


def test_area_is_the_product_of_two_stretches():
    vertices, surface = sheet()
    patches = skin_patches(surface, vertices, np.array([60]), SIGMA_M)
    area, _ = patches.measure(np.stack([vertices, vertices * [0.5, 3.0, 1.0]]))
    np.testing.assert_allclose(area[1] / area[0], 1.5, rtol=1e-9)


def test_a_dent_is_deep_and_a_bump_is_not():
    vertices, surface = sheet()
    patches = skin_patches(surface, vertices, np.array([60]), SIGMA_M)
    dent = -0.002 * np.exp(-(((vertices - vertices[60]) / 0.015) ** 2).sum(1))[:, None] * [0, 0, 1]
    _, depth = patches.measure(np.stack([vertices, vertices + dent, vertices - dent]))
    assert abs(depth[0, 0]) < 1e-12
    assert depth[1, 0] > 5e-4
    np.testing.assert_allclose(depth[2], -depth[1], rtol=1e-6)


def test_no_rigid_motion_strains_the_skin():
    head, surface = shipped_head(), skin_surface(shipped_head())
    vertices = head.atlas.vertices.astype(np.float64)
    patches: Patches = skin_patches(surface, vertices, np.unique(surface.faces)[::50], 0.004)
    turned = vertices @ np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0] + 1
    spans = [length(apply(patches.spans[0], each[None])) for each in (vertices, turned)]
    np.testing.assert_allclose(spans[1], spans[0], rtol=1e-8)
