"""Wavefront OBJ: a zip of one file a frame, one material and one texture for all, or one for each."""

from collections.abc import Iterator

import numpy as np

from models.core import Clip, Frame, Mesh
from service.encoders.archive import Archive
from service.encoders.base import FrameEncoder
from service.encoders.textures import base_color, composer_of

_MATERIAL = "material.mtl"
_TEXTURE = "base_color"


class ObjEncoder(FrameEncoder):
    """`frame_000000.obj` and so on: `v` to the micrometre, `vt`, and `f v/vt`. Normals are left to the reader.

    Vertices, faces and uvs keep the mesh's order, so that index k is the same point in every frame. All frames share a
    material and its texture; with wrinkles, each has its own.
    """

    name = "obj"
    media_type = "application/zip"
    extension = ".zip"
    needs_whole_clip = False
    texel_bytes = 0.3
    repeats_neutral = False

    def begin(self, clip: Clip) -> Iterator[bytes]:
        """Yield the neutral texture and the shared material; write uvs and faces out, once for all frames."""
        self._archive = Archive()
        self._row = "v %.6f %.6f %.6f\n" * len(clip.mesh.vertices)
        self._topology = _topology(clip.mesh)
        self._composer = composer_of(clip)
        neutral = self._composer.neutral() if self._composer else base_color(clip.mesh)
        if neutral is not None:
            yield self._archive.add_stored(f"{_TEXTURE}{neutral.extension}", neutral.data)
        if self._composer is None:
            yield self._archive.add_deflated(_MATERIAL, _material(f"{_TEXTURE}.png" if neutral else None))

    def frame(self, frame: Frame) -> Iterator[bytes]:
        """Yield the frame's entry; with wrinkles its texture and its material, too."""
        name, material = f"frame_{frame.index:06d}", _MATERIAL
        if self._composer is not None:
            assert frame.wrinkles is not None
            material = f"{name}.mtl"
            yield self._archive.add_stored(f"{name}.jpg", self._composer.picture(frame.wrinkles).data)
            yield self._archive.add_deflated(material, _material(f"{name}.jpg"))
        vertices = self._row % tuple(frame.vertices.ravel().tolist())
        text = f"mtllib {material}\n{vertices}{self._topology}"
        yield self._archive.add_deflated(f"{name}.obj", text.encode())

    def end(self) -> Iterator[bytes]:
        """Yield the zip's directory."""
        yield self._archive.finish()


def _material(texture: str | None) -> bytes:
    colour = f"Kd 1 1 1\nKs 0 0 0\nmap_Kd {texture}" if texture else "Kd 0.8 0.8 0.8\nKs 0 0 0"
    return f"newmtl skin\nKa 0 0 0\n{colour}\n".encode()


def _topology(mesh: Mesh) -> str:
    uvs = "vt %.6f %.6f\n" * len(mesh.uvs) % tuple(mesh.uvs.ravel().tolist())
    pairs = np.stack([mesh.faces, mesh.uv_faces], axis=2) + 1  # OBJ counts from one
    faces = "f %d/%d %d/%d %d/%d\n" * len(mesh.faces) % tuple(pairs.ravel().tolist())
    return f"{uvs}usemtl skin\ns 1\n{faces}"
