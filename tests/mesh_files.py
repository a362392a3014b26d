"""Mesh files to test with: a square as OBJ, PLY and GLB, and how they are read and refused."""

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from test_examples import picture

from models.errors import InputError
from models.meshes import MeshFile, MeshLimits, read_mesh
from service.encoders.container import GlbDocument

SKIN = picture(np.full((16, 16, 3), (200, 150, 120), np.uint8))
SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
OBJ = f"{SQUARE}vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nusemtl skin\nf 1/1 2/2 3/3 4/4\n"
CORNERS = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
TWO = [[0, 1, 2], [0, 2, 3]]


def read(data: bytes | str, **limits: int) -> MeshFile:
    data = data.encode() if isinstance(data, str) else data
    return read_mesh(io.BytesIO(data), replace(MeshLimits(), **limits))


def refused(error: type[InputError], data: bytes | str, code: str | None = None, **limits: int) -> InputError:
    with pytest.raises(error) as refusal:
        read(data, **limits)
    assert code is None or refusal.value.code == code
    return refusal.value


def assert_same(mesh: MeshFile, vertices: object, faces: object) -> None:
    np.testing.assert_array_equal(mesh.vertices, np.array(vertices, np.float32))
    np.testing.assert_array_equal(mesh.faces, faces)
    assert (mesh.vertices.dtype, mesh.faces.dtype) == (np.float32, np.int32)


ROW = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint32": "u4"}
ROW |= {"float": "f4", "double": "f8"}


def ply(
    format: str,
    vertices: Sequence[Sequence[float]] = CORNERS,
    faces: Sequence[Sequence[float]] = ((0, 1, 2, 3),),
    *,
    names: str = "x y z",
    item: str = "float",
    lists: str = "vertex_indices",
    length: str = "uchar",
    index: str = "int",
    extra: bool = False,
) -> bytes:
    """A PLY. extra: an element before and one after the mesh, and properties beside those that are wanted."""
    order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[format]

    def row(*values: tuple[str, float]) -> bytes:
        if not order:
            return " ".join(f"{v:.9g}" for _, v in values).encode() + b"\n"
        return b"".join(np.array(v, order + ROW[kind]).tobytes() for kind, v in values)

    header = f"ply\nformat {format} 1.0\ncomment by hand\nobj_info 7\n"
    body = b""
    if extra:
        header += "element camera 2\nproperty list uchar short pose\nproperty double zoom\n"
        body += row(("uchar", 1), ("short", 7), ("double", 1.5)) + row(("uchar", 0), ("double", 2.5))
    header += f"element vertex {len(vertices)}\n" + "".join(f"property {item} {name}\n" for name in names.split())
    header += "property uchar red\n" * extra
    for vertex in vertices:
        body += row(*((item, v) for v in vertex), *[("uchar", 9)] * extra)
    header += f"element face {len(faces)}\n" + "property float quality\n" * extra
    header += f"property list {length} {index} {lists}\n" + "property uchar flags\n" * extra
    for face in faces:
        corners = [(length, len(face)), *((index, v) for v in face)]
        body += row(*[("float", 0.5)] * extra, *corners, *[("uchar", 3)] * extra)
    if extra:
        header += "element edge 1\nproperty int from\n"
        body += row(("int", 3))
    return header.encode() + b"end_header\n" + body


FORMATS = ("ascii", "binary_little_endian", "binary_big_endian")


def meshlab(uvs: list[list[float]]) -> bytes:
    """Two faces with uvs at their corners, as MeshLab writes them."""
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment VCGLIB generated\ncomment TextureFile my skin.png\n"
        "element vertex 4\nproperty float x\nproperty float y\nproperty float z\nelement face 2\n"
        "property list uchar int vertex_indices\nproperty list uchar float texcoord\nproperty int texnumber\n"
        "end_header\n"
    )
    rows = (struct.pack(f"<B3iB{len(uv)}fi", 3, *face, len(uv), *uv, 0) for face, uv in zip(TWO, uvs, strict=True))
    return header.encode() + np.array(CORNERS, "<f4").tobytes() + b"".join(rows)


def document(change: Callable[[dict], object] = lambda root: None) -> GlbDocument:
    """A square of two triangles, with uvs and a picture."""
    made = GlbDocument({})
    uvs = np.array(CORNERS, np.float32)[:, :2]
    attributes = {
        "POSITION": made.add_positions(np.array(CORNERS, np.float32)),
        "TEXCOORD_0": made.add_accessor(np.ascontiguousarray(uvs)),
    }
    indices = made.add_accessor(np.array(TWO, np.uint16).ravel())
    made.root["meshes"] = [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}]
    made.root["images"] = [{"mimeType": "image/png", "bufferView": made.add_bytes(SKIN)}]
    made.root["textures"] = [{"source": 0}]
    made.root["materials"] = [{"name": "skin", "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    change(made.root)
    return made


def glb(change: Callable[[dict], object] = lambda root: None, **more: np.ndarray) -> bytes:
    """`document` as a file, with more accessors, which `change` finds from number 3 on."""
    made = document()
    for array in more.values():
        made.add_accessor(array)
    change(made.root)
    return b"".join(made.chunks())


def primitive(root: dict) -> dict:
    return root["meshes"][0]["primitives"][0]
