"""Any number of points: exactly as many, where motion lives, without a bridge over the mouth and without a gap."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import (
    areas,
    distance_to_segments,
    nobody,
    noise,
    shipped_head,
    shipped_motion,
    shipped_sampling,
    tiny_head,
    tiny_motion,
    tiny_speech,
    tiny_style,
)

from models.atlas import Anchors, Raster
from models.core import Waveform
from models.mmtalker.blinks import BlinkTrack
from models.mmtalker.network import MMTalkerConfig
from models.mmtalker.sampling import find_seams, initial_log_density, sample_surface, sample_template
from models.mmtalker.streaming import SurfaceQuery, stream_motion
from models.parameterisation import signed_areas
from models.surface import boundary_edges, boundary_loops
from models.template import default_template, template_of_identity

COUNTS = [500, 2_000, 20_000, 100_000]
EACH_COUNT = pytest.mark.parametrize("count", COUNTS)


def chart_of(count: int) -> np.ndarray:
    return shipped_head().atlas.chart[shipped_sampling(count).anchors.face]


def in_space(count: int) -> np.ndarray:
    atlas = shipped_head().atlas
    return atlas.interpolate(atlas.vertices, shipped_sampling(count).anchors)


def topology(faces: np.ndarray) -> tuple[int, int]:
    """Euler characteristic, and number of boundary loops."""
    edges = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1), axis=0)
    return len(np.unique(faces)) - len(edges) + len(faces), len(boundary_loops(faces))


@cache
def animated(count: int) -> np.ndarray:
    """Sixteen frames of displacements (T, M, 3) by the untrained network on the shipped head; 0 is native."""
    head, motion = shipped_head(), shipped_motion()
    anchors = shipped_sampling(count).anchors if count else head.atlas.vertex_anchors
    return asked(motion.query(anchors, head.rim_anchors))


def asked(query: SurfaceQuery) -> np.ndarray:
    motion = shipped_motion()
    features = torch.from_numpy(np.random.default_rng(0).standard_normal((50, 144)).astype(np.float32))
    batches, _ = motion.step(motion.start(nobody(MMTalkerConfig())), features, query, BlinkTrack(0), 30.0, 16)
    return np.concatenate([batch.offsets for batch in batches])


@EACH_COUNT
def test_as_many_points_as_asked_each_in_a_face(count):
    sampling = shipped_sampling(count)
    assert len(sampling.anchors.face) == len(sampling.anchors.weights) == len(sampling.uvs) == count
    assert np.array_equal(np.unique(sampling.faces), np.arange(count))


@EACH_COUNT
def test_points_are_anchors_at_their_uvs(count):
    sampling = shipped_sampling(count)
    assert sampling.anchors.weights.min() >= 0
    assert np.abs(sampling.anchors.weights.sum(1) - 1).max() < 1e-6
    assert np.array_equal(sampling.uvs, shipped_head().atlas.uv_at(sampling.anchors))


@EACH_COUNT
def test_no_face_is_flipped_on_the_atlas(count):
    sampling = shipped_sampling(count)
    assert signed_areas(sampling.uvs.astype(np.float32), sampling.faces).min() > 0


@EACH_COUNT
def test_hardly_a_face_is_flipped_in_space(count):
    """Against the surface under its middle: under half a percent of the area, in ears and nostrils."""
    atlas, faces, points = shipped_head().atlas, shipped_sampling(count).faces, in_space(count)
    below = atlas.faces[atlas.locate(shipped_sampling(count).uvs[faces].mean(1)).face]

    def normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
        corners = vertices[triangles].astype(float)
        return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])

    flipped = (normals(points, faces) * normals(atlas.vertices, below)).sum(1) < 0
    area = areas(points, faces)
    assert area[flipped].sum() < 0.005 * area.sum()


@EACH_COUNT
def test_every_chart_keeps_its_holes(count):
    """The skin is a disc with three holes: mouth and eyes. A face across the slit would split one or close it."""
    head, sampling = shipped_head(), shipped_sampling(count)
    chart = chart_of(count)[sampling.faces]
    assert (chart == chart[:, :1]).all(), "a face lies on one chart"
    for number, name in enumerate(head.charts):
        expected = topology(head.atlas.uv_faces[head.atlas.chart == number])
        assert topology(sampling.faces[chart[:, 0] == number]) == expected, name
    assert topology(head.atlas.uv_faces[head.atlas.chart == 0]) == (-2, 4)


@EACH_COUNT
def test_no_face_leaves_its_chart(count):
    """Centroids and middles of edges lie on it, save what the outline's chords cut off, which shrinks with M."""
    atlas, sampling = shipped_head().atlas, shipped_sampling(count)
    outline = atlas.uvs[boundary_edges(atlas.uv_faces)].astype(float)
    chords = sampling.uvs[boundary_edges(sampling.faces)]
    sagitta = distance_to_segments(outline[:, 0], chords[:, 0], chords[:, 1]).max()
    corners = sampling.uvs[sampling.faces]
    places = np.concatenate([corners.mean(1), *((corners[:, k] + corners[:, k - 1]) / 2 for k in range(3))])
    owner = np.tile(chart_of(count)[sampling.faces[:, 0]], 4)
    raster = table().face
    row, column = (np.stack([1 - places[:, 1], places[:, 0]]) * len(raster)).astype(int)
    off = (raster[row, column] < 0) | (atlas.chart[raster[row, column]] != owner)
    tolerance = max(sagitta, 1 / len(raster))
    assert distance_to_segments(places[off], outline[:, 0], outline[:, 1]).max() <= tolerance
    assert sagitta < {500: 0.03, 2_000: 0.01, 20_000: 0.005, 100_000: 0.002}[count]


