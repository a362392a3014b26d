"""Pictures of a head, drawn in numpy alone: they show whether its lips and eyes were found, and how its mouth opens."""

from io import BytesIO

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from PIL import Image
from scipy.sparse import csr_matrix

from models.template import Template
from models.texels import Fragments, rasterise

SIZE = 384
TURN = np.radians(60)
GAP_M = 0.014
"""How far the lips are parted in the picture on the right."""
SKIN, LIPS, EYES = (0.78, 0.74, 0.71), (0.80, 0.36, 0.38), (0.42, 0.60, 0.78)
BACKGROUND = 0.93
MARGIN = 0.05
FINER = 2
"""Times finer than asked for that a picture is drawn, so that its edges are smooth."""
AMBIENT, LIGHT = 0.35, (0.0, 0.4, 0.92)
GAMMA = 2.2


def preview(template: Template) -> bytes:
    """A PNG of three pictures in a row: at rest from the front, turned by 60 degrees, and with the lips parted as its
    seal would close them. Lips and eyes are tinted.
    """
    mesh = template.mesh
    colours = np.tile(np.array(SKIN, np.float32), (len(mesh.vertices), 1))
    for region, colour in (("eyes", EYES), ("lips", LIPS)):
        colours[template.regions[region]] = colour
    sine, cosine = np.sin(TURN), np.cos(TURN)
    turned = mesh.vertices @ np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]], np.float32)
    views = [render(vertices, mesh.faces, colours, SIZE) for vertices in (mesh.vertices, turned, _parted(template))]
    file = BytesIO()
    Image.fromarray(np.concatenate(views, 1)).save(file, "png")
    return file.getvalue()


def render(
    vertices: Float32[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    colours: Float32[np.ndarray, "vertices 3"],
    size: int,
) -> UInt8[np.ndarray, "size size 3"]:
    """A shaded, orthographic picture of a surface from the front, +Z, with +Y up, fitted into the square.

    colours are sRGB, 0..1. Light comes from a little above the camera; both sides of a face are lit.
    """
    seen = _foremost(vertices, faces, size * FINER)
    corners = faces[seen.face]
    normal = _read(_normals(vertices, faces), corners, seen)
    length = np.maximum(np.linalg.norm(normal, axis=1), 1e-20)
    direction = np.array(LIGHT) / np.linalg.norm(LIGHT)
    facing = np.where(normal[:, 2] < 0, -1, 1) * (normal @ direction) / length
    light = AMBIENT + (1 - AMBIENT) * np.clip(facing, 0, None)
    image = np.full((size * FINER, size * FINER, 3), BACKGROUND**GAMMA)
    image[seen.row, seen.column] = _read(colours**GAMMA, corners, seen) * light[:, None]
    image = image.reshape(size, FINER, size, FINER, 3).mean((1, 3))
    return np.round(255 * np.clip(image, 0, 1) ** (1 / GAMMA)).astype(np.uint8)


def _foremost(vertices: Float32[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"], size: int) -> Fragments:
    """Of every pixel that shows a face the foremost one."""
    low, high = vertices[:, :2].min(0), vertices[:, :2].max(0)
    scale = size * (1 - 2 * MARGIN) / max(float((high - low).max()), 1e-20)
    screen = (vertices[:, :2].astype(float) - (low + high) / 2) * [scale, -scale] + (size - 1) / 2
    found = rasterise(screen[faces], slice(0, size), slice(0, size))
    depth = _read(vertices[:, 2:], faces[found.face], found)[:, 0]
    order = np.argsort(depth, kind="stable")
    last = np.full(size * size, -1)
    last[(found.row * size + found.column)[order]] = order
    return found.of(last[last >= 0])


def _read(
    values: Float[np.ndarray, "vertices channels"], corners: Int[np.ndarray, "fragments 3"], seen: Fragments
) -> Float[np.ndarray, "fragments channels"]:
    """A vertex quantity at the fragments."""
    return np.asarray(sum(seen.weights[:, k, None] * values[corners[:, k]] for k in range(3)))


def _normals(
    vertices: Float32[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"]
) -> Float[np.ndarray, "vertices 3"]:
    """Normals, smooth, as long as the area around them."""
    corners = vertices[faces].astype(float)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    face = np.repeat(np.arange(len(faces)), 3)
    return np.asarray(
        csr_matrix((np.ones(3 * len(faces)), (faces.ravel(), face)), (len(vertices), len(faces))) @ normal
    )


def _parted(template: Template) -> Float32[np.ndarray, "vertices 3"]:
    """The head with its lips apart: the seal, which closes gaps, opens one."""
    gap = np.zeros((template.seal.field.shape[1], 3), np.float32)
    gap[:, 1] = GAP_M
    return template.place((template.seal.field @ gap)[None])[0]
