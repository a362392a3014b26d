"""PLY, in text or binary of either order: vertices, polygons, and uvs at vertices or at the corners of faces."""

import struct
from array import array
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int32, Num

from models.errors import SHOWN, TooLarge, refusing_damage
from models.meshes.ply_header import Element, Header, parse_header
from models.meshes.polygons import checked_indices, fan
from models.meshes.record import DAMAGED, MeshFile, MeshLimits
from models.meshes.wavefront import named_beside

NUMBERS = 16
"""That a text may hold, and that lists of mixed lengths may, for each vertex and triangle of the limits."""
BLOCK = 1 << 20
_CORNERS = ("vertex_indices", "vertex_index")
_AT_CORNERS = "texcoord"
_UVS = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))
_WANTED = {*"xyz", *_CORNERS, _AT_CORNERS, *(name for pair in _UVS for name in pair)}


class _Column(NamedTuple):
    """A property in all rows of an element: its numbers, one row's after the other's, and how many each row has."""

    values: Num[np.ndarray, " numbers"]
    counts: Int[np.ndarray, " rows"]


_EMPTY = _Column(np.zeros(0), np.zeros(0, np.int64))


def read_ply(data: bytes, limits: MeshLimits, beside: Mapping[str, bytes]) -> MeshFile:
    """Read a PLY; the picture that MeshLab names in a comment is taken from the files that came along.

    MalformedInput for what is damaged, TooLarge over a limit.
    """
    with refusing_damage("a PLY", "vertices of x, y, z and faces of vertex_indices: export it anew", code=DAMAGED):
        header = parse_header(data)
        for element in header.elements:
            _check_count(element, limits)
        columns = _columns(header, _body(data, header, limits), limits)
        vertex, face = columns.get("vertex", {}), columns.get("face", {})
        vertices = np.stack([vertex[axis].values for axis in "xyz"], 1).astype(np.float32)
        corners = next((face[name] for name in _CORNERS if name in face), _EMPTY)
        triangles, polygon = fan(corners.counts, limits)
        faces = checked_indices(corners.values, len(vertices), "vertices")[triangles]
        uvs, uv_faces = _uvs(vertex, face, corners, triangles, faces)
        pictures = named_beside(header.picture, beside)
        return MeshFile(
            "ply",
            vertices,
            faces,
            polygon,
            uvs,
            uv_faces,
            np.zeros(len(faces), np.int32),
            ("",),
            beside[pictures[0]] if pictures else None,
            0 if pictures else None,
            (f"the picture {header.picture[:SHOWN]} was left aside",) if header.picture and not pictures else (),
        )


def _check_count(element: Element, limits: MeshLimits) -> None:
    if element.name == "vertex":
        limits.check(vertices=element.count)
    elif element.name == "face" or element.has_lists:
        limits.check(triangles=element.count)


def _body(data: bytes, header: Header, limits: MeshLimits) -> memoryview:
    """What follows the header, as bytes of the types that the properties have."""
    if not header.text:
        return memoryview(data)[header.size :]
    numbers, most, rest = array("d"), NUMBERS * (limits.max_vertices + limits.max_triangles), b""
    for start in range(header.size, len(data), BLOCK):
        block = rest + data[start : start + BLOCK]
        cut = 1 + max(block.rfind(space) for space in (b" ", b"\t", b"\r", b"\n"))
        if start + BLOCK >= len(data):
            cut = len(block)
        if len(rest := block[cut:]) > BLOCK:
            raise ValueError("a number without an end")
        numbers.extend(map(float, block[:cut].split()))
        if len(numbers) > most:
            raise TooLarge(f"a PLY of more than {most:,} numbers, the limit; leave out what is no mesh")
    return memoryview(numbers).cast("B")


def _columns(header: Header, body: memoryview, limits: MeshLimits) -> dict[str, dict[str, _Column]]:
    """By element and property, what is wanted of vertices and faces."""
    columns: dict[str, dict[str, _Column]] = {}
    start = 0
    for element in header.elements:
        if not element.count:
            continue
        found, start = _uniform(element, body, start) or _mixed(element, body, start, limits)
        columns.setdefault(element.name, found)
    return columns


