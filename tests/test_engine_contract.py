"""What an engine promises, over networks of its own and over a cluster's: the same bytes and the same refusals."""

import io
from collections.abc import Callable
from functools import cache
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from replicas import FakeReplicas, a_worker, cluster_engine, engine_over, tiny
from tiny import speech
from tiny_engine import a_style
from tiny_textalker import UPSAMPLER, WRINKLE, face
from tiny_uploads import picture, same_template

from models.core import AnimateOptions, Clip
from models.engine import LocalEngine
from models.errors import Conflict, MalformedInput, OutOfRange, Protected, UnknownName, UnsupportedMedia
from models.textalker.codec import codec_head_bytes
from service.encoders import ENCODERS, encode

TEXTURED = AnimateOptions("textalker", texture=WRINKLE.size)
OPTIONS = [
    AnimateOptions(),
    AnimateOptions(resolution=500, fps=23.976, seed=3, intensity=0.5),
    AnimateOptions("textalker", fps=12.5, motion_style="calm(0.3)+lively"),
    TEXTURED,
]
KINDS = ("local", "cluster", "failing cluster")


@cache
def reference() -> LocalEngine:
    return engine_over(tiny())


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> LocalEngine:
    """One over networks here; over three replicas; and over three that lose most calls, and compute all twice."""
    if request.param == "local":
        return engine_over(tiny())
    replicas = FakeReplicas([a_worker() for _ in range(3)])
    if request.param == "failing cluster":
        replicas.faults, replicas.twice = cycle(["before", "nobody", "", "after", "", "nobody", ""]), True
    return cluster_engine(replicas, tmp_path)


def written(clip: Clip, format: str = "npz-stream") -> bytes:
    return b"".join(encode(clip, ENCODERS[format]()))


def obj(size: float = 1.25) -> io.BytesIO:
    """The tiny head as a file."""
    atlas = face().atlas
    lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in (size * atlas.vertices.astype(float)).tolist()]
    lines += [f"vt {u!r} {v!r}" for u, v in atlas.uvs.astype(float).tolist()]
    for corners, uvs in zip(atlas.faces + 1, atlas.uv_faces + 1, strict=True):
        lines.append("f " + " ".join(f"{v}/{t}" for v, t in zip(corners, uvs, strict=True)))
    return io.BytesIO("\n".join(lines).encode())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_frames_are_the_same_to_the_bit(engine: LocalEngine, options: AnimateOptions) -> None:
    clips = [each.animate(speech(4.2), options) for each in (engine, reference())]
    assert written(clips[0]) == written(clips[1])


@pytest.mark.parametrize("options", OPTIONS[2:], ids=str)
def test_codes_are_the_same_to_the_bit(engine: LocalEngine, options: AnimateOptions) -> None:
    clips = [each.animate(speech(4.2), options) for each in (engine, reference())]
    assert written(clips[0], "codes") == written(clips[1], "codes")


def test_clips_may_be_read_by_turns(engine: LocalEngine) -> None:
    clips = [engine.animate(speech(2.5), options) for options in (AnimateOptions(), AnimateOptions("textalker"))]
    for one, other in zip(*(clip.frames for clip in clips), strict=True):
        assert one.index == other.index
    assert [clip.frame_count for clip in clips] == [one.index + 1] * 2


def test_a_clip_may_be_left(engine: LocalEngine) -> None:
    clip = engine.animate(speech(6), AnimateOptions())
    next(clip.frames)
    clip.frames.close()
    assert list(clip.frames) == []


def test_heads_of_users_move_as_they_do_here(engine: LocalEngine) -> None:
    heads = [each.register(obj(), id="mine", texture=picture(64, 64)) for each in (engine, reference())]
    assert same_template(*heads)
    engine.add_template(heads[0])
    for options in (AnimateOptions(), AnimateOptions(resolution=500), TEXTURED):
        clips = [each.animate(speech(0.4), options, template=heads[0]) for each in (engine, reference())]
        assert written(clips[0]) == written(clips[1])
    assert engine.preview("mine") == reference().preview(heads[1])
    engine.remove_template("mine")
    assert list(engine.templates) == ["default"]


