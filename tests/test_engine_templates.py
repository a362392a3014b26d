"""Heads of users through the whole engine: kept or of one request, at their own vertices or at any number of points."""

import logging
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import speech
from tiny_engine import tiny_networks, tiny_styles
from tiny_textalker import SHA256, face
from tiny_uploads import FakeRegistration, picture, same_template

from models.core import AnimateOptions, Frame
from models.engine import ENGINES, LocalEngine, TemplateInfo
from models.errors import Conflict, OutOfRange, Protected, UnknownName
from models.form import form_template
from models.mmtalker.sampling import sample_surface
from models.pivots import StyleBook
from models.template import Template, default_template
from models.templates import TemplateBook
from models.textalker.codec import codec_head_bytes, read_codec_head
from models.uploads import Uploads
from service.encoders import ENCODERS, encode

TEXTURE = 64
each_engine = pytest.mark.parametrize("engine", ENGINES)


def open_engine(folder: Path | None = None) -> LocalEngine:
    networks = replace(tiny_networks(), head=replace(face(), base_color_png=picture(8, 8)))
    uploads = Uploads(networks.head, folder and folder / "registrations", FakeRegistration(face()).ways)
    kept = TemplateBook([default_template(networks.head)], folder and folder / "templates", uploads.origin)
    styles = StyleBook(tiny_styles(), None, networks.autoencoders)
    return LocalEngine(networks, styles, {"checkpoints": SHA256}, templates=kept, uploads=uploads)


@cache
def talker() -> LocalEngine:
    engine = open_engine()
    engine.add_template(engine.register(BytesIO(b"head 1.25"), id="mine", texture=picture(64, 64)))
    return engine


@cache
def one_off() -> TemplateInfo:
    return talker().register(BytesIO(b"head 1.25"), texture=picture(64, 64))


def frames(template: str | TemplateInfo, options: AnimateOptions) -> list[Frame]:
    return list(talker().animate(speech(0.4), options, template=template).frames)


def options(engine: str, resolution: int | None = None) -> AnimateOptions:
    return AnimateOptions(engine, resolution, texture=TEXTURE if engine == "textalker" else None)


@each_engine
@pytest.mark.parametrize("resolution", [None, 700])
@pytest.mark.parametrize("format", ["npz-stream", "glb-sequence"])
def test_a_head_of_one_request_is_the_registered_one_byte_for_byte(
    engine: str, resolution: int | None, format: str
) -> None:
    files = []
    for template in ("mine", one_off()):
        clip = talker().animate(speech(0.2), options(engine, resolution), template=template)
        files.append(b"".join(encode(clip, ENCODERS[format]())))
    assert files[0] == files[1]


@each_engine
@pytest.mark.parametrize("count", [500, 501, 1777])
def test_a_resolution_has_exactly_as_many_points(engine: str, count: int) -> None:
    """Of the faces that have a counterpart on the head, which the eye has not; every point is of some face."""
    clip = talker().animate(speech(0.1), options(engine, count), template="mine")
    assert len(clip.mesh.vertices) == count
    assert np.array_equal(np.unique(clip.mesh.faces), np.arange(count))
    assert clip.mesh.source is None
    assert all(frame.vertices.shape == (count, 3) for frame in clip.frames)
    eye = face().atlas.uvs[face().atlas.uv_faces[face().atlas.chart == 1]].reshape(-1, 2)
    outside = (clip.mesh.uvs < eye.min(0) - 1e-6) | (clip.mesh.uvs > eye.max(0) + 1e-6)
    assert outside.any(1).all()


@each_engine
def test_a_resolution_does_what_the_form_does(engine: str) -> None:
    """Its points lie on the form; law 2: where they are vertices of it, they move as a head of these vertices does."""
    mine = talker()._templates.open("mine")
    whole = replace(form_template(mine, face(), None), id="whole", form=None)
    atlas, density = face().atlas, talker()._networks.motion.log_density
    at = atlas.weights_matrix(sample_surface(atlas, density, 600, kept=mine.form.kept).anchors)
    plain = replace(options(engine), texture=None)
    native = frames(whole, plain)
    sampled = frames("mine", replace(plain, resolution=600))
    assert np.ptp([frame.vertices for frame in native], axis=0).max() > 1e-4
    exact = np.flatnonzero(at.max(1).toarray().ravel() > 1 - 1e-6)
    vertex = np.asarray(at.argmax(1)).ravel()[exact]
    assert len(exact) >= 2
    still = talker().animate(speech(0.1), replace(plain, resolution=600, intensity=0), template="mine").mesh.vertices
    assert np.abs(still - at @ mine.form.vertices).max() < 1e-6
    for one, other in zip(native, sampled, strict=True):
        assert np.abs(other.vertices[exact] - one.vertices[vertex]).max() < 1e-5


