"""Styles through the whole engine: what they change and what they may not, where they come from, who keeps them."""

import io
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from tiny import speech
from tiny_engine import TinySkins, a_style, tiny_engine, tiny_networks, tiny_styles
from tiny_textalker import MOTION, UPSAMPLER, WRINKLE, face

from models.core import AnimateOptions, Clip, Frame, StylePivot
from models.engine import ENGINES, LocalEngine
from models.errors import (
    Conflict,
    InputError,
    MalformedInput,
    OutOfRange,
    Protected,
    TooLarge,
    UnknownName,
    UnsupportedMedia,
)
from models.pivots import StyleBook, pivot_bytes
from models.template import default_template
from service.encoders import ENCODERS, encode
from service.encoders.textures import resize

SECONDS = 1.3
TEXTURED = AnimateOptions("textalker", texture=WRINKLE.size)
each_engine = pytest.mark.parametrize("engine", ENGINES)


@cache
def talker() -> LocalEngine:
    return tiny_engine()


def clip(options: AnimateOptions, pivot: StylePivot | None = None) -> Clip:
    return talker().animate(speech(SECONDS), options, pivot=pivot)


def frames(options: AnimateOptions = TEXTURED, pivot: StylePivot | None = None, **changes: object) -> list[Frame]:
    return list(clip(replace(options, **changes), pivot).frames)


def vertices(made: list[Frame]) -> np.ndarray:
    return np.stack([frame.vertices for frame in made])


def wrinkles(made: list[Frame]) -> np.ndarray:
    return np.stack([frame.wrinkles for frame in made])


def style(id: str) -> StylePivot:
    return next(pivot for pivot in tiny_styles() if pivot.id == id)


def same(one: StylePivot, other: StylePivot) -> bool:
    """Bit for bit, whatever they are called."""
    return pivot_bytes(replace(one, id="x")) == pivot_bytes(replace(other, id="x"))


# Motion and wrinkles are apart.


def test_a_wrinkle_style_moves_no_vertex():
    """Nor does making textures at all."""
    plain, lively, none = frames(), frames(wrinkle_style="lively"), frames(texture=None)
    assert vertices(plain).tobytes() == vertices(lively).tobytes() == vertices(none).tobytes()
    assert wrinkles(plain).tobytes() != wrinkles(lively).tobytes()


def test_a_motion_style_changes_no_wrinkle():
    plain, lively = frames(), frames(motion_style="lively")
    assert wrinkles(plain).tobytes() == wrinkles(lively).tobytes()
    assert vertices(plain).tobytes() != vertices(lively).tobytes()


def test_a_resolution_changes_no_wrinkle():
    assert wrinkles(frames(resolution=500)).tobytes() == wrinkles(frames()).tobytes()


def test_a_motion_style_shows_in_mmtalker_too():
    one, other = (frames(AnimateOptions(motion_style=id)) for id in ("neutral", "lively"))
    assert np.abs(vertices(one) - vertices(other)).max() > 1e-4


# Expressions.


@each_engine
@pytest.mark.parametrize(
    "expression", ["lively(1)", "lively(0.2)", '{"lively": 3}', "lively+lively(2)", "neutral(0)+lively"]
)
def test_a_style_alone_is_itself_whatever_its_weight(engine, expression):
    options = AnimateOptions(engine, texture=WRINKLE.size if engine == "textalker" else None)
    named = frames(options, motion_style="lively", wrinkle_style="lively")
    written = frames(options, motion_style=expression, wrinkle_style=expression)
    given = frames(options, style("lively"))
    assert vertices(named).tobytes() == vertices(written).tobytes() == vertices(given).tobytes()
    if options.texture:
        assert wrinkles(named).tobytes() == wrinkles(written).tobytes() == wrinkles(given).tobytes()


SHARES = np.arange(5) / 4


def between(share: float) -> str:
    return f"calm({1 - share})+lively({share})"


def distances(mixes: list[np.ndarray], end: int) -> np.ndarray:
    """Of each mix from one of the ends."""
    return np.array([np.sqrt(np.square(mix.astype(float) - mixes[end]).mean()) for mix in mixes])


def test_a_mix_goes_from_one_motion_style_to_the_other():
    """Farther from the one and nearer to the other, the more the other weighs."""
    mixes = [vertices(frames(AnimateOptions(motion_style=between(share)))) for share in SHARES]
    assert (np.diff(distances(mixes, 0)) > 0).all()
    assert (np.diff(distances(mixes, -1)) < 0).all()


