"""Meshes as graphs: closed-form answers on grids."""

import numpy as np
import pytest
from tiny import grid_faces, grid_plane

from models.surface import boundary_edges, boundary_loops, boundary_mask, edge_distance, pieces, vertex_neighbours

ROWS, COLUMNS = 5, 7
DISC = grid_faces(ROWS, COLUMNS)
COUNT = ROWS * COLUMNS
ROW, COLUMN = np.divmod(np.arange(COUNT), COLUMNS)


def ring(segments: int = 8) -> np.ndarray:
    """Faces of an annulus: `segments` vertices inside, as many outside, counter-clockwise."""
    inner = np.arange(segments)
    step = np.roll(inner, -1)
    return np.concatenate(
        [np.stack([inner, inner + segments, step], 1), np.stack([step, inner + segments, step + segments], 1)]
    )


def turns(loop: np.ndarray, start: int) -> list[int]:
    """A loop from `start` on."""
    return np.roll(loop, -int(np.flatnonzero(loop == start)[0])).tolist()


def test_boundary_mask_is_the_grids_frame():
    frame = (ROW == 0) | (ROW == ROWS - 1) | (COLUMN == 0) | (COLUMN == COLUMNS - 1)
    assert np.array_equal(boundary_mask(DISC, COUNT), frame)


def test_boundary_edges_keep_the_direction_of_their_triangle():
    directed = {(int(a), int(b)) for face in DISC for a, b in zip(face, np.roll(face, -1), strict=True)}
    assert {tuple(edge) for edge in boundary_edges(DISC).tolist()} <= directed


def test_a_disc_has_one_loop_counter_clockwise():
    (loop,) = boundary_loops(DISC)
    below, right = list(range(COLUMNS)), list(range(2 * COLUMNS - 1, COUNT, COLUMNS))
    above, left = list(range(COUNT - 2, COUNT - COLUMNS - 1, -1)), list(range(COUNT - 2 * COLUMNS, 0, -COLUMNS))
    assert turns(loop, 0) == below + right + above + left


def test_an_annulus_has_two_loops_with_the_surface_on_their_left():
    outer, inner = sorted(boundary_loops(ring()), key=lambda loop: -loop.max())
    assert turns(outer, 8) == list(range(8, 16))
    assert turns(inner, 0) == [0, *range(7, 0, -1)]


def test_loops_come_longest_first():
    faces = np.concatenate([grid_faces(2, 2), grid_faces(4, 4) + 4])
    assert [len(loop) for loop in boundary_loops(faces)] == [12, 4]


def test_a_closed_surface_has_no_loop():
    tetrahedron = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    assert boundary_loops(tetrahedron) == []


def test_loops_that_touch_in_a_vertex_are_both_found():
    assert sorted(len(loop) for loop in boundary_loops(np.array([[0, 1, 2], [0, 3, 4]]))) in ([3, 3], [6])


def test_neighbours_of_a_quad_are_all_but_one():
    adjacency = vertex_neighbours(np.array([[0, 1, 2], [0, 2, 3]]), 5).toarray()
    assert np.array_equal(
        adjacency, [[0, 1, 1, 1, 0], [1, 0, 1, 0, 0], [1, 1, 0, 1, 0], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]]
    )


def test_pieces_are_numbered_apart():
    number = pieces(np.concatenate([DISC, DISC + COUNT]), 2 * COUNT + 1)
    assert [len(set(number[part])) for part in (slice(0, COUNT), slice(COUNT, 2 * COUNT))] == [1, 1]
    assert len(set(number)) == 3, "a vertex of no face is a piece of its own"


def test_edge_distance_on_a_grid_takes_its_diagonals():
    """Quads are split from lower left to upper right: up that way a diagonal replaces two sides."""
    step = 0.25
    vertices = np.c_[step * COLUMN, step * ROW, np.zeros(COUNT)]
    short, long = np.minimum(ROW, COLUMN), np.maximum(ROW, COLUMN)
    expected = step * (np.sqrt(2) * short + long - short)
    assert edge_distance(vertices, DISC, np.array([0])) == pytest.approx(expected)


def test_edge_distance_is_the_nearest_sources():
    random = np.random.default_rng(0)
    vertices = np.c_[grid_plane(ROWS, COLUMNS), random.random(COUNT)]
    each = [edge_distance(vertices, DISC, np.array([source])) for source in (3, 20, 34)]
    assert np.array_equal(edge_distance(vertices, DISC, np.array([3, 20, 34])), np.min(each, axis=0))


def test_edge_distance_is_infinite_without_a_path():
    vertices = np.random.default_rng(0).random((2 * COUNT, 3))
    distance = edge_distance(vertices, np.concatenate([DISC, DISC + COUNT]), np.array([0]))
    assert np.isfinite(distance[:COUNT]).all()
    assert np.isinf(distance[COUNT:]).all()
