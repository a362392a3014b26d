"""OBJ, and the zip around it."""

import zipfile
from io import BytesIO

import numpy as np
import pytest
import trimesh
from test_encoders import bumpy_clip, bumpy_mesh, clip_of, encoded, folds, smooth_motion
from test_textures import noise_png, pixels
from uploads import CENTIMETRES_UP_Z, MATERIALS, uploaded

from models.core import Mesh, Source
from service.encoders import ENCODERS, encode
from service.encoders.archive import Archive
from service.encoders.textures import TextureComposer

PNG = b"\x89PNG as it came"


def entries(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def numbers(text: str, key: str) -> np.ndarray:
    rows = [line.split()[1:] for line in text.splitlines() if line.split()[0] == key]
    return np.array([[float(number) for word in row for number in word.split("/")] for row in rows])


def test_the_text_gives_vertices_uvs_and_faces_back_in_order() -> None:
    mesh = bumpy_mesh()
    offsets = smooth_motion(mesh, 3)
    files = entries(encoded("obj", clip_of(mesh, offsets)))
    for index, offset in enumerate(offsets):
        text = files[f"frame_{index:06d}.obj"].decode()
        np.testing.assert_allclose(numbers(text, "v"), mesh.vertices + offset, rtol=0, atol=0.51e-6)
        np.testing.assert_allclose(numbers(text, "vt"), mesh.uvs, rtol=0, atol=0.51e-6)
        corners = numbers(text, "f").reshape(-1, 3, 2) - 1
        assert (corners[..., 0] == mesh.faces).all()
        assert (corners[..., 1] == mesh.uv_faces).all()


def test_all_frames_share_one_material_and_one_texture() -> None:
    files = entries(encoded("obj", bumpy_clip(frames=2, png=PNG)))
    assert list(files) == ["base_color.png", "material.mtl", "frame_000000.obj", "frame_000001.obj"]
    assert files["base_color.png"] == PNG
    assert b"map_Kd base_color.png\n" in files["material.mtl"]
    assert files["frame_000001.obj"].startswith(b"mtllib material.mtl\n")


def test_without_a_texture_the_material_names_none() -> None:
    files = entries(encoded("obj", bumpy_clip(frames=1)))
    assert list(files) == ["material.mtl", "frame_000000.obj"]
    assert b"map_Kd" not in files["material.mtl"]


def test_with_textures_each_frame_has_a_material_and_a_jpeg_of_its_own() -> None:
    files = entries(encoded("obj", bumpy_clip(frames=2, texture=64, png=noise_png())))
    frames = [f"frame_{index:06d}.{kind}" for index in range(2) for kind in ("jpg", "mtl", "obj")]
    assert list(files) == ["base_color.png", *frames]
    composer = TextureComposer(noise_png(), 64)
    assert (pixels(files["base_color.png"]) == composer.base).all()
    for index, wrinkles in enumerate(folds(2)):
        name = f"frame_{index:06d}"
        assert files[f"{name}.jpg"] == composer.picture(wrinkles).data
        assert f"map_Kd {name}.jpg\n".encode() in files[f"{name}.mtl"]
        assert files[f"{name}.obj"].startswith(f"mtllib {name}.mtl\n".encode())


def test_trimesh_loads_a_frame() -> None:
    mesh = bumpy_mesh()
    offsets = smooth_motion(mesh, 1)
    text = entries(encoded("obj", clip_of(mesh, offsets)))["frame_000000.obj"]
    loaded = trimesh.load(BytesIO(text), file_type="obj", process=False, maintain_order=True, skip_materials=True)
    assert len(loaded.faces) == len(mesh.faces)
    moved = mesh.vertices + offsets[0]
    np.testing.assert_allclose(loaded.bounds, [moved.min(axis=0), moved.max(axis=0)], atol=1e-6)


def test_entries_carry_their_sizes_and_no_date_so_that_a_stream_can_be_unpacked_as_it_comes() -> None:
    chunks = list(encode(bumpy_clip(frames=3), ENCODERS["obj"]()))
    for chunk in chunks[:-1]:
        assert chunk[:4] == b"PK\3\4"
        flags, size = int.from_bytes(chunk[6:8], "little"), int.from_bytes(chunk[18:22], "little")
        assert not flags & 0x08, "a data descriptor would follow the data"
        assert size == len(chunk) - 30 - int.from_bytes(chunk[26:28], "little")
    with zipfile.ZipFile(BytesIO(b"".join(chunks))) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_an_archive_without_its_end_is_no_zip() -> None:
    archive = Archive()
    data = archive.add_stored("a", b"1") + archive.add_deflated("b", b"2" * 1000)
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(BytesIO(data))
    assert entries(data + archive.finish()) == {"a": b"1", "b": b"2" * 1000}


# Heads that came as files.


def house() -> Mesh:
    """A pentagon, a quad of another material, and a triangle of the first."""
    vertices = np.array([[0, 0, 0], [2, 0, 0], [2, 2, 0], [1, 3, 0], [0, 2, 0], [4, 0, 0.1], [4, 2, -0.0]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 4], [1, 5, 6], [1, 6, 2], [2, 6, 3]], np.int32)
    uvs = np.array([[0, 0], [1, 0.1]], np.float32)
    source = Source(
        vertices,
        np.eye(3, dtype=np.float32),
        np.array([0, 0, 0, 1, 1, 2], np.int32),
        np.array([0, 0, 0, 1, 1, 0], np.int32),
        ("brick", "100% wood"),
    )
    return Mesh(vertices, faces, uvs, (faces % 2).astype(np.int32), b"\xff\xd8\xff a photograph", source)


