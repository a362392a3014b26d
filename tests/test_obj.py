"""OBJ, and the zip around it."""

import zipfile
from io import BytesIO

import numpy as np
import pytest
import trimesh
from test_encoders import bumpy_clip, bumpy_mesh, clip_of, encoded, folds, smooth_motion
from test_textures import noise_png, pixels

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
