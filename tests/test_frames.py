"""npz-stream: what is written is read back exactly, or not at all."""

import json
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from test_encoders import FPS, bumpy_clip, bumpy_mesh, clip_of, encoded, folds, smooth_motion
from test_textures import noise_png
from uploads import MATERIALS, uploaded

from models.core import Frame
from service.encoders import ENCODERS, encode
from service.encoders import frames as written
from service.encoders.textures import TextureComposer
from talker_client.frames import CHUNK, END, PREFIX, RANGE, FramesError, read_frames

DOCUMENT = Path(__file__).parents[1] / "docs" / "formats.md"


class Dribble(BytesIO):
    """A socket on a bad day: at most seven bytes at a time."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size, 7) if size and size > 0 else size)


def message(kind: bytes, body: bytes) -> bytes:
    return PREFIX.pack(kind, len(body)) + body


def begin(frame_count: int) -> bytes:
    """A stream up to its first frame, of a mesh with 12 vertices."""
    mesh = bumpy_mesh(rows=3, columns=4)
    return b"".join(ENCODERS["npz-stream"]().begin(clip_of(mesh, smooth_motion(mesh, frame_count))))


def end(frames: int) -> bytes:
    return message(END, json.dumps({"status": "complete", "frames": frames}).encode())


def test_positions_mesh_and_header_are_read_back_exactly() -> None:
    mesh = bumpy_mesh()
    offsets = smooth_motion(mesh, 40)
    header, chunks = read_frames(BytesIO(encoded("npz-stream", clip_of(mesh, offsets))))
    assert (header.fps, header.frame_count) == (FPS, 40)
    assert header.fields["seed"] == 7
    assert header.fields["engine"] == "mmtalker"
    assert header.fields["checkpoints"] == {"mmtalker": "a" * 64}
    for name in ("vertices", "faces", "uvs", "uv_faces"):
        wanted = getattr(mesh, name)
        assert header.arrays[name].dtype == wanted.dtype
        assert (header.arrays[name] == wanted).all()
    read = list(chunks)
    assert [chunk.start for chunk in read] == list(range(40))
    assert (np.concatenate([chunk.positions for chunk in read]) == mesh.vertices + offsets).all()


def test_a_stream_that_does_not_know_its_length_ends_with_it() -> None:
    """As live streams are; one that was cut is told all the same."""
    mesh = bumpy_mesh()
    offsets = smooth_motion(mesh, 3)
    head = b"".join(written.opening(mesh, {"fps": FPS, "frame_count": None}))
    body = b"".join(written.chunk(mesh, Frame(k, k / FPS, mesh.vertices + offsets[k])) for k in range(3))
    assert [part.start for part in read_frames(BytesIO(head + body + written.ending(3)))[1]] == [0, 1, 2]
    for tail in (written.ending(4), b""):
        with pytest.raises(FramesError):
            list(read_frames(BytesIO(head + body + tail))[1])


def test_wrinkles_are_read_back_at_the_size_that_was_asked_for_with_the_neutral_texture() -> None:
    mesh = bumpy_mesh(png=noise_png())
    offsets = smooth_motion(mesh, 3)
    header, chunks = read_frames(BytesIO(encoded("npz-stream", clip_of(mesh, offsets, 64))))
    composer = TextureComposer(noise_png(), 64)
    assert header.fields["wrinkles"] == {"dtype": "<f2", "shape": [64, 64, 3]}
    assert header.arrays["base_color"].dtype == np.uint8
    assert (header.arrays["base_color"] == composer.base).all()
    for chunk, offset, wrinkles in zip(chunks, offsets, folds(3), strict=True):
        assert (chunk.positions == mesh.vertices + offset).all()
        assert chunk.wrinkles is not None
        assert (chunk.wrinkles[0] == composer.log_ratio(wrinkles).astype(np.float16)).all()


def test_a_head_that_came_as_a_file_keeps_its_units_and_says_how_they_become_metres() -> None:
    mesh = uploaded(bumpy_mesh())
    offsets = smooth_motion(mesh, 3)
    offsets[0] = 0
    header, chunks = read_frames(BytesIO(encoded("npz-stream", clip_of(mesh, offsets))))
    own, told = mesh.source, header.source
    assert own is not None
    assert told is not None
    assert header.arrays["vertices"].tobytes() == own.vertices.tobytes()
    assert (told.materials, told.skin) == (MATERIALS, 0)
    assert told.unit_m == pytest.approx(0.01)
    assert (told.turn == own.turn).all()
    assert (told.polygon == own.polygon).all()
    assert (told.material == own.material).all()
    every = [chunk.positions[0] for chunk in chunks]
    assert every[0].tobytes() == own.vertices.tobytes()
    for positions, offset in zip(every, offsets, strict=True):
        np.testing.assert_allclose(told.metres(positions), mesh.vertices + offset, rtol=0, atol=2e-7)


def test_a_head_that_came_as_no_file_is_in_metres() -> None:
    header, _ = read_frames(BytesIO(encoded("npz-stream", bumpy_clip(frames=1))))
    assert header.source is None
    assert "source" not in header.fields
    assert header.arrays.keys() == {"vertices", "faces", "uvs", "uv_faces"}


def test_without_textures_a_chunk_has_no_wrinkles() -> None:
    _, chunks = read_frames(BytesIO(encoded("npz-stream", bumpy_clip(frames=1))))
    assert [chunk.wrinkles for chunk in chunks] == [None]


def test_a_frame_can_be_read_before_the_next_exists() -> None:
    clip = bumpy_clip()
    stream = encode(clip, ENCODERS["npz-stream"]())
    came = b"".join(next(stream) for _ in range(1 + 4 + 1))
    start, positions, _ = next(read_frames(BytesIO(came))[1])
    assert (start, len(positions)) == (0, 1)
    assert next(clip.frames).index == 1
    stream.close()


def test_a_source_that_gives_few_bytes_at_a_time_is_read_whole() -> None:
    data = encoded("npz-stream", bumpy_clip(frames=3))
    assert len(list(read_frames(Dribble(data))[1])) == 3


def test_a_chunk_may_hold_several_frames() -> None:
    positions = np.arange(3 * 12 * 3, dtype="<f4").reshape(3, 12, 3)
    one = message(CHUNK, RANGE.pack(0, 1) + positions[:1].tobytes())
    two = message(CHUNK, RANGE.pack(1, 2) + positions[1:].tobytes())
    read = list(read_frames(BytesIO(begin(3) + one + two + end(3)))[1])
    assert [chunk.start for chunk in read] == [0, 1]
    assert (np.concatenate([chunk.positions for chunk in read]) == positions).all()


def test_a_chunk_of_several_frames_holds_all_positions_then_all_wrinkles() -> None:
    mesh = bumpy_mesh(rows=3, columns=4)
    head = b"".join(ENCODERS["npz-stream"]().begin(clip_of(mesh, smooth_motion(mesh, 2), 8)))
    positions = np.arange(2 * 12 * 3, dtype="<f4").reshape(2, 12, 3)
    wrinkles = np.arange(2 * 8 * 8 * 3, dtype="<f2").reshape(2, 8, 8, 3)
    body = RANGE.pack(0, 2) + positions.tobytes() + wrinkles.tobytes()
    ((start, came, folded),) = read_frames(BytesIO(head + message(CHUNK, body) + end(2)))[1]
    assert start == 0
    assert (came == positions).all()
    assert folded is not None
    assert (folded == wrinkles).all()
    for wrong in (body[:-4], body + bytes(4)):
        with pytest.raises(FramesError, match="bytes came; wanted 768"):
            list(read_frames(BytesIO(head + message(CHUNK, wrong) + end(2)))[1])


def test_a_stream_cut_anywhere_raises_after_the_frames_that_came_whole() -> None:
    data = encoded("npz-stream", bumpy_clip(frames=3, rows=3, columns=4))
    frame = PREFIX.size + RANGE.size + 12 * 3 * 4
    before = len(begin(3))
    for size in range(len(data)):
        came = []
        with pytest.raises(FramesError, match=r"was cut|does not begin"):
            came.extend(chunk.start for chunk in read_frames(BytesIO(data[:size]))[1])
        assert size < before or len(came) <= (size - before) // frame
    assert len(list(read_frames(BytesIO(data))[1])) == 3


def test_whole_frames_before_a_cut_are_delivered() -> None:
    data = encoded("npz-stream", bumpy_clip(frames=3))
    _, chunks = read_frames(BytesIO(data[:-1]))
    assert [next(chunks)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(FramesError, match="was cut"):
        next(chunks)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"PK\3\4 and the rest", "does not begin with b'TALKFRM1'"),
        (begin(1) + message(b"JUNK", b""), "a message of type b'JUNK' came"),
        (begin(2) + message(CHUNK, RANGE.pack(1, 1) + bytes(144)), "begins at frame 1; wanted frame 0"),
        (begin(1) + message(CHUNK, RANGE.pack(0, 1) + bytes(140)), "140 bytes came; wanted 144"),
        (begin(1) + end(1), "0 frames came; wanted 1"),
        (begin(0) + end(1), "0 frames came"),
    ],
    ids=["magic", "type", "order", "size", "too few", "the end disagrees"],
)
def test_what_is_no_whole_stream_is_refused(data: bytes, error: str) -> None:
    with pytest.raises(FramesError, match=re.escape(error)):
        list(read_frames(BytesIO(data))[1])


@pytest.mark.parametrize("texture", [None, 64])
def test_every_body_begins_at_a_multiple_of_four(texture: int | None) -> None:
    data, offset = encoded("npz-stream", bumpy_clip(frames=2, texture=texture)), 8
    while offset < len(data):
        assert offset % 4 == 0
        offset += PREFIX.size + PREFIX.unpack_from(data, offset)[1]
    assert offset == len(data)


@pytest.mark.parametrize("texture", [None, 64])
def test_the_example_in_the_document_reads_a_stream(texture: int | None, tmp_path: Path) -> None:
    path = tmp_path / "talk.frames"
    path.write_bytes(encoded("npz-stream", bumpy_clip(frames=3, texture=texture)))
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names: dict[str, object] = {"path": path}
    exec(example, names)
    chunks = list(read_frames(BytesIO(path.read_bytes()))[1])
    assert (np.stack(names["frames"]) == np.concatenate([chunk.positions for chunk in chunks])).all()  # type: ignore[call-overload]
    if texture:
        assert (np.stack(names["wrinkles"]) == np.concatenate([chunk.wrinkles for chunk in chunks])).all()  # type: ignore[call-overload]
    else:
        assert names["wrinkles"] == []