@cache
def table() -> Raster:
    return shipped_head().atlas.rasterise(1024)


@EACH_COUNT
def test_only_the_mouths_corners_join_the_lips(count):
    """One face of the skin and one of the cavity in either corner has points of the upper and of the lower rim."""
    head, sampling = shipped_head(), shipped_sampling(count)
    turn = int(np.argmax(head.atlas.vertices[head.rim, 0]))
    at = abs(head.atlas.weights_matrix(sampling.anchors))
    upper, lower = (
        np.asarray(at[:, arc].sum(1)).ravel() > 1 - 1e-6
        for arc in (head.rim[: turn + 1], np.append(head.rim[turn:], head.rim[0]))
    )
    upper, lower = upper & ~lower, lower & ~upper
    joining = sampling.faces[upper[sampling.faces].any(1) & lower[sampling.faces].any(1)]
    right = in_space(count)[joining].mean(1)[:, 0] < 0
    found = sorted(zip(chart_of(count)[joining[:, 0]].tolist(), right.tolist(), strict=True))
    assert found == [(chart, side) for chart in (0, 1) for side in (False, True)]
    assert min(upper.sum(), lower.sum()) >= 10


@EACH_COUNT
def test_points_crowd_at_lips_and_eyes(count):
    """More than twice the average number per mm²; it is nine times, and eleven."""
    head, sampling = shipped_head(), shipped_sampling(count)
    atlas = head.atlas
    space = areas(atlas.vertices, atlas.faces)
    number = np.bincount(sampling.anchors.face, minlength=len(space))
    for region in ("lips", "eyes"):
        inside = (atlas.chart == 0) & np.isin(atlas.faces, head.regions[region]).all(1)
        assert number[inside].sum() / space[inside].sum() > 2 * count / space.sum()


