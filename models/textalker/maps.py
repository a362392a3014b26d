"""Motion and wrinkles as images on the atlas, and back (TexTalker 4.2, A.1).

A motion map is f = R(m): canonical offsets over the square. R is not painted texel by texel but solved for: of all
images it is the one that, read bilinearly, gives back the offsets at every vertex and in every face's middle, and
that is smooth elsewhere. So the round trip is far better than the texels are large, and
nothing bleeds across the mouth's slit, which is a hole in the chart. A wrinkle map is the sigmoid of the log-ratio of
the frame's texture to the neutral one: 0.5 is neutral, and darker and lighter are symmetric. (The authors' release
takes the ratio itself; its neutral texel is 0.4621.)
As an image of 8 bits it is 0.5 + (level - 128) / 255, so that 128 is neutral, exactly.
"""

from functools import cached_property

import numpy as np
from jaxtyping import Float, Float16, Float32, UInt8
from scipy.sparse import csr_matrix, diags, identity, kron, vstack
from scipy.sparse.linalg import SuperLU, splu

from models.atlas import Anchors, Plane
from models.template import Head

MOTION_UNIT_M = 0.0025
"""What 1 means in a motion map."""
BENDING, STEPPING = 3e-3, 1e-4
"""Weights of an image's curvature and slope against what it must give back."""
MIDDLE_WEIGHT = 0.5
"""Of a face's middle against a vertex."""
STIFF = ("teeth_upper", "teeth_lower", "eye_right", "eye_left")
WRINKLE_GAIN = 4.0
"""Steepness of the sigmoid: lines are within ±0.5, which should not look all alike to it."""
NEUTRAL_LEVEL = 128
"""Of a wrinkle map as an image of 8 bits."""
CONTRAST = 10.0
"""How much further from neutral wrinkle maps are for the networks, whose zero is neutral."""


class MotionMaps:
    """Offsets → motion maps of one size, and back. Made once for a head; safe to share.

    A map is read at the vertices, in the chart of the skin where several meet, and between them as any vertex quantity.
    Teeth and eyeballs are stiff, and their charts a few texels high: what is read there is brought to the nearest
    affine field.
    """

    def __init__(self, head: Head, size: int) -> None:
        self.size, self._head, self._atlas = size, head, head.atlas

    def rasterise(self, offsets: Float[np.ndarray, "frames vertices 3"]) -> Float32[np.ndarray, "frames size size 3"]:
        """f = R(m), in units of MOTION_UNIT_M."""
        frames, vertices, _ = offsets.shape
        columns = offsets.transpose(1, 0, 2).reshape(vertices, -1) / MOTION_UNIT_M
        image = self._solver.solve(np.ascontiguousarray(self._spread @ columns))
        return np.asarray(image.reshape(self.size, self.size, frames, 3).transpose(2, 0, 1, 3), np.float32)

    @cached_property
    def at_vertices(self) -> csr_matrix:
        """The (vertices, size²) matrix that reads a map at the vertices, in its own unit."""
        read = bilinear(self._atlas.vertex_uvs, self.size)
        every = identity(len(self._atlas.vertices), format="csr")
        for chart in set(STIFF) & set(self._head.charts):
            members = self._head.part(chart)
            place = np.c_[self._atlas.vertices[members].astype(float), np.ones(len(members))]
            fitted = csr_matrix(place @ np.linalg.pinv(place)) @ read[members]
            read = read + every[:, members] @ (fitted - read[members])
        return read

    @cached_property
    def _places(self) -> tuple[csr_matrix, csr_matrix]:
        """What reads an image at every place where it must give something back, and that as weighted vertices."""
        faces = self._atlas.faces
        middle = Anchors(np.arange(len(faces), dtype=np.int32), np.full((len(faces), 3), 1 / 3, np.float32))
        read = vstack([bilinear(self._atlas.vertex_uvs, self.size), bilinear(self._atlas.uv_at(middle), self.size)])
        values = vstack([identity(len(self._atlas.vertices)), self._atlas.weights_matrix(middle)])
        weight = diags(np.repeat([1.0, MIDDLE_WEIGHT], [len(self._atlas.vertices), len(faces)]))
        return (weight @ read).tocsr(), (weight @ values).tocsr()

    @cached_property
    def _solver(self) -> SuperLU:
        bend = diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(self.size - 2, self.size))
        step = diags([-1.0, 1.0], [0, 1], shape=(self.size - 1, self.size))
        every = identity(self.size)
        bends = vstack([kron(every, bend), kron(bend, every)])
        steps = vstack([kron(every, step), kron(step, every)])
        read = self._places[0]
        normal = read.T @ read + BENDING * bends.T @ bends + STEPPING * steps.T @ steps
        return splu(normal.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})

    @cached_property
    def _spread(self) -> csr_matrix:
        read, values = self._places
        return (read.T @ values).tocsr()


def bilinear(points: Plane, size: int) -> csr_matrix:
    """(P, size²): what reads an image, row 0 at v = 1, at uv points; beyond the outermost texels, those."""
    column = np.clip(points[:, 0] * size - 0.5, 0, size - 1)
    row = np.clip((1 - points[:, 1]) * size - 0.5, 0, size - 1)
    left, top = np.minimum(column.astype(int), size - 2), np.minimum(row.astype(int), size - 2)
    right, down = column - left, row - top
    corners = [
        (0, 0, (1 - down) * (1 - right)),
        (0, 1, (1 - down) * right),
        (1, 0, down * (1 - right)),
        (1, 1, down * right),
    ]
    texels = np.concatenate([(top + i) * size + left + j for i, j, _ in corners])
    weights = np.concatenate([weight for _, _, weight in corners])
    rows = np.tile(np.arange(len(points)), 4)
    return csr_matrix((weights, (rows, texels)), shape=(len(points), size**2))


def wrinkle_map(log_ratio: Float[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Log-ratio → 0..1, 0.5 where the texture is neutral."""
    return np.asarray(1 / (1 + np.exp(-WRINKLE_GAIN * log_ratio.astype(np.float32))))


def log_ratio(wrinkle: Float[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """`wrinkle_map` undone, within ±1.5."""
    inside = np.clip(wrinkle.astype(np.float32), 0.0025, 0.9975)
    return np.asarray(np.log(inside / (1 - inside)) / WRINKLE_GAIN)


def map_levels(log_ratio: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Log-ratio → a wrinkle map as an image of 8 bits."""
    levels = NEUTRAL_LEVEL + 255 * (wrinkle_map(log_ratio) - 0.5)
    return np.asarray(np.clip(np.rint(levels), 0, 255), np.uint8)


def levels_ratio(levels: UInt8[np.ndarray, "..."]) -> Float16[np.ndarray, "..."]:
    """`map_levels` undone; 0, which is beyond what a map can say, counts as 1."""
    return np.asarray(log_ratio(0.5 + (np.arange(256) - NEUTRAL_LEVEL) / 255).astype(np.float16)[levels])


def to_network(wrinkle: Float[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """A wrinkle map as auto-encoders see it."""
    return np.asarray(CONTRAST * (wrinkle - 0.5), np.float32)


def from_network(image: Float[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """`to_network` undone."""
    return np.asarray(image / CONTRAST + 0.5, np.float32)
