"""Layouts: an atlas image read on a template's own layout, and its texture on the atlas."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from tiny import grid_faces, grid_plane, shipped_head, shipped_sampling, tiny_head

from models import layout
from models.atlas import Anchors, Atlas, join_anchors
from models.core import Mesh, Source
from models.errors import MalformedInput, OutOfRange
from models.layout import Layout, layout_of
from models.mmtalker.sampling import sample_template
from models.seams import corner_uvs
from models.template import Template, default_template
from models.textalker.upsampler import as_image, resized


def moved(head, turn) -> Template:
    """The head's own template with its uvs elsewhere in the square."""
    own = default_template(head)
    return replace(own, mesh=replace(own.mesh, uvs=turn(own.mesh.uvs.astype(float)).astype(np.float32)))


def laid(turn=lambda uvs: uvs) -> Layout:
    """The tiny head's layout with its uvs elsewhere."""
    atlas = tiny_head().atlas
    corners = corner_uvs(atlas, atlas.vertex_anchors, atlas.faces)
    return Layout(turn(corners), corners)


def mirrored(uvs):
    return uvs * [-1, 1] + [1, 0]


def tilted(uvs):
    return (uvs - 0.5) @ np.array([[0.6, 0.3], [-0.3, 0.6]]) + 0.5


