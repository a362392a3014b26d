"""`codes`, decoded: the frames that the engine would have sent, bit for bit, and of other files none."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from test_textures import noise_png
from tiny import TORCH, speech
from tiny_engine import tiny_networks, tiny_styles
from tiny_textalker import MOTION, SHA256, WRINKLE, face, tiny_autoencoder, tiny_denoiser
from uploads import uploaded

from models.core import AnimateOptions, Clip
from models.engine import ENGINES, LocalEngine
from models.errors import CheckpointError, MalformedInput, OutOfRange, UnknownName
from models.pivots import StyleBook
from models.runtime import Runtime
from models.template import Template, default_template
from models.textalker.codec import codec_head_bytes, read_codec_head
from models.textalker.decoding import PairDecoders
from models.textalker.streaming import TexTalkerMotion
from service.cli import main
from service.encoders import ENCODERS, encode
from service.encoders.textures import resize
from talker_client.codec import decode
from talker_client.codes import read_codes

TEXTURED = AnimateOptions("textalker", texture=512)
CHECKPOINTS = ("textalker-motion", "textalker-wrinkle")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    """The tiny engine, its codes quantised and decoded by onnxruntime."""
    runtime = Runtime(torch.device("cpu"), tmp_path_factory.mktemp("cache"), threads=1)
    decoders = PairDecoders(face(), tiny_autoencoder(MOTION), tiny_autoencoder(WRINKLE), runtime, SHA256)
    networks = replace(
        tiny_networks(), textalker=TexTalkerMotion(face(), tiny_denoiser(), decoders, TORCH, "dpm_solver_2m", 3)
    )
    book = StyleBook(tiny_styles(), None, networks.autoencoders)
    engine = LocalEngine(networks, book, {"checkpoints": SHA256, "engines": list(ENGINES)})
    engine.add_template(own_template())
    return engine


def own_template() -> Template:
    """The tiny head as a file brings it: other units and materials, a texture laid out otherwise, lips apart."""
    template = default_template(face())
    mesh = replace(template.mesh, uvs=(template.mesh.uvs * [-1, 1] + [1, 0]).astype(np.float32))
    seal = replace(template.seal, parted=np.tile(np.float32([0, -0.001, 0]), (len(template.seal.gaps), 1)))
    return replace(template, id="mine", mesh=uploaded(replace(mesh, base_color_png=noise_png())), seal=seal)


@pytest.fixture(scope="module")
def folder(engine: LocalEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a client has downloaded."""
    folder = tmp_path_factory.mktemp("codec")
    for name in CHECKPOINTS:
        (folder / f"{name}.onnx").write_bytes(engine.generator(name).read_bytes())
    for template, resolution in (("default", None), ("default", 600), ("mine", None)):
        data = codec_head_bytes(engine.codec_head(template, resolution))
        (folder / template).mkdir(exist_ok=True)
        (folder / template / f"{resolution or 'native'}.npz").write_bytes(data)
    return folder


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """The same folder, to spoil."""
    for name in ("default", "mine"):
        (tmp_path / name).mkdir()
    for path in [*folder.glob("*.onnx"), *folder.glob("*/*.npz")]:
        (tmp_path / path.relative_to(folder)).write_bytes(path.read_bytes())
    return tmp_path


def animated(engine: LocalEngine, options: AnimateOptions = TEXTURED, seconds: float = 1.3) -> Clip:
    clip = engine.animate(speech(seconds), options)
    return replace(clip, mesh=replace(clip.mesh, base_color_png=None))  # the tiny head has no picture


def codes(engine: LocalEngine, options: AnimateOptions = TEXTURED, seconds: float = 1.3) -> bytes:
    return written(animated(engine, options, seconds), "codes")


def written(clip: Clip, name: str = "npz-stream") -> bytes:
    return b"".join(encode(clip, ENCODERS[name]()))


