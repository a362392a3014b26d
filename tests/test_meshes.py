"""Mesh files of strangers: what our formats write comes back in order, and what cannot be used is refused by name."""

import io
import pickle
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from test_encoders import bumpy_mesh, clip_of, encoded, folds
from test_examples import GlbFile, members, npy, npz, picture, zipped
from tiny import shipped_head

from models.core import Mesh
from models.errors import InputError, MalformedInput, TooLarge, UnsupportedMedia
from models.meshes import MeshFile, MeshLimits, read_mesh, wavefront
from models.meshes.polygons import fan
from models.template import default_template
from service.encoders.container import GlbDocument
from service.encoders.surface import split_seams

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


# The laws: what is written is what is read.


def default_mesh() -> Mesh:
    return default_template(shipped_head()).mesh


@pytest.fixture(scope="module")
def written() -> dict[str, bytes]:
    """The shipped head as our formats write it, a frame at rest."""
    mesh = default_mesh()
    still = np.zeros((1, *mesh.vertices.shape), np.float32)
    return {name: members(encoded(name, clip_of(mesh, still))) for name in ("obj", "glb-sequence")}


def test_an_obj_of_the_default_head_comes_back(written: dict[str, dict[str, bytes]]) -> None:
    mesh, back = default_mesh(), read(written["obj"]["frame_000000.obj"])
    np.testing.assert_allclose(back.vertices, mesh.vertices, atol=6e-7)
    np.testing.assert_allclose(back.uvs, mesh.uvs, atol=6e-7)
    np.testing.assert_array_equal(back.faces, mesh.faces)
    np.testing.assert_array_equal(back.uv_faces, mesh.uv_faces)
    np.testing.assert_array_equal(back.polygon, np.arange(len(mesh.faces)))
    assert (back.materials, back.texture, len(back.warnings)) == (("skin",), None, 1)


def test_its_zip_brings_the_picture(written: dict[str, dict[str, bytes]]) -> None:
    back = read(zipped(written["obj"]))
    assert (back.texture, back.textured, back.warnings) == (default_mesh().base_color_png, 0, ())


def test_a_glb_of_the_default_head_comes_back(written: dict[str, dict[str, bytes]]) -> None:
    """Vertices that carry several uvs are copied, as GLB wants it; the head's own come first."""
    mesh, back = default_mesh(), read(written["glb-sequence"]["frame_000000.glb"])
    surface = split_seams(mesh)
    np.testing.assert_array_equal(back.vertices, mesh.vertices[surface.corners])
    np.testing.assert_array_equal(back.faces, surface.triangles)
    np.testing.assert_array_equal(back.uv_faces, surface.triangles)
    np.testing.assert_allclose(back.uvs, surface.uvs * [1, -1] + [0, 1], atol=1e-7)
    np.testing.assert_allclose(back.uvs[back.uv_faces], mesh.uvs[mesh.uv_faces], atol=1e-7)
    assert (back.texture, back.textured) == (mesh.base_color_png, 0)
    assert (back.materials, back.warnings) == (("skin",), ())


def test_an_animated_glb_is_taken_at_rest() -> None:
    mesh = bumpy_mesh(png=SKIN)
    motion = np.random.default_rng(0).normal(size=(3, *mesh.vertices.shape)).astype(np.float32)
    back = read(encoded("glb", clip_of(mesh, motion, 16, folds(3))))
    np.testing.assert_array_equal(back.vertices[: len(mesh.vertices)], mesh.vertices)
    assert {"animations were left aside", "morph targets were left aside"} <= set(back.warnings)


# Polygons.


def test_fans_cover_polygons_from_their_first_corner() -> None:
    corners, polygon = fan(np.array([3, 5, 4]), MeshLimits())
    assert corners.tolist() == [[0, 1, 2], [3, 4, 5], [3, 5, 6], [3, 6, 7], [8, 9, 10], [8, 10, 11]]
    assert polygon.tolist() == [0, 1, 1, 1, 2, 2]


# OBJ.


