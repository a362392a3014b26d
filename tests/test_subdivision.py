"""Triangles cut into smaller ones cover the same surface, without a crack."""

import numpy as np
import pytest
from tiny import grid_faces, grid_plane

from models.subdivision import cut_faces
from models.surface import boundary_edges, face_areas

VERTICES = np.c_[grid_plane(4, 5), np.sin(grid_plane(4, 5).sum(1))]
FACES = grid_faces(4, 5)


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_small_faces_cover_the_large_ones(parts: int) -> None:
    """Parts² of equal area each, turned alike; points on common edges are one, and weights tell where they lie."""
    cut = cut_faces(FACES, parts)
    points = np.einsum("pk,pkd->pd", cut.weights, VERTICES[FACES[cut.face]])
    areas = face_areas(points, cut.faces).reshape(len(FACES), parts**2)
    assert areas == pytest.approx(np.tile(face_areas(VERTICES, FACES)[:, None] / parts**2, (1, parts**2)))
    assert len(points) == (3 * parts + 1) * (4 * parts + 1)
    assert len(boundary_edges(cut.faces)) == parts * len(boundary_edges(FACES))
    places = np.einsum("lk,fkd->fld", cut.lattice, VERTICES[FACES])
    assert points[cut.of] == pytest.approx(places)


def test_no_faces_are_cut_into_none() -> None:
    cut = cut_faces(FACES[:0], 3)
    assert cut.faces.shape == (0, 3)
    assert cut.of.shape == (0, 10)
