"""Wavefront OBJ: polygons with a vertex and perhaps a uv at each corner, and names of materials."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from jaxtyping import Float32, Int, Int32

from models.errors import SHOWN, UnsupportedMedia, refusing_damage
from models.meshes.polygons import check_corners, checked_indices, fan, widest
from models.meshes.record import DAMAGED, UNSUPPORTED, MeshFile, MeshLimits
from models.meshes.wavefront import check_inside, named_beside, read_maps, statements

_FREE_FORM = {"vp", "cstype", "deg", "bmat", "step", "curv", "curv2", "surf", "parm", "trim", "hole", "scrv", "sp"}
_LEFT_SILENTLY = {"vn", "g", "o", "s", "end"}
BLOCK = 1 << 16
"""Rows of text that are taken apart at a time."""


def read_obj(data: bytes, limits: MeshLimits, beside: Mapping[str, bytes]) -> MeshFile:
    """Read an OBJ; its MTL and its picture are taken from the files that came along, by their plain names.

    MalformedInput for what is damaged or refers to files elsewhere (external_reference); UnsupportedMedia for free-form
    curves and surfaces; TooLarge over a limit.
    """
    with refusing_damage("an OBJ", "v, vt, f and usemtl: export it anew, with polygons", code=DAMAGED):
        text = _Text.gather(data, limits)
        vertices = _numbers(text.vertices, 3)
        triangles, polygon = fan(np.array(text.corners, np.int64), limits)
        corners = _corners(text.tokens)
        seen = np.repeat(np.array(text.seen, np.int64).reshape(-1, 2), text.corners, axis=0)
        faces = checked_indices(_from_zero(corners[:, 0], seen[:, 0]), len(vertices), "vertices")[triangles]
        uvs, uv_corners = _laid_out(_numbers(text.uvs, 2, " 0"), corners[:, 1], seen[:, 1])
        material = np.array(text.material, np.int32)[polygon]
        texture, textured, warnings = _texture(text, beside, vertices, faces, material)
        return MeshFile(
            "obj",
            vertices,
            faces,
            polygon,
            uvs,
            None if uvs is None else uv_corners[triangles],
            material,
            tuple(text.materials),
            texture,
            textured,
            (*text.warnings, *warnings),
        )


@dataclass
class _Text:
    """Statements sorted by kind: rows of vertices and uvs, tokens of all corners, and of each face its number of
    corners, the vertices and uvs seen until then, and its material.
    """

    vertices: list[str] = field(default_factory=list)
    uvs: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    corners: list[int] = field(default_factory=list)
    seen: "array[int]" = field(default_factory=lambda: array("q"))
    material: list[int] = field(default_factory=list)
    materials: dict[str, int] = field(default_factory=dict)
    libraries: dict[str, None] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)

    @classmethod
    def gather(cls, data: bytes, limits: MeshLimits) -> "_Text":
        text, name = cls(), ""
        for keyword, rest in statements(data):
            if keyword == "v":
                text.vertices.append(rest)
                limits.check(vertices=len(text.vertices))
            elif keyword == "vt":
                text.uvs.append(rest)
                if len(text.uvs) > 3 * limits.max_triangles:
                    limits.check(triangles=-(-len(text.uvs) // 3))
            elif keyword == "f":
                text._add_face(rest, name, limits)
            elif keyword == "usemtl":
                name = rest
            elif keyword == "mtllib":
                check_inside(rest)
                text.libraries[rest] = None
            elif keyword in _FREE_FORM:
                raise UnsupportedMedia(
                    f"an OBJ with free-form geometry ({keyword}); wanted polygons: convert it", code=UNSUPPORTED
                )
            elif keyword not in _LEFT_SILENTLY:
                text.left.add(keyword[:SHOWN])
        return text

    def _add_face(self, rest: str, name: str, limits: MeshLimits) -> None:
        tokens = rest.split(None, limits.max_triangles + 2)  # no more than a polygon may have, however long the line
        check_corners(len(tokens))
        self.tokens += tokens
        limits.check(triangles=len(self.tokens) - 2 * len(self.corners) - 2)
        self.corners.append(len(tokens))
        self.seen.extend((len(self.vertices), len(self.uvs)))
        self.material.append(self.materials.setdefault(name, len(self.materials)))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was left aside."""
        if not self.left:
            return ()
        return (f"statements that are no mesh were left aside: {', '.join(sorted(self.left)[:5])}",)


