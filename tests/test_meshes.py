"""Mesh files of strangers: what our formats write comes back in order, and what cannot be used is refused by name."""

import pickle
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from mesh_files import FORMATS, OBJ, SKIN, SQUARE, glb, meshlab, ply, read, refused
from test_encoders import bumpy_mesh, clip_of, encoded, folds
from test_examples import members, npy, npz, zipped
from tiny import shipped_head

from models.core import Mesh
from models.errors import InputError, MalformedInput, TooLarge, UnsupportedMedia
from models.meshes import MeshLimits, wavefront
from models.meshes.polygons import fan
from models.template import default_template
from service.encoders.surface import split_seams


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


def test_fans_cover_polygons_from_their_first_corner() -> None:
    corners, polygon = fan(np.array([3, 5, 4]), MeshLimits())
    assert corners.tolist() == [[0, 1, 2], [3, 4, 5], [3, 5, 6], [3, 6, 7], [8, 9, 10], [8, 10, 11]]
    assert polygon.tolist() == [0, 1, 1, 1, 2, 2]


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
    back = read(zipped({"my head.mtl": MTL, "head.obj": PARTS.encode(), "my eyes.png": b"eyes"}))
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
