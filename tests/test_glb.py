"""GLB, read back here with struct and json alone."""

import json
import shutil
import struct
import subprocess
import zipfile
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from itertools import takewhile
from operator import not_
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image
from test_encoders import FPS, bumpy_clip, bumpy_mesh, clip_of, encoded, folds, smooth_motion, watch_spools
from test_textures import noise_png, pixels
from uploads import CENTIMETRES_UP_Z, MATERIALS, uploaded

from models.core import Mesh
from service.encoders import ENCODERS, encode, morphs, spool
from service.encoders.surface import split_seams
from service.encoders.textures import TextureComposer

WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}
TYPES = {5126: np.float32, 5125: np.uint32, 5123: np.uint16}


@dataclass(frozen=True)
class Glb:
    """A parsed GLB."""

    root: dict[str, Any]
    binary: bytes

    @classmethod
    def parse(cls, data: bytes) -> "Glb":
        magic, version, length, json_length, json_type = struct.unpack_from("<4sIII4s", data)
        assert (magic, version, length, json_type) == (b"glTF", 2, len(data), b"JSON")
        binary_length, binary_type = struct.unpack_from("<I4s", data, 20 + json_length)
        assert (binary_length, binary_type) == (len(data) - 28 - json_length, b"BIN\0")
        return cls(json.loads(data[20 : 20 + json_length]), data[28 + json_length :])

    def accessor(self, index: int) -> np.ndarray:
        """Numbers of an accessor, whose stated bounds must be theirs."""
        accessor = self.root["accessors"][index]
        view = self.root["bufferViews"][accessor["bufferView"]]
        width, dtype = WIDTHS[accessor["type"]], TYPES[accessor["componentType"]]
        rows = np.frombuffer(self.binary, dtype, accessor["count"] * width, view["byteOffset"]).reshape(-1, width)
        if "min" in accessor:
            assert (rows.min(axis=0) == accessor["min"]).all()
            assert (rows.max(axis=0) == accessor["max"]).all()
        return rows

    @property
    def primitive(self) -> dict[str, Any]:
        return self.root["meshes"][0]["primitives"][0]

    def attribute(self, name: str) -> np.ndarray:
        return self.accessor(self.primitive["attributes"][name])

    @cached_property
    def targets(self) -> np.ndarray:
        assert all("min" in self.root["accessors"][target["POSITION"]] for target in self.primitive["targets"])
        return np.stack([self.accessor(target["POSITION"]) for target in self.primitive["targets"]])

    @cached_property
    def sampler(self) -> tuple[np.ndarray, np.ndarray]:
        """Times (T,) and weights (T, K) of the only channel."""
        (animation,) = self.root["animations"]
        (channel,) = animation["channels"]
        assert channel == {"sampler": 0, "target": {"node": 0, "path": "weights"}}
        (sampler,) = animation["samplers"]
        assert sampler["interpolation"] == "LINEAR"
        times = self.accessor(sampler["input"]).ravel()
        return times, self.accessor(sampler["output"]).reshape(len(times), -1)

    @property
    def extras(self) -> dict[str, Any]:
        return self.root["asset"]["extras"]

    def play(self) -> np.ndarray:
        """Positions (T, W, 3) at the keys."""
        _, weights = self.sampler
        return self.attribute("POSITION") + np.einsum("tk,kwx->twx", weights.astype(float), self.targets)

    def error_mm(self, mesh: Mesh, offsets: np.ndarray) -> float:
        wanted = (mesh.vertices + offsets).astype(float)
        return 1e3 * float(np.linalg.norm(self.play()[:, : len(mesh.vertices)] - wanted, axis=2).max())


def animated(mesh: Mesh, offsets: np.ndarray) -> Glb:
    return Glb.parse(encoded("glb", clip_of(mesh, offsets)))


def sequence(mesh: Mesh, offsets: np.ndarray, texture: int | None = None) -> list[bytes]:
    with zipfile.ZipFile(BytesIO(encoded("glb-sequence", clip_of(mesh, offsets, texture)))) as archive:
        assert archive.namelist() == [f"frame_{index:06d}.glb" for index in range(len(offsets))]
        return [archive.read(name) for name in archive.namelist()]