@pytest.mark.parametrize(
    "faces",
    [
        "f 1 2 3 4",
        "f 1/1 2/2 3/3 4/4",
        "f 1//1 2//1 3//1 4//1",
        "f 1/1/1 2/2/1 3/3/1 4/4/1",
        "f -4 -3 -2 -1",
        "f -4/-4 -3/-3 -2/-2 -1/-1",
        "f 1/ 2// 3/3/ 4",
        "f\t1  2\t3 4   # a square",
        "f 1 2 \\\n 3 \\\r\n 4",
        "f 1 2 3\nf 1 3 4",
    ],
)
def test_every_way_to_write_an_obj_face(faces: str) -> None:
    back = read(f"# a square\n{SQUARE}vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nvn 0 0 1\n\n{faces}\n")
    assert_same(back, CORNERS, TWO)
    assert (back.uvs is None) == ("/" not in faces or "//1" in faces)
    if back.uvs is not None and "//" not in faces:
        assert_same(replace(back, faces=back.uv_faces), CORNERS, TWO)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_an_obj_of_any_line_ending_and_without_a_last_one(ending: str) -> None:
    assert_same(read(OBJ.strip().replace("\n", ending)), CORNERS, TWO)


def test_statements_of_an_obj_come_in_any_order() -> None:
    """Numbers from one may point ahead; those from the end point back from where they stand."""
    back = read("f 1 2 3 4\nv 0 0 0\nv 1 0 0\nv 1 1 0\nf -3 -2 -1\nv 0 1 0\nusemtl late\nf -4 -2 -1\n")
    assert_same(back, CORNERS, [*TWO, [0, 1, 2], [0, 2, 3]])
    assert back.polygon.tolist() == [0, 0, 1, 2]
    assert (back.materials, back.material.tolist()) == (("", "late"), [0, 0, 0, 1])


def test_colours_of_obj_vertices_and_a_third_uv_are_ignored() -> None:
    rows = SQUARE.replace(" 0\n", " 0 1 0.5 0.2 0.1\n")
    back = read(f"{rows}vt 0.5\nvt 1 0 7\nvt 1 1 7\nf 1/1 2/2 3/3\n")
    assert_same(back, CORNERS, TWO[:1])
    assert back.uvs.tolist() == [[0.5, 0], [1, 0], [1, 1]]


def test_corners_without_a_uv_have_one_of_their_own() -> None:
    back = read(OBJ + "f 1 2 3\n")
    assert back.uvs.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]
    assert back.uv_faces.tolist() == [*TWO, [4, 4, 4]]


def test_names_of_materials_are_kept_exactly_and_in_the_order_of_their_first_face() -> None:
    text = f"{SQUARE}usemtl unused\nusemtl My Skin #2\nf 1 2 3\nusemtl Zähne\nf 1 3 4\nusemtl My Skin #2\nf 2 3 4\n"
    for encoding in ("utf-8", "utf-8-sig", "latin-1"):
        back = read(text.encode(encoding))
        assert (back.materials, back.material.tolist()) == (("My Skin #2", "Zähne"), [0, 1, 0])


def test_what_is_no_mesh_is_left_aside_and_said() -> None:
    back = read(OBJ + "o head\ng face\ns 1\nl 1 2\np 1\n")
    assert back.warnings == ("statements that are no mesh were left aside: l, p",)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../a.mtl", "a/../../b.mtl", "C:\\a.mtl", "..\\a.mtl", "a\\b.mtl", "http://x.org/a.mtl", ".."],
)
def test_an_obj_that_refers_to_files_elsewhere_is_refused(name: str) -> None:
    refused(MalformedInput, f"mtllib {name}\n{OBJ}", "external_reference")
    refused(MalformedInput, zipped({"a.obj": f"mtllib a.mtl {name}\n{OBJ}".encode()}), "external_reference")


def test_plain_names_are_left_aside_where_nothing_came_along() -> None:
    back = read(f"mtllib head..v2.mtl\n{OBJ}")
    assert_same(back, CORNERS, TWO)
    assert "materials' file" in back.warnings[0]


