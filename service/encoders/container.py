"""The GLB container: accessors go in, the file's bytes come out."""

import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from service.encoders.materials import materials_of
from service.encoders.surface import Surface
from service.encoders.textures import Picture

_COMPONENT = {np.dtype(np.float32): 5126, np.dtype(np.uint32): 5125, np.dtype(np.uint16): 5123}
_KIND = {1: "SCALAR", 2: "VEC2", 3: "VEC3"}
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_ALIGNMENT = 4


class GlbDocument:
    """A glTF 2.0 document with one mesh at the origin and one buffer.

    `root` is the JSON part, open for what a caller adds.
    """

    def __init__(self, extras: dict[str, Any]) -> None:
        self.root: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "Talker", "extras": extras},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"name": "head", "mesh": 0}],
            "accessors": [],
            "bufferViews": [],
        }
        self._parts: list[bytes] = []
        self._size = 0

    def add_bytes(self, data: bytes, target: int | None = None) -> int:
        """Append to the buffer; return the index of the buffer view."""
        view = {"buffer": 0, "byteOffset": self._size, "byteLength": len(data)}
        self.root["bufferViews"].append(view if target is None else view | {"target": target})
        padding = bytes(-len(data) % _ALIGNMENT)
        self._parts += [data, padding]
        self._size += len(data) + len(padding)
        return len(self.root["bufferViews"]) - 1

    def add_accessor(self, array: np.ndarray, *, target: int | None = None, bounds: bool = False) -> int:
        """Append an array (n,) or (n, width) of float32, uint16 or uint32; return the index of its accessor."""
        rows = np.ascontiguousarray(array).reshape(len(array), -1)
        accessor = {
            "bufferView": self.add_bytes(rows.tobytes(), target),
            "componentType": _COMPONENT[rows.dtype],
            "count": len(rows),
            "type": _KIND[rows.shape[1]],
        }
        if bounds:
            accessor |= {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()}
        self.root["accessors"].append(accessor)
        return len(self.root["accessors"]) - 1

    def add_positions(self, positions: np.ndarray) -> int:
        """Append positions, or the offsets of a morph target, (n, 3) float32: glTF wants their bounds."""
        return self.add_accessor(positions, target=_ARRAY_BUFFER, bounds=True)

    def add_picture(self, picture: Picture) -> int:
        """Append an image; return its index."""
        images = self.root.setdefault("images", [])
        images.append({"mimeType": picture.media_type, "bufferView": self.add_bytes(picture.data)})
        return len(images) - 1

    def add_mesh(self, surface: Surface, vertices: np.ndarray, texture: Picture | None) -> dict[str, Any]:
        """Make the mesh, a primitive and a material for each of its own; return its JSON, open for morph targets.

        The primitives share their attributes. The texture is the skin's.
        """
        attributes = {
            "POSITION": self.add_positions(vertices[surface.corners]),
            "NORMAL": self.add_accessor(surface.normals(vertices), target=_ARRAY_BUFFER),
            "TEXCOORD_0": self.add_accessor(surface.uvs, target=_ARRAY_BUFFER),
        }
        materials, primitives = materials_of(surface.mesh), []
        for number, faces in materials.parts():
            indices = self.add_accessor(surface.triangles[faces].ravel(), target=_ELEMENT_ARRAY_BUFFER)
            primitives.append({"attributes": attributes, "indices": indices, "material": number})
        self.root["materials"] = [
            {"name": name, "pbrMetallicRoughness": self._colour(texture if number == materials.skin else None)}
            for number, name in enumerate(materials.names)
        ]
        mesh = {"name": "head", "primitives": primitives}
        self.root["meshes"] = [mesh]
        return mesh

    def _colour(self, texture: Picture | None) -> dict[str, Any]:
        surface: dict[str, Any] = {"metallicFactor": 0, "roughnessFactor": 0.75}
        if texture is None:
            return surface | {"baseColorFactor": [0.8, 0.8, 0.8, 1]}
        self.root["textures"] = [{"source": self.add_picture(texture)}]
        return surface | {"baseColorTexture": {"index": 0}}

    def chunks(self) -> Iterator[bytes]:
        """Yield the file: header, JSON chunk, then the binary chunk part by part."""
        text = json.dumps(self.root | {"buffers": [{"byteLength": self._size}]}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        header = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + self._size)
        yield header + struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", self._size, b"BIN\0")
        yield from filter(None, self._parts)
