"""A head in the making: a mesh in metres that knows where on the atlas each of its vertices lies."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from models.atlas import Anchors, join_anchors
from models.surface import pieces
from models.template import Head

Positions = Float[np.ndarray, "vertices 3"]
Faces = Int[np.ndarray, "faces 3"]

NOWHERE = -1
"""Face of the anchor of a vertex that has no counterpart on the canonical head, such as hair's."""


@dataclass(frozen=True, eq=False)
class Figure:
    """vertices (V, 3) in metres, +Y up and +Z forward; faces (F, 3) into them; polygon (F,) number of the polygon of
    each; chart (F,) of the atlas, -1 for what was added; anchors of the vertices, with the face NOWHERE for those.
    """

    vertices: Positions
    faces: Faces
    polygon: Int[np.ndarray, " faces"]
    chart: Int[np.ndarray, " faces"]
    anchors: Anchors

    def keep(self, faces: Bool[np.ndarray, " faces"]) -> "Figure":
        """Some of the faces, and the vertices that they use."""
        used, renumbered = np.unique(self.faces[faces], return_inverse=True)
        return Figure(
            self.vertices[used],
            renumbered.reshape(-1, 3),
            np.unique(self.polygon[faces], return_inverse=True)[1],
            self.chart[faces],
            Anchors(*(part[used] for part in self.anchors)),
        )

    def add(self, vertices: Positions, faces: Faces) -> "Figure":
        """More triangles, of nothing that the canonical head has. faces may use the figure's own vertices, and count
        the new ones from there on.
        """
        count = len(vertices)
        nowhere = Anchors(np.full(count, NOWHERE, np.int32), np.tile(np.eye(3, dtype=np.float32)[0], (count, 1)))
        return Figure(
            np.concatenate([self.vertices, vertices]),
            np.concatenate([self.faces, faces]),
            np.concatenate([self.polygon, self.polygon.max() + 1 + np.arange(len(faces))]),
            np.concatenate([self.chart, np.full(len(faces), -1)]),
            join_anchors(self.anchors, nowhere),
        )

    def reorder(self, vertices: Int[np.ndarray, " vertices"], polygons: Int[np.ndarray, " polygons"]) -> "Figure":
        """The same surface: new vertex k is the old vertices[k], new polygon k the old polygons[k]."""
        place, turn = np.argsort(vertices), np.argsort(polygons)[self.polygon]
        order = np.argsort(turn, kind="stable")
        return Figure(
            self.vertices[vertices],
            place[self.faces[order]],
            turn[order],
            self.chart[order],
            Anchors(*(part[vertices] for part in self.anchors)),
        )

    @property
    def component(self) -> Int[np.ndarray, " vertices"]:
        """Number of the connected piece of each vertex."""
        return pieces(self.faces, len(self.vertices))


def own_figure(head: Head, vertices: Positions) -> Figure:
    """An identity's own mesh, on the canonical topology."""
    faces = head.atlas.faces.astype(int)
    return Figure(vertices, faces, np.arange(len(faces)), head.atlas.chart.astype(int), head.atlas.vertex_anchors)


def charts(head: Head, *names: str) -> list[int]:
    """Numbers of charts whose names begin so."""
    return [number for number, name in enumerate(head.charts) if name.startswith(names)]


def without(figure: Figure, head: Head, *names: str) -> Figure:
    """A figure that lacks the charts whose names begin so."""
    return figure.keep(~np.isin(figure.chart, charts(head, *names)))


def quadrangulate(figure: Figure, flattest: float = 0.9) -> Figure:
    """Triangles joined to quads in pairs, over the longest edge between two whose normals' product exceeds `flattest`;
    those that find no other stay.
    """
    faces = figure.faces
    corners = figure.vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-18)
    sides: dict[tuple[int, int], tuple[int, int]] = {}
    for number, face in enumerate(faces.tolist()):
        sides |= {(face[k], face[k - 2]): (number, k) for k in range(3)}
    inner = [(a, b) for a, b in sides if a < b and (b, a) in sides]
    length = np.linalg.norm(figure.vertices[[a for a, _ in inner]] - figure.vertices[[b for _, b in inner]], axis=1)
    partner = np.full(len(faces), -1)
    second = np.zeros(len(faces), bool)
    quads = np.array(faces)
    for index in np.argsort(-length, kind="stable").tolist():
        a, b = inner[index]
        (one, first), (other, turn) = sides[a, b], sides[b, a]
        same = figure.chart[one] == figure.chart[other] and normal[one] @ normal[other] > flattest
        if same and partner[one] < 0 and partner[other] < 0:
            partner[one], partner[other] = other, one
            apex, opposite = faces[one, first - 1], faces[other, turn - 1]
            second[other] = True
            quads[one], quads[other] = [b, apex, a], [b, a, opposite]
    polygon = np.where(partner >= 0, np.minimum(np.arange(len(faces)), partner), np.arange(len(faces)))
    order = np.lexsort([second, polygon])
    renumbered = np.unique(polygon[order], return_inverse=True)[1]
    return replace(figure, faces=quads[order], polygon=renumbered, chart=figure.chart[order])


def shuffle(figure: Figure, seed: int) -> Figure:
    """Vertices and polygons in another order."""
    random = np.random.default_rng([seed, 11])
    return figure.reorder(random.permutation(len(figure.vertices)), random.permutation(figure.polygon.max() + 1))


def shuffle_components(figure: Figure, seed: int) -> Figure:
    """Connected pieces in another order, each as it was."""
    component = figure.component
    place = np.random.default_rng([seed, 12]).permutation(component.max() + 1)[component]
    polygon_place = np.zeros(figure.polygon.max() + 1, int)
    polygon_place[figure.polygon] = place[figure.faces[:, 0]]
    return figure.reorder(np.argsort(place, kind="stable"), np.argsort(polygon_place, kind="stable"))