def _numbers(rows: list[str], width: int, missing: str = "") -> Float32[np.ndarray, "rows width"]:
    """The first numbers of each row, and what is missing of them."""
    result = np.zeros((len(rows), width), np.float32)
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        parts = chain.from_iterable((row + missing).split(None, width)[:width] for row in block)
        numbers = np.fromiter(map(float, parts), np.float64, width * len(block))
        result[start : start + BLOCK] = numbers.reshape(-1, width)
    return result


def _corners(tokens: list[str]) -> Int[np.ndarray, "corners 2"]:
    """The numbers of vertex and uv in v, v/vt, v//vn and v/vt/vn, as the file counts; 0 where there is none."""
    result = np.zeros((len(tokens), 2), np.int64)
    slashes = np.array([token.count("/") for token in tokens], np.int8)
    for count in np.unique(slashes):
        chosen = np.flatnonzero(slashes == count)
        parts = "/".join([tokens[k] for k in chosen]).split("/")
        numbers = np.array([int(part or 0) for part in parts], np.int64).reshape(len(chosen), -1)
        result[chosen, : count + 1] = numbers[:, :2]
    return result


def _from_zero(index: Int[np.ndarray, " corners"], seen: Int[np.ndarray, " corners"]) -> Int[np.ndarray, " corners"]:
    """What counts from one, or back from what was seen until then, counted from zero; 0 becomes -1."""
    return np.where(index < 0, seen + index, index - 1)


def _laid_out(
    uvs: Float32[np.ndarray, "uvs 2"], index: Int[np.ndarray, " corners"], seen: Int[np.ndarray, " corners"]
) -> tuple[Float32[np.ndarray, "uvs 2"] | None, Int32[np.ndarray, " corners"]]:
    """The uvs and each corner's; corners without one have another at the end, which is (0, 0)."""
    without = index == 0
    if without.all():
        return None, index.astype(np.int32)
    if without.any():
        uvs = np.concatenate([uvs, np.zeros((1, 2), np.float32)])
    return uvs, checked_indices(np.where(without, len(uvs) - 1, _from_zero(index, seen)), len(uvs), "uvs")


def _texture(
    text: _Text,
    beside: Mapping[str, bytes],
    vertices: Float32[np.ndarray, "vertices 3"],
    faces: Int32[np.ndarray, "faces 3"],
    material: Int32[np.ndarray, " faces"],
) -> tuple[bytes | None, int | None, list[str]]:
    """The picture of the widest material that has one, which material that is, and what was left aside."""
    libraries = dict.fromkeys(name for names in text.libraries for name in named_beside(names, beside))
    maps: dict[str, str] = {}
    for library in libraries:
        maps |= {name: map for name, map in read_maps(beside[library]).items() if name in text.materials}
    found = {text.materials[name]: names for name, map in maps.items() if (names := named_beside(map, beside))}
    textured = widest(vertices, faces, material, found)
    warnings = []
    if text.libraries and not libraries:
        warnings.append("the materials' file was left aside: send a zip with it and its pictures in it")
    if len(found) < len(maps):
        warnings.append(f"{len(maps) - len(found)} pictures were left aside: they are not in the zip by a plain name")
    if len(found) > 1:
        warnings.append(f"of the pictures of {len(found)} materials only that of the largest is used")
    return (None if textured is None else beside[found[textured][0]]), textured, warnings
