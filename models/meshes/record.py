"""What a mesh file holds, whatever its format."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32

from models.errors import MalformedInput, TooLarge

DAMAGED = "damaged_mesh"
UNSUPPORTED = "unsupported_mesh"
"""Codes of what is refused: what breaks its format's rules, and what the format has and this project does not read."""


@dataclass(frozen=True)
class MeshLimits:
    """How large a mesh file may be: bytes, bytes unpacked, vertices, and triangles after polygons are cut."""

    max_bytes: int = 128 << 20
    max_unpacked_bytes: int = 256 << 20
    max_vertices: int = 1_000_000
    max_triangles: int = 1_000_000

    def check(self, vertices: int = 0, triangles: int = 0) -> None:
        """Refuse, as TooLarge, more than the limits; ask before anything is allocated."""
        for count, limit, name in (
            (vertices, self.max_vertices, "vertices"),
            (triangles, self.max_triangles, "triangles"),
        ):
            if count > limit:
                raise TooLarge(f"a mesh of {count:,} {name}; the limit is {limit:,}: decimate it")


@dataclass(frozen=True, eq=False)
class MeshFile:
    """A mesh as its file holds it, in its own units and axes; nothing is merged, reordered or left out.

    vertices (V, 3); faces (F, 3) into them, polygons cut into fans from their first corner; polygon (F,) number of
    the polygon of each; uvs (K, 2), origin at the lower left, and uv_faces (F, 3), or None; material (F,) into
    materials, which are in the order of their first face, "" for none. texture is the encoded base-colour picture of
    the material `textured`, or None. warnings tell what was left aside.
    """

    format: str
    vertices: Float32[np.ndarray, "vertices 3"]
    faces: Int32[np.ndarray, "faces 3"]
    polygon: Int32[np.ndarray, " faces"]
    uvs: Float32[np.ndarray, "uvs 2"] | None
    uv_faces: Int32[np.ndarray, "faces 3"] | None
    material: Int32[np.ndarray, " faces"]
    materials: tuple[str, ...]
    texture: bytes | None = None
    textured: int | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.faces):
            raise MalformedInput("a mesh without faces; wanted a surface: export polygons", code="empty_mesh")
        for name, array in (("vertices", self.vertices), ("uvs", self.uvs)):
            if array is not None and not np.isfinite(array).all():
                raise MalformedInput(f"{name} that are not finite (NaN or infinity); export anew", code="not_finite")
