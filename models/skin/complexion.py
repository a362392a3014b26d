"""The colours of skin at arm's length: smooth, without hairs, pores and relief."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy.sparse import diags

from models.skin.relief import mottle
from models.surface import boundary_loops, edge_distance, vertex_neighbours
from models.template import Head
from models.texels import Texels

Colors = Float[np.ndarray, "texels 3"]
Values = Float[np.ndarray, " texels"]
Color = Float32[np.ndarray, " 3"]
Points = Float[np.ndarray, "points 3"]


def rgb(red: float, green: float, blue: float) -> Color:
    """A colour, 0..255."""
    return np.array([red, green, blue], np.float32)


SKIN, FLUSH, LIPS, HAIR = rgb(214, 166, 140), rgb(204, 122, 106), rgb(176, 92, 88), rgb(72, 56, 46)
LIDS_M = 0.01
"""Rims whose middle is so far from the head's are the eyelids'."""
RED_REACH = 8.0
"""How far beyond the lips' edge, of the breadth over which it fades, there is any red: a hundredth of a level there."""


def tinted(amount: Values, color: Color) -> Colors:
    """So much of a colour. Each of its channels lies by itself in memory, which is what makes work on texels fast."""
    return np.multiply.outer(color, amount).T


def mix(color: Colors, other: Color, amount: Values) -> Colors:
    """Some of another colour, 0..1, laid over."""
    return color + np.clip(amount, 0, 1)[:, None] * (other - color)


class Complexion:
    """Colours of the canonical head's skin, and how dense its hairs are, by place."""

    def __init__(self, head: Head) -> None:
        atlas, skin = head.atlas, head.faces_of("skin")
        vertices = atlas.vertices.astype(float)
        own = np.unique(skin)
        rims = [loop for loop in boundary_loops(skin) if abs(vertices[loop, 0].mean()) > LIDS_M]
        self.nose: Sequence[float] = vertices[own[np.argmax(vertices[own, 2])]].tolist()
        mouth = vertices[head.rim]
        self.middle = float(np.abs(mouth[:, 0]).max()), float(mouth[:, 1].mean())
        """Half the mouth's breadth, and its height."""
        self.eye_y = float(np.mean([vertices[rim, 1].mean() for rim in rims]))
        self._lids = np.minimum(edge_distance(vertices, skin, np.concatenate(rims)), 1).astype(np.float32)
        self._rim = np.minimum(edge_distance(vertices, skin, head.rim), 1).astype(np.float32)
        self._hollowness = _hollowness(vertices, atlas.faces).astype(np.float32)

    def color(self, texels: Texels) -> Colors:
        """Everything but hairs and what is finer than a few millimetres."""
        x, y, z = texels.xyz
        color = tinted(1 + 0.014 * mottle(texels, 2, 0.02), SKIN)
        cheek = ((np.abs(x) - 0.042) / 0.026) ** 2 + ((y - self.nose[1] - 0.002) / 0.022) ** 2
        color = mix(color, FLUSH, 0.28 * np.exp(-cheek) * (z > 0.05))
        tip = (x**2 + (y - self.nose[1]) ** 2) / 0.016**2
        color = mix(color, FLUSH, 0.30 * np.exp(-tip) * (z > self.nose[2] - 0.03))
        color = mix(color, FLUSH * 0.8, 0.35 * np.exp(-((self.from_lids(texels) / 0.006) ** 2)))
        color = mix(color, LIPS, 0.9 * self.red(texels))
        dim = 0.35 * np.exp(-((self.from_mouth(texels) / 0.0012) ** 2)) + 0.9 * texels.read(self._hollowness)
        return color * (1 - dim)[:, None]

    def from_lids(self, texels: Texels) -> Values:
        """Metres along the skin from the lids' rims; 1 where there is no way."""
        return texels.read(self._lids)

    def from_mouth(self, texels: Texels) -> Values:
        """Metres along the skin from where the lips meet."""
        return texels.read(self._rim)

    def red(self, texels: Texels) -> Values:
        """How far the texels are of the lips' red, 0..1."""
        x, y, z = texels.xyz
        across = np.clip(np.abs(x) / self.middle[0], 0, 1)
        breadth = (0.0098 - 0.0003 * (y > self.middle[1])) * np.sqrt(1 - across**4 * across)
        away = (self.from_mouth(texels) - 0.0018 - breadth) / 0.0005
        return np.asarray((z > 0.09) * (away < RED_REACH) / (1 + np.exp(np.clip(away, -RED_REACH, RED_REACH))))

    def lash_line(self, texels: Texels) -> Values:
        """How dark the lids' rims are, 0..1."""
        dark = np.exp(-((self.from_lids(texels) / 0.0011) ** 2))
        return np.asarray(dark * (0.2975 + 0.5525 * (texels.xyz[1] > self.eye_y - 0.001)))

    def brow(self, position: Points) -> Values:
        """How dense the brows are, 0..1."""
        (_, y, z), along = position.T, self.along_brow(position)
        share = np.clip(along, 0, 1)
        height = 0.0195 + 0.006 * np.sin(0.75 * np.pi * share) - 0.003 * share
        band = np.exp(-(((y - self.eye_y - height) / (0.0036 * (1 - 0.65 * share))) ** 4))
        ends = np.clip(self.along_brow(position) / 0.08, 0, 1) * np.clip(
            (1.02 - self.along_brow(position)) / 0.15, 0, 1
        )
        return np.asarray(band * ends * (z > 0.07))

    def along_brow(self, position: Points) -> Values:
        """0 at the brows' inner ends, 1 at their outer ones."""
        return np.asarray((np.abs(position[:, 0]) - 0.012) / 0.040)

    def stubble(self, position: Points) -> Values:
        """How dense the scalp's short hair is, 0..1."""
        x, y, z = position.T
        hairline = 0.198 + 0.012 * np.cos(x / 0.03) - 0.9 * np.clip(0.075 - z, 0, 0.1)
        ears = np.exp(-((((np.abs(x) - 0.08) ** 2 + (y - 0.12) ** 2) / 0.03**2) ** 2))
        return np.asarray(np.clip((y - hairline) / 0.014, 0, 1) * (1 - ears))


def _hollowness(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"]
) -> Float[np.ndarray, " vertices"]:
    corners, normals = vertices[faces], np.zeros_like(vertices)
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
