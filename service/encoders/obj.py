"""Wavefront OBJ: a zip of one file a frame, one material and one texture for all, or one for each."""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from models.core import Clip, Frame, Mesh
from service.encoders.archive import Archive
from service.encoders.base import FrameEncoder
from service.encoders.materials import Materials, materials_of
from service.encoders.textures import base_color, composer_of

_MATERIAL = "material.mtl"
_TEXTURE = "base_color"
_PLAIN, _EXACT = "%.6f", "%.9g"
"""Of a coordinate: to the micrometre; and so that float32 come back as they were, whatever the file's unit."""
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")


class ObjEncoder(FrameEncoder):
    """`frame_000000.obj` and so on: `v` to the micrometre, `vt`, and `f v/vt`. Normals are left to the reader.

    Vertices, faces and uvs keep the mesh's order, so that index k is the same point in every frame. All frames share
    materials and a texture; with wrinkles, each has its own. A mesh that came as a file keeps its units and axes, its
    polygons and its materials' names; its coordinates are exact, and the textures are its skin's.
    """

    name = "obj"
    media_type = "application/zip"
    extension = ".zip"
    needs_whole_clip = False
    texel_bytes = 0.3
    repeats_neutral = False

    def begin(self, clip: Clip) -> Iterator[bytes]:
        """Yield the neutral texture and the shared material; write uvs and faces out, once for all frames."""
        self._archive, self._mesh = Archive(), clip.mesh
        materials = materials_of(clip.mesh)
        self._names, self._skin = _names(materials.names), materials.skin
        self._row = _row("v", 3, clip.mesh) * len(clip.mesh.vertices)
        self._topology = _topology(clip.mesh, materials, self._names)
        self._composer = composer_of(clip)
        neutral = self._composer.neutral() if self._composer else base_color(clip.mesh)
        if neutral is not None:
            yield self._archive.add_stored(f"{_TEXTURE}{neutral.extension}", neutral.data)
        if self._composer is None:
            yield self._archive.add_deflated(
                _MATERIAL, self._library(f"{_TEXTURE}{neutral.extension}" if neutral else None)
            )

    def frame(self, frame: Frame) -> Iterator[bytes]:
        """Yield the frame's entry; with wrinkles its texture and its material, too."""
        name, material = f"frame_{frame.index:06d}", _MATERIAL
        if self._composer is not None:
            assert frame.wrinkles is not None
            material = f"{name}.mtl"
            yield self._archive.add_stored(f"{name}.jpg", self._composer.picture(frame.wrinkles).data)
            yield self._archive.add_deflated(material, self._library(f"{name}.jpg"))
        vertices = self._row % tuple(self._mesh.own(frame.vertices).ravel().tolist())
        text = f"mtllib {material}\n{vertices}{self._topology}"
        yield self._archive.add_deflated(f"{name}.obj", text.encode())

    def end(self) -> Iterator[bytes]:
        """Yield the zip's directory."""
        yield self._archive.finish()

    def _library(self, texture: str | None) -> bytes:
        entries = (_material(name, texture if k == self._skin else None) for k, name in enumerate(self._names))
        return "".join(entries).encode()


def _material(name: str, texture: str | None) -> str:
    colour = f"Kd 1 1 1\nKs 0 0 0\nmap_Kd {texture}" if texture else "Kd 0.8 0.8 0.8\nKs 0 0 0"
    return f"newmtl {name}\nKa 0 0 0\n{colour}\n"


def _names(names: Sequence[str]) -> list[str]:
    """Names as lines can hold them, and no two alike: GLB allows both."""
    result = list[str]()
    for name in names:
        own = _UNPRINTABLE.sub(" ", name).strip() or "material"
        result.append(own if own not in result else f"{own}.{len(result)}")
    return result


def _row(key: str, width: int, mesh: Mesh) -> str:
    return " ".join([key, *[_PLAIN if mesh.source is None else _EXACT] * width]) + "\n"


def _topology(mesh: Mesh, materials: Materials, names: Sequence[str]) -> str:
    """uvs, then polygons, rebuilt from the fans that they were cut into, and a line where the material changes."""
    uvs = _row("vt", 2, mesh) * len(mesh.uvs) % tuple(mesh.uvs.ravel().tolist())
    polygon = np.arange(len(mesh.faces)) if mesh.source is None else mesh.source.polygon
    begins = np.diff(polygon, prepend=-1) != 0
    first = np.flatnonzero(begins)
    corners = np.diff(first, append=len(mesh.faces)) + 2
    material = materials.of_face[first]
    turns = np.diff(material, prepend=material[:1]) != 0
    rows = {count: f"f{' %d/%d' * count}\n" for count in np.unique(corners).tolist()}
    uses = [f"usemtl {name}\n" for name in names]
    escaped = [use.replace("%", "%%") for use in uses]
    lines = [
        f"{escaped[number]}{rows[count]}" if turn else rows[count]
        for count, number, turn in zip(corners.tolist(), material.tolist(), turns.tolist(), strict=True)
    ]
    kept = np.broadcast_to(begins[:, None] | (np.arange(3) == 2), mesh.faces.shape)
    pairs = np.stack([mesh.faces, mesh.uv_faces], axis=2)[kept] + 1  # OBJ counts from one
    return f"{uvs}{uses[material[0]]}s 1\n{''.join(lines) % tuple(pairs.ravel().tolist())}"
