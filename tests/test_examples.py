"""Example sequences: what our own formats give back, and what strangers send."""

import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import pytest
from conftest import FakeTemplate, grid_mesh
from PIL import Image
from test_encoders import FPS, bumpy_mesh, clip_of, encoded, every_case, folds, smooth_motion
from uploads import uploaded

from models import archive
from models.core import Mesh
from models.errors import InputError, MalformedInput, TooLarge, UnsupportedMedia
from models.examples import Example, ExampleLimits, check_topology, pictures, read_example
from models.examples.sequence import MAX_RATIO
from service.encoders import morphs
from service.encoders.textures import resize

FRAMES, SIZE = 12, 16
VERTICES = np.random.default_rng(0).normal(size=(3, 5, 3)).astype(np.float32)


def skin(size: int = 64) -> bytes:
    """A texture that no lossy format spoils."""
    return picture(np.full((size, size, 3), (200, 150, 120), np.uint8))


def picture(image: np.ndarray, kind: str = "png", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


MESH = bumpy_mesh(png=skin())
MOTION = smooth_motion(MESH, FRAMES)
FOLDS = folds(FRAMES, SIZE)
PLACES = MESH.vertices + MOTION


def template(mesh: Mesh = MESH) -> FakeTemplate:
    return FakeTemplate("default", mesh)


def made(name: str, texture: int | None = None) -> bytes:
    return encoded(name, clip_of(MESH, MOTION, texture, FOLDS if texture else None))


def read(data: bytes, **limits: int) -> Example:
    return read_example(io.BytesIO(data), replace(ExampleLimits(), **limits))


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as out:
        for name, data in files.items():
            out.writestr(name, data)
    return file.getvalue()


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


def npz(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def obj(vertices: np.ndarray) -> bytes:
    return "".join(f"v {x} {y} {z}\n" for x, y, z in vertices).encode() + b"vt 0 0\nvn 0 0 1\nf 1 2 3\n"


@dataclass
class GlbFile:
    """A GLB taken apart to be forged: change `root`, and `build` it again."""

    root: dict
    binary: bytes

    @classmethod
    def of(cls, data: bytes) -> "GlbFile":
        (size,) = struct.unpack_from("<I", data, 12)
        return cls(json.loads(data[20 : 20 + size]), data[28 + size :])

    def build(self, text: bytes | None = None) -> bytes:
        text = json.dumps(self.root).encode() if text is None else text
        text += b" " * (-len(text) % 4)
        parts = struct.pack("<I4s", len(text), b"JSON") + text
        parts += struct.pack("<I4s", len(self.binary), b"BIN\0") + self.binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(parts)) + parts


def forged_glb(change: Callable[[dict], object], name: str = "glb") -> bytes:
    file = GlbFile.of(made(name))
    change(file.root)
    return file.build()


def refused(error: type[InputError], data: bytes, code: str | None = None, **limits: int) -> InputError:
    """The refusal of a file, or of the maps in it."""
    with pytest.raises(error) as refusal:
        list(read(data, **limits).log_ratios(SIZE))
    assert code is None or refusal.value.code == code
    return refusal.value


@every_case
def test_every_format_gives_its_frames_back(name: str, texture: int | None) -> None:
    """A GLB with an animation is lossy by what it states; an OBJ is written to the micrometre."""
    off_mm = {"glb": morphs.GOAL_MM, "bundle": morphs.GOAL_MM, "obj": 1e-3}.get(name, 0)
    example = check_topology(read(made(name, texture)), template())
    assert example.vertices.shape == PLACES.shape
    assert 1e3 * np.linalg.norm(example.vertices - PLACES, axis=2).max() <= off_mm + 1e-5
    assert (example.wrinkles is None) == (texture is None)
    if name != "obj":
        assert example.fps == pytest.approx(FPS, rel=1e-6)
    if name in ("glb", "npz-stream", "bundle"):
        assert np.array_equal(example.neutral, MESH.vertices)
    assert example.vertices.dtype == np.float32
    assert not example.seams


@pytest.mark.parametrize(
    ("name", "off"), [("glb", 0.005), ("bundle", 0.005), ("npz-stream", 0.0005), ("obj", 0.01), ("glb-sequence", 0.01)]
)
def test_every_format_gives_its_wrinkles_back(name: str, off: float) -> None:
    """As log ratios; JPEG is lossy, and a GLB sequence holds no neutral texture but its first frame's."""
    wanted = np.stack([pictures.resize_map(resize(fold, 64), SIZE) for fold in FOLDS])
    if name == "glb-sequence":
        wanted -= wanted[0]
    maps = np.stack(list(read(made(name, 64)).log_ratios(SIZE)))
    assert maps.shape == FOLDS.shape
    assert maps.dtype == np.float32
    assert np.sqrt(np.square(maps - wanted).mean()) < off
    assert np.abs(FOLDS).max() > 0.3, "or there is nothing to read"


def test_an_npz_is_read_as_it_is() -> None:
    maps = np.random.default_rng(1).normal(0, 0.2, (3, 8, 8, 3)).astype(np.float16)
    example = read(npz(vertices=VERTICES.astype(float), neutral=VERTICES[0], fps=25, wrinkles=maps))
    assert np.array_equal(example.vertices, VERTICES)
    assert np.array_equal(example.neutral, VERTICES[0])
    assert example.fps == 25
    assert np.array_equal(list(example.log_ratios(8)), maps)


def test_an_npz_needs_vertices_alone() -> None:
    example = read(npz(vertices=np.asfortranarray(VERTICES)))
    assert np.array_equal(example.vertices, VERTICES)
    assert (example.fps, example.neutral, example.wrinkles) == (None, None, None)
    assert list(example.log_ratios(8)) == []


def test_frames_are_sorted_by_their_numbers() -> None:
    files = {f"head_{index}.obj": obj(VERTICES[0] + index) for index in (10, 2, 1)}
    vertices = read(zipped(files)).vertices
    assert np.allclose(vertices[:, 0, 0] - VERTICES[0, 0, 0], [1, 2, 10])


def test_obj_vertices_may_have_colours_and_tabs() -> None:
    text = b"v 1 2 3 0.5 0.5 0.5\nv\t4 5 6\n"
    assert np.array_equal(read(zipped({"a.obj": text, "b.obj": text})).vertices[1], [[1, 2, 3], [4, 5, 6]])


def test_a_log_ratio_is_that_of_the_textures_reduced_by_area_with_a_floor_and_a_cut() -> None:
    """Closed form: each quadrant is one pair of values, spread over 4 × 4 texels."""
    neutral, texture = np.array([[200, 200], [2, 200]]), np.array([[100, 255], [1, 2]])

    def painted(values: np.ndarray) -> bytes:
        return picture(np.repeat(np.kron(values, np.ones((4, 4)))[..., None], 3, 2).astype(np.uint8))

    still, moved = painted(neutral), painted(texture)
    files = {"base_color.png": still, "a.obj": obj(VERTICES[0]), "a.png": still}
    files |= {"b.obj": obj(VERTICES[1]), "b.png": moved}
    rest, ratios = read(zipped(files)).log_ratios(2)
    assert not rest.any()
    assert ratios[..., 0] == pytest.approx(np.array([[np.log(0.5), np.log(255 / 200)], [0, -MAX_RATIO]]), abs=1e-6)
    (_, whole) = read(zipped(files)).log_ratios(1)
    assert whole[0, 0] == pytest.approx(np.full(3, ratios[..., 0].mean()), abs=1e-6)


def test_a_map_that_grows_keeps_its_mean() -> None:
    example = read(npz(vertices=VERTICES, wrinkles=np.full((3, 4, 4, 3), -0.25)))
    assert all(np.allclose(ratios, -0.25) and ratios.shape == (8, 8, 3) for ratios in example.log_ratios(8))


def test_textures_that_never_change_say_nothing_of_wrinkles() -> None:
    files = {f"{name}.{end}": data for name in "ab" for end, data in (("obj", obj(VERTICES[0])), ("png", skin()))}
    assert read(zipped(files)).wrinkles is None


@pytest.mark.parametrize("name", ["glb", "glb-sequence", "bundle"])
def test_primitives_that_share_their_positions_are_one_mesh(name: str) -> None:
    """And the texture is that of the material that has one, whichever it is."""
    mesh = uploaded(MESH)
    assert mesh.source is not None
    mesh = replace(mesh, source=replace(mesh.source, skin=2))
    came = [read(encoded(name, clip_of(each, MOTION, 64, FOLDS))) for each in (mesh, replace(mesh, source=None))]
    assert np.array_equal(came[0].vertices, came[1].vertices)
    for one, other in zip(*(example.log_ratios(SIZE) for example in came), strict=True):
        assert np.array_equal(one, other)


def test_primitives_of_positions_of_their_own_are_refused() -> None:
    def divide(root: dict) -> None:
        primitives = root["meshes"][0]["primitives"]
        primitives.append(primitives[0] | {"attributes": primitives[0]["attributes"] | {"POSITION": 1}})

    refused(MalformedInput, forged_glb(divide), "damaged_glb")


def test_copies_at_seams_are_dropped_and_others_are_not() -> None:
    example = read(made("glb"))
    assert example.vertices.shape[1] > len(MESH.vertices)
    assert check_topology(example, template()).vertices.shape[1] == len(MESH.vertices)
    moved = example.neutral.copy()
    moved[-1] += 1e-3
    for wrong in (replace(example, neutral=moved), replace(example, seams=False)):
        with pytest.raises(MalformedInput) as refusal:
            check_topology(wrong, template())
        assert refusal.value.code == "other_topology"


@pytest.mark.parametrize("name", ["glb", "glb-sequence", "obj", "npz-stream"])
def test_an_example_of_another_topology_is_refused(name: str) -> None:
    with pytest.raises(MalformedInput, match="wanted the head's 49") as refusal:
        check_topology(read(made(name)), template(grid_mesh()))
    assert refusal.value.code == "other_topology"


def test_an_example_whose_vertices_are_in_another_order_is_refused() -> None:
    order = np.random.default_rng(0).permutation(len(MESH.vertices))
    with pytest.raises(MalformedInput, match="in its order") as refusal:
        check_topology(Example(PLACES[:, order]), template())
    assert refusal.value.code == "other_topology"


def test_an_example_may_be_of_any_size_and_place() -> None:
    turned = (PLACES[..., [1, 2, 0]] * 1000 + 5).astype(np.float32)
    assert check_topology(Example(turned), template()).vertices is not None


@pytest.mark.parametrize("data", [b"", b"v 0 0 0\n", skin(), b"RIFF" * 9, zipped({"readme.txt": b"hello"})])
def test_what_is_no_example_is_refused(data: bytes) -> None:
    refused(UnsupportedMedia, data, "not_an_example")


@pytest.mark.parametrize("name", ["glb", "glb-sequence", "obj", "npz-stream", "bundle"])
def test_a_file_cut_anywhere_or_with_a_bit_turned_is_read_or_refused(name: str) -> None:
    """Nothing but a refusal comes of a damaged file."""
    data, draw = made(name, 64), np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        damaged[draw.integers(min(len(data), 4000) if draw.random() < 0.7 else len(data))] ^= 1 << draw.integers(8)
        for file in (bytes(damaged), data[: draw.integers(len(data))]):
            with suppress(InputError):
                list(check_topology(read(file), template()).log_ratios(4))


@pytest.mark.parametrize("arrays", [{}, {"vertices": VERTICES, "surplus": VERTICES}, {"places": VERTICES}], ids=len)
def test_an_npz_of_other_arrays_is_refused(arrays: dict[str, np.ndarray]) -> None:
    refused(InputError, npz(**arrays))


@pytest.mark.parametrize(
    "vertices",
    [
        VERTICES[:1],
        VERTICES[:, :0],
        VERTICES[0],
        VERTICES[..., :2],
        np.float32(1),
        VERTICES * np.nan,
        VERTICES.astype(float) * 1e300,
        VERTICES.astype(complex),
        np.array([["a"]]),
    ],
)
def test_vertices_that_are_no_sequence_are_refused(vertices: np.ndarray) -> None:
    refused(MalformedInput, npz(vertices=vertices))


@pytest.mark.parametrize(
    "more",
    [
        {"neutral": VERTICES},
        {"neutral": VERTICES[0] * np.inf},
        {"fps": 0},
        {"fps": np.nan},
        {"fps": -30},
        {"wrinkles": np.zeros((2, 8, 8, 3))},
        {"wrinkles": np.zeros((3, 8, 4, 3))},
        {"wrinkles": np.zeros((3, 8, 8))},
        {"wrinkles": np.zeros((3, 0, 0, 3))},
        {"wrinkles": np.zeros(3)},
        {"wrinkles": np.float32(0)},
        {"wrinkles": np.full((3, 8, 8, 3), np.nan)},
    ],
    ids=str,
)
def test_what_does_not_go_with_the_vertices_is_refused(more: dict[str, object]) -> None:
    refused(MalformedInput, npz(vertices=VERTICES, **more))


def test_a_pickle_is_refused_unopened() -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return pytest.fail, ("it was unpickled",)

    objects = np.empty((2, 1, 3), object)
    objects[:] = Bomb()
    refused(MalformedInput, npz(vertices=objects))


def test_an_array_that_claims_more_than_it_holds_takes_no_memory() -> None:
    data = npy(VERTICES)
    for shape in (b"(3000000000, 500000, 3)", b"(3, 5, 30)", b"(-1, 5, 3)"):
        forged = data.replace(b"(3, 5, 3), }" + b" " * (len(shape) - 9), shape + b", }")
        assert len(forged) == len(data)
        assert forged != data
        refused(MalformedInput, zipped({"vertices.npy": forged}))
    refused(MalformedInput, zipped({"vertices.npy": data[:40]}))
    refused(MalformedInput, zipped({"vertices.npy": b"nonsense"}))


def test_frames_that_change_their_number_of_vertices_are_refused() -> None:
    refused(MalformedInput, zipped({"a.obj": obj(VERTICES[0]), "b.obj": obj(VERTICES[0, :4])}), "other_topology")


@pytest.mark.parametrize("text", [b"v 1 2\n", b"v a b c\n", b"v nan 0 0\n", b"v 1e99 0 0\n", b"", b"\xff\xfe\x00"])
def test_an_obj_without_vertices_that_are_numbers_is_refused(text: bytes) -> None:
    refused(MalformedInput, zipped({"a.obj": text, "b.obj": text}))


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_frames_are_refused(count: int) -> None:
    refused(InputError, zipped({f"{index}.obj": obj(VERTICES[0]) for index in range(count)}))
    for name in ("glb", "glb-sequence", "npz-stream"):
        refused(InputError, encoded(name, clip_of(MESH, MOTION[:count])) if count or name != "glb" else b"glTF")


@pytest.mark.parametrize(
    "name",
    [
        "../a.obj",
        "/a.obj",
        "clip/a.obj",
        "C:a.obj",
        "..\\a.obj",
        "a\n.obj",
        ".a.obj",
        "a" * 300 + ".obj",
        "../__MACOSX/a.obj",
        "a__MACOSX/b",
        ".DS_Store.obj",
    ],
    ids=repr,
)
def test_a_zip_with_paths_is_refused(name: str) -> None:
    refused(MalformedInput, zipped({name: obj(VERTICES[0]), "b.obj": obj(VERTICES[0])}), "bad_path")


def test_what_macos_adds_to_a_zip_is_left_aside() -> None:
    """Finder's notes on each file, and the looks of a folder; however large they are."""
    files = {"a.obj": obj(VERTICES[0]), "b.obj": obj(VERTICES[1])}
    notes = {"__MACOSX/": b"", "__MACOSX/._a.obj": b"\0\5\x16\7", "__MACOSX/clip/._b.obj": bytes(1 << 20)}
    example = read(zipped(notes | files | {".DS_Store": b"\0Bud1"}), max_unpacked_bytes=1 << 20)
    assert np.asarray(example.vertices) == pytest.approx(VERTICES[:2])


def test_a_zip_with_a_file_without_a_name_is_refused() -> None:
    data = bytearray(zipped({"a": b"v 1 2 3"}))
    struct.pack_into("<HH", data, data.index(b"PK\x01\x02") + 28, 0, 1)  # the name's byte counts as an extra field
    refused(MalformedInput, bytes(data), "bad_path")


def test_a_zip_whose_directory_points_before_the_file_is_refused() -> None:
    data = zipped({"a.obj": obj(VERTICES[0]), "b.obj": obj(VERTICES[1])})
    refused(MalformedInput, data[:5] + data[7:], "damaged_zip")


def test_a_zip_that_unfolds_beyond_the_limit_is_refused_before_it_is_unpacked() -> None:
    bomb = zipped({f"{index}.obj": bytes(1 << 20) for index in range(4)})
    assert len(bomb) < 1 << 14
    refused(TooLarge, bomb, max_unpacked_bytes=3 << 20)


def test_a_member_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 1000)
    refused(TooLarge, zipped({"a.obj": bytes(1001), "b.obj": b""}))


