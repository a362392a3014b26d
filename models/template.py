"""Heads: the canonical one that carries the atlas, and templates, which are points on it with a place in space.

Networks speak of the canonical head. A template says where its vertices lie on the atlas (anchors) and how an offset of
the canonical surface turns and scales there (maps), so that motion follows any head's shape and size.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32
from scipy.sparse import csr_matrix, diags

from models.atlas import Anchors, Atlas, Raster
from models.core import Mesh
from models.errors import CheckpointError
from models.lips import LipSeal
from models.puppet import Puppet
from models.surface import vertex_neighbours

REGIONS = ("lips", "eyes", "upper_face")


@dataclass(frozen=True, eq=False)
class Head:
    """The canonical head: the atlas, the inner rim of the lips, how it seals, and the metrics' regions.

    charts names the atlas' charts: what is skin, and which parts lie behind it.
    """

    atlas: Atlas
    charts: tuple[str, ...]
    rim: Int32[np.ndarray, " rim"]
    seal: LipSeal
    regions: Mapping[str, Int32[np.ndarray, " members"]]
    base_color_png: bytes
    licence: str

    def part(self, chart: str) -> Int[np.ndarray, " members"]:
        """Vertices of a chart."""
        return np.unique(self.faces_of(chart))

    def faces_of(self, chart: str) -> Int32[np.ndarray, "faces 3"]:
        """Faces of a chart."""
        return self.atlas.faces[self.atlas.chart == self.charts.index(chart)]

    def texels_of(self, chart: str, raster: Raster) -> Bool[np.ndarray, "size size"]:
        """Texels that a chart covers."""
        return raster.covered & (self.atlas.chart[raster.face] == self.charts.index(chart))

    @cached_property
    def fingerprint(self) -> str:
        """Names the surface: heads with the same vertices and faces have the same, however they are charted."""
        digest = hashlib.sha256(self.atlas.vertices.tobytes())
        digest.update(self.atlas.faces.tobytes())
        return digest.hexdigest()[:16]

    @property
    def rim_anchors(self) -> Anchors:
        """The rim's vertices as anchors."""
        return self.atlas.anchors_of(self.rim)


class Component(NamedTuple):
    """A connected piece of an uploaded mesh: what it was taken for, and its size."""

    kind: str
    vertices: int
    faces: int


@dataclass(frozen=True)
class Report:
    """How a head was registered. Errors are medians, in millimetres at the size of the canonical head."""

    registration_error_mm: float
    """Distance between the head's skin, in the face, and the canonical head that was fitted to it."""
    lips_error_mm: float
    """The same within a centimetre of the lips."""
    unit_m: float
    """Metres that one unit of the file was taken for."""
    up_axis: str
    """Which of the file's axes points up, such as +Y; of a head that is turned otherwise, the nearest."""
    forward_axis: str
    components: tuple[Component, ...]
    holes: int
    """Boundary loops of the skin, such as the neck's and those of open eyes."""
    landmarks: Mapping[str, tuple[float, float, float]]
    """Where landmarks were found, or given, in the file's units and axes."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Form:
    """The canonical head in the shape of another: vertices (N, 3) in that head's metres and maps of the canonical
    topology. kept (F,): the atlas' faces that have a counterpart there.
    """

    vertices: Float32[np.ndarray, "vertices 3"]
    maps: Float32[np.ndarray, "vertices 3 3"]
    kept: Bool[np.ndarray, " faces"]


@dataclass(frozen=True, eq=False)
class Template(Puppet):
    """A head to animate. anchors place each of the mesh's V vertices on the atlas; regions are indices of them.

    Of a head that came as a file, form is what it is sampled from, and report how it was registered; a head on the
    canonical topology has neither.
    """

    id: str
    anchors: Anchors
    regions: Mapping[str, Int32[np.ndarray, " members"]]
    licence: str
    form: Form | None = None
    report: Report | None = None

    @property
    def vertex_count(self) -> int:
        """Vertices of the mesh."""
        return len(self.mesh.vertices)

    @property
    def face_count(self) -> int:
        """Faces of the mesh."""
        return len(self.mesh.faces)

    @property
    def region_sizes(self) -> Mapping[str, int]:
        """Vertices of each region."""
        return {name: len(members) for name, members in self.regions.items()}

    def canonical(self, moved: Float32[np.ndarray, "frames vertices 3"]) -> Float32[np.ndarray, "frames vertices 3"]:
        """`place` undone: this head's offsets from rest → canonical ones."""
        return np.asarray(np.einsum("vij,tvj->tvi", self._inverse_maps, moved), np.float32)

    @cached_property
    def _inverse_maps(self) -> Float32[np.ndarray, "vertices 3 3"]:
        return np.linalg.inv(self.maps)


