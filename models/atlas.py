"""The atlas: the UV square on which every head, map and sample lies (MMTalker III-B, TexTalker 4.2).

A place on the canonical surface is an anchor: a face and barycentric weights b1 + b2 + b3 = 1. Any vertex quantity z is
read at an anchor as b1 z1 + b2 z2 + b3 z3 (MMTalker, Eq. 6), and an image over the square is read bilinearly.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32
from scipy.ndimage import distance_transform_edt, map_coordinates
from scipy.sparse import csr_matrix

from models.errors import MalformedInput

Plane = Float[np.ndarray, "points 2"]


class Anchors(NamedTuple):
    """Places on the canonical surface: face index (P,) and barycentric weights (P, 3)."""

    face: Int32[np.ndarray, " points"]
    weights: Float32[np.ndarray, "points 3"]


def join_anchors(*anchors: Anchors) -> Anchors:
    """Anchors one after the other."""
    return Anchors(*(np.concatenate(parts) for parts in zip(*anchors, strict=True)))


class OutlineEdges(NamedTuple):
    """Directed edges on the outlines of charts: face, and the corner that the edge begins at."""

    face: Int[np.ndarray, " edges"]
    corner: Int[np.ndarray, " edges"]


class Raster(NamedTuple):
    """What lies under each texel of a square image: face (S, S), -1 where nothing, and weights (S, S, 3).

    Row 0 is the top of the square, v = 1; a texel's place is its centre.
    """

    face: Int32[np.ndarray, "size size"]
    weights: Float32[np.ndarray, "size size 3"]

    @property
    def covered(self) -> Bool[np.ndarray, "size size"]:
        """Texels that lie on a chart."""
        return self.face >= 0


@dataclass(frozen=True, eq=False)
class Atlas:
    """The canonical surface and its charts.

    vertices (N, 3), faces (F, 3) into them; uvs (K, 2) in 0..1 and uv_faces (F, 3) into them, no triangle flipped and
    no two overlapping; chart (F,): number of the chart that a face belongs to.
    """

    vertices: Float32[np.ndarray, "vertices 3"]
    faces: Int32[np.ndarray, "faces 3"]
    uvs: Float32[np.ndarray, "uvs 2"]
    uv_faces: Int32[np.ndarray, "faces 3"]
    chart: Int32[np.ndarray, " faces"]

    def __post_init__(self) -> None:
        if not len(self.faces) == len(self.uv_faces) == len(self.chart):
            raise MalformedInput(
                f"{len(self.faces)} faces, {len(self.uv_faces)} uv faces, {len(self.chart)} chart numbers"
            )
        if self.uvs.min() < 0 or self.uvs.max() > 1:
            raise MalformedInput("uvs outside the unit square")

    @cached_property
    def fingerprint(self) -> str:
        """Names the atlas: heads with the same faces and charts have the same."""
        digest = hashlib.sha256()
        for part in (self.faces, self.uvs, self.uv_faces, self.chart):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def corners(self) -> Float[np.ndarray, "faces 3 2"]:
        """uv of each face's corners, float64."""
        return self.uvs[self.uv_faces].astype(np.float64)

    @cached_property
    def outline(self) -> OutlineEdges:
        """The charts' edges that belong to one triangle only."""
        uv_faces = self.uv_faces.astype(np.int64)
        begin, end = uv_faces.ravel(), np.roll(uv_faces, -1, 1).ravel()
        size = uv_faces.max() + 1
        single = ~np.isin(begin * size + end, end * size + begin)
        return OutlineEdges(*np.divmod(np.flatnonzero(single), 3))

    @cached_property
    def vertex_uvs(self) -> Float32[np.ndarray, "vertices 2"]:
        """One uv for every vertex: where charts or a seam meet, that of the first chart's first face."""
        result = np.zeros((len(self.vertices), 2), np.float32)
        last_to_first = np.argsort(self.chart, kind="stable")[::-1]
        result[self.faces[last_to_first].ravel()] = self.uvs[self.uv_faces[last_to_first].ravel()]
        return result

    @cached_property
    def vertex_anchors(self) -> Anchors:
        """Each vertex as an anchor: a corner of one of its faces."""
        face = np.zeros(len(self.vertices), np.int32)
        corner = np.zeros(len(self.vertices), np.int32)
        face[self.faces.ravel()] = np.repeat(np.arange(len(self.faces), dtype=np.int32), 3)
        corner[self.faces.ravel()] = np.tile(np.arange(3, dtype=np.int32), len(self.faces))
        return Anchors(face, np.eye(3, dtype=np.float32)[corner])

    def anchors_of(self, vertices: Int[np.ndarray, " points"]) -> Anchors:
        """Some vertices as anchors."""
        face, weights = self.vertex_anchors
        return Anchors(face[vertices], weights[vertices])

    def barycentric(self, points: Plane, face: Int[np.ndarray, " points"]) -> Float[np.ndarray, "points 3"]:
        """Weights of uv points in given faces; negative ones mean that a point lies outside."""
        a, b, c = (self.corners[face, k] for k in range(3))
        whole = _cross(b - a, c - a)
        second, third = _cross(points - a, c - a) / whole, _cross(b - a, points - a) / whole
        return np.stack([1 - second - third, second, third], 1)

    def uv_at(self, anchors: Anchors) -> Plane:
        """uv of anchors."""
        return np.einsum("pk,pkd->pd", anchors.weights, self.corners[anchors.face])

    def interpolate(
        self, values: Float[np.ndarray, "vertices ..."], anchors: Anchors
    ) -> Float[np.ndarray, "points ..."]:
        """A vertex quantity at anchors (Eq. 6)."""
        return np.einsum("pk,pk...->p...", anchors.weights, values[self.faces[anchors.face]])

    def weights_matrix(self, anchors: Anchors) -> csr_matrix:
        """`interpolate` as a sparse (points, vertices) matrix."""
        count = len(anchors.face)
        rows = np.repeat(np.arange(count), 3)
        entries = (anchors.weights.ravel(), (rows, self.faces[anchors.face].ravel()))
        return csr_matrix(entries, shape=(count, len(self.vertices)), dtype=np.float32)

    def locate(self, points: Plane) -> Anchors:
        """uv points → anchors; a point on no chart takes the nearest place on an outline.

        A raster names the likely triangle; points that it gets wrong are looked for among all.
        """
        size = len(self._table)
        column = np.clip((points[:, 0] * size).astype(int), 0, size - 1)
        row = np.clip(((1 - points[:, 1]) * size).astype(int), 0, size - 1)
        face = self._table[row, column]
        weights = self.barycentric(points, np.maximum(face, 0))
        weights[face < 0] = -1
        lost = np.flatnonzero(weights.min(1) < -1e-9)
        if lost.size:
            face[lost], weights[lost] = self._search(points[lost])
        weights = np.clip(weights, 0, None)
        return Anchors(face.astype(np.int32), (weights / weights.sum(1, keepdims=True)).astype(np.float32))

    def rasterise(self, size: int) -> Raster:
        """The face and the weights under every texel centre of a (size, size) image."""
        pixel = np.stack([self.corners[..., 0] * size - 0.5, (1 - self.corners[..., 1]) * size - 0.5], -1)
        low = np.clip(np.ceil(pixel.min(1)), 0, size - 1).astype(int)
        high = np.clip(np.floor(pixel.max(1)), -1, size - 1).astype(int)
        extent = np.maximum(high - low + 1, 0)
        count = extent[:, 0] * extent[:, 1]
        face = np.repeat(np.arange(len(count)), count)
        within = np.arange(len(face)) - np.repeat(np.cumsum(count) - count, count)
        column = low[face, 0] + within % np.maximum(extent[face, 0], 1)
        row = low[face, 1] + within // np.maximum(extent[face, 0], 1)
        weights = self.barycentric(np.stack([(column + 0.5) / size, 1 - (row + 0.5) / size], 1), face)
        hit = weights.min(1) >= -1e-9
        result = Raster(np.full((size, size), -1, np.int32), np.zeros((size, size, 3), np.float32))
        result.face[row[hit], column[hit]] = face[hit]
        result.weights[row[hit], column[hit]] = weights[hit]
        return result

    def paint(
        self, values: Float[np.ndarray, "vertices channels"], raster: Raster
    ) -> Float32[np.ndarray, "size size channels"]:
        """A vertex quantity as an image, continued outside the charts so that filtering finds no edge."""
        weights, face = raster.weights, np.maximum(raster.face, 0)
        image = np.einsum("ijk,ijkc->ijc", weights, values[self.faces[face]]).astype(np.float32)
        return continue_outside(image, raster.covered)

    @cached_property
    def _table(self) -> Int32[np.ndarray, "size size"]:
        return self.rasterise(1024).face

    def _search(self, points: Plane) -> tuple[Int[np.ndarray, " points"], Float[np.ndarray, "points 3"]]:
        """Face and weights of each point: of the triangle that holds it, else of the nearest outline."""
        face, weights = np.full(len(points), -1), np.zeros((len(points), 3))
        (left, low), (right, high) = self.corners.min(1).T, self.corners.max(1).T
        for block in np.array_split(np.arange(len(points)), len(points) // 1000 + 1):
            u, v = points[block].T[..., None]
            row, candidate = np.nonzero((u >= left) & (u <= right) & (v >= low) & (v <= high))
            own = self.barycentric(points[block[row]], candidate)
            inside = own.min(1) >= -1e-9
            face[block[row[inside]]], weights[block[row[inside]]] = candidate[inside], own[inside]
        outside = np.flatnonzero(face < 0)
        face[outside], weights[outside] = self._nearest_on_outline(points[outside])
        return face, weights

    def _nearest_on_outline(self, points: Plane) -> tuple[Int[np.ndarray, " points"], Float[np.ndarray, "points 3"]]:
        face, corner = self.outline
        begin, end = self.corners[face, corner], self.corners[face, (corner + 1) % 3]
        along = end - begin
        nearest, share = np.zeros(len(points), int), np.zeros(len(points))
        for block in np.array_split(np.arange(len(points)), len(points) // 1000 + 1):
            way = points[block, None] - begin
            shares = np.clip((way * along).sum(2) / np.maximum((along**2).sum(1), 1e-30), 0, 1)
            nearest[block] = np.linalg.norm(way - shares[..., None] * along, axis=2).argmin(1)
            share[block] = shares[np.arange(len(block)), nearest[block]]
        weights, row = np.zeros((len(points), 3)), np.arange(len(points))
        weights[row, corner[nearest]], weights[row, (corner[nearest] + 1) % 3] = 1 - share, share
        return face[nearest], weights


def continue_outside(
    image: Float32[np.ndarray, "height width channels"], covered: Bool[np.ndarray, "height width"]
) -> Float32[np.ndarray, "height width channels"]:
    """Texels that are not covered take the nearest covered one's value."""
    nearest = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    return np.asarray(image[tuple(nearest)])


def sample(image: Float[np.ndarray, "size size channels"], points: Plane) -> Float32[np.ndarray, "points channels"]:
    """A map at uv points, bilinearly."""
    size = image.shape[0]
    place = np.stack([(1 - points[:, 1]) * size - 0.5, points[:, 0] * size - 0.5])
    channels = [map_coordinates(image[..., k], place, order=1, mode="nearest") for k in range(image.shape[2])]
    return np.stack(channels, 1).astype(np.float32)


def _cross(a: Plane, b: Plane) -> Float[np.ndarray, " points"]:
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