def test_a_mix_goes_from_one_wrinkle_style_to_the_other():
    mixes = [wrinkles(frames(wrinkle_style=between(share))) for share in SHARES]
    assert (np.diff(distances(mixes, 0)) > 0).all()
    assert (np.diff(distances(mixes, -1)) < 0).all()


@each_engine
def test_every_weight_is_another_motion(engine):
    mixes = [vertices(frames(AnimateOptions(engine, motion_style=between(share)))) for share in SHARES]
    assert len({mix.tobytes() for mix in mixes}) == len(mixes)
    for id, end in (("calm", mixes[0]), ("lively", mixes[-1])):
        assert np.array_equal(end, vertices(frames(AnimateOptions(engine, motion_style=id))))


@pytest.mark.parametrize("field", ["motion_style", "wrinkle_style"])
@pytest.mark.parametrize("texture", [None, WRINKLE.size])
@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("nobody", UnknownName),
        ("calm(1)+nobody(0)", UnknownName),
        ("calm(0)+lively(0)", OutOfRange),
        ("calm(-1)+lively(2)", OutOfRange),
        ("calm(nan)", MalformedInput),
        ("calm(1e999)", MalformedInput),
        ("calm(", MalformedInput),
        ('{"calm": "much"}', MalformedInput),
        ("", UnknownName),
        ("+".join(["calm"] * 65), TooLarge),
    ],
)
def test_an_expression_that_means_nothing_is_refused_before_any_frame(field, texture, expression, error):
    """Both are looked at, whether textures are asked for or not."""
    options = replace(TEXTURED, texture=texture, **{field: expression})
    for refuse in (lambda: talker().check(options), lambda: clip(options)):
        with pytest.raises(error) as refusal:
            refuse()
        assert refusal.value.field == field


def test_a_style_without_wrinkles_is_no_wrinkle_style():
    """Only where wrinkles are made; it moves like any other."""
    assert frames(texture=None, motion_style="smooth", wrinkle_style="smooth")
    with pytest.raises(UnknownName, match="unknown style 'smooth'") as refusal:
        clip(replace(TEXTURED, wrinkle_style="smooth"))
    assert refusal.value.known == ["calm", "lively", "neutral"]


# Textures.


@pytest.mark.parametrize("fps", [12.5, 25.0, 30.0, 60.0])
def test_every_frame_has_wrinkles_exactly_if_they_are_asked_for(fps):
    """At the engine's own size, whatever size the textures are to have."""
    for texture in (None, WRINKLE.size, 512):
        made = clip(replace(TEXTURED, texture=texture, fps=fps))
        assert made.texture == texture
        every = list(made.frames)
        assert len(every) == made.frame_count == int(np.ceil(SECONDS * fps))
        assert [frame.time_s for frame in every] == [k / fps for k in range(len(every))]
        shapes = {None if frame.wrinkles is None else frame.wrinkles.shape for frame in every}
        assert shapes == {None if texture is None else (WRINKLE.size, WRINKLE.size, 3)}
    assert wrinkles(every).dtype == np.float16
    assert 0 < np.abs(wrinkles(every)).max() < 2


def test_intensity_scales_the_wrinkles():
    """Bit for bit by powers of two; at 0 there are none."""
    none, half, one, two = (wrinkles(frames(intensity=intensity)) for intensity in (0.0, 0.5, 1.0, 2.0))
    assert not none.any()
    assert np.array_equal(two, 2 * one)
    assert np.allclose(half, one / 2, atol=1e-4)


def test_textures_of_an_engine_that_makes_none_are_refused():
    with pytest.raises(OutOfRange, match="texture = 512 with engine = mmtalker") as refusal:
        clip(AnimateOptions(texture=512))
    assert (refusal.value.field, refusal.value.code) == ("texture", "impossible_combination")


# A style of one request.


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        (TEXTURED, "wrinkle"),
        (TEXTURED, "motion"),
        (AnimateOptions("textalker"), "motion"),
        (AnimateOptions(), "motion"),
    ],
)
def test_a_pivot_without_the_part_that_is_needed_is_refused(options, missing):
    partial = replace(style("calm"), **{missing: None})
    with pytest.raises(OutOfRange, match=f"style_file holds no {missing}") as refusal:
        clip(options, partial)
    assert (refusal.value.field, refusal.value.code) == ("style_file", "impossible_combination")