def png() -> bytes:
    file = BytesIO()
    Image.new("RGB", (16, 16), (200, 150, 120)).save(file, "png")
    return file.getvalue()


def restless(mesh: Mesh, frames: int = 150) -> np.ndarray:
    """Motion of more shapes than 64: every vertex goes its own way by about a millimetre."""
    return np.random.default_rng(5).normal(0, 1e-3, (frames, len(mesh.vertices), 3)).astype(np.float32)


@pytest.mark.parametrize("frames", [2, 3, 40, 300])
def test_playing_the_file_gives_the_frames_back_within_the_stated_error(frames: int) -> None:
    mesh = bumpy_mesh()
    offsets = smooth_motion(mesh, frames)
    glb = animated(mesh, offsets)
    assert glb.error_mm(mesh, offsets) <= glb.extras["max_error_mm"] <= morphs.GOAL_MM
    assert np.linalg.norm(offsets, axis=2).max() > 5e-3, "or there is nothing to compress"


def test_motion_of_twenty_shapes_takes_at_most_the_next_multiple_of_four_and_the_constant() -> None:
    mesh = bumpy_mesh()
    assert len(animated(mesh, smooth_motion(mesh, 300, rank=20)).targets) <= 21


def test_motion_that_64_targets_cannot_hold_states_its_true_error() -> None:
    mesh = bumpy_mesh()
    offsets = restless(mesh)
    glb = animated(mesh, offsets)
    assert len(glb.targets) == morphs.MAX_TARGETS
    assert glb.extras["max_error_mm"] > 1
    assert glb.error_mm(mesh, offsets) == pytest.approx(glb.extras["max_error_mm"], rel=1e-3)
    assert glb.error_mm(mesh, offsets) <= glb.extras["max_error_mm"]


def test_the_error_is_smaller_than_that_of_the_truncated_svd() -> None:
    """Closed form: the plain SVD is what the first attempt finds, and it fails the worst vertex."""
    mesh = bumpy_mesh()
    lively = 4e-3 * np.tanh(smooth_motion(mesh, 300, rank=40) * 400)
    flat = lively.reshape(300, -1).astype(float)
    left, strength, right = np.linalg.svd(flat, full_matrices=False)
    rest = (left[:, 63:] * strength[63:]) @ right[63:]
    plain_mm = 1e3 * np.linalg.norm(rest.reshape(lively.shape), axis=2).max()
    glb = animated(mesh, lively.astype(np.float32))
    assert len(glb.targets) == 64
    assert glb.extras["max_error_mm"] < 0.7 * plain_mm


def test_a_clip_that_outgrows_memory_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = encoded("glb", bumpy_clip())
    monkeypatch.setattr(spool, "MEMORY_BOUND", 1000)
    assert encoded("glb", bumpy_clip()) == in_memory


def test_compression_may_be_stopped_at_every_chunk_of_frames() -> None:
    """Before the first byte come an empty chunk for each of 40 frames, and eight passes over two chunks of them."""
    stream = encode(bumpy_clip(frames=40), ENCODERS["glb"]())
    assert len(list(takewhile(not_, stream))) == 40 + 8 * 2
    stream.close()