def test_a_zip_that_lies_about_a_size_gives_no_more_than_it_declares() -> None:
    """Declared as 10 bytes in both headers: zipfile stops there, and the checksum differs."""
    data = zipped({"a.obj": bytes(1 << 20), "b.obj": b""}).replace(struct.pack("<I", 1 << 20), struct.pack("<I", 10))
    refused(MalformedInput, data, "damaged_zip")


def test_a_zip_of_too_many_files_is_refused_before_it_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    monkeypatch.setattr(archive, "ZipFile", lambda *_: pytest.fail("it was listed"))
    refused(TooLarge, zipped({f"{index}.obj": b"" for index in range(4)}))


def test_a_zip_that_is_encrypted_or_packed_otherwise_is_refused() -> None:
    data = zipped({"a.obj": obj(VERTICES[0]), "b.obj": obj(VERTICES[1])})
    flagged = bytearray(data)
    flagged[data.index(b"PK\x01\x02") + 8] |= 1
    refused(MalformedInput, bytes(flagged), "damaged_zip")
    refused(MalformedInput, zipped({"a.obj": b"v 1 2 3"}, zipfile.ZIP_LZMA), "damaged_zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_a_name_twice_is_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("a.obj", obj(VERTICES[0]))
        out.writestr("a.obj", obj(VERTICES[1]))
    refused(MalformedInput, file.getvalue(), "damaged_zip")


@pytest.mark.parametrize("name", ["glb", "glb-sequence", "obj", "npz-stream"])
@pytest.mark.parametrize("limit", ["max_bytes", "max_frames", "max_points"])
def test_every_limit_holds_for_every_format(name: str, limit: str) -> None:
    data = made(name)
    size = {"max_bytes": len(data), "max_frames": FRAMES, "max_points": 10**6}[limit]
    assert len(read(data, **{limit: size}).vertices) == FRAMES
    few = {"max_bytes": len(data) - 1, "max_frames": FRAMES - 1, "max_points": FRAMES * len(MESH.vertices) - 1}[limit]
    refused(TooLarge, data, **{limit: few})


@pytest.mark.parametrize("where", ["buffers", "images"])
@pytest.mark.parametrize(
    "uri", ["http://example.org/a.bin", "/etc/passwd", "data:application/octet-stream;base64,AA=="]
)
def test_a_glb_that_refers_to_anything_outside_is_refused(where: str, uri: str) -> None:
    refused(MalformedInput, forged_glb(lambda root: root[where][0].update(uri=uri)), "external_reference")


@pytest.mark.parametrize(
    "change",
    [
        lambda root: root.pop("meshes"),
        lambda root: root.update(meshes=root["meshes"] * 2),
        lambda root: root.update(meshes=7),
        lambda root: root.update(animations=[]),
        lambda root: root["animations"].append(root["animations"][0]),
        lambda root: root["animations"][0]["samplers"][0].update(interpolation="CUBICSPLINE"),
        lambda root: root["animations"][0]["samplers"][0].update(input=0),
        lambda root: root["animations"][0]["samplers"][0].update(input=10**6),
        lambda root: root["animations"][0]["samplers"][0].update(output="x"),
        lambda root: root["accessors"][0].update(componentType=5123),
        lambda root: root["accessors"][0].update(count=10**12),
        lambda root: root["accessors"][0].update(count=-1),
        lambda root: root["accessors"][0].update(count=float("inf")),
        lambda root: root["accessors"][0].update(sparse={"count": 1}),
        lambda root: root["accessors"][0].update(byteOffset=-12),
        lambda root: root["bufferViews"][0].update(byteStride=16),
        lambda root: root["bufferViews"][0].update(byteLength=10**9),
        lambda root: root["bufferViews"][0].update(byteOffset=-4),
        lambda root: root["bufferViews"][0].update(buffer=1),
        lambda root: root["meshes"][0]["primitives"][0]["targets"].pop(),
        lambda root: root["meshes"][0]["primitives"][0]["targets"].append({"POSITION": 2}),
        lambda root: root["asset"]["extras"].update(wrinkles=3),
        lambda root: root["asset"]["extras"].update(wrinkles={"images": [0]}),
        lambda root: root["asset"]["extras"].update(
            wrinkles={"images": [9], "scale": [1], "offset": [0], "weights": [[1]] * FRAMES}
        ),
        lambda root: root["asset"]["extras"].update(
            wrinkles={"images": [0], "scale": [1], "offset": [0], "weights": [[1]]}
        ),
        lambda root: root["asset"]["extras"].update(
            wrinkles={"images": [0], "scale": ["a"], "offset": [0], "weights": [[1]] * FRAMES}
        ),
        lambda root: root["asset"]["extras"].update(
            wrinkles={"images": [0], "scale": [float("nan")], "offset": [0], "weights": [[1]] * FRAMES}
        ),
    ],
)
def test_a_forged_glb_is_refused(change: Callable[[dict], object]) -> None:
    refused(MalformedInput, forged_glb(change))


def test_more_wrinkle_textures_than_eight_are_refused() -> None:
    basis = {"images": [0] * 9, "scale": [1] * 9, "offset": [0] * 9, "weights": [[0] * 9] * FRAMES}
    refused(TooLarge, forged_glb(lambda root: root["asset"]["extras"].update(wrinkles=basis)))


def test_targets_that_share_their_numbers_are_bounded() -> None:
    """A million of them would take no bytes in the file."""
    refused(TooLarge, _many_targets(1000))


def _many_targets(count: int) -> bytes:
    file = GlbFile.of(made("glb"))
    primitive = file.root["meshes"][0]["primitives"][0]
    primitive["targets"] = primitive["targets"][:1] * count
    weights = np.zeros((FRAMES, count), np.float32).tobytes()
    file.root["bufferViews"].append({"buffer": 0, "byteOffset": len(file.binary), "byteLength": len(weights)})
    output = {"bufferView": len(file.root["bufferViews"]) - 1, "componentType": 5126, "type": "SCALAR"}
    file.root["accessors"].append(output | {"count": FRAMES * count})
    file.root["animations"][0]["samplers"][0]["output"] = len(file.root["accessors"]) - 1
    file.binary += weights
    return file.build()


@pytest.mark.parametrize("text", [b"{", b"[]", b"[" * 100_000, b"\xff" * 8], ids=lambda text: repr(text[:4]))
def test_a_glb_without_json_is_refused(text: bytes) -> None:
    refused(MalformedInput, GlbFile.of(made("glb")).build(text))


def test_json_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_JSON_BYTES", 100)
    for name in ("glb", "npz-stream"):
        refused(TooLarge, made(name))


def test_times_that_do_not_rise_are_refused() -> None:
    file = GlbFile.of(made("glb"))
    times = file.root["animations"][0]["samplers"][0]["input"]
    start = file.root["bufferViews"][file.root["accessors"][times]["bufferView"]]["byteOffset"]
    file.binary = file.binary[:start] + bytes(8) + file.binary[start + 8 :]
    refused(MalformedInput, file.build())


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.pop("fps"),
        lambda fields: fields.update(frame_count=FRAMES + 1),
        lambda fields: fields.update(frame_count=float("inf")),
        lambda fields: fields["positions"].update(dtype="|O"),
        lambda fields: fields["positions"].update(shape=[-1, 3]),
        lambda fields: fields["positions"].update(shape=[0, 3]),
        lambda fields: fields["positions"].update(shape=[10**9, 10**9]),
        lambda fields: fields["arrays"][0].update(name=["a"]),
        lambda fields: fields["arrays"][0].update(shape=[3]),
        lambda fields: fields.update(arrays=fields["arrays"] * 30),
        lambda fields: fields.update(wrinkles={"dtype": "<f2", "shape": [8, 8, 3]}),
    ],
)
def test_a_forged_stream_is_refused(change: Callable[[dict], object]) -> None:
    data = made("npz-stream")
    (size,) = struct.unpack_from("<I", data, 12)
    fields = json.loads(data[16 : 16 + size])
    change(fields)
    text = json.dumps(fields).encode()
    refused(MalformedInput, data[:12] + struct.pack("<I", len(text)) + text + data[16 + size :])


