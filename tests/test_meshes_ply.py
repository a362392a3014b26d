"""PLY of strangers: text and binary, numbers of any type, and what is refused."""

import numpy as np
import pytest
from mesh_files import CORNERS, FORMATS, SKIN, TWO, assert_same, meshlab, ply, read, refused
from test_examples import zipped

from models.errors import MalformedInput

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
    """And so have the lengths of lists, whether all are alike or not."""
    for faces, cut in (([[0, 1, 2, 3]], TWO), ([[0, 1, 2, 3], [0, 1, 2]], [*TWO, [0, 1, 2]])):
        back = read(ply(format, faces=faces, names="z y x", item=item, length=length, index=index))
        assert_same(back, np.array(CORNERS)[:, ::-1], cut)


@of_every_format
@pytest.mark.parametrize("pair", ["s t", "u v", "texture_u texture_v"])
def test_uvs_of_ply_vertices(format: str, pair: str) -> None:
    vertices = [[*corner, 0.5, k / 4] for k, corner in enumerate(CORNERS)]
    back = read(ply(format, vertices, names=f"x y z {pair}"))
    assert back.uvs.tolist() == [[0.5, k / 4] for k in range(4)]
    np.testing.assert_array_equal(back.uv_faces, back.faces)


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