@pytest.mark.parametrize("statement", ["vp 0 0", "cstype bezier", "curv 0 1 1 2", "surf 0 1 0 1 1 2 3 4"])
def test_free_form_geometry_is_refused(statement: str) -> None:
    assert statement.split()[0] in str(refused(UnsupportedMedia, f"{OBJ}{statement}\n", "unsupported_mesh"))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (SQUARE, "empty_mesh"),
        (f"{SQUARE}f\n", "damaged_mesh"),
        (f"{SQUARE}f 1 2\n", "damaged_mesh"),
        (f"{SQUARE}f 1 2 5\n", "damaged_mesh"),
        (f"{SQUARE}f 0 1 2\n", "damaged_mesh"),
        (f"{SQUARE}f -5 1 2\n", "damaged_mesh"),
        (f"{SQUARE}f 1 2 99999999999999999999\n", "damaged_mesh"),
        (f"{SQUARE}f 1 2 4294967297\n", "damaged_mesh"),
        (f"{SQUARE}f 1 2 x\n", "damaged_mesh"),
        (f"{SQUARE}f 1 2 3.0\n", "damaged_mesh"),
        (f"{SQUARE}vt 0 0\nf 1/1 2/2 3/1\n", "damaged_mesh"),
        (f"{SQUARE}vt 0 0\nf 1/1 2/-2 3/1\n", "damaged_mesh"),
        (f"{SQUARE}v 1 2\nf 1 2 3\n", "damaged_mesh"),
        ("v 1\nv 2\nv 3\nf 1 2 3\n", "damaged_mesh"),
        (f"{SQUARE}vt\nf 1/1 2/1 3/1\n", "damaged_mesh"),
        (f"{SQUARE}v 1 2 z\nf 1 2 3\n", "damaged_mesh"),
        (f"{SQUARE}v 1 nan 2\nf 1 2 3\n", "not_finite"),
        (f"{SQUARE}v 1 inf 2\nf 1 2 3\n", "not_finite"),
        (f"{SQUARE}v 1 1e40 2\nf 1 2 3\n", "not_finite"),
        (f"{SQUARE}vt nan 0\nf 1/1 2/1 3/1\n", "not_finite"),
    ],
)
def test_a_damaged_obj_is_refused(text: str, code: str) -> None:
    refused(MalformedInput, text, code)


# Zips.


MTL = b"""# by hand
newmtl brows
map_Kd brows.png
newmtl My Skin
Kd 1 1 1
map_Kd -s 1 1 1 -clamp on skin.png
newmtl eyes
map_kd my eyes.png
newmtl unused
map_Kd unused.png
"""
PARTS = (
    "mtllib my head.mtl\nv 0 0 0\nv 2 0 0\nv 2 2 0\nv 0 2 0\nv .1 0 0\nv .1 .1 0\nusemtl eyes\nf 1 5 6\n"
    "usemtl My Skin\nf 1 2 3\nusemtl plain\nf 1 2 3 4\n"
)
PICTURES = {"skin.png": b"skin", "my eyes.png": b"eyes", "unused.png": b"unused"}


def test_the_picture_is_that_of_the_widest_material_that_has_one() -> None:
    back = read(zipped({"my head.mtl": MTL, "head.obj": PARTS.encode(), **PICTURES}))
    assert (back.texture, back.textured, back.materials) == (b"skin", 1, ("eyes", "My Skin", "plain"))
    del PICTURES["skin.png"]
    back = read(zipped({"my head.mtl": MTL, "head.obj": PARTS.encode(), **PICTURES}))
    assert (back.texture, back.textured) == (b"eyes", 0)
    assert "1 pictures were left aside" in back.warnings[0]


@pytest.mark.parametrize("name", ["/etc/passwd", "..\\skin.png", "C:\\head\\skin.png", "textures/skin.png", "SKIN.png"])
def test_pictures_are_taken_by_their_plain_name_alone(name: str) -> None:
    mtl = f"newmtl skin\nmap_Kd {name}\n".encode()
    back = read(zipped({"a.mtl": mtl, "a.obj": f"mtllib a.mtl\n{OBJ}".encode(), "skin.png": SKIN}))
    assert (back.texture, back.textured, len(back.warnings)) == (None, None, 1)


def test_a_mesh_in_a_zip_is_told_by_its_content() -> None:
    assert read(zipped({"head.txt": OBJ.encode(), "read me.obj": b"my head"})).format == "obj"