def test_a_stream_without_its_end_is_refused() -> None:
    data = made("npz-stream")
    refused(MalformedInput, data[: data.index(b"DONE")], "damaged_stream")


@pytest.mark.parametrize(
    ("error", "texture"),
    [
        (UnsupportedMedia, b"nonsense"),
        (UnsupportedMedia, picture(np.zeros((64, 64, 3), np.uint8), "gif")),
        (UnsupportedMedia, picture(np.zeros((64, 64, 3), np.uint8), "tiff")),
        (MalformedInput, skin()[:60]),
        (MalformedInput, skin()[:-40]),
        (MalformedInput, picture(np.zeros((64, 32, 3), np.uint8))),
        (MalformedInput, picture(np.zeros((32, 32, 3), np.uint8))),
        (MalformedInput, picture(np.zeros((64, 64), np.uint16))),
    ],
)
def test_a_texture_that_does_not_decode_or_does_not_fit_is_refused(error: type[InputError], texture: bytes) -> None:
    files = {"a.obj": obj(VERTICES[0]), "a.png": skin(), "b.obj": obj(VERTICES[1]), "b.png": texture}
    refused(error, zipped(files), "bad_texture")


def test_a_texture_of_too_many_pixels_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    huge = skin()[:16] + struct.pack(">II", 60_000, 60_000)
    huge += skin()[24:29] + struct.pack(">I", zlib.crc32(huge[12:] + skin()[24:29])) + skin()[33:]
    for size, texture in ((pictures.MAX_SIZE, huge), (63, skin())):
        monkeypatch.setattr(pictures, "MAX_SIZE", size)
        files = {"a.obj": obj(VERTICES[0]), "a.png": texture, "b.obj": obj(VERTICES[1]), "b.png": texture + b"\0"}
        refused(TooLarge, zipped(files))


def test_textures_for_some_of_the_frames_are_refused() -> None:
    files = {f"{name}.obj": obj(VERTICES[0]) for name in "abc"} | {"a.png": skin(), "b.png": skin() + b"\0"}
    refused(MalformedInput, zipped(files), "bad_texture")


def test_textures_that_were_packed_small_are_bounded_together() -> None:
    files = {f"{name}.obj": obj(VERTICES[0]) for name in "ab"}
    padded = {f"{name}.png": skin() + bytes(100_000) + name.encode() for name in "ab"}
    refused(TooLarge, zipped(files | padded), max_bytes=150_000)


def test_examples_are_read_without_torch() -> None:
    code = "import models.examples, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_members_keep_the_json_of_a_bundle() -> None:
    """A bundle whose weights were taken out is motion alone."""
    files = members(made("bundle", 64))
    assert read(zipped({name: data for name, data in files.items() if name != "weights.json"})).wrinkles is None
    refused(MalformedInput, zipped(files | {"weights.json": b"[]"}))
    refused(MalformedInput, zipped({name: data for name, data in files.items() if name != "wrinkle_0.png"}))
