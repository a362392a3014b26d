"""Wavefront OBJ: a zip of one file a frame, one material and one texture for all."""

from collections.abc import Iterator

import numpy as np

from models.core import Clip, Frame, Mesh
from service.encoders.archive import Archive
from service.encoders.base import FrameEncoder

_MATERIAL = "material.mtl"
_TEXTURE = "base_color.png"


class ObjEncoder(FrameEncoder):
    """`frame_000000.obj` and so on: `v` to the micrometre, `vt`, and `f v/vt`. Normals are left to the reader.

    Vertices, faces and uvs keep the mesh's order, so that index k is the same point in every frame.
    """

    name = "obj"
    media_type = "application/zip"
    extension = ".zip"
    needs_whole_clip = False

    def begin(self, clip: Clip) -> Iterator[bytes]:
        """Yield material and texture; write uvs and faces out, once for all frames."""
        self._archive = Archive()
        self._row = "v %.6f %.6f %.6f\n" * len(clip.mesh.vertices)
        self._topology = _topology(clip.mesh)
        material = "newmtl skin\nKa 0 0 0\nKd 0.8 0.8 0.8\nKs 0 0 0\n"
        if clip.mesh.base_color_png is not None:
            material = material.replace("Kd 0.8 0.8 0.8", "Kd 1 1 1") + f"map_Kd {_TEXTURE}\n"
            yield self._archive.add_stored(_TEXTURE, clip.mesh.base_color_png)
        yield self._archive.add_deflated(_MATERIAL, material.encode())

    def frame(self, frame: Frame) -> Iterator[bytes]:
        """Yield one entry."""
        vertices = self._row % tuple(frame.vertices.ravel().tolist())
        text = f"mtllib {_MATERIAL}\n{vertices}{self._topology}"
        yield self._archive.add_deflated(f"frame_{frame.index:06d}.obj", text.encode())

    def end(self) -> Iterator[bytes]:
        """Yield the zip's directory."""
        yield self._archive.finish()


def _topology(mesh: Mesh) -> str:
    uvs = "vt %.6f %.6f\n" * len(mesh.uvs) % tuple(mesh.uvs.ravel().tolist())
    pairs = np.stack([mesh.faces, mesh.uv_faces], axis=2) + 1  # OBJ counts from one
    faces = "f %d/%d %d/%d %d/%d\n" * len(mesh.faces) % tuple(pairs.ravel().tolist())
    return f"{uvs}usemtl skin\ns 1\n{faces}"