def test_a_parted_seal_stays_parted_at_any_resolution() -> None:
    mine = talker()._templates.open("mine")
    for resolution in (None, 500):
        head = talker()._placement("mine", resolution).head
        assert np.array_equal(head.seal.parted, mine.seal.parted)


def test_at_a_resolution_the_texture_is_laid_out_as_the_atlas_is() -> None:
    """The upload's is the atlas mirrored: so is its texture, before it is laid out anew."""
    engine, side = open_engine(), 256
    ramp = np.tile(np.linspace(0, 255, side).astype(np.uint8)[None, :, None], (side, 1, 3))
    file = BytesIO()
    Image.fromarray(ramp).save(file, "png")
    head = engine.register(BytesIO(b"head 1"), texture=file.getvalue())
    given = engine.animate(speech(0.1), AnimateOptions(), template=head).mesh.base_color_png
    relaid = engine.animate(speech(0.1), AnimateOptions(resolution=500), template=head).mesh.base_color_png
    assert given is not None
    assert relaid is not None
    with Image.open(BytesIO(relaid)) as image:
        texels = np.asarray(image).astype(int)
    raster = face().atlas.rasterise(side)
    inside = face().texels_of("skin", raster)
    assert np.abs(texels - ramp[:, ::-1].astype(int))[inside].max() <= 3
    with Image.open(BytesIO(given)) as image:
        assert np.array_equal(np.asarray(image), ramp)


def test_native_keeps_the_uploads_vertices_faces_and_source() -> None:
    mine = talker()._templates.open("mine")
    clip = talker().animate(speech(0.1), AnimateOptions(intensity=0), template="mine")
    assert same_template(clip.mesh, mine.mesh)
    assert np.array_equal(clip.mesh.own(clip.mesh.vertices), mine.mesh.source.vertices)


def test_heads_are_kept_over_a_restart_and_their_registrations_too(tmp_path: Path) -> None:
    first = open_engine(tmp_path)
    first.add_template(first.register(BytesIO(b"head 2"), id="mine"))
    later = open_engine(tmp_path)
    assert sorted(later.templates) == ["default", "mine"]
    assert later.templates["mine"].vertex_count == len(face().atlas.vertices)
    again = later.register(BytesIO(b"head 2"), id="mine")
    assert isinstance(again, Template)
    assert same_template(again, later._templates.open("mine"))
    later.remove_template("mine")
    assert sorted(open_engine(tmp_path).templates) == ["default"]


def test_a_removed_head_is_unknown_and_its_name_free() -> None:
    engine = open_engine()
    head = engine.register(BytesIO(b"head 1"), id="mine")
    engine.add_template(head)
    before = engine.animate(speech(0.1), AnimateOptions(), template="mine").mesh.vertices
    engine.remove_template("mine")
    with pytest.raises(UnknownName):
        engine.check(AnimateOptions(), template="mine")
    engine.add_template(engine.register(BytesIO(b"head 2"), id="mine"))
    after = engine.animate(speech(0.1), AnimateOptions(), template="mine").mesh.vertices
    assert np.abs(after - 2 * before).max() < 1e-5


def test_uploads_of_one_request_are_not_held() -> None:
    engine = open_engine()
    for resolution in (None, 500):
        list(engine.animate(speech(0.1), AnimateOptions(resolution=resolution), template=one_off()).frames)
    assert engine._placed.cache_info().currsize == 0


def test_what_cannot_be_kept_or_removed_is_refused() -> None:
    engine = open_engine()
    with pytest.raises(Protected):
        engine.remove_template("default")
    with pytest.raises(UnknownName):
        engine.remove_template("nobody")
    with pytest.raises(Conflict):
        engine.check_free("default")
    with pytest.raises(OutOfRange):
        engine.check_free("No Id")
    with pytest.raises(UnknownName):
        engine.animate(speech(0.1), AnimateOptions(), template="nobody")


def test_each_step_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "models"):
        open_engine().register(BytesIO(b"head 1"), id="mine")
    assert [record.getMessage() for record in caplog.records] == [
        "registering mine: reading the file",
        "registering mine: reading its texture",
        "registering mine: registering",
    ]


def test_a_preview_is_drawn_once_for_each_head(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr("models.preview.preview", lambda head: drawn.append(head.id) or head.id.encode())
    engine = open_engine()
    engine.add_template(engine.register(BytesIO(b"head 1"), id="mine"))
    assert [engine.preview(id) for id in ("mine", "default", "mine")] == [b"mine", b"default", b"mine"]
    assert drawn == ["mine", "default"]
    with pytest.raises(UnknownName):
        engine.preview("nobody")


def test_a_codec_head_keeps_the_gap_of_the_lips_and_the_files_own_units() -> None:
    """Or codes would decode to other frames than the service's."""
    head = talker().codec_head("mine", None)
    back = read_codec_head(BytesIO(codec_head_bytes(head)))
    assert np.array_equal(back.puppet.seal.parted, head.puppet.seal.parted)
    assert same_template(back.puppet.mesh, head.puppet.mesh)