@EACH_COUNT
def test_seams_do_not_gape(count):
    """A place on a seam is sampled once for each of its copies on the atlas, and its copies move as one."""
    atlas, sampling = shipped_head().atlas, shipped_sampling(count)
    border = np.unique(boundary_edges(sampling.faces))
    at = atlas.weights_matrix(sampling.anchors)[border]
    copies = seam_copies()
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, point in enumerate(border):
        span = slice(at.indptr[row], at.indptr[row + 1])
        there = {int(v): round(float(w), 4) for v, w in zip(at.indices[span], at.data[span], strict=True) if w > 1e-6}
        groups.setdefault((*sorted(there), *(there[v] for v in sorted(there))), []).append(int(point))
    space, moved = in_space(count), animated(count)
    for place, points in groups.items():
        assert len(points) == copies[place[: len(place) // 2]], place
        assert np.ptp(space[points], axis=0).max() < 1e-6
        assert np.ptp(moved[:, points], axis=1).max() < 1e-6


@cache
def seam_copies() -> dict[tuple[int, ...], int]:
    """How many copies of a vertex, or of an edge of the surface, lie on the outlines of the atlas' charts."""
    atlas = shipped_head().atlas
    vertex_of = np.zeros(len(atlas.uvs), int)
    vertex_of[atlas.uv_faces.ravel()] = atlas.faces.ravel()
    copies: dict[tuple[int, ...], int] = {}
    for edge in np.sort(vertex_of[boundary_edges(atlas.uv_faces)], 1).tolist():
        copies[tuple(edge)] = copies.get(tuple(edge), 0) + 1
    for vertex in vertex_of[np.unique(boundary_edges(atlas.uv_faces))].tolist():
        copies[vertex,] = copies.get((vertex,), 0) + 1
    return copies


def test_any_two_resolutions_agree_where_they_sample_the_same_point():
    """Law 2: native and 500, 2,000 and 20,000 points, at the vertices that these hold."""
    atlas, native = shipped_head().atlas, animated(0)
    assert native.std(axis=(0, 1)).min() > 0.003, "the network moves the face"
    for count in (500, 2_000, 20_000):
        anchors = shipped_sampling(count).anchors
        exact = anchors.weights.max(1) > 1 - 1e-6
        vertex = atlas.faces[anchors.face, anchors.weights.argmax(1)][exact]
        assert len(vertex) > 10
        assert np.abs(animated(count)[:, exact] - native[:, vertex]).max() < 1e-5


def test_a_point_moves_the_same_in_any_company():
    """Law 2, everywhere: the 500 points asked among 20,000 others, in another order and in other chunks."""
    head = shipped_head()
    few, many = (shipped_sampling(count).anchors for count in (500, 20_000))
    anchors = Anchors(*(np.concatenate([b, a[::-1]]) for a, b in zip(few, many, strict=True)))
    together = asked(shipped_motion().query(anchors, head.rim_anchors))
    assert np.abs(together[:, 20_000:][:, ::-1] - animated(500)).max() < 1e-5
    assert np.abs(together[:, :20_000] - animated(20_000)).max() < 1e-5


def test_every_vertex_asked_as_a_point_moves_as_natively():
    """Law 2: one anchor between vertices is enough for the whole query to take the interpolating path."""
    head = shipped_head()
    face, weights = head.atlas.vertex_anchors
    anchors = Anchors(np.append(face, 0).astype(np.int32), np.append(weights, [[1 / 3] * 3], 0).astype(np.float32))
    query = shipped_motion().query(anchors, head.rim_anchors)
    assert not query.at_vertices
    assert np.abs(asked(query)[:, :-1] - animated(0)).max() < 1e-5


@pytest.mark.parametrize("count", [500, 2_000])
def test_sampling_is_deterministic_and_seeded(count):
    head = shipped_head()
    density = initial_log_density(head)
    again, other = sample_surface(head.atlas, density, count), sample_surface(head.atlas, density, count, seed=1)
    first = shipped_sampling(count)
    for one, two in ((first.anchors.face, again.anchors.face), (first.uvs, again.uvs), (first.faces, again.faces)):
        assert np.array_equal(one, two)
    assert not np.array_equal(first.uvs, other.uvs)


@given(st.integers(0, 2**32 - 1), st.floats(0, 3), st.integers(500, 4000))
@settings(deadline=None, max_examples=8)
def test_a_learned_density_keeps_points_and_holes(seed, spread, count):
    """Whatever logits training finds: as many points, none unused, no face flipped, no hole bridged."""
    head = shipped_head()
    atlas, logits = head.atlas, initial_log_density(head)
    logits = logits + np.random.default_rng(seed).normal(0, spread, len(logits)).astype(np.float32)
    sampling = sample_surface(atlas, logits, count)
    assert np.array_equal(np.unique(sampling.faces), np.arange(count))
    assert signed_areas(sampling.uvs, sampling.faces).min() > 0
    skin = atlas.chart[sampling.anchors.face[sampling.faces[:, 0]]] == 0
    assert topology(sampling.faces[skin]) == (-2, 4)


def test_the_density_of_the_points_is_the_density_asked_for():
    """Halves of the patch with logits 1 : 9 get one and nine tenths of 5,000 points, to the outlines' share."""
    atlas = tiny_head().atlas
    right = atlas.corners[..., 0].mean(1) > 0.5
    right &= atlas.chart == 0
    logits = np.log(areas(atlas.vertices, atlas.faces)) + np.where(right, np.log(9), 0)
    logits[atlas.chart == 1] = -20
    sampling = sample_surface(atlas, logits.astype(np.float32), 5_000)
    assert right[sampling.anchors.face].mean() == pytest.approx(0.9, abs=0.02)


def test_seams_are_paths_along_edges_that_cover_every_outline_once():
    atlas = shipped_head().atlas
    seams = find_seams(atlas)
    pairs = [tuple(sorted(pair)) for path in seams for pair in pairwise(path)]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {place for place in seam_copies() if len(place) == 2}


@pytest.mark.parametrize("count", [500, 2_000])
def test_a_sampled_template_is_the_template_at_the_points(count):
    """Positions, maps, and the seal: closing the points is closing the vertices and reading them there."""
    head = shipped_head()
    whole, sampling = default_template(head), shipped_sampling(count)
    small = sample_template(whole, head, sampling)
    at = head.atlas.weights_matrix(sampling.anchors)
    offsets = np.random.default_rng(0).normal(0, 0.003, (2, len(whole.mesh.vertices), 3)).astype(np.float32)
    contact = np.array([0.3, 1.0], np.float32)
    rim = offsets[:, head.rim]
    closed = np.stack([at @ each for each in whole.seal.close(offsets, rim, contact)])
    assert np.array_equal(small.mesh.vertices, at @ whole.mesh.vertices)
    assert np.abs(small.maps - np.eye(3)).max() < 1e-6
    assert np.abs(small.seal.close(np.stack([at @ each for each in offsets]), rim, contact) - closed).max() < 1e-6
    assert all(len(members) for members in small.regions.values())
    assert small.mesh.uvs.dtype == np.float32


def test_a_sampled_template_of_a_larger_head_scales_its_motion():
    head = shipped_head()
    large = template_of_identity(head, head.atlas.vertices * np.float32(2), "large")
    assert np.abs(sample_template(large, head, shipped_sampling(500)).maps - 2 * np.eye(3)).max() < 1e-4


def test_a_template_streams_alike_at_any_resolution():
    """The tiny head, spoken through the whole chain: its vertices, asked for singly and among points."""
    head, motion = tiny_head(), tiny_motion()
    sampling = sample_surface(head.atlas, initial_log_density(head), 400)
    joined = (np.concatenate(pair) for pair in zip(sampling.anchors, head.atlas.vertex_anchors, strict=True))
    results = []
    for anchors in (head.atlas.vertex_anchors, Anchors(*joined)):
        query, waveform = motion.query(anchors, head.rim_anchors), Waveform(noise(16_000))
        batches = stream_motion(tiny_speech(), motion, waveform, query, BlinkTrack(0), 30.0, tiny_style())
        results.append(np.concatenate([batch.offsets for batch in batches]))
    assert results[0].std(axis=(0, 1)).min() > 1e-4
    assert np.abs(results[1][:, 400:] - results[0]).max() < 1e-5