def test_a_zip_of_several_meshes_or_of_none_is_refused() -> None:
    refused(MalformedInput, zipped({"a.obj": OBJ.encode(), "b.ply": ply("ascii")}), "several_meshes")
    refused(UnsupportedMedia, zipped({"a.mtl": MTL, "skin.png": SKIN}), "not_a_mesh")
    refused(UnsupportedMedia, zipped({}), "not_a_mesh")
    refused(UnsupportedMedia, npz(vertices=np.zeros((2, 3))), "not_a_mesh")


def test_a_zip_bomb_is_refused_before_it_is_unpacked() -> None:
    refused(TooLarge, zipped({"a.obj": bytes(4 << 20)}), max_unpacked_bytes=3 << 20)


def test_a_zip_with_paths_is_refused() -> None:
    refused(MalformedInput, zipped({"../a.obj": OBJ.encode()}), "bad_path")


# PLY.


ROW = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint32": "u4", "float": "f4"} | {
    "double": "f8"
}


def ply(
    format: str,
    vertices: list[list[float]] | np.ndarray = CORNERS,
    faces: list[list[float]] = ((0, 1, 2, 3),),  # type: ignore[assignment]
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
of_every_format = pytest.mark.parametrize("format", FORMATS)


@of_every_format
@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("faces", [[[0, 1, 2, 3]], [[0, 1, 2], [0, 2, 3]], [[0, 1, 2, 3], [0, 1, 2]]], ids=str)
@pytest.mark.parametrize("lists", ["vertex_indices", "vertex_index"])
def test_a_ply_comes_back(format: str, extra: bool, faces: list[list[float]], lists: str) -> None:
    back = read(ply(format, faces=faces, lists=lists, extra=extra))
    assert_same(back, CORNERS, [*TWO, [0, 1, 2]][: sum(len(face) - 2 for face in faces)])
    assert (back.uvs, back.materials, back.material.any()) == (None, ("",), False)


@of_every_format
@pytest.mark.parametrize("item", ["char", "ushort", "int", "float", "double"])
@pytest.mark.parametrize(("length", "index"), [("uchar", "ushort"), ("int", "uint32"), ("char", "char")])
def test_numbers_of_a_ply_have_any_type(format: str, item: str, length: str, index: str) -> None:
    back = read(ply(format, names="z y x", item=item, length=length, index=index))
    assert_same(back, np.array(CORNERS)[:, ::-1], TWO)


@of_every_format
@pytest.mark.parametrize("pair", ["s t", "u v", "texture_u texture_v"])
def test_uvs_of_ply_vertices(format: str, pair: str) -> None:
    vertices = [[*corner, 0.5, k / 4] for k, corner in enumerate(CORNERS)]
    back = read(ply(format, vertices, names=f"x y z {pair}"))
    assert back.uvs.tolist() == [[0.5, k / 4] for k in range(4)]
    np.testing.assert_array_equal(back.uv_faces, back.faces)


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


def test_uvs_at_the_corners_of_ply_faces_and_the_picture_beside_it() -> None:
    uvs = np.arange(12).reshape(2, 6) / 16
    back = read(meshlab(uvs.tolist()))
    np.testing.assert_array_equal(back.uvs[back.uv_faces].reshape(2, 6), uvs)
    assert (back.texture, back.warnings) == (None, ("the picture my skin.png was left aside",))
    back = read(zipped({"a.ply": meshlab(uvs.tolist()), "my skin.png": SKIN}))
    assert (back.texture, back.textured, back.warnings) == (SKIN, 0, ())
    assert read(meshlab([[], []])).uvs is None
    refused(MalformedInput, meshlab([[], [1] * 6]), "damaged_mesh")
    refused(MalformedInput, meshlab([[1] * 6, [1] * 5 + [float("nan")]]), "not_finite")


@of_every_format
def test_a_ply_cut_anywhere_is_refused(format: str) -> None:
    data = ply(format, faces=[[0, 1, 2], [0, 1, 2, 3]], extra=True).rstrip(b"\n")
    for size in range(data.index(b"end_header") + 11, len(data)):
        if data[size : size + 1].isspace() and format == "ascii":
            continue  # a number less is seen; a digit less is not
        if data[size - 1 : size + 1].isdigit():
            continue
        refused(MalformedInput, data[:size], "damaged_mesh")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"element vertex 4", b"element vertex -4"),
        (b"element vertex 4", b"element vertex four"),
        (b"element vertex 4", b"element camera 4"),
        (b"element vertex 4", b"element vertex 3"),
        (b"property float x", b"property half x"),
        (b"property float x", b"property float a"),
        (b"property float x", b"property list uchar float x"),
        (b"property list uchar", b"property list huge"),
        (b"end_header", b"end"),
        (b"ascii 1.0", b"ascii 2.0"),
        (b"ascii 1.0", b"utf8 1.0"),
        (b"format ascii 1.0\n", b""),
        (b"4 0 1 2 3", b"4 0 1 2 4"),
        (b"4 0 1 2 3", b"4 0 1 2 -1"),
        (b"4 0 1 2 3", b"4 0 1 2 2.5"),
        (b"4 0 1 2 3", b"4 0 1 2 nan"),
        (b"4 0 1 2 3", b"2 0 1"),
        (b"4 0 1 2 3", b"-4 0 1 2 3"),
        (b"4 0 1 2 3", b"1e300 0 1 2 3"),
        (b"4 0 1 2 3", b"4 0 1 2 x"),
    ],
)
def test_a_forged_ply_is_refused(before: bytes, after: bytes) -> None:
    data = ply("ascii")
    assert before in data
    refused(MalformedInput, data.replace(before, after), "damaged_mesh")