@each_engine
def test_a_pivot_without_wrinkles_will_do_without_textures(engine):
    assert frames(AnimateOptions(engine), style("smooth"))


def test_a_clip_says_in_which_styles_it_is():
    """Expressions as they came; of a pivot, its id and what tells its latents from others'."""
    assert clip(replace(TEXTURED, motion_style="calm(2)")).styles == {"motion": "calm(2)", "wrinkle": "neutral"}
    one, other = (clip(TEXTURED, replace(style(id), id="upload")).styles for id in ("calm", "lively"))
    assert all(text.startswith("upload ") for text in one.values())
    assert len({*one.values(), *other.values()}) == 4
    assert clip(AnimateOptions(), style("smooth")).styles.keys() == {"motion"}


# Styles from files.


@cache
def example() -> tuple[Clip, list[Frame]]:
    made = clip(replace(TEXTURED, motion_style="lively", wrinkle_style="calm"))
    return made, list(made.frames)


def encoded(name: str, options: AnimateOptions = TEXTURED) -> bytes:
    made, every = example()
    if options.texture is None:
        every = [replace(frame, wrinkles=None) for frame in every]
    return encode_whole(name, replace(made, texture=options.texture, frames=(frame for frame in every)))


def encode_whole(name: str, made: Clip) -> bytes:
    """The tiny head has no picture."""
    made = replace(made, mesh=replace(made.mesh, base_color_png=None))
    return b"".join(encode(made, ENCODERS[name]()))


@cache
def means() -> dict[str, np.ndarray]:
    """Eq. 5 on the example's frames; `first` is of wrinkles against those of the first frame."""
    _, every = example()
    encoders, ratios = tiny_networks().encoders, wrinkles(every).astype(np.float32)
    return {
        "motion": encoders.motion(vertices(every) - face().atlas.vertices).mean(0),
        "wrinkle": encoders.wrinkles(ratios).mean(0),
        "first": encoders.wrinkles(ratios - ratios[0]).mean(0),
    }


def off(latents: np.ndarray, part: str) -> float:
    """How far latents are from the example's, against the largest of these."""
    return float(np.abs(latents - means()[part]).max() / np.abs(means()[part]).max())


LOSSY = {
    "npz-stream": (1e-6, 1e-6),
    "glb": (1e-4, 0.1),
    "bundle": (1e-4, 0.1),
    "obj": (0.01, 0.2),
    "glb-sequence": (1e-6, 0.5),
}
"""What a format's compression may change of a style, motion and wrinkles; the textures are JPEGs, or 8 of a basis."""


@pytest.mark.parametrize("name", sorted(LOSSY))
def test_an_example_in_any_format_gives_the_mean_of_its_latents(name):
    """A sequence of GLBs has no neutral texture: its first one stands for it, and leaves little beside noise."""
    pivot = talker().read_style(io.BytesIO(encoded(name)), "guest")
    motion, wrinkle = LOSSY[name]
    assert off(pivot.motion, "motion") < motion
    assert off(pivot.wrinkle, "first" if name == "glb-sequence" else "wrinkle") < wrinkle
    assert pivot.id == "guest"
    assert {"lip_opening_mm", "wrinkle_lips", "wrinkle_face"} < pivot.statistics.keys()


@pytest.mark.parametrize("name", sorted(set(LOSSY) - {"bundle"}))
def test_an_example_without_textures_is_a_style_of_motion_alone(name):
    pivot = talker().read_style(io.BytesIO(encoded(name, AnimateOptions("textalker"))))
    assert pivot.wrinkle is None
    assert pivot.id == "upload"
    assert off(pivot.motion, "motion") < LOSSY[name][0]


@each_engine
def test_the_style_of_an_example_can_be_spoken_in(engine):
    """As a pivot of one request, and under a name, alike."""
    engine_of_own, data = tiny_engine(), encoded("npz-stream")
    pivot = engine_of_own.read_style(io.BytesIO(data), "guest")
    engine_of_own.add_style(pivot)
    options = AnimateOptions(engine)
    one = engine_of_own.animate(speech(SECONDS), options, pivot=pivot)
    other = engine_of_own.animate(speech(SECONDS), replace(options, motion_style="guest"))
    assert vertices(list(one.frames)).tobytes() == vertices(list(other.frames)).tobytes()


