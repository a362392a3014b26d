"""What a mesh file holds, whatever its format."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32


@dataclass(frozen=True)
class MeshLimits:
    """How large a mesh file may be: bytes, bytes unpacked, vertices, and triangles after polygons are cut."""

    max_bytes: int = 128 << 20
    max_unpacked_bytes: int = 256 << 20
    max_vertices: int = 1_000_000
    max_triangles: int = 1_000_000


@dataclass(frozen=True, eq=False)
class MeshFile:
    """A mesh as its file holds it, in its own units and axes; nothing is merged, reordered or left out.

    vertices (V, 3); faces (F, 3) into them, polygons cut into fans from their first corner; polygon (F,) number of
    the polygon of each; uvs (K, 2), origin at the lower left, and uv_faces (F, 3), or None; material (F,) into
    materials. texture is the encoded base-colour picture of the material `textured`, or None. warnings tell what was
    left aside.
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