OPTIONS = [
    TEXTURED,
    AnimateOptions("textalker"),
    replace(TEXTURED, fps=60, intensity=0.5),
    replace(TEXTURED, fps=12.5, seed=3),
    replace(TEXTURED, fps=29.97, resolution=600),
    AnimateOptions("textalker", fps=1, intensity=2, resolution=600, motion_style="calm(0.3)+lively"),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_decoded_codes_are_the_stream_of_frames_byte_for_byte(engine, folder, options):
    decoded = decode(io.BytesIO(codes(engine, options)), folder)
    assert written(decoded) == written(animated(engine, options))


def test_decoded_codes_are_a_clip_that_every_format_takes(engine, folder):
    for name in ("glb", "bundle"):
        assert written(decode(io.BytesIO(codes(engine)), folder), name) == written(animated(engine), name)


@pytest.mark.parametrize("name", sorted(ENCODERS.keys() - {"codes"}))
def test_a_head_that_came_as_a_file_is_decoded_to_what_the_service_sends(engine, folder, name):
    """In its own units, with its materials and its texture's layout, and with lips that are apart at rest."""

    def own() -> Clip:
        return engine.animate(speech(1.3), TEXTURED, template="mine")

    decoded = decode(io.BytesIO(written(own(), "codes")), folder)
    assert decoded.enlarger is not None
    assert written(decoded, name) == written(own(), name)


def test_wrinkles_lie_elsewhere_in_a_layout_of_its_own(engine):
    """Or nothing would show that it is carried."""
    plain, own = (engine.animate(speech(0.1), TEXTURED, template=id) for id in ("default", "mine"))
    assert plain.enlarger is None
    image = own.enlarger.image(next(own.frames).wrinkles)
    assert not np.allclose(np.concatenate(list(own.enlarger.rows(image, 512))), resize(image, 512), atol=0.01)
    plain.frames.close()


def test_the_number_of_threads_does_not_show(engine, folder):
    one, four = (written(decode(io.BytesIO(codes(engine)), folder, threads)) for threads in (1, 4))
    assert one == four


def test_frames_are_given_before_the_stream_has_come(engine, folder):
    class Watched(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            Watched.taken += len(data)
            return data

    data = codes(engine, seconds=4)
    clip = decode(Watched(data), folder)
    next(clip.frames)
    assert Watched.taken < len(data) / 2
    clip.frames.close()


def test_a_cut_stream_gives_the_frames_that_came_and_then_refuses(engine, folder):
    data, came = codes(engine), []
    with pytest.raises(MalformedInput, match="was cut"):
        came.extend(decode(io.BytesIO(data[:-1]), folder).frames)
    assert len(came) == 39
    with pytest.raises(MalformedInput, match="was cut"):
        written(decode(io.BytesIO(data[:-1]), folder))


def test_a_style_of_one_half_changes_the_codes_of_that_half_alone(engine):
    def halves(options: AnimateOptions) -> Iterator[bytes]:
        every = list(read_codes(io.BytesIO(codes(engine, options)))[1])
        for part in (0, 1):
            yield np.concatenate([batch.codes[part] for batch in every]).tobytes()

    motion, wrinkle = halves(TEXTURED)
    other_motion, same_wrinkle = halves(replace(TEXTURED, motion_style="lively"))
    same_motion, other_wrinkle = halves(replace(TEXTURED, wrinkle_style="lively"))
    assert motion == same_motion != other_motion
    assert wrinkle == same_wrinkle != other_wrinkle


def test_without_textures_there_are_codes_of_motion_alone(engine, own):
    """And no generator of wrinkles is needed."""
    (own / "textalker-wrinkle.onnx").unlink()
    options = AnimateOptions("textalker")
    header, batches = read_codes(io.BytesIO(codes(engine, options)))
    assert header.spaces.keys() == {"motion"}
    assert all(batch.codes.wrinkle is None for batch in batches)
    assert all(frame.wrinkles is None for frame in decode(io.BytesIO(codes(engine, options)), own).frames)


def test_mmtalker_has_no_codes(engine):
    assert animated(engine, AnimateOptions()).codes is None


# The command.


def command(path: Path, folder: Path, output: Path, *options: str) -> int:
    return main(["decode", str(path), "--codec", str(folder), "-o", str(output), *options])


@pytest.fixture
def stored(engine, tmp_path, monkeypatch) -> Path:
    """A file of codes."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # the command sets it where it is not
    path = tmp_path / "head.codes"
    path.write_bytes(codes(engine))
    return path


def test_the_command_writes_what_the_service_would_have(engine, folder, stored, capsys):
    assert command(stored, folder, stored.with_suffix(".frames")) == 0
    assert stored.with_suffix(".frames").read_bytes() == written(animated(engine))
    assert capsys.readouterr().out.startswith(f"wrote {stored.with_suffix('.frames')}: 39 frames at 30 fps, 1.30 s in ")


@pytest.mark.parametrize("cut", [1, 300])
def test_the_command_leaves_no_file_of_a_cut_stream(folder, stored, capsys, cut):
    stored.write_bytes(stored.read_bytes()[:-cut])
    assert command(stored, folder, stored.with_suffix(".frames")) == 2
    assert "the stream was cut" in capsys.readouterr().err
    assert list(stored.parent.iterdir()) == [stored]


def test_the_command_makes_no_codes_of_codes(folder, stored, capsys):
    assert command(stored, folder, stored.with_name("again"), "--format", "codes") == 2
    assert "a clip without codes" in capsys.readouterr().err


def test_the_command_names_a_file_that_is_missing(folder, stored, capsys):
    assert command(stored.with_name("none.codes"), folder, stored.with_suffix(".frames")) == 2
    assert "none.codes cannot be read" in capsys.readouterr().err


# What can be downloaded.


def test_a_generator_is_one_file_that_says_whose_codes_it_takes(engine):
    for name in CHECKPOINTS:
        graph = onnx.load(engine.generator(name), load_external_data=False)
        told = {entry.key: entry.value for entry in graph.metadata_props}
        assert told["talker.checkpoint"] == name
        assert told["talker.sha256"] == SHA256[name]
        assert not any(tensor.external_data for tensor in graph.graph.initializer)


def test_a_head_is_read_back(engine):
    head = engine.codec_head("default", None)
    data = codec_head_bytes(head)
    assert data == codec_head_bytes(head)
    back = read_codec_head(io.BytesIO(data))
    assert (back.template, back.resolution, back.checkpoints) == ("default", None, dict(head.checkpoints))
    assert back.puppet.mesh.vertices.tobytes() == head.puppet.mesh.vertices.tobytes()
    assert (back.query.reader != head.query.reader).nnz == 0
    assert (back.puppet.seal.field != head.puppet.seal.field).nnz == 0


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda engine: engine.generator("speech"), UnknownName),
        (lambda engine: engine.codec_head("nobody", None), UnknownName),
        (lambda engine: engine.codec_head("default", 3), OutOfRange),
    ],
)
def test_what_there_is_not_is_refused(engine, ask, error):
    with pytest.raises(error):
        ask(engine)


# Other files.


def refused(data: bytes, folder: Path, match: str) -> None:
    with pytest.raises(MalformedInput, match=match):
        decode(io.BytesIO(data), folder)


@pytest.mark.parametrize("path", ["textalker-motion.onnx", "textalker-wrinkle.onnx", "default/native.npz"])
def test_a_file_that_is_missing_is_named(engine, own, path):
    (own / path).unlink()
    refused(codes(engine), own, f"{path} is not in .*the codes want GET /codec/{path}")


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_generator_of_another_checkpoint_is_refused(engine, own, name):
    graph = onnx.load(own / f"{name}.onnx")
    (entry,) = (entry for entry in graph.metadata_props if entry.key == "talker.sha256")
    entry.value = "0" * 64
    onnx.save(graph, own / f"{name}.onnx")
    refused(codes(engine), own, f"{name}.onnx is of another checkpoint; the codes want GET /codec/{name}.onnx")


def test_the_generator_of_the_other_part_is_refused(engine, own):
    (own / "textalker-motion.onnx").write_bytes((own / "textalker-wrinkle.onnx").read_bytes())
    refused(codes(engine), own, "textalker-motion.onnx is of another checkpoint")


def test_a_head_at_another_resolution_is_refused(engine, own):
    (own / "default" / "native.npz").write_bytes((own / "default" / "600.npz").read_bytes())
    refused(codes(engine), own, "default/native.npz is default at 600 resolution")


def test_a_head_of_other_checkpoints_is_refused(engine, own):
    head = engine.codec_head("default", None)
    other = replace(head, checkpoints=head.checkpoints | {"head": "0" * 64})
    (own / "default" / "native.npz").write_bytes(codec_head_bytes(other))
    refused(codes(engine), own, "default/native.npz is of other checkpoints")


def spoilt(head: bytes, **changes: np.ndarray) -> bytes:
    with np.load(io.BytesIO(head)) as arrays:
        every = {name: arrays[name] for name in arrays.files} | changes
    file = io.BytesIO()
    np.savez(file, **every)
    return file.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda head: b"",
        lambda head: b"PK\3\4 and the rest",
        lambda head: head[: len(head) // 2],
        lambda head: spoilt(head, facts=np.zeros(3, np.uint8)),
        lambda head: spoilt(head, facts=np.array([{}], object)),
        lambda head: spoilt(head, reader_indices=np.full(10**4, -1, np.int32)),
        lambda head: spoilt(head, reader_indptr=np.zeros(3, np.int32)),
        lambda head: spoilt(head, seal_shape=np.array([1, 1])),
        lambda head: spoilt(head, maps=np.zeros((3, 3, 3), np.float32)),
        lambda head: spoilt(head, faces=np.full((4, 3), 10**6, np.int32)),
        lambda head: spoilt(head, parted=np.zeros((2, 3), np.float32)),
        lambda head: spoilt(head, layout_own=np.zeros((4, 3, 2)), layout_atlas=np.zeros((5, 3, 2))),
        lambda head: spoilt(head, layout_own=np.full((4, 3, 2), np.nan), layout_atlas=np.zeros((4, 3, 2))),
    ],
)
def test_a_file_that_is_no_head_is_refused(engine, own, change):
    path = own / "default" / "native.npz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(MalformedInput):
        decode(io.BytesIO(codes(engine)), own)


@pytest.mark.parametrize(
    "changes",
    [
        {"source_vertices": np.zeros((3, 3), np.float32)},
        {"source_turn": np.zeros((2, 3), np.float32)},
        {"source_polygon": np.zeros(1, np.int32)},
        {"source_material": np.full(len(face().atlas.faces), 3, np.int32)},
        {"source_material": np.full(len(face().atlas.faces), -1, np.int32)},
    ],
    ids=str,
)
def test_a_source_that_does_not_fit_its_mesh_is_refused(engine, changes):
    with pytest.raises(MalformedInput, match="no head to decode with"):
        read_codec_head(io.BytesIO(spoilt(codec_head_bytes(engine.codec_head("mine", None)), **changes)))


def test_a_file_that_is_no_graph_is_refused(engine, own):
    (own / "textalker-motion.onnx").write_bytes(b"a page of an error")
    with pytest.raises(CheckpointError, match="cannot load"):
        decode(io.BytesIO(codes(engine)), own)
