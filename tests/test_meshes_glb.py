"""GLB of strangers: scenes, primitives of every mode, and what is refused."""

from collections.abc import Callable

import numpy as np
import pytest
from mesh_files import CORNERS, SKIN, TWO, assert_same, glb, primitive, read, refused
from test_examples import GlbFile

from models.errors import MalformedInput, TooLarge, UnsupportedMedia


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
