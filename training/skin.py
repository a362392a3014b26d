"""A small base colour for the default head, painted texel by texel: skin, lips, brows, eyes, teeth, tongue."""

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32
from PIL import Image
from scipy.sparse import diags

from models.atlas import Raster, continue_outside
from models.surface import edge_distance, vertex_neighbours
from models.template import Head
from training.anatomy import CROWN, EYE_ANGLE, GUM_ROW, IRIS_ANGLE, TOOTH_WIDTHS
from training.layout import CHARTS
from training.openings import eye_openings

Colors = Float[np.ndarray, "texels 3"]


def _rgb(red: float, green: float, blue: float) -> Float[np.ndarray, " 3"]:
    return np.array([red, green, blue], float)


SKIN, FLUSH, LIPS, HAIR = _rgb(214, 166, 140), _rgb(204, 122, 106), _rgb(176, 92, 88), _rgb(72, 56, 46)
SCLERA, IRIS, PUPIL = _rgb(236, 231, 226), _rgb(96, 122, 126), _rgb(12, 10, 10)
ENAMEL, GUM, FLESH, TONGUE = _rgb(240, 232, 214), _rgb(192, 108, 104), _rgb(136, 50, 50), _rgb(188, 98, 96)


def base_color_png(head: Head, size: int = 512) -> bytes:
    """The base colour as PNG, deterministic. Painted at four times the size, then reduced."""
    atlas = head.atlas
    raster = atlas.rasterise(4 * size)
    chart = np.where(raster.covered, atlas.chart[np.maximum(raster.face, 0)], -1)
    position = atlas.paint(atlas.vertices, raster)
    image = np.zeros((*chart.shape, 3), np.float32)
    for number, name in enumerate(CHARTS):
        texels = _Texels(head, raster, chart == number, position[chart == number])
        image[texels.mask] = _PAINTERS[name.split("_")[0]](texels)
    image = continue_outside(image, raster.covered)
    small = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.BOX)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class _Texels:
    """The texels of one chart, and where they are in space."""

    head: Head
    raster: Raster
    mask: Bool[np.ndarray, "size size"]
    position: Float32[np.ndarray, "texels 3"]

    def of_vertices(self, values: Float[np.ndarray, " vertices"]) -> Float[np.ndarray, " texels"]:
        """A vertex quantity at the texels."""
        corners = self.head.atlas.faces[self.raster.face[self.mask]]
        return np.einsum("tk,tk->t", self.raster.weights[self.mask], values[corners])

    def place(self) -> Float[np.ndarray, "texels 2"]:
        """(u, v) within the chart's own box, 0..1."""
        row, column = np.nonzero(self.mask)
        uv = np.stack([column, -row], 1).astype(float)
        return np.asarray((uv - uv.min(0)) / np.ptp(uv, axis=0))

    def grain(self, seed: int, scale_m: float) -> Float[np.ndarray, " texels"]:
        """Smooth noise of about unit deviation in space, so that no seam shows: waves of about `scale_m`."""
        random = np.random.default_rng(seed)
        waves = random.standard_normal((24, 3)) * 2 * np.pi / scale_m
        phases = random.uniform(0, 2 * np.pi, 24)
        return np.asarray(sum(np.sin(self.position @ k + p) for k, p in zip(waves, phases, strict=True)) / np.sqrt(12))


def _mix(color: Colors, other: Float[np.ndarray, " 3"], amount: Float[np.ndarray, " texels"]) -> Colors:
    return color + np.clip(amount, 0, 1)[:, None] * (other - color)


def _paint_skin(texels: _Texels) -> Colors:
    atlas, (x, y, z) = texels.head.atlas, texels.position.astype(float).T
    skin_faces, vertices = atlas.faces[atlas.chart == CHARTS.index("skin")], atlas.vertices.astype(float)
    mouth = vertices[texels.head.rim]
    nose = vertices[np.unique(skin_faces)][np.argmax(vertices[np.unique(skin_faces), 2])]
    loops = [eye.rim for eye in eye_openings(vertices, skin_faces)]
    color = SKIN * (1 + 0.012 * texels.grain(1, 0.002) + 0.014 * texels.grain(2, 0.02))[:, None]
    cheek = np.hypot((np.abs(x) - 0.042) / 0.026, (y - nose[1] - 0.002) / 0.022)
    color = _mix(color, FLUSH, 0.28 * np.exp(-(cheek**2)) * (z > 0.05))
    color = _mix(color, FLUSH, 0.30 * np.exp(-((np.hypot(x, y - nose[1]) / 0.016) ** 2)) * (z > nose[2] - 0.03))
    lid = texels.of_vertices(_finite(edge_distance(vertices, skin_faces, np.concatenate(loops))))
    eye_y = np.mean([vertices[loop, 1].mean() for loop in loops])
    color = _mix(color, FLUSH * 0.8, 0.35 * np.exp(-((lid / 0.006) ** 2)))
    color = _mix(color, HAIR * 0.5, 0.85 * np.exp(-((lid / 0.0011) ** 2)) * np.where(y > eye_y - 0.001, 1, 0.35))
    color = _mix(color, HAIR, 0.9 * _brow(x, y - eye_y) * (0.78 + 0.2 * texels.grain(3, 0.0015)) * (z > 0.07))
    across = np.clip(np.abs(x) / np.abs(mouth[:, 0]).max(), 0, 1)
    rim = texels.of_vertices(_finite(edge_distance(vertices, skin_faces, texels.head.rim)))
    border = 0.0018 + np.where(y > mouth[:, 1].mean(), 0.0095, 0.0098) * np.sqrt(np.clip(1 - across**5, 0, 1))
    color = _mix(color, LIPS, 0.9 / (1 + np.exp((rim - border) / 0.0005)) * (z > 0.09))
    color = (
        color
        * (1 - 0.35 * np.exp(-((rim / 0.0012) ** 2)) - 0.9 * texels.of_vertices(_hollowness(texels.head)))[:, None]
    )
    hairline = 0.198 + 0.012 * np.cos(x / 0.03) - 0.9 * np.clip(0.075 - z, 0, 0.1)
    stubble = np.clip((y - hairline) / 0.014, 0, 1) * (
        1 - np.exp(-((np.hypot(np.abs(x) - 0.08, y - 0.12) / 0.03) ** 4))
    )
    return _mix(color, HAIR, 0.72 * stubble * (1 + 0.08 * texels.grain(4, 0.001)))