def test_styles_of_users_are_kept_and_used(engine: LocalEngine) -> None:
    stored = engine.store_style(a_style("mine", 7))
    pivot = engine.read_style(io.BytesIO(stored), "own")
    engine.add_style(pivot)
    clips = (
        engine.animate(speech(0.4), AnimateOptions(motion_style="own")),
        reference().animate(speech(0.4), AnimateOptions(), pivot=pivot),
    )
    assert written(clips[0])[-10_000:] == written(clips[1])[-10_000:]
    engine.remove_style("own")
    assert "own" not in engine.styles


def test_an_example_has_the_same_pivot(engine: LocalEngine) -> None:
    example = written(reference().animate(speech(0.5), TEXTURED))
    one, other = (each.read_style(io.BytesIO(example), "own") for each in (engine, reference()))
    assert (one.motion.tobytes(), one.wrinkle.tobytes()) == (other.motion.tobytes(), other.wrinkle.tobytes())
    assert one.statistics == other.statistics


@pytest.mark.parametrize("guided", [True, False])
def test_maps_are_enlarged_alike(engine: LocalEngine, guided: bool) -> None:
    random = np.random.default_rng(1)
    wrinkles = random.uniform(-0.3, 0.3, (UPSAMPLER.size, UPSAMPLER.size, 3)).astype(np.float32)
    guide = random.integers(0, 255, (64, 64, 3), np.uint8) if guided else None
    strips = [np.concatenate(list(each.upsample(wrinkles, 128, guide))) for each in (engine, reference())]
    assert strips[0].tobytes() == strips[1].tobytes()


@pytest.mark.parametrize("resolution", [None, 600])
def test_clients_decode_with_the_same_head(engine: LocalEngine, resolution: int | None) -> None:
    heads = [codec_head_bytes(each.codec_head("default", resolution)) for each in (engine, reference())]
    assert heads[0] == heads[1]


REFUSALS: dict[str, tuple[type[Exception], Callable[[LocalEngine], object]]] = {
    "another engine": (UnknownName, lambda engine: engine.animate(speech(0.1), AnimateOptions("other"))),
    "another template": (UnknownName, lambda engine: engine.animate(speech(0.1), AnimateOptions(), template="none")),
    "another style": (UnknownName, lambda engine: engine.check(AnimateOptions(motion_style="none"))),
    "textures of mmtalker": (OutOfRange, lambda engine: engine.check(AnimateOptions(texture=512))),
    "another checkpoint": (UnknownName, lambda engine: engine.generator("mmtalker")),
    "a size": (OutOfRange, lambda engine: engine.upsample(np.zeros((8, 8, 3), np.float32), 77)),
    "no mesh": (UnsupportedMedia, lambda engine: engine.register(io.BytesIO(b"no mesh"))),
    "a flat head": (OutOfRange, lambda engine: engine.register(obj(0.0))),
    "no example": (UnsupportedMedia, lambda engine: engine.read_style(io.BytesIO(b"no example"))),
    "a style that is there": (Conflict, lambda engine: engine.add_style(a_style("calm"))),
    "a shipped style": (Protected, lambda engine: engine.remove_style("calm")),
    "the default head": (Protected, lambda engine: engine.remove_template("default")),
    "landmarks": (MalformedInput, lambda engine: engine.register(obj(), landmarks=b"none")),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_are_the_same_word_for_word(engine: LocalEngine, case: str) -> None:
    kind, act = REFUSALS[case]
    refusals = []
    for each in (engine, reference()):
        with pytest.raises(kind) as caught:
            act(each)
        refusals.append((type(caught.value), str(caught.value), caught.value.code, caught.value.field))
    assert refusals[0] == refusals[1]


def test_it_warms_up_and_tells_what_it_is(engine: LocalEngine) -> None:
    engine.warm_up()
    assert engine.describe() == reference().describe()
    assert engine.capacity > 0
