"""The GLB container (glTF 2.0, binary) that strangers send: its JSON, and arrays and images in its buffer.

Nothing outside the file is opened.
"""

import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Num

from models.archive import parse_json
from models.errors import SHOWN, MalformedInput

MAGIC = b"glTF"
FLOAT32, UINT8, UINT16, UINT32 = 5126, 5121, 5123, 5125
_TYPES = {FLOAT32: "<f4", UINT8: "u1", UINT16: "<u2", UINT32: "<u4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}
_HEADER = struct.Struct("<4sII")
_CHUNK = struct.Struct("<I4s")


class _View(NamedTuple):
    data: memoryview
    stride: int | None


@dataclass(frozen=True, eq=False)
class Container:
    """A file taken apart: its JSON and its buffer. Methods raise what a forged file trips over, such as ValueError and
    KeyError: call them within `models.errors.refusing_damage`.
    """

    root: dict[str, Any]
    binary: bytes

    @classmethod
    def parse(cls, data: bytes) -> "Container":
        """Take a file apart; references to other files are refused, whether they are used or not."""
        magic, version, length = _HEADER.unpack_from(data)
        size, kind = _CHUNK.unpack_from(data, _HEADER.size)
        begin = _HEADER.size + _CHUNK.size
        if (magic, version, length, kind) != (MAGIC, 2, len(data), b"JSON"):
            raise ValueError(f"version {version}, length {length:,} of {len(data):,}, first chunk {kind!r}")
        root = parse_json(data[begin : begin + size], "a GLB's JSON")
        for entry in [*root.get("buffers", ()), *root.get("images", ())]:
            if "uri" in entry:
                raise MalformedInput(
                    f"a GLB that refers to {str(entry['uri'])[:SHOWN]!r}; wanted one that is whole: embed it",
                    code="external_reference",
                )
        return cls(root, data[begin + size + _CHUNK.size :])

    def image(self, index: int) -> bytes:
        """An encoded image."""
        return bytes(self._view(self.root["images"][index]["bufferView"]).data)

    def base_color(self, material: int) -> int | None:
        """The image of a material's base colour, if it has one that needs no extension."""
        surface = self.root["materials"][material].get("pbrMetallicRoughness", {})
        if "baseColorTexture" not in surface:
            return None
        image: int | None = self.root["textures"][surface["baseColorTexture"]["index"]].get("source")
        return image

    def array(
        self, index: int, kind: str, components: Collection[int] = (FLOAT32,)
    ) -> Num[np.ndarray, "elements width"]:
        """An accessor's elements, which are not copied; sparse ones are refused, and components that are not wanted."""
        accessor = self.root["accessors"][index]
        came, component = accessor["type"], accessor["componentType"]
        if came != kind or component not in components or "sparse" in accessor:
            raise ValueError(f"accessor {index} is sparse, or {came} of component {component}; wanted {kind}")
        view, dtype, width = self._view(accessor["bufferView"]), np.dtype(_TYPES[component]), _WIDTHS[kind]
        count, offset = int(accessor["count"]), int(accessor.get("byteOffset", 0))
        stride = width * dtype.itemsize if view.stride is None else view.stride
        if min(count, offset) < 0 or stride < width * dtype.itemsize:
            raise ValueError(f"accessor {index} has a negative size, or elements that overlap")
        return np.ndarray((count, width), dtype, view.data, offset, (stride, dtype.itemsize))

    def _view(self, index: int) -> _View:
        view = self.root["bufferViews"][index]
        start, size = int(view.get("byteOffset", 0)), int(view["byteLength"])
        if view["buffer"] != 0 or min(start, size) < 0 or start + size > len(self.binary):
            raise ValueError(f"buffer view {index} reaches outside the file")
        return _View(memoryview(self.binary)[start : start + size], view.get("byteStride"))