def _hollowness(head: Head) -> Float[np.ndarray, " vertices"]:
    """How far a vertex lies in a hollow, 0..1: nostrils, ears and creases, which see less light."""
    atlas = head.atlas
    vertices, faces = atlas.vertices.astype(float), atlas.faces
    corners = vertices[faces]
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, faces[:, k], np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    neighbours = vertex_neighbours(faces, len(vertices))
    average = diags(1 / np.maximum(neighbours @ np.ones(len(vertices)), 1)) @ neighbours
    smooth = vertices
    for _ in range(6):
        smooth = average @ smooth
    depth = ((smooth - vertices) * normals).sum(1)
    return np.asarray(np.clip(average @ np.clip(depth / 0.004, 0, 1), 0, 0.6))


def _brow(x: Float[np.ndarray, " texels"], above_eye: Float[np.ndarray, " texels"]) -> Float[np.ndarray, " texels"]:
    along = (np.abs(x) - 0.012) / 0.040
    height = 0.0195 + 0.006 * np.sin(np.pi * np.clip(along, 0, 1) * 0.75) - 0.003 * np.clip(along, 0, 1)
    thickness = 0.0036 * (1 - 0.65 * np.clip(along, 0, 1))
    band = np.exp(-(((above_eye - height) / thickness) ** 4))
    return np.asarray(band * np.clip(along / 0.08, 0, 1) * np.clip((1.02 - along) / 0.15, 0, 1))


def _paint_eye(texels: _Texels) -> Colors:
    away = 2 * texels.place() - 1
    radius, around = (away**2).sum(1) * EYE_ANGLE / IRIS_ANGLE, np.arctan2(away[:, 1], away[:, 0])
    glint = np.hypot(away[:, 0] + 0.17, away[:, 1] - 0.2) / 0.055
    color = SCLERA * (1 - 0.3 * np.clip(radius / 3.2, 0, 1) ** 1.5)[:, None]
    fibres = 0.5 + 0.25 * np.sin(37 * around + 3 * np.sin(5 * around)) + 0.25 * np.sin(61 * around + 2)
    iris = IRIS * (0.65 + 0.55 * fibres * np.clip(radius, 0, 1))[:, None]
    iris = _mix(iris, PUPIL, np.clip((radius - 0.84) / 0.16, 0, 1) * 0.7)
    inside = np.clip((1.02 - radius) / 0.06, 0, 1)[:, None]
    color = color * (1 - inside) + iris * inside
    color = _mix(color, PUPIL, np.clip((0.42 - radius) / 0.05, 0, 1))
    return _mix(color, SCLERA, np.clip(2 - 2 * glint, 0, 1))


def _paint_teeth(texels: _Texels) -> Colors:
    place = texels.place()
    edges = np.concatenate([[0], np.cumsum(TOOTH_WIDTHS)]) / TOOTH_WIDTHS.sum()
    along = np.abs(2 * place[:, 0] - 1)
    tooth = np.clip(np.searchsorted(edges, along, side="right") - 1, 0, len(TOOTH_WIDTHS) - 1)
    centred = np.abs(2 * (along - edges[tooth]) / (edges[tooth + 1] - edges[tooth]) - 1)
    color = ENAMEL * (1 - 0.05 * along - 0.30 * centred**14)[:, None]
    row = (1 - place[:, 1]) * (len(CROWN) - 1)
    scallop = GUM_ROW + 0.35 * (1 - centred**2) - 0.25
    color = _mix(color, GUM, np.clip((scallop - row) / 0.15, 0, 1))
    return _mix(color, GUM, np.clip((row - len(CROWN) + 1.8) / 0.2, 0, 1))


def _paint_cavity(texels: _Texels) -> Colors:
    depth = np.clip((texels.position[:, 2] - 0.06) / 0.06, 0.4, 1)
    near_lips = np.clip((texels.position[:, 2] - 0.118) / 0.012, 0, 1)
    return _mix(FLESH * depth[:, None], LIPS * 0.9, near_lips)


def _paint_tongue(texels: _Texels) -> Colors:
    depth = np.clip((texels.position[:, 2] - 0.05) / 0.05, 0.55, 1)
    return TONGUE * (depth * (1 + 0.04 * texels.grain(5, 0.002)))[:, None]


def _paint_socket(texels: _Texels) -> Colors:
    return np.tile(FLUSH * 0.7, (len(texels.position), 1))


_PAINTERS = {
    "skin": _paint_skin,
    "eye": _paint_eye,
    "teeth": _paint_teeth,
    "cavity": _paint_cavity,
    "tongue": _paint_tongue,
    "socket": _paint_socket,
}


def _finite(distance: Float[np.ndarray, " vertices"]) -> Float[np.ndarray, " vertices"]:
    return np.minimum(distance, 1.0)