def frame_of(mesh: Mesh, offsets: np.ndarray | None = None) -> str:
    clip = clip_of(mesh, np.zeros((1, *mesh.vertices.shape), np.float32) if offsets is None else offsets)
    return entries(encoded("obj", clip))["frame_000000.obj"].decode()


def test_polygons_and_changes_of_material_are_written_as_they_came() -> None:
    assert frame_of(house()).partition("vt 1 0.100000001\n")[2] == (
        "usemtl brick\ns 1\nf 1/1 2/2 3/1 4/2 5/1\nusemtl 100% wood\nf 2/2 6/2 7/1 3/1\nusemtl brick\nf 3/1 7/1 4/2\n"
    )


def test_the_library_names_each_material_and_the_texture_is_the_skins() -> None:
    """In the bytes that it came in, whatever they are."""
    files = entries(encoded("obj", clip_of(house(), np.zeros((1, 7, 3), np.float32))))
    assert files["base_color.jpg"] == b"\xff\xd8\xff a photograph"
    assert files["material.mtl"].decode() == (
        "newmtl brick\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nmap_Kd base_color.jpg\n"
        "newmtl 100% wood\nKa 0 0 0\nKd 0.8 0.8 0.8\nKs 0 0 0\n"
    )


def test_wrinkles_are_the_skins() -> None:
    files = entries(encoded("obj", clip_of(uploaded(bumpy_mesh(png=noise_png())), np.zeros((1, 480, 3)), 64)))
    library = files["frame_000000.mtl"].decode().split("newmtl ")[1:]
    assert [entry.partition("\n")[0] for entry in library] == list(MATERIALS)
    assert ["map_Kd frame_000000.jpg" in entry for entry in library] == [True, False, False]


def test_names_that_no_line_can_hold_are_made_so_and_stay_apart() -> None:
    names = ("skin\r\nv 0 0 0", "", "material")
    text = frame_of(uploaded(bumpy_mesh(), materials=names))
    used = [line for line in text.splitlines() if line.startswith("usemtl")]
    assert used[:4] == ["usemtl skin v 0 0 0", "usemtl material", "usemtl material.2", "usemtl skin v 0 0 0"]
    assert len(numbers(text, "v")) == 480


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0, 30_000.0])
def test_without_motion_the_files_own_numbers_come_back_bit_for_bit(scale: float) -> None:
    """Zeros of either sign, too."""
    mesh = uploaded(bumpy_mesh(), np.float32(scale) * CENTIMETRES_UP_Z)
    assert mesh.source is not None
    mesh.source.vertices[::7] *= np.float32(-0.0)
    assert numbers(frame_of(mesh), "v").astype(np.float32).tobytes() == mesh.source.vertices.tobytes()
    assert numbers(frame_of(mesh), "vt").astype(np.float32).tobytes() == mesh.uvs.tobytes()


def test_motion_is_turned_and_scaled_as_the_file_is() -> None:
    mesh = uploaded(bumpy_mesh())
    offsets = smooth_motion(mesh, 1)
    assert mesh.source is not None
    moved = numbers(frame_of(mesh, offsets), "v") - mesh.source.vertices
    np.testing.assert_allclose(
        moved, 100 * np.stack([offsets[0, :, 0], -offsets[0, :, 2], offsets[0, :, 1]], 1), atol=2e-6
    )
    assert np.abs(moved).max() > 0.5
