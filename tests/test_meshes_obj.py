"""OBJ of strangers: every way to write it, and what is refused."""

from dataclasses import replace

import pytest
from mesh_files import CORNERS, OBJ, SQUARE, TWO, assert_same, read, refused
from test_examples import zipped

from models.errors import MalformedInput, UnsupportedMedia


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