def test_the_spool_is_gone_before_the_first_byte_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow client holds no disk."""
    spools = watch_spools(monkeypatch)
    stream = encode(bumpy_clip(), ENCODERS["glb"]())
    next(filter(None, stream))
    assert [spool._file.closed for spool in spools] == [True]
    stream.close()


def test_vertices_that_never_move_stay_exactly_where_they_are() -> None:
    mesh = bumpy_mesh()
    still = mesh.vertices[:, 2] <= 0
    glb = animated(mesh, smooth_motion(mesh, 40))
    assert not glb.targets[:, : len(mesh.vertices)][:, still].any()


def test_weights_lie_within_0_and_1_because_blender_clamps_the_rest() -> None:
    mesh = bumpy_mesh()
    _, weights = animated(mesh, smooth_motion(mesh, 40)).sampler
    assert weights.min() == 0
    assert weights.max() == 1
    assert (weights[:, 0] == 1).all()


def test_the_first_vertices_are_the_templates_and_copies_at_the_seam_follow() -> None:
    mesh = bumpy_mesh(rows=20, columns=24)
    glb = animated(mesh, smooth_motion(mesh, 40))
    positions = glb.attribute("POSITION")
    assert (positions[: len(mesh.vertices)] == mesh.vertices).all()
    assert len(positions) == len(mesh.vertices) + 20
    corners = split_seams(mesh).corners
    assert (positions == mesh.vertices[corners]).all()
    assert (glb.targets == glb.targets[:, corners]).all(), "copies move with their vertex"


def test_every_corner_of_every_face_keeps_its_vertex_and_its_uv_counted_from_the_top() -> None:
    mesh = bumpy_mesh()
    glb = animated(mesh, smooth_motion(mesh, 2))
    triangles = glb.accessor(glb.primitive["indices"]).reshape(-1, 3)
    assert (glb.attribute("POSITION")[triangles] == mesh.vertices[mesh.faces]).all()
    u, v = np.moveaxis(mesh.uvs[mesh.uv_faces], -1, 0)
    np.testing.assert_allclose(glb.attribute("TEXCOORD_0")[triangles], np.stack([u, 1 - v], axis=-1), atol=1e-7)


def test_uvs_of_equal_value_need_no_copies() -> None:
    """An OBJ may list one uv for each corner: only a true seam splits a vertex."""
    mesh = bumpy_mesh(rows=20)
    listed = replace(
        mesh,
        uvs=mesh.uvs[mesh.uv_faces].reshape(-1, 2),
        uv_faces=np.arange(mesh.faces.size, dtype=np.int32).reshape(-1, 3),
    )
    assert len(split_seams(listed).corners) == len(mesh.vertices) + 20


def test_normals_of_a_ball_point_away_from_its_centre_and_do_not_show_the_seam() -> None:
    mesh = bumpy_mesh(rows=60, columns=80, bumps=0)
    surface = split_seams(mesh)
    normals = surface.normals(mesh.vertices)
    assert normals.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    assert (normals == normals[: len(mesh.vertices)][surface.corners]).all()
    inner = np.abs(mesh.vertices[:, 1]) < 0.09  # the rims see faces on one side only
    away = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    assert (normals[: len(mesh.vertices)] * away).sum(axis=1)[inner].min() > 0.9999


def test_a_vertex_without_a_face_has_a_unit_normal_all_the_same() -> None:
    mesh = bumpy_mesh()
    lonely = replace(mesh, vertices=np.append(mesh.vertices, np.zeros((1, 3), np.float32), axis=0))
    np.testing.assert_allclose(split_seams(lonely).normals(lonely.vertices)[len(mesh.vertices)], [0, 0, 1])


def test_indices_are_uint16_while_they_fit_and_uint32_beyond() -> None:
    assert split_seams(bumpy_mesh()).triangles.dtype == np.uint16
    assert split_seams(bumpy_mesh(rows=260, columns=256)).triangles.dtype == np.uint32


def test_the_document_is_one_mesh_at_the_origin_with_its_provenance() -> None:
    glb = Glb.parse(encoded("glb", bumpy_clip(frames=40)))
    assert glb.root["nodes"] == [{"name": "head", "mesh": 0}]
    assert [len(glb.root[key]) for key in ("scenes", "meshes", "materials", "animations")] == [1, 1, 1, 1]
    (mesh,) = glb.root["meshes"]
    assert mesh["weights"] == [0] * len(glb.targets)
    assert len(set(mesh["extras"]["targetNames"])) == len(glb.targets)
    assert {key: value for key, value in glb.extras.items() if key != "max_error_mm"} == {
        "fps": FPS,
        "frames": 40,
        "seed": 7,
        "engine": "mmtalker",
        "checkpoints": {"mmtalker": "a" * 64},
    }
    np.testing.assert_allclose(glb.sampler[0], np.arange(40) / FPS, rtol=1e-7)


@pytest.mark.parametrize("frames", [1, 30])
def test_a_clip_without_motion_has_one_empty_target_and_its_full_length(frames: int) -> None:
    mesh = bumpy_mesh()
    glb = animated(mesh, np.zeros((frames, *mesh.vertices.shape), np.float32))
    assert glb.targets.shape[0] == 1
    assert not glb.targets.any()
    assert glb.sampler[0][-1] == np.float32((frames - 1) / FPS)
    assert glb.extras["max_error_mm"] == 0


def test_a_clip_of_one_frame_plays_that_frame() -> None:
    mesh = bumpy_mesh()
    offsets = smooth_motion(mesh, 1)
    glb = animated(mesh, offsets)
    assert glb.sampler[0].tolist() == [0]
    assert glb.error_mm(mesh, offsets) <= glb.extras["max_error_mm"] < 0.001


def test_the_texture_is_embedded_as_it_came_and_without_one_the_material_is_plain() -> None:
    textured = Glb.parse(encoded("glb", bumpy_clip(png=png())))
    view = textured.root["bufferViews"][textured.root["images"][0]["bufferView"]]
    assert textured.binary[view["byteOffset"] :][: view["byteLength"]] == png()
    assert textured.root["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"] == {"index": 0}
    plain = Glb.parse(encoded("glb", bumpy_clip()))
    assert not {"images", "textures"} & plain.root.keys()


def test_each_file_of_a_sequence_is_its_frame_exactly_with_its_own_normals() -> None:
    mesh = bumpy_mesh(png=png())
    offsets = smooth_motion(mesh, 5)
    surface = split_seams(mesh)
    for offset, data in zip(offsets, sequence(mesh, offsets), strict=True):
        glb = Glb.parse(data)
        assert (glb.attribute("POSITION")[: len(mesh.vertices)] == mesh.vertices + offset).all()
        assert (glb.attribute("NORMAL") == surface.normals(mesh.vertices + offset)).all()
        assert png() in data
        assert "animations" not in glb.root


def test_trimesh_loads_both_kinds() -> None:
    mesh = bumpy_mesh(png=png())
    offsets = smooth_motion(mesh, 2)
    for data in (encoded("glb", clip_of(mesh, offsets)), *sequence(mesh, offsets)):
        loaded = trimesh.load(BytesIO(data), file_type="glb", force="mesh", process=False)
        assert len(loaded.vertices) == len(mesh.vertices) + 20
        assert len(loaded.faces) == len(mesh.faces)


def test_with_textures_the_wrinkle_basis_lies_beside_the_neutral_colour_of_that_size() -> None:
    """Image 0 is what a viewer shows; the rest, with the numbers in extras, gives each frame's log ratio back."""
    glb = Glb.parse(encoded("glb", bumpy_clip(texture=64, png=noise_png())))
    images = [
        pixels(glb.binary[view["byteOffset"] :][: view["byteLength"]])
        for view in (glb.root["bufferViews"][image["bufferView"]] for image in glb.root["images"])
    ]
    composer = TextureComposer(noise_png(), 64)
    assert (images[0] == composer.base).all()
    assert glb.root["textures"] == [{"source": 0}]
    wrinkles = glb.extras["wrinkles"]
    assert wrinkles["images"] == list(range(1, len(images)))
    assert wrinkles["fps"] == FPS
    assert wrinkles["psnr_db"] > 40
    shapes = np.array(wrinkles["scale"])[:, None, None, None] * (np.stack(images[1:]) / 255)
    shapes += np.array(wrinkles["offset"])[:, None, None, None]
    ratios = np.einsum("tk,kyxc->tyxc", np.array(wrinkles["weights"]), shapes)
    for ratio, came in zip(ratios, folds(40), strict=True):
        assert np.abs(ratio - composer.log_ratio(came)).max() < 0.02