@of_every_format
def test_a_ply_of_points_and_one_that_is_not_finite_are_refused(format: str) -> None:
    refused(MalformedInput, ply(format, faces=[]), "empty_mesh")
    refused(MalformedInput, ply(format, [*CORNERS[:3], [0, float("nan"), 0]]), "not_finite")
    refused(MalformedInput, ply(format, [*CORNERS[:3], [0, float("inf"), 0]]), "not_finite")
    refused(MalformedInput, ply(format, [*CORNERS[:3], [0, 1e300, 0]], item="double"), "not_finite")


# GLB.


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


def test_a_glb_comes_back_with_its_uvs_turned_to_the_lower_left() -> None:
    back = read(glb())
    assert_same(back, CORNERS, TWO)
    assert back.uvs.tolist() == [[0, 1], [1, 1], [1, 0], [0, 0]]
    assert (back.texture, back.textured, back.materials) == (SKIN, 0, ("skin",))


@pytest.mark.parametrize(
    ("mode", "order", "faces"),
    [
        (4, [0, 1, 2, 2, 3, 0], [[0, 1, 2], [2, 3, 0]]),
        (5, [0, 1, 3, 2], [[0, 1, 3], [1, 2, 3]]),
        (6, [0, 1, 2, 3], TWO),
    ],
)
@pytest.mark.parametrize("kind", [np.uint16, np.uint32, np.uint8])
def test_triangles_strips_and_fans_of_any_index(mode: int, order: list[int], faces: list, kind: type) -> None:
    """Every triangle of the square looks the same way, whatever the mode."""

    def change(root: dict) -> None:
        primitive(root).update(mode=mode, indices=3)
        if kind is np.uint8:
            root["accessors"][3].update(componentType=5121, count=len(order))

    indices = np.array(order, kind)
    back = read(glb(change, order=indices.view(np.uint16) if kind is np.uint8 else indices))
    assert_same(back, CORNERS, faces)
    edges = np.diff(back.vertices[back.faces], axis=1)
    assert (np.cross(edges[:, 0], edges[:, 1])[:, 2] > 0).all()


def test_a_primitive_without_indices_lists_its_vertices() -> None:
    back = read(glb(lambda root: (primitive(root).pop("indices"), primitive(root).update(mode=6))))
    assert_same(back, CORNERS, TWO)


def test_interleaved_positions_and_normalised_uvs() -> None:
    rows = np.zeros(4, [("place", "<f4", 3), ("uv", "<u2", 2)])
    rows["place"], rows["uv"] = CORNERS, [[0, 0], [65535, 0], [65535, 65535], [0, 13107]]

    def change(root: dict) -> None:
        root["bufferViews"][4]["byteStride"] = 16
        root["accessors"][3] = {"bufferView": 4, "componentType": 5126, "count": 4, "type": "VEC3"}
        uv = {"bufferView": 4, "byteOffset": 12, "componentType": 5123, "normalized": True, "count": 4, "type": "VEC2"}
        root["accessors"].append(uv)
        primitive(root)["attributes"] = {"POSITION": 3, "TEXCOORD_0": 4}

    back = read(glb(change, rows=rows.view(np.float32)))
    assert_same(back, CORNERS, TWO)
    np.testing.assert_allclose(back.uvs, [[0, 1], [1, 1], [1, 0], [0, 0.8]], atol=1e-6)


