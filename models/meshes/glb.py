"""GLB: the triangles of a scene, each where its nodes put it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Int32

from models.container import FLOAT32, UINT8, UINT16, UINT32, Container
from models.errors import SHOWN, TooLarge, UnsupportedMedia, refusing_damage
from models.meshes.polygons import checked_indices, widest
from models.meshes.record import DAMAGED, UNSUPPORTED, MeshFile, MeshLimits

MAX_PRIMITIVES = 10_000
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_HARMLESS = ("KHR_materials_", "KHR_texture_transform", "KHR_lights_punctual", "KHR_xmp")
"""Extensions that may be required: without them colours differ, and the shape does not."""


class _Placed(NamedTuple):
    """A mesh of the scene, by its number, and how its node moves it; None leaves it where it is."""

    mesh: int
    transform: Float[np.ndarray, "4 4"] | None


def read_glb(data: bytes, limits: MeshLimits) -> MeshFile:
    """Read the default scene, its meshes one after the other; copies at uv seams stay.

    MalformedInput for what is damaged or refers to other files (external_reference); UnsupportedMedia for compressed
    meshes; TooLarge over a limit.
    """
    with refusing_damage("a GLB", "a scene of triangles, POSITION as float32: export it anew", code=DAMAGED):
        container = Container.parse(data)
        for extension in container.root.get("extensionsRequired", ()):
            if not str(extension).startswith(_HARMLESS):
                raise UnsupportedMedia(
                    f"a GLB that requires {str(extension)[:SHOWN]}; wanted plain glTF 2.0: export it without "
                    "compression",
                    code=UNSUPPORTED,
                )
        parts = _Parts(container, limits)
        for what in ("skins", "animations"):
            if container.root.get(what):
                parts.left[what] = None
        for placed in _scene(container.root):
            parts.add(placed)
        return parts.file()


def _scene(root: dict[str, Any]) -> Iterator[_Placed]:
    """The meshes of the default scene, nodes before their children. ValueError for a node that is met twice."""
    nodes, met = root["nodes"], set[int]()
    waiting = [(index, np.eye(4)) for index in reversed(root["scenes"][root.get("scene", 0)]["nodes"])]
    while waiting:
        index, outer = waiting.pop()
        if index in met:
            raise ValueError(f"node {index} is met twice: its hierarchy is no tree")
        met.add(index)
        node = nodes[index]
        transform = outer @ _transform(node)
        if "mesh" in node:
            yield _Placed(node["mesh"], None if "skin" in node else transform)
        waiting += [(child, transform) for child in reversed(node.get("children", ()))]


def _transform(node: dict[str, Any]) -> Float[np.ndarray, "4 4"]:
    """A node's matrix, or its translation · rotation · scale."""
    if "matrix" in node:
        matrix = np.array(node["matrix"], float).reshape(4, 4).T
    else:
        rotation = np.array(node.get("rotation", (0, 0, 0, 1)), float)
        x, y, z, w = rotation / np.linalg.norm(rotation)
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        turn = np.eye(3) + 2 * w * cross + 2 * cross @ cross
        matrix = np.eye(4)
        matrix[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), float)
        matrix[:3, 3] = node.get("translation", (0, 0, 0))
    if not np.isfinite(matrix).all():
        raise ValueError("a node whose transform is not finite")
    return matrix


