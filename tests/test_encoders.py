"""What every format promises."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from itertools import islice

import numpy as np
import pytest

from models.core import Clip, Frame, Mesh
from models.errors import OutOfRange, TalkerError
from service.encoders import ENCODERS, encode, whole_clip, wrinkle_basis
from talker_client.frames import FramesError, read_frames

FPS = 30.0
OF_FRAMES = sorted(set(ENCODERS) - {"codes"})
"""Codes are another performance of the clip: tests/test_codes.py."""
CASES = [(name, size) for name in OF_FRAMES for size in (None, 64) if size or name != "bundle"]
"""Every format without textures and with some; a bundle is nothing without."""
every_case = pytest.mark.parametrize(("name", "texture"), CASES)


def bumpy_mesh(rows: int = 20, columns: int = 24, bumps: float = 0.1, png: bytes | None = None) -> Mesh:
    """A bumpy ball of 10 cm without its poles: rows × columns vertices, and rows × (columns + 1) uvs, so one seam."""
    v, u = np.mgrid[0 : rows - 1 : rows * 1j, 0 : columns : (columns + 1) * 1j].reshape(2, -1) / [[rows - 1], [columns]]
    polar, turn = np.pi * (0.1 + 0.8 * v), 2 * np.pi * u
    ball = np.stack([np.sin(polar) * np.sin(turn), -np.cos(polar), np.sin(polar) * np.cos(turn)], axis=1)
    ball *= 0.1 * (1 + bumps * np.sin(3 * polar) * np.cos(2 * turn))[:, None]
    own = np.arange(rows * (columns + 1)) % (columns + 1) < columns
    row, column = np.mgrid[: rows - 1, :columns].reshape(2, -1)

    def quads(width: int, right: np.ndarray) -> np.ndarray:
        a, b, c, d = (r * width + k for r, k in ((row, column), (row, right), (row + 1, right), (row + 1, column)))
        return np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)]).astype(np.int32)

    return Mesh(
        vertices=ball[own].astype(np.float32),
        faces=quads(columns, (column + 1) % columns),
        uvs=np.stack([u, v], axis=1).astype(np.float32),
        uv_faces=quads(columns + 1, column + 1),
        base_color_png=png,
    )


def smooth_motion(mesh: Mesh, frames: int, rank: int = 20) -> np.ndarray:
    """Offsets (frames, V, 3) of up to a centimetre in `rank` shapes; the back half is still."""
    draw = np.random.default_rng(3)
    place = mesh.vertices @ draw.uniform(-60, 60, (3, rank)) + draw.uniform(0, 6, rank)
    shapes = np.sin(place).T[:, :, None] * draw.standard_normal((rank, 1, 3))
    time = np.arange(frames)[:, None] / FPS
    weights = np.sin(time * draw.uniform(1, 25, rank) + draw.uniform(0, 6, rank)) * np.geomspace(3e-3, 1e-4, rank)
    front = np.maximum(mesh.vertices[:, 2:] / 0.1, 0)
    return (np.einsum("tk,kvx->tvx", weights, shapes) * front).astype(np.float32)


def folds(frames: int, size: int = 16, rank: int = 5) -> np.ndarray:
    """Wrinkle maps (frames, size, size, 3) of `rank` folds that deepen and fade; the upper quarter never changes."""
    draw = np.random.default_rng(4)
    shapes = draw.uniform(0, 1, (rank, size, size, 1)) * draw.uniform(0.5, 1, (rank, 1, 1, 3))
    shapes[:, : size // 4] = 0
    depths = -np.square(np.sin(np.arange(frames)[:, None] / FPS * draw.uniform(1, 9, rank) + 1)) / rank
    return np.einsum("tk,kyxc->tyxc", depths, shapes).astype(np.float16)


def clip_of(mesh: Mesh, offsets: np.ndarray, texture: int | None = None, maps: np.ndarray | None = None) -> Clip:
    """A clip whose frames are the mesh plus each of the offsets; with a texture, they have folds, or the given maps."""
    if texture and maps is None:
        maps = folds(len(offsets))
    frames = (
        Frame(index, index / FPS, mesh.vertices + offset, None if maps is None else maps[index])
        for index, offset in enumerate(offsets)
    )
    styles = {"motion": "calm", "wrinkle": "neutral"}
    return Clip(mesh, FPS, len(offsets), 7, "mmtalker", {"mmtalker": "a" * 64}, frames, texture, styles)


def bumpy_clip(frames: int = 40, texture: int | None = None, **mesh: object) -> Clip:
    """The clip of most tests."""
    ball = bumpy_mesh(**mesh)  # type: ignore[arg-type]
    return clip_of(ball, smooth_motion(ball, frames), texture)


def encoded(name: str, clip: Clip) -> bytes:
    return b"".join(encode(clip, ENCODERS[name]()))


def failing(clip: Clip, at: int) -> Iterator[Frame]:
    for frame in clip.frames:
        if frame.index == at:
            raise RuntimeError("the engine broke")
        yield frame


def assert_incomplete(name: str, chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    assert bool(data) == (not ENCODERS[name].needs_whole_clip)
    if not data:
        return
    if name == "npz-stream":
        with pytest.raises(FramesError, match="cut"):
            list(read_frames(BytesIO(data))[1])
    else:
        assert not zipfile.is_zipfile(BytesIO(data))


def test_the_formats_are_those_of_the_contract_and_glb_comes_first() -> None:
    media_types = {name: encoder.media_type for name, encoder in ENCODERS.items()}
    assert media_types == {
        "glb": "model/gltf-binary",
        "glb-sequence": "application/zip",
        "obj": "application/zip",
        "npz-stream": "application/x-talker-frames",
        "bundle": "application/zip",
        "codes": "application/x-talker-codes",
    }
    assert next(iter(ENCODERS)) == "glb"


@every_case
def test_the_same_clip_gives_the_same_bytes(name: str, texture: int | None) -> None:
    assert encoded(name, bumpy_clip(texture=texture)) == encoded(name, bumpy_clip(texture=texture))


@every_case
def test_bytes_leave_with_the_first_frame_unless_the_whole_clip_is_needed(name: str, texture: int | None) -> None:
    clip = bumpy_clip(texture=texture)
    encoder = ENCODERS[name]()
    seen: list[int] = []
    frames = (seen.append(frame.index) or frame for frame in clip.frames)  # type: ignore[func-returns-value]
    stream = encode(replace(clip, frames=frames), encoder)
    next(filter(None, stream))
    assert len(seen) == 40 if encoder.needs_whole_clip else len(seen) <= 1
    stream.close()


@every_case
def test_whoever_reads_may_stop_at_every_frame(name: str, texture: int | None) -> None:
    """Each frame gives a chunk, though an empty one, before the next is asked for."""
    clip = bumpy_clip(texture=texture)
    seen: list[int] = []
    frames = (seen.append(frame.index) or frame for frame in clip.frames)  # type: ignore[func-returns-value]
    at_chunk = [len(seen) for _ in encode(replace(clip, frames=frames), ENCODERS[name]())]
    assert set(range(1, 41)) <= set(at_chunk)


@every_case
@pytest.mark.parametrize("chunks", [0, 1, 3, 45], ids=["none", "one", "three", "glb compresses"])
def test_a_consumer_that_stops_early_closes_the_frames_and_the_spool(
    name: str, texture: int | None, chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spools = watch_spools(monkeypatch)
    closed: list[bool] = []
    stream = encode(
        replace(bumpy_clip(texture=texture), frames=Closable(bumpy_clip(texture=texture).frames, closed)),
        ENCODERS[name](),
    )
    for _ in islice(stream, chunks):
        pass
    stream.close()
    assert closed
    assert all(spool._file.closed for spool in spools)
    assert len(spools) == (ENCODERS[name].needs_whole_clip and chunks > 0) * (2 if texture else 1)


@every_case
def test_an_engine_that_fails_midway_leaves_a_cut_stream_and_nothing_open(
    name: str, texture: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spools = watch_spools(monkeypatch)
    closed: list[bool] = []
    clip = bumpy_clip(texture=texture)
    frames = Closable(failing(clip, at=20), closed)
    chunks: list[bytes] = []
    with pytest.raises(RuntimeError, match="the engine broke"):
        chunks.extend(encode(replace(clip, frames=frames), ENCODERS[name]()))
    assert closed
    assert all(spool._file.closed for spool in spools)
    assert_incomplete(name, chunks)


@every_case
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda frames: frames[:-1], "39 frames came; wanted the 40"),
        (lambda frames: [*frames, replace(frames[-1], index=40)], "frame 40 came; wanted frame 40 of 40"),
        (lambda frames: frames[:5] + frames[6:], "frame 6 came; wanted frame 5"),
        (lambda frames: [*frames[:5], replace(frames[5], vertices=frames[5].vertices[:9])], r"shape \(9, 3\)"),
        (lambda frames: [*frames[:5], replace(frames[5], vertices=frames[5].vertices * np.nan)], "not finite"),
    ],
    ids=["too few", "too many", "out of order", "another mesh", "not finite"],
)
def test_frames_that_were_not_announced_are_refused_and_the_stream_is_cut(
    name: str, texture: int | None, fault, message: str
) -> None:  # type: ignore[no-untyped-def]
    clip = bumpy_clip(texture=texture)
    frames = (frame for frame in fault(list(clip.frames)))
    chunks: list[bytes] = []
    with pytest.raises(TalkerError, match=message):
        chunks.extend(encode(replace(clip, frames=frames), ENCODERS[name]()))
    assert_incomplete(name, chunks)


@pytest.mark.parametrize("name", OF_FRAMES)
@pytest.mark.parametrize(
    "fault",
    [lambda maps: None, lambda maps: np.full_like(maps, np.nan), lambda maps: np.zeros((8, 8, 3), np.float16)],
    ids=["none", "not finite", "another size"],
)
def test_a_frame_without_the_wrinkles_that_were_announced_cuts_the_stream(name: str, fault) -> None:  # type: ignore[no-untyped-def]
    clip = bumpy_clip(texture=64)
    frames = (replace(f, wrinkles=fault(f.wrinkles)) if f.index == 5 else f for f in clip.frames)
    chunks: list[bytes] = []
    with pytest.raises(TalkerError, match="frame 5 holds"):
        chunks.extend(encode(replace(clip, frames=frames), ENCODERS[name]()))
    assert_incomplete(name, chunks)


def test_a_bundle_without_textures_is_refused() -> None:
    with pytest.raises(OutOfRange, match="set texture"):
        list(encode(bumpy_clip(), ENCODERS["bundle"]()))


def test_encoding_needs_no_torch() -> None:
    code = "import service.encoders, talker_client.frames, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


class Closable:
    """Frames that note when they are closed."""

    def __init__(self, frames: Iterator[Frame], closed: list[bool]) -> None:
        self._frames, self._closed = frames, closed

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        return next(self._frames)

    def close(self) -> None:
        self._closed.append(True)


def watch_spools(monkeypatch: pytest.MonkeyPatch) -> list:  # type: ignore[type-arg]
    spools = []

    def watch(module, name: str) -> None:  # type: ignore[no-untyped-def]
        class Watched(getattr(module, name)):  # type: ignore[misc]
            def __init__(self, *arguments: int) -> None:
                super().__init__(*arguments)
                spools.append(self)

        monkeypatch.setattr(module, name, Watched)

    watch(whole_clip, "OffsetSpool")
    watch(wrinkle_basis, "MapSpool")
    return spools