def whole(own: Layout, image: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate(list(own.rows(image, size)))


@cache
def noisy(size: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (size, size, 3)).astype(np.float32)


@cache
def smooth(size: int) -> np.ndarray:
    y, x = np.mgrid[0:size, 0:size] / size
    return np.stack([np.sin(9 * x + 2 * y), np.cos(7 * y), np.sin(5 * x * y)], 2).astype(np.float32)


@cache
def covered(size: int) -> np.ndarray:
    return tiny_head().atlas.rasterise(size).covered


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize("size", [64, 100, 256])
def test_the_atlas_own_layout_reads_an_image_as_it_is(size):
    """Texel for texel, bit for bit, zeros too; beyond the gutter there is nothing."""
    image = noisy(size).clip(0)
    read = whole(laid(), image, size)
    assert np.array_equal(read[covered(size)], image[covered(size)])
    assert not read[distance_transform_edt(~covered(size)) > 5].any()


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_another_size_is_what_the_upsampler_makes_of_it(size):
    """Bicubic where it grows, averages where it shrinks."""
    read = whole(laid(), noisy(256), size)
    image = as_image(noisy(256))
    image[:] = image.new_tensor(noisy(256).transpose(2, 0, 1))
    wanted = resized(image, size, slice(0, size))[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(read[covered(size)], wanted[covered(size)], atol=1e-5)


@pytest.mark.parametrize("turn", [mirrored, tilted])
def test_enlarging_what_is_read_is_near_reading_every_texel(turn, monkeypatch):
    """On maps that are interpolated four times themselves, as large ones are; where faces are."""
    image = resized(as_image(noisy(32)), 256, slice(0, 256))[0].permute(1, 2, 0).numpy() / 10
    fast = whole(laid(turn), image, 1024)
    monkeypatch.setattr(layout, "FINE", 0)
    slow = whole(laid(turn), image, 1024)
    inside = whole(laid(turn), np.ones((1024, 1024, 3), np.float32), 1024)[..., 0] == 1
    assert np.ptp(slow[inside]) > 0.1
    assert np.sqrt(np.square(fast - slow)[inside].mean()) < 0.003 * np.ptp(slow[inside])


def test_a_mirrored_layout_mirrors():
    assert np.array_equal(whole(laid(mirrored), noisy(128), 128)[:, ::-1][covered(128)], noisy(128)[covered(128)])


def test_a_layout_in_a_quarter_of_the_square_fills_that_quarter():
    read = whole(laid(lambda uvs: uvs / 2), noisy(128), 256)
    assert np.array_equal(read[128:, :128][covered(128)], noisy(128)[covered(128)])
    assert not read[:120].any()
    assert not read[:, 136:].any()


def test_a_layout_in_a_quarter_is_not_read_at_single_texels():
    """At half the size an own texel is four of the image's along each side: it has their mean."""
    read = whole(laid(lambda uvs: uvs / 2), noisy(256), 128)[64:, :64]
    wanted = noisy(256).reshape(64, 4, 64, 4, 3).mean((1, 3))
    np.testing.assert_allclose(read[covered(64)], wanted[covered(64)], atol=1e-6)


@pytest.mark.parametrize("turn", [mirrored, tilted])
def test_there_and_back_is_near_the_identity(turn):
    """On a smooth image, by way of 8 bits."""
    image = np.rint(127 + 100 * smooth(256))
    texture = np.rint(whole(laid(turn), image, 512)).clip(0, 255).astype(np.uint8)
    back = laid(turn).to_atlas(texture, 256)
    assert psnr(back[covered(256)], image[covered(256)]) > 50


def test_to_the_atlas_from_its_own_layout_is_the_texture():
    """And its mean colour where no face is, or another texture's texels."""
    texture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    back = laid().to_atlas(texture, 128)
    far = distance_transform_edt(~covered(128)) > 5
    assert np.array_equal(back[covered(128)], texture[covered(128)])
    assert far.any()
    assert len(np.unique(back[far], axis=0)) == 1
    np.testing.assert_allclose(back[far][0], texture[covered(128)].mean(0), atol=3)
    other = np.random.default_rng(1).integers(0, 256, texture.shape, np.uint8)
    filled = laid().to_atlas(texture, 128, other)
    assert np.array_equal(filled[covered(128)], texture[covered(128)])
    assert np.array_equal(filled[far], other[far])


def test_strips_are_the_whole_and_the_same_each_time(monkeypatch):
    image, strips = smooth(128), list(laid(tilted).rows(smooth(128), 200))
    assert [len(strip) for strip in strips] == [64, 64, 64, 8]
    once = laid(tilted)
    assert np.array_equal(whole(once, image, 200), whole(once, image, 200))
    monkeypatch.setattr(layout, "STRIP", 23)
    monkeypatch.setattr(layout, "WINDOW", 31)
    assert np.array_equal(whole(laid(tilted), image, 200), np.concatenate(strips))
    monkeypatch.setattr(layout, "HELD", 0)
    assert np.array_equal(whole(laid(tilted), image, 200), np.concatenate(strips))


@pytest.mark.parametrize(("size", "own", "texels"), [(256, 256, 2), (1024, 512, 4), (1024, 64, 4)])
def test_a_gutter_continues_what_is_inside(size, own, texels):
    """Every texel nearer than its width has the nearest value, not one beyond it; none is much farther out.

    Enlarged eight times, it is wider.
    """
    away, most = distance_transform_edt(~covered(size)), 8 * 9 if own == 64 else 1.5 * texels + 1
    even = whole(laid(), np.ones((own, own, 3), np.float32), size)
    np.testing.assert_allclose(even[away <= texels - 1], 1, atol=2e-6)
    assert not even[away > most].any()
    ramp = np.repeat((np.arange(256) + 0.5)[None, :, None] / 256, 256, 0).repeat(3, 2).astype(np.float32)
    skin = whole(laid(), ramp, size)[: int(0.85 * size)]  # below is the eye
    edges = skin[(away[: len(skin)] > 0) & (away[: len(skin)] <= texels - 1)]
    np.testing.assert_allclose([edges.min(), edges.max()], [0.05, 0.95], atol=5e-4)


def folded(order: slice | np.ndarray = slice(None)) -> Layout:
    """A square whose right half lies on its left half."""
    corners = grid_plane(5, 5)[grid_faces(5, 5)][order]
    own = np.stack([0.5 - np.abs(corners[..., 0] - 0.5), corners[..., 1]], -1)
    return Layout(own, corners)


def test_of_overlapping_faces_the_first_is_seen():
    """And either half of the atlas has the half of a mirrored texture."""
    halves = np.zeros((128, 128, 3), np.float32)
    halves[:, 64:] = 1
    rightwards = np.argsort(folded().atlas[:, :, 0].mean(1))
    for order, seen in ((rightwards, 0), (rightwards[::-1], 1)):
        np.testing.assert_allclose(whole(folded(order), halves, 128)[:, :60], seen, atol=1e-6)
    texture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    back = folded().to_atlas(texture, 128)
    assert np.array_equal(back[:, :64], texture[:, :64])
    assert np.array_equal(back[:, 64:], texture[:, 63::-1])


AROUND = 24


@cache
def tube() -> Atlas:
    """A closed cylinder of 13 rings, cut along a line: the first vertex of a ring lies at both ends of the chart."""
    plane, faces = grid_plane(13, AROUND + 1), grid_faces(13, AROUND + 1)
    row, column = np.divmod(np.arange(len(plane)), AROUND + 1)
    turn, height = 2 * np.pi * np.arange(AROUND) / AROUND, np.repeat(np.arange(13) * 0.5, AROUND)
    space = np.stack([np.tile(np.sin(turn), 13), height, np.tile(np.cos(turn), 13)], 1).astype(np.float32)
    vertex = (row * AROUND + column % AROUND).astype(np.int32)
    uvs = (0.1 + 0.8 * plane).astype(np.float32)
    return Atlas(space, vertex[faces], uvs, faces, np.zeros(len(faces), np.int32))


def test_a_face_is_read_on_its_own_side_of_a_seam():
    for atlas in (tube(), tiny_head().atlas):
        assert np.array_equal(corner_uvs(atlas, atlas.vertex_anchors, atlas.faces), atlas.corners)


def test_a_vertex_on_the_edge_of_a_seam_is_read_on_both_sides():
    """On that of the face's other corners, whichever face it is anchored in."""
    atlas, ends = tube(), [0, AROUND]
    anchors, middle = atlas.vertex_anchors, len(atlas.vertices)
    beside = np.flatnonzero(np.isin(atlas.faces, ends).sum(1) == 2)
    assert len(beside) == 2
    for face in beside.astype(np.int32):
        halves = np.where(np.isin(atlas.faces[face], ends), np.float32(0.5), np.float32(0))
        joined = join_anchors(anchors, Anchors(face[None], halves[None]))
        right, left = [middle, 1, AROUND + 1], [middle, 2 * AROUND - 1, AROUND - 1]
        found = corner_uvs(atlas, joined, np.array([right, left]))
        np.testing.assert_allclose(found[:, 0], [[0.1, 0.1 + 0.4 / 12], [0.9, 0.1 + 0.4 / 12]], atol=1e-6)


def test_a_face_across_a_seam_or_from_chart_to_chart_has_no_place():
    assert np.isnan(corner_uvs(tube(), tube().vertex_anchors, np.array([[AROUND - 1, 1, AROUND + 1]]))).all()
    skin = tiny_head().atlas
    found = corner_uvs(skin, skin.vertex_anchors, np.array([[0, 1, len(skin.vertices) - 1], [0, 1, 14]]))
    assert np.isnan(found[0]).all()
    assert np.array_equal(found[1], skin.uvs[[0, 1, 14]])


def test_only_the_skin_has_the_texture():
    """Uvs of other materials lie in textures of their own."""
    mesh = default_template(tiny_head()).mesh
    on_eye = tiny_head().atlas.chart == 1
    source = Source(
        mesh.vertices,
        np.eye(3, dtype=np.float32),
        np.arange(len(mesh.faces), dtype=np.int32),
        on_eye.astype(np.int32),
        ("skin", "eye"),
    )
    mesh = replace(mesh, source=source)
    own = replace(default_template(tiny_head()), mesh=mesh)
    spread = replace(
        own,
        mesh=replace(
            mesh,
            uvs=np.where(
                np.isin(np.arange(len(mesh.uvs)), mesh.uv_faces[on_eye])[:, None], 9 * (mesh.uvs - 0.02), mesh.uvs
            ),
        ),
    )
    assert layout_of(own, tiny_head()) is None
    assert layout_of(spread, tiny_head()) is None
    eye = replace(spread, mesh=replace(spread.mesh, source=replace(source, skin=1)))
    read = whole(layout_of(eye, tiny_head()), np.ones((64, 64, 3), np.float32), 64)
    assert read[8:56, 8:56].all()
    assert len(layout_of(eye, tiny_head()).own) == on_eye.sum()


def test_a_texture_of_any_size_is_averaged():
    """Every one of its texels counts as much."""
    for size in (512, 500, 333):
        texture = np.rint(127 + 100 * smooth(size)).astype(np.uint8)
        assert psnr(laid().to_atlas(texture, 64)[covered(64)], np.rint(127 + 100 * smooth(64))[covered(64)]) > 36
    even = np.full((511, 511, 3), 77, np.uint8)
    assert (laid().to_atlas(even, 64) == 77).all()


def test_a_face_without_a_place_stays_neutral():
    """Beyond the gutter of the faces beside it."""
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    mesh = Mesh(np.zeros((4, 3), np.float32), faces, square, faces)
    corners = square[faces].astype(float)
    corners[1] = np.nan
    read = whole(Layout.of(mesh, corners), np.ones((64, 64, 3), np.float32), 64)
    row, column = np.mgrid[0:64, 0:64]
    np.testing.assert_allclose(read[row + column >= 63], 1, atol=1e-6)
    assert not read[row + column < 63 - 4].any()


def test_the_shipped_head_and_its_samples_are_laid_out_as_the_atlas():
    """Each of its faces has the corners that the atlas gives it, exactly; and a face across the lips has none."""
    head = shipped_head()
    atlas = head.atlas
    assert np.array_equal(corner_uvs(atlas, atlas.vertex_anchors, atlas.faces), atlas.corners)
    assert layout_of(default_template(head), head) is None
    for count in (700, 3000):
        assert layout_of(sample_template(default_template(head), head, shipped_sampling(count)), head) is None
    sampling = shipped_sampling(700)
    found = corner_uvs(atlas, sampling.anchors, sampling.faces)
    np.testing.assert_allclose(found, sampling.uvs[sampling.faces], atol=1e-6)
    upper, lower = head.rim[[12, 13]], head.rim[31]
    assert np.isnan(corner_uvs(atlas, atlas.vertex_anchors, np.array([[*upper, lower]]))).all()


def test_the_shipped_head_with_uvs_of_its_own_is_resampled():
    own = layout_of(moved(shipped_head(), mirrored), shipped_head())
    inside = shipped_head().atlas.rasterise(256).covered
    read = whole(own, noisy(256), 256)[:, ::-1]
    np.testing.assert_allclose(read[inside], noisy(256)[inside], atol=1e-4)
    texture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    np.testing.assert_allclose(own.to_atlas(texture[:, ::-1], 256)[inside].astype(int), texture[inside], atol=1)


@pytest.mark.parametrize("size", [0, 15, 8193])
def test_other_sizes_are_refused_before_the_first_strip(size):
    with pytest.raises(OutOfRange, match=f"size = {size}; wanted 16 to 8192 texels"):
        laid().rows(noisy(64), size)
    with pytest.raises(OutOfRange, match=f"size = {size}; wanted 16 to 8192 texels"):
        laid().to_atlas(np.zeros((64, 64, 3), np.uint8), size)


@pytest.mark.parametrize("shape", [(64, 64), (64, 32, 3), (64, 64, 4), (0, 0, 3)])
def test_other_shapes_are_refused_before_the_first_strip(shape):
    with pytest.raises(OutOfRange, match=r"an image of shape .*; wanted \(n, n, 3\): cut or resize it"):
        laid().rows(np.zeros(shape, np.float32), 64)
    with pytest.raises(OutOfRange, match=r"an image of shape .*; wanted \(n, n, 3\): cut or resize it"):
        laid().to_atlas(np.zeros(shape, np.uint8), 64)


def test_corners_of_another_mesh_are_refused():
    mesh = default_template(tiny_head()).mesh
    with pytest.raises(MalformedInput, match=r"corners of shape \(5, 3, 2\); wanted .* those of the mesh's own faces"):
        Layout.of(mesh, np.zeros((5, 3, 2)))