def test_each_file_of_a_textured_sequence_has_the_jpeg_of_its_frame() -> None:
    mesh = bumpy_mesh(png=noise_png())
    files = sequence(mesh, smooth_motion(mesh, 3), texture=64)
    for data, wrinkles in zip(files, folds(3), strict=True):
        picture = TextureComposer(noise_png(), 64).picture(wrinkles)
        assert Glb.parse(data).root["images"] == [{"mimeType": "image/jpeg", "bufferView": 4}]
        assert picture.data in data
    assert len(set(files)) == 3


def test_each_material_is_a_primitive_and_all_share_attributes_and_targets() -> None:
    """Faces keep their order within each; the texture is the skin's."""
    mesh = uploaded(bumpy_mesh(png=png()))
    assert mesh.source is not None
    glb = animated(mesh, smooth_motion(mesh, 5))
    (entry,) = glb.root["meshes"]
    assert len(entry["primitives"]) == 3
    for number, primitive in enumerate(entry["primitives"]):
        assert primitive["material"] == number
        assert primitive["attributes"] == glb.primitive["attributes"]
        assert primitive["targets"] == glb.primitive["targets"]
        faces = split_seams(mesh).corners[glb.accessor(primitive["indices"]).reshape(-1, 3)]
        assert (faces == mesh.faces[mesh.source.material == number]).all()
    assert [material["name"] for material in glb.root["materials"]] == list(MATERIALS)
    textured = ["baseColorTexture" in material["pbrMetallicRoughness"] for material in glb.root["materials"]]
    assert textured == [True, False, False]