def test_the_uvs_are_those_of_the_base_colour() -> None:
    def change(root: dict) -> None:
        primitive(root)["attributes"]["TEXCOORD_1"] = 3
        root["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["texCoord"] = 1

    back = read(glb(change, second=np.full((4, 2), 0.25, np.float32)))
    np.testing.assert_array_equal(back.uvs, np.full((4, 2), [0.25, 0.75]))


def test_nodes_move_their_meshes_and_those_of_their_children() -> None:
    turned = [0, 0, np.sqrt(0.5), np.sqrt(0.5)]
    nodes = [
        {"children": [1, 2], "translation": [1, 2, 3]},
        {"mesh": 0, "rotation": turned, "scale": [2, 2, 2]},
        {"mesh": 0, "matrix": [-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 5, 1]},
        {"mesh": 0},
    ]
    back = read(glb(lambda root: root.update(nodes=nodes, scenes=[{"nodes": []}, {"nodes": [0]}], scene=1)))
    corners = np.array(CORNERS, float)
    np.testing.assert_allclose(
        back.vertices[:4], 2 * corners @ [[0, 1, 0], [-1, 0, 0], [0, 0, 1]] + [1, 2, 3], atol=1e-6
    )
    np.testing.assert_allclose(back.vertices[4:], corners * [-1, 1, 1] + [1, 2, 8], atol=1e-6)
    assert back.faces.tolist() == [*TWO, [4, 6, 5], [4, 7, 6]], "a mirrored mesh keeps its outside"
    assert (len(back.materials), back.material.tolist()) == (1, [0, 0, 0, 0])


def test_a_skinned_mesh_is_where_its_positions_are() -> None:
    nodes = [{"mesh": 0, "skin": 0, "translation": [9, 9, 9]}]
    back = read(glb(lambda root: root.update(nodes=nodes, skins=[{"joints": [0]}], animations=[{"channels": []}])))
    assert_same(back, CORNERS, TWO)
    assert back.warnings == ("skins were left aside", "animations were left aside")


def test_primitives_of_a_mesh_share_vertices_as_they_do_in_the_file() -> None:
    def change(root: dict) -> None:
        part = {"attributes": primitive(root)["attributes"], "indices": 3, "material": 1}
        root["meshes"][0]["primitives"] += [part, part | {"mode": 1}]
        root["materials"].append({})

    back = read(glb(change, order=np.array([0, 1, 3], np.uint16)))
    assert_same(back, CORNERS, [*TWO, [0, 1, 3]])
    assert (back.materials, back.material.tolist()) == (("skin", ""), [0, 0, 1])
    assert back.warnings == ("lines and points were left aside",)


def test_the_texture_of_a_glb_is_the_widest_materials() -> None:
    def change(root: dict) -> None:
        large = {"attributes": {"POSITION": 3}, "indices": 2, "material": 1}
        root["meshes"][0]["primitives"] += [large]
        root["images"] += [{"bufferView": 0}]
        root["textures"] += [{"source": 1}]
        root["materials"] += [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 1}}}]

    back = read(glb(change, large=np.array(CORNERS, np.float32) * 2))
    assert (back.textured, back.texture) == (1, np.array(CORNERS, np.float32).tobytes())
    assert back.uvs[4:].tolist() == [[0, 0]] * 4, "of vertices without uvs"


@pytest.mark.parametrize(
    "extension", ["KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_mesh_quantization"]
)
def test_a_compressed_glb_is_refused_by_name(extension: str) -> None:
    refusal = refused(
        UnsupportedMedia, glb(lambda root: root.update(extensionsRequired=[extension])), "unsupported_mesh"
    )
    assert extension in str(refusal)
    assert read(glb(lambda root: root.update(extensionsRequired=["KHR_materials_unlit"]))).format == "glb"