def _wanted(element: Element, name: str) -> bool:
    return element.name in ("vertex", "face") and name in _WANTED


def _uniform(element: Element, body: memoryview, start: int) -> tuple[dict[str, _Column], int] | None:
    """Columns of an element whose rows are laid out as the first one, and where it ends; None if they are not."""
    end, numbers, lengths = start, [], []
    for each in element.properties:
        count = 1
        if each.length is not None:
            count = _natural(np.frombuffer(body, each.length, 1, end)[0])
            lengths.append((count, end, each.length))
            end += each.length.itemsize
        if _wanted(element, each.name):
            numbers.append((each.name, (element.count, count), each.item, end))
        end += count * each.item.itemsize
    row = end - start
    if (end := start + element.count * row) > len(body):
        if not element.has_lists:
            raise ValueError(f"{end - len(body):,} bytes are missing")
        return None
    for count, place, dtype in lengths:
        if (np.ndarray((element.count,), dtype, body, place, (row,)) != count).any():
            return None
    return {
        name: _Column(
            np.ndarray(shape, dtype, body, place, (row, dtype.itemsize)).reshape(-1), np.full(element.count, shape[1])
        )
        for name, shape, dtype, place in numbers
    }, end


def _mixed(element: Element, body: memoryview, start: int, limits: MeshLimits) -> tuple[dict[str, _Column], int]:
    """The same of an element whose rows differ, such as triangles and quads: row by row."""
    most = NUMBERS * limits.max_triangles
    if element.count * len(element.properties) > most:
        raise TooLarge(f"a PLY of {element.count:,} uneven rows; it has too many properties: leave some out")
    columns = [(each, each.length and _packing(each.length), array("q"), array("q")) for each in element.properties]
    for _ in range(element.count):
        for each, length, places, counts in columns:
            count = 1
            if length is not None:
                count = _natural(length.unpack_from(body, start)[0])
                start += length.size
            places.append(start)
            counts.append(count)
            start += count * each.item.itemsize
    if start > len(body):
        raise ValueError(f"{start - len(body):,} bytes are missing")
    found = {}
    for each, _, places, counts in columns:
        if _wanted(element, each.name):
            if (total := sum(counts)) > most:
                raise TooLarge(f"a PLY with {total:,} numbers in {each.name[:SHOWN]}; the limit is {most:,}")
            found[each.name] = _gathered(body, each.item, np.array(places), np.array(counts))
    return found, start


def _gathered(
    body: memoryview, dtype: np.dtype[Any], places: Int[np.ndarray, " rows"], counts: Int[np.ndarray, " rows"]
) -> _Column:
    """So many numbers from each of these places on."""
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    first = np.repeat(places, counts) + within * dtype.itemsize
    picked = np.frombuffer(body, np.uint8)[first[:, None] + np.arange(dtype.itemsize)]
    return _Column(picked.view(dtype).reshape(-1), counts)


def _packing(dtype: np.dtype[Any]) -> struct.Struct:
    return struct.Struct(dtype.byteorder.replace("|", "=") + dtype.char)


def _natural(number: float) -> int:
    if (count := int(number)) != number or count < 0:
        raise ValueError(f"a list of {number} numbers")
    return count


def _uvs(
    vertex: Mapping[str, _Column],
    face: Mapping[str, _Column],
    corners: _Column,
    triangles: Int[np.ndarray, "triangles 3"],
    faces: Int32[np.ndarray, "triangles 3"],
) -> tuple[Float32[np.ndarray, "uvs 2"] | None, Int32[np.ndarray, "triangles 3"] | None]:
    """uvs and the triangles' corners in them: of the faces' corners, or else of the vertices."""
    own = face.get(_AT_CORNERS, _EMPTY)
    if len(own.values):
        if (own.counts != 2 * corners.counts).any():
            raise ValueError(f"{_AT_CORNERS} that are not two numbers a corner")
        return own.values.astype(np.float32).reshape(-1, 2), triangles.astype(np.int32)
    for pair in _UVS:
        if all(name in vertex for name in pair):
            return np.stack([vertex[name].values for name in pair], 1).astype(np.float32), faces
    return None, None