def test_the_axes_of_the_file_do_not_show() -> None:
    """In metres, +Y up and +Z forward, whatever they were."""
    mesh = uploaded(bumpy_mesh())
    other = uploaded(bumpy_mesh(), np.roll(CENTIMETRES_UP_Z, 1, axis=0) / 7)
    assert other.source is not None
    same = replace(mesh, source=replace(other.source))
    offsets = smooth_motion(mesh, 5)
    for name in ("glb", "glb-sequence"):
        assert encoded(name, clip_of(mesh, offsets)) == encoded(name, clip_of(same, offsets))
    assert (animated(mesh, offsets).attribute("POSITION")[: len(mesh.vertices)] == mesh.vertices).all()


VIEWER = Path(__file__).parents[1] / "viewer"
HAS_VALIDATOR = shutil.which("node") and (VIEWER / "node_modules" / "gltf-validator").is_dir()


@pytest.mark.skipif(not HAS_VALIDATOR, reason="needs node, and make browser-tools")
@pytest.mark.parametrize(
    "case",
    ["textured", "plain", "one frame", "still", "large", "sequence", "wrinkled", "wrinkled one"]
    + [f"uploaded {case}" for case in ("textured", "plain", "sequence", "wrinkled")],
)
def test_the_khronos_validator_finds_nothing_wrong(case: str, tmp_path: Path) -> None:
    """No error, warning or hint; informations only that the uvs of a material without a texture are unused, and the
    images of wrinkles, which glTF has no word for."""
    mesh = bumpy_mesh(rows=260, columns=256) if case == "large" else bumpy_mesh(png=None if "plain" in case else png())
    mesh = uploaded(mesh) if "uploaded" in case else mesh
    offsets = smooth_motion(mesh, 1 if case == "one frame" else 5) * (case != "still")
    texture = 64 if "wrinkled" in case else None
    data = encoded("glb", clip_of(mesh, offsets, texture))
    if "sequence" in case or case == "wrinkled one":
        data = sequence(mesh, offsets, texture)[0]
    (tmp_path / "head.glb").write_bytes(data)
    run = subprocess.run(
        ["node", str(VIEWER / "validate.mjs"), str(tmp_path / "head.glb")], capture_output=True, check=True
    )
    issues = json.loads(run.stdout)["issues"]["messages"]
    plain = range(0 if mesh.base_color_png is None else 1, 3 if mesh.source else 1)
    unused = [f"/meshes/0/primitives/{number}/attributes/TEXCOORD_0" for number in plain]
    if case.endswith("wrinkled"):
        unused += [f"/images/{index}" for index in range(1, len(Glb.parse(data).root["images"]))]
    assert [issue["pointer"] for issue in issues] == unused
    assert {issue["severity"] for issue in issues} <= {2}
