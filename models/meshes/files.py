"""Reading a mesh from a file of any kind that is taken. Formats are told by their content, never by a name."""

import re
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

from models.archive import Archive
from models.container import MAGIC as GLB_MAGIC
from models.errors import MalformedInput, TooLarge, UnsupportedMedia
from models.meshes.glb import read_glb
from models.meshes.obj import read_obj
from models.meshes.ply import read_ply
from models.meshes.ply_header import MAGIC as PLY_MAGIC
from models.meshes.record import MeshFile, MeshLimits

LIMITS = MeshLimits()
_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_VERTEX = re.compile(rb"(^|[\r\n])[ \t]*v[ \t]+[-+.\dnN]")
_STRANGERS = {
    b"\x80\x02": "a Python pickle",
    b"\x80\x03": "a Python pickle",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
    b"\x93NUMPY": "a numpy array",
    b"solid": "an STL",
    b"Kaydara FBX": "an FBX",
    b"; FBX": "an FBX",
    b"BLENDER": "a Blender file",
    b"\x28\xb5\x2f\xfd": "a file packed by zstd, as Blender packs its own,",
    b"\x1f\x8b": "a file packed by gzip",
    b"PXR-USDC": "a USD",
    b"#usda": "a USD",
    b"<?xml": "an XML, such as Collada,",
    b"{": "a JSON, such as glTF's,",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"RIFF": "a sound",
}
"""What else comes, by its first bytes."""
_STL_HEADER, _STL_TRIANGLE = 84, 50


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused as not finite
def read_mesh(file: BinaryIO, limits: MeshLimits = LIMITS) -> MeshFile:
    """Read a mesh from the file's beginning: OBJ, PLY, GLB, or a zip of one with its materials and pictures beside it.

    UnsupportedMedia for another kind of file (not_a_mesh) and for what is compressed or free-form (unsupported_mesh);
    TooLarge over a limit; MalformedInput for what is damaged (damaged_mesh, damaged_zip), refers to files elsewhere
    (external_reference), is not finite (not_finite), has no faces (empty_mesh), or is several meshes (several_meshes).
    """
    file.seek(0)
    data = file.read(limits.max_bytes + 1)
    if len(data) > limits.max_bytes:
        raise TooLarge(f"a mesh of more than {limits.max_bytes:,} bytes, the limit; decimate it, or leave pictures out")
    if not data.startswith(_ZIP_MAGIC):
        return _read(data, limits, {})
    archive = Archive(data, limits.max_unpacked_bytes)
    names = [name for name in archive if _format(archive[name])]
    if not names:
        raise _no_mesh("a zip without a mesh")
    if len(names) > 1:
        raise MalformedInput(
            f"a zip with {len(names)} meshes; wanted one: join them, or send one", code="several_meshes"
        )
    return _read(archive[names[0]], limits, archive)


def _read(data: bytes, limits: MeshLimits, beside: Mapping[str, bytes]) -> MeshFile:
    match _format(data):
        case "glb":
            return read_glb(data, limits)
        case "ply":
            return read_ply(data, limits, beside)
        case "obj":
            return read_obj(data, limits, beside)
    raise _no_mesh(_stranger(data))


def _format(data: bytes) -> str | None:
    if data.startswith(GLB_MAGIC):
        return "glb"
    if PLY_MAGIC.match(data):
        return "ply"
    if not data.startswith(tuple(_STRANGERS)) and b"\0" not in data and _VERTEX.search(data):
        return "obj"
    return None


def _stranger(data: bytes) -> str:
    """What the bytes are taken for."""
    if not data:
        return "an empty file"
    for magic, name in _STRANGERS.items():
        if data.startswith(magic):
            return name
    triangles = int.from_bytes(data[_STL_HEADER - 4 : _STL_HEADER], "little")
    if len(data) == _STL_HEADER + triangles * _STL_TRIANGLE:
        return "an STL"
    return "a file that is no mesh"


def _no_mesh(came: str) -> UnsupportedMedia:
    return UnsupportedMedia(
        f"{came}; wanted OBJ, PLY, GLB, or a zip of one with its pictures: export the head as one of them",
        code="not_a_mesh",
    )