@pytest.mark.parametrize("where", ["buffers", "images"])
@pytest.mark.parametrize("uri", ["http://example.org/a.bin", "../a.bin", "data:application/octet-stream;base64,AA=="])
def test_a_glb_that_refers_to_other_files_is_refused(where: str, uri: str) -> None:
    file = GlbFile.of(glb())
    file.root[where][0]["uri"] = uri
    refused(MalformedInput, file.build(), "external_reference")


@pytest.mark.parametrize(
    "change",
    [
        lambda root: root.pop("scenes"),
        lambda root: root.update(scene=1),
        lambda root: root.pop("nodes"),
        lambda root: root["nodes"][0].update(children=[0]),
        lambda root: root.update(nodes=[{"children": [1]}, {"children": [0], "mesh": 0}]),
        lambda root: root.update(scenes=[{"nodes": [0, 0]}]),
        lambda root: root["nodes"][0].update(matrix=[1, 2]),
        lambda root: root["nodes"][0].update(rotation=[0, 0, 0, 0]),
        lambda root: root["nodes"][0].update(scale=[float("inf"), 1, 1]),
        lambda root: root["nodes"][0].update(mesh=7),
        lambda root: root["nodes"][0].update(mesh="0"),
        lambda root: primitive(root).pop("attributes"),
        lambda root: primitive(root)["attributes"].pop("POSITION"),
        lambda root: primitive(root)["attributes"].update(POSITION=1),
        lambda root: primitive(root)["attributes"].update(TEXCOORD_0=0),
        lambda root: primitive(root).update(indices=0),
        lambda root: primitive(root).update(material=3),
        lambda root: primitive(root).update(material=[3]),
        lambda root: root["accessors"][0].update(count=10**12),
        lambda root: root["accessors"][0].update(count=3),
        lambda root: root["accessors"][0].update(count=-1),
        lambda root: root["accessors"][0].update(sparse={"count": 1}),
        lambda root: root["accessors"][0].update(componentType=5123),
        lambda root: root["accessors"][0].pop("bufferView"),
        lambda root: root["accessors"][2].update(count=10**12),
        lambda root: root["accessors"][2].update(count=5),
        lambda root: root["accessors"][2].update(componentType=5122),
        lambda root: root["accessors"][2].update(byteOffset=-2),
        lambda root: root["bufferViews"][0].update(byteStride=4),
        lambda root: root["bufferViews"][0].update(byteStride=2**62),
        lambda root: root["bufferViews"][0].update(byteLength=10**9),
        lambda root: root["textures"][0].update(source=4),
        lambda root: root.update(meshes=7),
    ],
)
def test_a_forged_glb_is_refused(change: Callable[[dict], object]) -> None:
    refused(MalformedInput, glb(change), "damaged_mesh")


def test_a_glb_without_triangles_and_one_that_is_not_finite_are_refused() -> None:
    refused(MalformedInput, glb(lambda root: root.update(scenes=[{"nodes": []}])), "empty_mesh")
    refused(MalformedInput, glb(lambda root: primitive(root).update(mode=0)), "empty_mesh")
    places = np.array(CORNERS, np.float32)
    places[2, 1] = np.nan
    refused(MalformedInput, glb(lambda root: primitive(root)["attributes"].update(POSITION=3), p=places), "not_finite")
    uvs = np.full((4, 2), np.inf, np.float32)
    refused(MalformedInput, glb(lambda root: primitive(root)["attributes"].update(TEXCOORD_0=3), u=uvs), "not_finite")
    huge = {"scale": [1e200, 1, 1], "mesh": 0}
    refused(MalformedInput, glb(lambda root: root.update(nodes=[huge])), "not_finite")


def test_an_index_may_not_reach_into_the_next_primitive() -> None:
    def change(root: dict) -> None:
        root["meshes"][0]["primitives"].insert(0, {"attributes": {"POSITION": 0}, "indices": 3})

    refused(MalformedInput, glb(change, order=np.array([0, 1, 4], np.uint16)), "damaged_mesh")


def test_meshes_that_are_placed_often_are_bounded() -> None:
    nodes = [{"mesh": 0}] * 20_000
    placed = glb(lambda root: root.update(nodes=nodes, scenes=[{"nodes": list(range(20_000))}]))
    refused(TooLarge, placed)
    refused(TooLarge, placed, max_vertices=1000)