def load_head(path: Path) -> Head:
    """Read the canonical head that `python -m training head` wrote. CheckpointError if the file is not one."""
    from models.checkpoint import read_header, read_tensors

    header = read_header(path)
    if header.kind != "head" or "charts" not in header.config:
        raise CheckpointError(f"{path} holds a {header.kind}; wanted a head: python -m training head writes one")
    tensors = {name: tensor.numpy() for name, tensor in read_tensors(path).items()}
    atlas = Atlas(*(tensors[name] for name in ("vertices", "faces", "uvs", "uv_faces", "chart")))
    parts = (tensors["seal_values"], tensors["seal_columns"], tensors["seal_starts"])
    field = csr_matrix(parts, shape=(len(atlas.vertices), len(tensors["gaps"])))
    regions = {name: tensors[f"region_{name}"] for name in REGIONS}
    seal = LipSeal(tensors["gaps"], field)
    picture = tensors["base_color_png"].tobytes()
    return Head(atlas, tuple(header.config["charts"]), tensors["rim"], seal, regions, picture, header.licence)


def head_tensors(head: Head) -> dict[str, Any]:
    """What `load_head` reads, as arrays."""
    field = head.seal.field
    arrays = {name: getattr(head.atlas, name) for name in ("vertices", "faces", "uvs", "uv_faces", "chart")}
    arrays |= {"rim": head.rim, "gaps": head.seal.gaps}
    arrays |= {"seal_values": field.data, "seal_columns": field.indices, "seal_starts": field.indptr}
    arrays |= {f"region_{name}": members for name, members in head.regions.items()}
    return arrays | {"base_color_png": np.frombuffer(head.base_color_png, np.uint8)}


def default_template(head: Head) -> Template:
    """The canonical head itself: every vertex is its own anchor, every map the identity."""
    atlas = head.atlas
    mesh = Mesh(atlas.vertices, atlas.faces, atlas.uvs, atlas.uv_faces, head.base_color_png)
    maps = np.tile(np.eye(3, dtype=np.float32), (len(atlas.vertices), 1, 1))
    return Template(mesh, maps, head.seal, "default", atlas.vertex_anchors, head.regions, head.licence)


def template_of_identity(head: Head, vertices: Float32[np.ndarray, "vertices 3"], name: str) -> Template:
    """Another head on the canonical topology: its maps turn and scale offsets as its surface is turned and scaled.

    Where lips meet, both have one map: the seal closes the gap between the maps as it does between offsets. So lips
    that touch on the canonical head touch on this one.
    """
    own = default_template(head)
    mesh = replace(own.mesh, vertices=vertices.astype(np.float32))
    maps = similarity_maps(head.atlas, vertices)
    apart = head.seal.gaps @ maps[head.rim].reshape(-1, 9)
    maps += (head.seal.field @ apart).reshape(-1, 3, 3)
    return replace(own, id=name, mesh=mesh, maps=maps)


def members_at(at: csr_matrix, members: Int[np.ndarray, " members"]) -> Int32[np.ndarray, " members"]:
    """The points that lie mostly in a region of vertices, each a weighted sum of those: at (points, vertices)."""
    belongs = np.zeros(at.shape[1], np.float32)
    belongs[members] = 1
    return np.flatnonzero(at @ belongs > 0.5).astype(np.int32)


def similarity_maps(
    atlas: Atlas, vertices: Float32[np.ndarray, "vertices 3"], rounds: int = 60
) -> Float32[np.ndarray, "vertices 3 3"]:
    """Per vertex the rotation and scale that take the canonical surface to another with the same faces.

    Each face's deformation is averaged onto its vertices by area, smoothed over the surface, so that both lips turn
    alike, and reduced to its nearest similarity.
    """
    faces = atlas.faces
    before, after = (_face_frames(points[faces]) for points in (atlas.vertices.astype(np.float64), vertices))
    gradients = after @ np.linalg.inv(before)
    area = np.abs(np.linalg.det(before)) ** (2 / 3)
    rows, columns = faces.ravel(), np.repeat(np.arange(len(faces)), 3)
    spread = csr_matrix((area[columns], (rows, columns)), shape=(len(vertices), len(faces)))
    maps = (spread @ gradients.reshape(len(faces), 9)) / (spread @ np.ones(len(faces)))[:, None]
    adjacency = vertex_neighbours(faces, len(vertices)) + diags(np.ones(len(vertices)))
    average = diags(1 / (adjacency @ np.ones(len(vertices)))) @ adjacency
    for _ in range(rounds):
        maps = average @ maps
    left, stretch, right = np.linalg.svd(maps.reshape(-1, 3, 3))
    flip = np.sign(np.linalg.det(left @ right))
    left[:, :, 2] *= flip[:, None]
    return np.asarray(left @ right * stretch.mean(1)[:, None, None], dtype=np.float32)


def _face_frames(corners: np.ndarray) -> np.ndarray:
    """Two edges and a normal as long as they are, as columns (F, 3, 3)."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal = np.cross(first, second)
    normal /= np.sqrt(np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-18))
    return np.stack([first, second, normal], 2)