def test_a_stored_pivot_is_read_under_a_new_id():
    stored = talker().store_style(style("lively"))
    pivot = talker().read_style(io.BytesIO(stored), "friend")
    assert pivot.id == "friend"
    assert same(pivot, style("lively"))
    assert talker().read_style(io.BytesIO(stored)).id == "upload"


def test_a_pivot_of_other_auto_encoders_is_refused():
    """By their name, and, of a file that does not say it, by the number of latents."""
    named = pivot_bytes(style("lively"), "others")
    longer = pivot_bytes(a_style("long", motion=MOTION.latents + 1))
    for data in (named, longer):
        with pytest.raises(MalformedInput) as refusal:
            talker().read_style(io.BytesIO(data))
        assert refusal.value.code == "other_autoencoders"


def test_an_example_of_another_head_is_refused():
    other = talker().animate(speech(0.5), replace(TEXTURED, resolution=500))
    data = encode_whole("npz-stream", other)
    with pytest.raises(
        MalformedInput, match=f"500 vertices; wanted the head's {len(face().atlas.vertices)}"
    ) as refusal:
        talker().read_style(io.BytesIO(data))
    assert refusal.value.code == "other_topology"


@pytest.mark.parametrize("data", [b"", b"hello", b"RIFF" + bytes(100)])
def test_a_file_that_is_neither_pivot_nor_example_is_refused(data):
    with pytest.raises(UnsupportedMedia) as refusal:
        talker().read_style(io.BytesIO(data))
    assert refusal.value.code == "not_an_example"


# Styles that users keep.


def test_users_styles_survive_a_restart(tmp_path):
    first = tiny_engine(tmp_path)
    first.add_style(a_style("guest", 9))
    mixed = first.mix_style("both", "calm(1)+guest(3)", "lively", "of three")
    again = tiny_engine(tmp_path)
    assert sorted(again.styles) == ["both", "calm", "guest", "lively", "neutral", "smooth"]
    assert same(again.styles["both"], mixed)
    assert same(again.styles["guest"], a_style("guest", 9))
    again.remove_style("guest")
    assert sorted(tiny_engine(tmp_path).styles) == ["both", "calm", "lively", "neutral", "smooth"]


def test_a_mix_that_is_kept_is_the_expression_that_it_was_made_of():
    own = tiny_engine()
    own.mix_style("both", "calm(1)+lively(3)", "lively(2)")
    written = replace(TEXTURED, motion_style="lively(0.75)+calm(0.25)", wrinkle_style="lively")
    named = replace(TEXTURED, motion_style="both", wrinkle_style="both")
    one, other = (list(own.animate(speech(SECONDS), options).frames) for options in (written, named))
    assert vertices(one).tobytes() == vertices(other).tobytes()
    assert wrinkles(one).tobytes() == wrinkles(other).tobytes()


@pytest.mark.parametrize("part", ["motion", "wrinkle"])
def test_a_mix_may_have_one_part_alone(part):
    expressions = {"motion": None, "wrinkle": None, part: "calm"}
    mixed = tiny_engine().mix_style("half", **expressions)
    assert [name for name in ("motion", "wrinkle") if getattr(mixed, name) is not None] == [part]


def keep(id: str, own: LocalEngine) -> None:
    own.add_style(a_style(id))


def mix(id: str, own: LocalEngine) -> None:
    own.mix_style(id, "calm", None)


@pytest.mark.parametrize("make", [keep, mix])
@pytest.mark.parametrize("id", ["calm", "guest"])
def test_an_id_that_is_taken_is_refused(make, id):
    """By a shipped style, or by a user's; the style that has it stays."""
    own = tiny_engine()
    keep("guest", own)
    before = own.styles[id]
    with pytest.raises(Conflict) as refusal:
        make(id, own)
    assert (refusal.value.field, refusal.value.code) == ("id", "id_exists")
    assert own.styles[id] is before


@pytest.mark.parametrize(("id", "error"), [("calm", Protected), ("nobody", UnknownName)])
def test_a_style_that_no_user_made_cannot_be_removed(id, error):
    own = tiny_engine()
    with pytest.raises(error) as refusal:
        own.remove_style(id)
    assert refusal.value.field == "id"
    assert len(own.styles) == len(tiny_styles())