# All of them.


def strl(count: int) -> bytes:
    return bytes(80) + struct.pack("<I", count) + bytes(50 * count)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"", "empty"),
        (b"my head", "no mesh"),
        (bytes(1000), "no mesh"),
        (OBJ.encode() + b"\0", "no mesh"),
        (pickle.dumps([1, 2, 3]), "pickle"),
        (pickle.dumps(OBJ, protocol=2), "pickle"),
        (npy(np.zeros((4, 3))), "numpy"),
        (b"solid head\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\n", "STL"),
        (strl(3), "STL"),
        (b"Kaydara FBX Binary  \x00\x1a\x00", "FBX"),
        (b"; FBX 7.4.0 project file\n", "FBX"),
        (b"BLENDER-v404", "Blender"),
        (b'{"asset": {"version": "2.0"}}', "glTF"),
        (b'<?xml version="1.0"?><COLLADA>', "Collada"),
        (SKIN, "picture"),
    ],
)
def test_what_is_no_mesh_is_refused_by_name(data: bytes, name: str) -> None:
    assert name in str(refused(UnsupportedMedia, data, "not_a_mesh"))


GOOD = {
    "obj": f"mtllib a.mtl\n{OBJ}f -1 -2 -3\n".encode(),
    "ply": ply("ascii", faces=[[0, 1, 2], [0, 1, 2, 3]], extra=True),
    "ply-binary": ply("binary_big_endian", faces=[[0, 1, 2], [0, 1, 2, 3]], extra=True),
    "ply-uvs": meshlab([[0.5] * 6, [0.25] * 6]),
    "glb": glb(),
    "zip": zipped({"a.obj": f"mtllib a.mtl\n{OBJ}".encode(), "a.mtl": b"newmtl skin\nmap_Kd a.png", "a.png": SKIN}),
}
of_every_file = pytest.mark.parametrize("name", GOOD)


@of_every_file
def test_every_limit_holds_for_every_format(name: str) -> None:
    data = GOOD[name]
    mesh = read(data)
    for limit, size in (
        ("max_bytes", len(data)),
        ("max_vertices", len(mesh.vertices)),
        ("max_triangles", len(mesh.faces)),
    ):
        read(data, **{limit: size})
        refused(TooLarge, data, **{limit: size - 1})


@pytest.mark.parametrize("element", ["vertex", "face"])
def test_what_a_ply_promises_is_believed_only_within_the_limits(element: str) -> None:
    for format in FORMATS:
        data = ply(format).replace(b"element " + element.encode(), b"element " + element.encode() + b" 1000000000000 #")
        data = data.replace(b"000 # 4", b"000").replace(b"000 # 1", b"000")
        refused(TooLarge, data)


def test_an_obj_of_endless_lines_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wavefront, "MAX_LINES", 3)
    refused(TooLarge, OBJ)


def test_a_polygon_of_endless_corners_is_refused() -> None:
    refused(TooLarge, f"{SQUARE}f{' 1' * 10_000}\n", max_triangles=9_000)
    refused(TooLarge, ply("ascii", faces=[[0] * 200]), max_triangles=100)


def mutants(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """A file with bytes changed, cut out, put in or doubled, a few places at a time."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        own = bytearray(data)
        for _ in range(random.integers(1, 4)):
            place, size = int(random.integers(len(own) + 1)), int(random.integers(1, 9))
            match random.integers(5):
                case 0:
                    own[place : place + 1] = random.bytes(1)
                case 1:
                    del own[place : place + size]
                case 2:
                    own[place:place] = random.bytes(size)
                case 3:
                    own[place:place] = own[place : place + size]
                case 4:
                    own[place : place + 1] = bytes([random.choice(list(b"0123456789-.e/ \n\xff"))])
        yield bytes(own)


@of_every_file
def test_a_mutilated_file_is_read_or_refused(name: str) -> None:
    """Nothing but a refusal of ours ever comes out."""
    outcomes = set()
    for mutant in mutants(GOOD[name], 300):
        try:
            outcomes.add(len(read(mutant).faces) > 0)
        except InputError:
            outcomes.add(False)
    assert outcomes == {True, False}
