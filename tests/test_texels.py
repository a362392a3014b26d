"""Every pixel of a square belongs to one triangle, and strips of a head's texels are parts of the whole."""

import numpy as np
from tiny import grid_faces, grid_plane, shipped_head

from models.texels import chart_texels, rasterise, skin_texels


def test_triangles_cover_every_pixel_of_their_square_once():
    plane = 20.0 * grid_plane(5, 5) - [0.487, 0.471]
    found = rasterise(plane[grid_faces(5, 5)], slice(0, 20), slice(0, 20))
    assert len(found.row) == 400
    assert len(set(zip(found.row.tolist(), found.column.tolist(), strict=True))) == 400


def test_weights_lead_back_to_the_pixel():
    corners = np.random.default_rng(0).uniform(-5, 25, (30, 3, 2))
    found = rasterise(corners, slice(3, 17), slice(0, 20))
    place = np.einsum("nk,nkd->nd", found.weights, corners[found.face])
    np.testing.assert_allclose(place, np.stack([found.column, found.row], 1), atol=1e-6)
    assert found.row.min() >= 3
    assert found.row.max() < 17


def test_a_margin_reaches_so_many_pixels_beyond_an_edge():
    found = rasterise(np.array([[[5.0, 5.0], [5.0, 15.0], [15.0, 5.0]]]), slice(0, 20), slice(0, 20), margin=2.0)
    assert found.column.min() == 3
    np.testing.assert_allclose(found.inside[(found.row == 8) & (found.column == 3)], -2)


def test_degenerate_triangles_cover_nothing():
    assert len(rasterise(np.array([[[1.0, 1.0], [5.0, 5.0], [9.0, 9.0]]]), slice(0, 10), slice(0, 10)).row) == 0


def test_texels_of_a_strip_are_those_of_the_whole():
    head = shipped_head()
    whole, strip = skin_texels(head, 128), skin_texels(head, 128, slice(40, 60))
    inside = (whole.index >= 40 * 128) & (whole.index < 60 * 128)
    np.testing.assert_array_equal(strip.index + 40 * 128, whole.index[inside])
    np.testing.assert_array_equal(strip.position, whole.position[inside])


def test_texels_of_a_window_are_those_of_the_whole():
    """Of every chart."""
    head = shipped_head()
    whole, window = chart_texels(head, 128), chart_texels(head, 128, slice(40, 120), slice(30, 70))
    for chart, texels in window.items():
        row, column = np.divmod(whole[chart].index, 128)
        inside = (row >= 40) & (row < 120) & (column >= 30) & (column < 70)
        np.testing.assert_array_equal(texels.index, (row[inside] - 40) * 40 + column[inside] - 30)
        np.testing.assert_array_equal(texels.uv, whole[chart].uv[inside])
    assert sum(len(texels.index) > 0 for texels in window.values()) > 2


def test_texels_lie_where_the_atlas_paints_them():
    head = shipped_head()
    raster, texels = head.atlas.rasterise(256), skin_texels(head, 256)
    covered = raster.covered.ravel()[texels.index]
    painted = head.atlas.paint(head.atlas.vertices, raster).reshape(-1, 3)[texels.index[covered]]
    np.testing.assert_allclose(texels.position[covered], painted, atol=1e-6)
    assert 0 < (~covered).mean() < 0.1


def test_the_extent_of_a_texel_is_the_way_to_its_neighbour():
    head = shipped_head()
    texels = skin_texels(head, 256)
    place = np.full(256 * 256, -1)
    place[texels.index] = np.arange(len(texels.index))
    right = place[np.minimum(texels.index + 1, 256 * 256 - 1)]
    same = (right >= 0) & (texels.vertices == texels.vertices[right]).all(1) & (texels.index % 256 < 255)
    step = texels.position[right[same]] - texels.position[same]
    np.testing.assert_allclose(step, texels.extent[same, :, 0], atol=1e-8)