@pytest.mark.parametrize(
    ("id", "motion", "wrinkle"),
    [("Big", "calm", None), ("../up", "calm", None), ("x", None, None), ("x", "nobody", None), ("x", "calm", "smooth")],
)
def test_a_mix_that_cannot_be_is_refused_and_not_kept(id, motion, wrinkle):
    own = tiny_engine()
    with pytest.raises(InputError):
        own.mix_style(id, motion, wrinkle)
    assert len(own.styles) == len(tiny_styles())


# Large textures.


def test_a_large_texture_has_the_painted_skin_and_an_enlarger_guided_by_it():
    made = clip(replace(TEXTURED, texture=2048))
    assert made.enlarger is not None
    assert made.mesh.base_color_png == TinySkins().png(2048)
    wrinkles = next(made.frames).wrinkles
    image = made.enlarger.image(wrinkles)
    assert image.shape == (UPSAMPLER.large, UPSAMPLER.large, 3)
    assert np.array_equal(image, clip(replace(TEXTURED, texture=8192)).enlarger.image(wrinkles))
    assert not np.array_equal(image, resize(wrinkles, UPSAMPLER.large))
    made.frames.close()


def test_textures_that_keep_up_with_speech_are_not_enlarged():
    made = clip(replace(TEXTURED, texture=1024))
    assert made.enlarger is None
    assert made.mesh.base_color_png == face().base_color_png
    made.frames.close()


@pytest.mark.parametrize("texture", [None, 512, 2048])
def test_a_users_own_skin_takes_the_place_of_the_heads(texture):
    """It guides the upsampler, too."""
    own = TinySkins().png(256)
    made = tiny_engine().animate(speech(0.1), replace(TEXTURED, texture=texture), neutral=own)
    assert made.mesh.base_color_png == own
    if texture == 2048:
        wrinkles = next(made.frames).wrinkles
        painted = clip(replace(TEXTURED, texture=texture)).enlarger
        assert not np.array_equal(made.enlarger.image(wrinkles), painted.image(wrinkles))
    made.frames.close()


def test_nothing_is_added_where_no_skin_folds():
    enlarger = clip(replace(TEXTURED, texture=2048)).enlarger
    image = enlarger.image(np.zeros((WRINKLE.size, WRINKLE.size, 3), np.float16))
    assert not image.any()
    assert not np.concatenate(list(enlarger.rows(image, 2048))).any()


def test_strips_of_a_size_are_the_interpolated_image():
    enlarger = clip(replace(TEXTURED, texture=2048)).enlarger
    image = np.random.default_rng(0).normal(0, 0.1, (enlarger.large, enlarger.large, 3)).astype(np.float32)
    strips = np.concatenate(list(enlarger.rows(image, 2 * enlarger.large)))
    inner = slice(4, -4)  # libraries differ at the border
    assert np.abs(strips - resize(image, 2 * enlarger.large))[inner, inner].max() < 0.05
    assert np.array_equal(np.concatenate(list(enlarger.rows(image, enlarger.large))), image)


def test_wrinkles_lie_where_a_templates_own_texture_has_them():
    """A head whose texture is the atlas mirrored: so are its wrinkles, large ones and others."""
    networks = tiny_networks()
    own = LocalEngine(networks, StyleBook(tiny_styles(), None, networks.autoencoders), {"checkpoints": {}})
    template = default_template(networks.head)
    uvs = template.mesh.uvs * [-1, 1] + [1, 0]
    own.add_template(replace(template, id="mirrored", mesh=replace(template.mesh, uvs=uvs.astype(np.float32))))
    for texture in (64, 2048):
        options = replace(TEXTURED, texture=texture)
        skin = TinySkins().png(256)
        plain, mirrored = (
            own.animate(speech(0.1), options, template=id, neutral=skin) for id in ("default", "mirrored")
        )
        maps = next(plain.frames).wrinkles
        assert np.array_equal(next(mirrored.frames).wrinkles, maps)
        image = mirrored.enlarger.image(maps)
        given = np.concatenate(list(mirrored.enlarger.rows(image, UPSAMPLER.large)))
        wanted = resize(image, UPSAMPLER.large)[:, ::-1]
        inside = face().atlas.rasterise(UPSAMPLER.large).covered[:, ::-1] & given.any(2)
        assert inside.mean() > 0.3
        assert np.abs(given - wanted)[inside].mean() < 0.2 * np.abs(given - wanted[:, ::-1])[inside].mean()
        plain.frames.close()