@dataclass
class _Parts:
    """What has been gathered of a scene. Primitives of one mesh that share their vertices share them here."""

    container: Container
    limits: MeshLimits
    vertices: list[np.ndarray] = field(default_factory=list)
    uvs: list[np.ndarray | None] = field(default_factory=list)
    faces: list[np.ndarray] = field(default_factory=list)
    material: list[int] = field(default_factory=list)
    materials: dict[int | None, int] = field(default_factory=dict)
    left: dict[str, None] = field(default_factory=dict)
    count: int = 0
    triangles: int = 0

    def add(self, placed: _Placed) -> None:
        mesh, begins = self.container.root["meshes"][placed.mesh], dict[tuple[int, int | None], tuple[int, int]]()
        for primitive in mesh["primitives"]:
            if (mode := primitive.get("mode", _TRIANGLES)) not in (_TRIANGLES, _STRIP, _FAN):
                self.left["lines and points"] = None
                continue
            if len(self.faces) == MAX_PRIMITIVES:
                raise TooLarge(f"a GLB of more than {MAX_PRIMITIVES:,} primitives, the limit; join them")
            if "targets" in primitive:
                self.left["morph targets"] = None
            key = self._vertices_of(primitive)
            if key not in begins:
                begins[key] = self.count, self._add_vertices(*key, placed.transform)
            begin, count = begins[key]
            faces = self._triangles(primitive, mode, count)
            if placed.transform is not None and np.linalg.det(placed.transform[:3, :3]) < 0:
                faces = faces[:, [0, 2, 1]]  # a mirror turns them inside out
            self.faces.append(faces + np.int32(begin))
            material = primitive.get("material")
            self.material.append(self.materials.setdefault(material, len(self.materials)))

    def _vertices_of(self, primitive: dict[str, Any]) -> tuple[int, int | None]:
        """Accessors of positions, and of the uvs that the base colour is laid out by."""
        attributes, texture = primitive["attributes"], {}
        if (material := primitive.get("material")) is not None:
            surface = self.container.root["materials"][material].get("pbrMetallicRoughness", {})
            texture = surface.get("baseColorTexture", {})
        return attributes["POSITION"], attributes.get(f"TEXCOORD_{texture.get('texCoord', 0)}")

    def _add_vertices(self, position: int, uv: int | None, transform: np.ndarray | None) -> int:
        vertices = self.container.array(position, "VEC3")
        self.count += len(vertices)
        self.limits.check(vertices=self.count)
        if transform is not None:
            vertices = vertices.astype(float) @ transform[:3, :3].T + transform[:3, 3]
        self.vertices.append(vertices.astype(np.float32))
        self.uvs.append(None if uv is None else self._uvs(uv, len(vertices)))
        return len(vertices)

    def _uvs(self, index: int, count: int) -> Float32[np.ndarray, "uvs 2"]:
        """uvs with their origin at the lower left; glTF's is at the upper left."""
        uvs = self.container.array(index, "VEC2", (FLOAT32, UINT8, UINT16))
        if len(uvs) != count:
            raise ValueError(f"{len(uvs):,} uvs for {count:,} positions")
        if uvs.dtype.kind == "u":
            uvs = uvs.astype(np.float32) / np.iinfo(uvs.dtype).max
        return (uvs * [1, -1] + [0, 1]).astype(np.float32)

    def _triangles(self, primitive: dict[str, Any], mode: int, count: int) -> Int32[np.ndarray, "triangles 3"]:
        if "indices" in primitive:
            order = self.container.array(primitive["indices"], "SCALAR", (UINT8, UINT16, UINT32))[:, 0]
        else:
            order = np.arange(count)
        self.triangles += len(order) // 3 if mode == _TRIANGLES else max(len(order) - 2, 0)
        self.limits.check(triangles=self.triangles)
        return checked_indices(_corners(order, mode), count, "vertices")

    def file(self) -> MeshFile:
        vertices = np.concatenate([np.zeros((0, 3), np.float32), *self.vertices])
        faces = np.concatenate([np.zeros((0, 3), np.int32), *self.faces])
        material = np.repeat(np.array(self.material, np.int32), [len(part) for part in self.faces])
        uvs = self._all_uvs()
        materials = [{} if key is None else self.container.root["materials"][key] for key in self.materials]
        texture, textured = self._texture(vertices, faces, material)
        return MeshFile(
            "glb",
            vertices,
            faces,
            np.arange(len(faces), dtype=np.int32),
            uvs,
            None if uvs is None else faces,
            material,
            tuple(str(each.get("name", "")) for each in materials),
            texture,
            textured,
            tuple(f"{what} were left aside" for what in self.left),
        )

    def _all_uvs(self) -> Float32[np.ndarray, "vertices 2"] | None:
        """uvs of all vertices, (0, 0) of those that have none."""
        if all(part is None for part in self.uvs):
            return None
        sizes = map(len, self.vertices)
        parts = [np.zeros((size, 2)) if part is None else part for size, part in zip(sizes, self.uvs, strict=True)]
        return np.concatenate(parts).astype(np.float32)

    def _texture(
        self,
        vertices: Float32[np.ndarray, "vertices 3"],
        faces: Int32[np.ndarray, "faces 3"],
        material: Int32[np.ndarray, " faces"],
    ) -> tuple[bytes | None, int | None]:
        """The picture of the widest material that has one, and which material that is."""
        pictures = {
            number: image
            for key, number in self.materials.items()
            if key is not None and (image := self.container.base_color(key)) is not None
        }
        textured = widest(vertices, faces, material, pictures)
        if len(pictures) > 1:
            self.left["pictures of all but the largest material"] = None
        return (None if textured is None else self.container.image(pictures[textured])), textured


def _corners(order: Int[np.ndarray, " corners"], mode: int) -> Int[np.ndarray, "triangles 3"]:
    """Numbers of vertices as they are listed → three a triangle."""
    if mode == _TRIANGLES:
        return order.reshape(-1, 3)
    first = np.arange(len(order) - 2)
    if mode == _FAN:
        return order[np.stack([np.zeros_like(first), first + 1, first + 2], 1)]
    odd = first % 2  # every other triangle of a strip is listed the other way around
    return order[np.stack([first, first + 1 + odd, first + 2 - odd], 1)]
