"""POST /animate: what is accepted, what is refused, and in which words."""

import threading
from collections.abc import Iterator
from io import BytesIO
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from conftest import FakeEngine, wait_until, wav
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from models.png import png_chunks
from service.app import create_app
from service.encoders import ENCODERS
from service.settings import Settings
from service.slots import Slots
from talker_client.frames import read_frames

BOUNDARY = "cut-here"


def post(client: TestClient, *, audio: Any = None, headers: dict[str, str] | None = None, **fields: str) -> Any:
    upload = ("speech.wav", wav(), "audio/wav") if audio is None else audio
    return client.post("/animate", data=fields, files={"audio": upload}, headers=headers)


def parts(*fields: tuple[str, str | None, bytes], charset: str = "") -> dict[str, Any]:
    """A multipart request as it is: (name, file name or None, content), in order."""
    body = b"".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'.encode()
        + (f'; filename="{file_name}"'.encode() if file_name is not None else b"")
        + b"\r\n\r\n"
        + content
        + b"\r\n"
        for name, file_name, content in fields
    )
    body += f"--{BOUNDARY}--\r\n".encode()
    media_type = f"multipart/form-data; boundary={BOUNDARY}" + (f"; charset={charset}" if charset else "")
    return {"content": body, "headers": {"Content-Type": media_type}}


def cut(*fields: tuple[str, str | None, bytes], by: int) -> dict[str, Any]:
    """The same, without its last bytes."""
    whole = parts(*fields)
    return whole | {"content": whole["content"][:-by]}


WRINKLED = {"engine": "textalker", "texture": "512"}
TEXTURED = {"bundle": WRINKLED, "codes": WRINKLED}
"""Formats that need textures, or the engine that makes them."""

AUDIO = ("audio", "speech.wav", wav())
BROKEN = {"content": b"--x\r\nno part", "headers": {"Content-Type": "multipart/form-data; boundary=y"}}
UNBOUNDED = {"content": b"", "headers": {"Content-Type": "multipart/form-data"}}


@pytest.mark.parametrize("name", ENCODERS)
def test_each_format_streams_with_its_own_media_type(client: TestClient, name: str) -> None:
    response = post(client, format=name, **TEXTURED.get(name, {}))
    encoder = ENCODERS[name]
    assert response.status_code == 200
    assert response.headers["content-type"] == encoder.media_type
    assert response.headers["content-disposition"] == f'attachment; filename="speech{encoder.extension}"'
    assert response.content


def test_response_tells_frames_rate_and_id(client: TestClient) -> None:
    """0.2 s at 24 fps are ceil(4.8) = 5 frames."""
    response = post(client, fps="24", headers={"X-Request-Id": "take-7"})
    assert response.headers["x-talker-frames"] == "5"
    assert response.headers["x-talker-fps"] == "24"
    assert response.headers["x-request-id"] == "take-7"
    assert response.headers["x-accel-buffering"] == "no"


def test_defaults_are_the_contracts(client: TestClient, engine: FakeEngine) -> None:
    response = post(client)
    (_, options), *_ = engine.calls
    assert (options.engine, options.motion_style, options.resolution) == ("mmtalker", "neutral", None)
    assert (options.fps, options.intensity, options.seed) == (30, 1, 0)
    assert response.headers["content-type"] == "model/gltf-binary"


def test_every_field_reaches_the_engine(client: TestClient, engine: FakeEngine) -> None:
    response = post(
        client,
        engine="mmtalker",
        template="default",
        style="calm",
        resolution="700",
        fps="29.97",
        intensity="0.5",
        seed="9",
        texture="none",
        format="obj",
    )
    assert response.status_code == 200
    (waveform, options), *_ = engine.calls
    assert waveform.duration_s == pytest.approx(0.2)
    assert (options.motion_style, options.resolution, options.fps) == ("calm", 700, 29.97)
    assert (options.intensity, options.seed) == (0.5, 9)


def test_motion_style_overrides_style(client: TestClient, engine: FakeEngine) -> None:
    assert post(client, style="neutral", motion_style="calm").status_code == 200
    assert engine.calls[0][1].motion_style == "calm"


def test_wrinkle_style_overrides_style(client: TestClient, engine: FakeEngine) -> None:
    assert post(client, style="calm", wrinkle_style="neutral", **WRINKLED).status_code == 200
    (_, options), *_ = engine.calls
    assert (options.motion_style, options.wrinkle_style, options.texture) == ("calm", "neutral", 512)


@pytest.mark.parametrize("name", sorted(set(ENCODERS) - {"codes"}))
@pytest.mark.parametrize("size", [512, 1024, 2048])
def test_textures_come_in_every_format_at_the_size_asked_for(client: TestClient, name: str, size: int) -> None:
    fields = WRINKLED | {"texture": str(size), "format": name, "fps": "5"}
    content = post(client, **fields, style="calm").content
    if name == "npz-stream":
        header, chunks = read_frames(BytesIO(content))
        assert header.fields["wrinkles"]["shape"] == [size, size, 3]
        assert len(list(chunks)) == 1
        return
    packed = content
    if name != "glb":
        with ZipFile(BytesIO(content)) as archive:
            wrinkle = "wrinkle_0.png" if size <= 1024 else "wrinkle_0.jpg"
            wanted = {"obj": "frame_000000.jpg", "glb-sequence": "frame_000000.glb", "bundle": wrinkle}[name]
            packed = archive.read(wanted)
    start = max(packed.find(b"\x89PNG"), packed.find(b"\xff\xd8\xff"))
    with Image.open(BytesIO(packed[start:])) as image:
        assert image.size == (size, size)


def test_a_style_file_is_read_and_animates_once(client: TestClient, engine: FakeEngine) -> None:
    files = {"audio": wav(), "style_file": b"example 0.25"}
    assert client.post("/animate", files=files, data=WRINKLED).status_code == 200
    (pivot,) = engine.pivots
    assert pivot is not None
    assert pivot.wrinkle is not None
    assert pivot.wrinkle.tolist() == [0.25] * 4
    assert set(engine.styles) == {"neutral", "calm"}


@pytest.mark.parametrize("empty", [("style_file", None, b""), ("style_file", "", b"")], ids=["text", "file"])
def test_a_style_file_that_nobody_chose_is_absent(
    client: TestClient, engine: FakeEngine, empty: tuple[str, str | None, bytes]
) -> None:
    """As browsers send it; then a style may be given."""
    assert client.post("/animate", **parts(AUDIO, empty, ("style", None, b"calm"))).status_code == 200
    assert engine.pivots == [None]


@pytest.mark.parametrize(
    ("content", "fields", "status", "code", "field"),
    [
        (b"example 0.5", {"style": "calm"}, 422, "impossible_combination", "style"),
        (b"example 0.5", {"style": "neutral"}, 422, "impossible_combination", "style"),
        (b"example 0.5", {"motion_style": "calm"}, 422, "impossible_combination", "motion_style"),
        (b"example 0.5", {"wrinkle_style": "calm"}, 422, "impossible_combination", "wrinkle_style"),
        (b"nothing of the kind", {}, 415, "not_example", "style_file"),
        (b"", {}, 415, "not_example", "style_file"),
        (b"cube 1", {}, 400, "other_topology", "style_file"),
    ],
)
def test_a_style_file_that_cannot_be_used_is_refused(
    client: TestClient, engine: FakeEngine, content: bytes, fields: dict[str, str], status: int, code: str, field: str
) -> None:
    response = client.post(
        "/animate", files={"audio": wav(), "style_file": ("mine.glb", content)}, data=fields | {"engine": "textalker"}
    )
    problem = response.json()
    assert (response.status_code, problem["code"], problem["field"]) == (status, code, field), problem
    assert engine.made == 0


def picture(size: int = 64, mode: str = "RGB", kind: str = "png") -> bytes:
    file = BytesIO()
    Image.new(mode, (size, size), {"RGB": (180, 140, 120), "P": 3, "I;16": 30_000}[mode]).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_neutral_file_is_the_texture_at_rest(client: TestClient, kind: str) -> None:
    """In either engine, and at its own size where no other is asked for."""
    files = {"audio": wav(), "neutral_file": ("skin.any", picture(96, kind=kind))}
    for fields, size in (({}, 96), (WRINKLED, 512)):
        content = client.post("/animate", files=files, data=fields).content
        with Image.open(BytesIO(content[content.find(b"\x89PNG") :])) as image:
            assert image.size == (size, size)
            assert np.abs(np.asarray(image, int) - [180, 140, 120]).max() <= 2


@pytest.mark.parametrize(
    ("content", "fields", "status", "code"),
    [
        (picture(), {"format": "codes", "engine": "textalker"}, 422, "impossible_combination"),
        (picture(32), {}, 422, "out_of_range"),
        (picture(64, "I;16"), {}, 400, "bad_texture"),
        (picture()[:60], {}, 400, "bad_texture"),
        (b"no picture", {}, 415, "bad_texture"),
        (next(png_chunks(60_000, ())) + picture()[33:], {}, 413, "too_large"),
    ],
    ids=["codes", "small", "16 bit", "cut", "text", "bomb"],
)
def test_a_neutral_file_that_cannot_be_used_is_refused(
    client: TestClient, engine: FakeEngine, content: bytes, fields: dict[str, str], status: int, code: str
) -> None:
    files = {"audio": wav(), "neutral_file": ("skin.png", content)}
    response = client.post("/animate", files=files, data=fields)
    problem = response.json()
    assert (response.status_code, problem["code"], problem["field"]) == (status, code, "neutral_file"), problem
    assert engine.made == 0


def test_a_texture_that_every_frame_repeats_counts_as_one_of_its_own(engine: FakeEngine) -> None:
    with TestClient(create_app(Settings(max_frame_texels=5 * 96**2), engine)) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        files = {"audio": wav(), "neutral_file": ("skin.png", picture(96))}
        for name, status in (("glb-sequence", 413), ("obj", 200), ("npz-stream", 200), ("glb", 200)):
            response = client.post("/animate", files=files, data={"format": name})
            assert response.status_code == status, name
            if status == 413:
                assert response.json()["field"] == "neutral_file"


def test_too_many_points_are_refused_before_the_engine_starts(engine: FakeEngine) -> None:
    with TestClient(create_app(Settings(max_frame_points=100), engine)) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        assert post(client).status_code == 413
    assert not engine.calls


def test_twelve_seconds_at_4096_are_within_the_default_limit() -> None:
    assert Settings().max_frame_texels >= 12 * 30 * 4096**2


def test_both_files_together_are_under_the_upload_limit(small: TestClient) -> None:
    """100 kB and what framing may add."""
    half = b"example 0.5" + b" " * 200_000
    files = {"audio": wav(1.0), "style_file": half}
    assert small.post("/animate", files=files).status_code == 200
    assert small.post("/animate", files={"audio": wav(1.0), "style_file": half * 2}).status_code == 413


@pytest.mark.parametrize("style", ["calm(2)", "calm( 0.3 ) + calm(0.7)", '{"calm": 0.5}', " calm "])
def test_a_style_may_be_an_expression(client: TestClient, style: str) -> None:
    assert post(client, style=style).status_code == 200


def test_a_field_that_nobody_filled_in_is_absent(client: TestClient, engine: FakeEngine) -> None:
    """As browsers send it, the page of /docs among them."""
    assert post(client, style="calm", motion_style="", wrinkle_style="").status_code == 200
    assert engine.calls[0][1].motion_style == "calm"


def test_a_form_may_say_that_it_is_utf_8(client: TestClient) -> None:
    assert client.post("/animate", **parts(AUDIO, charset="UTF-8")).status_code == 200


def test_the_same_request_gives_the_same_bytes(client: TestClient) -> None:
    assert post(client, seed="3").content == post(client, seed="3").content


@pytest.mark.parametrize(
    ("fields", "status", "code", "field"),
    [
        ({"fps": "abc"}, 400, "malformed", "fps"),
        ({"fps": ""}, 400, "malformed", "fps"),
        ({"fps": "nan"}, 400, "not_finite", "fps"),
        ({"fps": "inf"}, 400, "not_finite", "fps"),
        ({"fps": "0"}, 422, "out_of_range", "fps"),
        ({"fps": "-30"}, 422, "out_of_range", "fps"),
        ({"fps": "120.5"}, 422, "out_of_range", "fps"),
        ({"intensity": "very"}, 400, "malformed", "intensity"),
        ({"intensity": "NaN"}, 400, "not_finite", "intensity"),
        ({"intensity": "2.1"}, 422, "out_of_range", "intensity"),
        ({"intensity": "-0.1"}, 422, "out_of_range", "intensity"),
        ({"seed": "1.5"}, 400, "malformed", "seed"),
        ({"seed": "lucky"}, 400, "malformed", "seed"),
        ({"seed": "-1"}, 422, "out_of_range", "seed"),
        ({"seed": str(2**63)}, 422, "out_of_range", "seed"),
        ({"seed": "9" * 5000}, 400, "malformed", "seed"),
        ({"resolution": "high"}, 400, "malformed", "resolution"),
        ({"resolution": "700.5"}, 400, "malformed", "resolution"),
        ({"resolution": "3"}, 422, "out_of_range", "resolution"),
        ({"resolution": "100001"}, 422, "out_of_range", "resolution"),
        ({"texture": "large"}, 400, "malformed", "texture"),
        ({"texture": "512.0"}, 400, "malformed", "texture"),
        ({"texture": "1024"}, 422, "impossible_combination", "texture"),
        ({"texture": "3000", "engine": "textalker"}, 422, "out_of_range", "texture"),
        ({"texture": "16384", "engine": "textalker"}, 422, "out_of_range", "texture"),
        ({"texture": "8192"}, 422, "impossible_combination", "texture"),
        ({"texture": "2048", "engine": "textalker", "format": "codes"}, 422, "impossible_combination", "texture"),
        ({"texture": "0", "engine": "textalker"}, 422, "out_of_range", "texture"),
        ({"texture": "-512", "engine": "textalker"}, 422, "out_of_range", "texture"),
        ({"format": "codes"}, 422, "impossible_combination", "format"),
        ({"format": "bundle"}, 422, "impossible_combination", "texture"),
        ({"format": "bundle", "engine": "textalker"}, 422, "impossible_combination", "texture"),
        ({"wrinkle_style": "clam", "engine": "textalker"}, 404, "unknown_style", "wrinkle_style"),
        ({"wrinkle_style": "calm(-1)", "engine": "textalker"}, 422, "out_of_range", "wrinkle_style"),
        ({"wrinkle_style": "calm(0)+neutral(0)", "engine": "textalker"}, 422, "out_of_range", "wrinkle_style"),
        ({"style": "calm(0)"}, 422, "out_of_range", "style"),
        ({"style": "+".join(["calm"] * 65)}, 413, "too_large", "style"),
        ({"motion_style": "+".join(["calm"] * 3000)}, 413, "too_large", "motion_style"),
        ({"style_file": "calm"}, 400, "malformed", "style_file"),
        ({"wrinkle_style": "calm"}, 422, "impossible_combination", "wrinkle_style"),
        ({"engine": "faceformer"}, 404, "unknown_engine", "engine"),
        ({"template": "nobody"}, 404, "unknown_template", "template"),
        ({"template": "../../etc/passwd"}, 404, "unknown_template", "template"),
        ({"style": "clam"}, 404, "unknown_style", "style"),
        ({"style": ""}, 404, "unknown_style", "style"),
        ({"motion_style": "clam"}, 404, "unknown_style", "motion_style"),
        ({"style": "clam", "motion_style": "calm"}, 404, "unknown_style", "style"),
        ({"style": "calm("}, 400, "malformed", "style"),
        ({"style": "calm(-1)"}, 422, "out_of_range", "style"),
        ({"motion_style": "calm(nan)"}, 400, "not_finite", "motion_style"),
        ({"resolution": "1_000"}, 400, "malformed", "resolution"),
        ({"resolution": "700.0"}, 400, "malformed", "resolution"),
        ({"seed": "7.0"}, 400, "malformed", "seed"),
        ({"fps": "1_0"}, 400, "malformed", "fps"),
        ({"format": "fbx"}, 415, "unsupported_media", "format"),
        ({"stile": "calm"}, 400, "malformed", "stile"),
        ({"head_file": "x"}, 400, "malformed", "head_file"),
    ],
)
def test_bad_fields_are_refused(
    client: TestClient, engine: FakeEngine, fields: dict[str, str], status: int, code: str, field: str
) -> None:
    response = post(client, **fields)
    problem = response.json()
    assert (response.status_code, problem["code"], problem["field"]) == (status, code, field)
    assert engine.made == 0


@pytest.mark.parametrize(
    ("request_", "status", "code", "field"),
    [
        (parts(), 400, "malformed", "audio"),
        (parts(("audio", None, b"la la la")), 400, "malformed", "audio"),
        (parts(AUDIO, AUDIO), 400, "malformed", "audio"),
        (parts(AUDIO, ("fps", None, b"30"), ("fps", None, b"30")), 400, "malformed", "fps"),
        (parts(AUDIO, ("fps", "fps.txt", b"30")), 400, "malformed", "fps"),
        (parts(AUDIO, ("head_file", "head.obj", b"v 0 0 0")), 400, "malformed", "head_file"),
        (parts(("audio", "speech.wav", b"")), 415, "empty_audio", "audio"),
        (parts(("audio", "speech.wav", b"not a sound")), 415, "not_audio", "audio"),
        (parts(AUDIO, ("style", None, b"x" * 20_000)), 400, "malformed", None),
        (parts(AUDIO, ("style", None, b"+".join([b"calm"] * 10_000))), 400, "malformed", None),
        (parts(AUDIO, *[(f"f{i}", None, b"") for i in range(100)]), 400, "malformed", None),
        (parts(*[(f"f{i}", "f", b"") for i in range(100)]), 400, "malformed", None),
        (BROKEN, 400, "malformed", None),
        (cut(AUDIO, ("resolution", None, b"2000"), by=3), 400, "malformed", None),
        (cut(AUDIO, ("resolution", None, b"2000"), by=len(BOUNDARY) + 8), 400, "malformed", None),
        (cut(AUDIO, ("resolution", None, b"2000"), by=len(BOUNDARY) + 10), 400, "malformed", None),
        (parts(AUDIO, charset="punycode"), 400, "malformed", None),
        (parts(AUDIO, charset="undefined"), 400, "malformed", None),
        (UNBOUNDED, 400, "malformed", None),
        ({"json": {"audio": "aGk="}}, 415, "unsupported_media", None),
        ({"content": wav(), "headers": {"Content-Type": "audio/wav"}}, 415, "unsupported_media", None),
        ({}, 415, "unsupported_media", None),
        (parts(AUDIO) | {"params": {"fps": "30"}}, 400, "malformed", "fps"),
    ],
)
def test_bad_bodies_are_refused(
    client: TestClient, engine: FakeEngine, request_: dict[str, Any], status: int, code: str, field: str | None
) -> None:
    response = client.post("/animate", **request_)
    problem = response.json()
    assert (response.status_code, problem["code"], problem["field"]) == (status, code, field), problem
    assert not engine.calls


def test_an_unknown_name_comes_with_the_known_ones(client: TestClient) -> None:
    assert post(client, engine="faceformer").json()["known"] == ["mmtalker", "textalker"]
    assert post(client, template="nobody").json()["known"] == ["default"]
    assert post(client, style="clam").json()["known"] == ["calm", "neutral"]
    assert "known" not in post(client, fps="0").json()


def test_an_unknown_name_is_repeated_in_part(client: TestClient) -> None:
    assert len(post(client, style="x" * 9000).json()["detail"]) < 200


def test_a_wrong_number_comes_with_the_choices(client: TestClient) -> None:
    detail = post(client, resolution="5e2").json()["detail"]
    assert detail == "resolution is '5e2'; wanted native, or a whole number, 500 to 100000"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "model/gltf-binary"),
        ("", "model/gltf-binary"),
        ("text/html, */*;q=0.8", "model/gltf-binary"),
        ("application/zip", "application/zip"),
        ("model/*", "model/gltf-binary"),
        ("model/gltf-binary;q=0.2, application/x-talker-frames;q=0.9", "application/x-talker-frames"),
        ("*/*;q=0.1, application/zip ; q=0.5", "application/zip"),
        ("*/*, model/gltf-binary;q=0", "application/zip"),
        ("MODEL/GLTF-BINARY", "model/gltf-binary"),
    ],
)
def test_accept_chooses_the_format(client: TestClient, accept: str, media_type: str) -> None:
    assert post(client, headers={"Accept": accept}).headers["content-type"] == media_type


@pytest.mark.parametrize(
    ("accept", "status", "code"),
    [
        ("text/html", 406, "not_acceptable"),
        ("*/*;q=0", 406, "not_acceptable"),
        ("model/gltf-binary;q=0, model/*;q=0", 406, "not_acceptable"),
        ("*/*;q=lots", 400, "malformed"),
        ("*/*;q=2", 400, "malformed"),
        ("*/*;q=nan", 400, "malformed"),
    ],
)
def test_an_accept_that_cannot_be_met_is_refused(client: TestClient, accept: str, status: int, code: str) -> None:
    response = post(client, headers={"Accept": accept})
    assert (response.status_code, response.json()["code"], response.json()["field"]) == (status, code, "Accept")


def test_the_field_format_beats_accept(client: TestClient) -> None:
    assert post(client, format="obj", headers={"Accept": "text/html"}).headers["content-type"] == "application/zip"


@pytest.mark.parametrize(
    ("upload", "name"),
    [
        ("My voice (2).wav", 'filename="My_voice_2.glb"'),
        ("..\\..\\boot.ini", 'filename="boot.glb"'),
        ("/etc/../passwd", 'filename="passwd.glb"'),
        ("...", 'filename="talker.glb"'),
        ('a"; filename="b.wav', 'filename="a_22_filename_22b.glb"'),
        ("语音.wav", "filename*=utf-8''%E8%AF%AD%E9%9F%B3.glb"),
        ("x" * 300 + ".wav", f'filename="{"x" * 80}.glb"'),
    ],
)
def test_the_file_is_named_after_the_upload_safely(client: TestClient, upload: str, name: str) -> None:
    response = post(client, audio=(upload, wav()))
    assert response.headers["content-disposition"] == f"attachment; {name}"


@pytest.fixture
def small(engine: FakeEngine) -> Iterator[TestClient]:
    """A service of small limits: 100 kB, 2 s, 1000 points, 60 fps, 49 points x 40 frames, 10 textures of 512²."""
    limits = Settings(
        max_upload_bytes=100_000,
        max_audio_s=2,
        max_points=1000,
        max_fps=60,
        max_frame_points=49 * 40,
        max_frame_texels=10 * 512**2,
    )
    with TestClient(create_app(limits, engine)) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield client


@pytest.mark.parametrize(
    ("seconds", "fields", "field", "number", "limit"),
    [
        (3.2, {}, "audio", "102", "100"),
        (2.5, {}, "audio", "audio of 2.", "2 s"),
        (0.2, {"resolution": "1001"}, "resolution", "1001", "1000"),
        (0.2, {"fps": "61"}, "fps", "61", "60"),
        (1.4, {"fps": "30"}, "resolution", "2,058", "1,960"),
        (1.1, {"fps": "10", "format": "obj", "engine": "textalker", "texture": "512"}, "texture", "2,883,584", "2,621"),
    ],
)
def test_a_limit_is_named_with_the_number(
    small: TestClient, seconds: float, fields: dict[str, str], field: str, number: str, limit: str
) -> None:
    response = post(small, audio=("a.wav", wav(seconds)), **fields)
    problem = response.json()
    assert (response.status_code, problem["code"], problem["field"]) == (413, "too_large", field)
    assert number in problem["detail"]
    assert limit in problem["detail"]


def test_what_is_within_the_limits_passes(small: TestClient) -> None:
    for fields in ({"fps": "40"}, {"fps": "1", "resolution": "1000"}):
        assert post(small, audio=("a.wav", wav(1.0)), **fields).status_code == 200


@pytest.mark.parametrize("name", ["glb", "bundle"])
def test_a_basis_of_textures_is_not_counted_by_the_frame(small: TestClient, name: str) -> None:
    assert post(small, audio=("a.wav", wav(1.1)), fps="10", format=name, **WRINKLED).status_code == 200


def test_other_sizes_are_refused_with_those_that_work(client: TestClient) -> None:
    detail = post(client, engine="textalker", texture="3000").json()["detail"]
    assert detail == "texture is '3000'; wanted none, 512, 1024, 2048, 4096 or 8192"


@pytest.mark.parametrize(("name", "megabytes"), [("npz-stream", "4,027 MB"), ("obj", "201 MB")])
def test_too_many_texels_are_refused_before_the_engine_starts_with_what_they_would_take(
    engine: FakeEngine, name: str, megabytes: str
) -> None:
    with TestClient(create_app(Settings(max_frame_texels=600_000_000), engine)) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        response = post(client, engine="textalker", texture="8192", format=name, fps="50")
    assert (response.status_code, response.json()["field"]) == (413, "texture")
    assert megabytes in response.json()["detail"]
    assert not engine.calls


def test_a_head_of_too_many_points_is_refused_at_native(engine: FakeEngine) -> None:
    with TestClient(create_app(Settings(max_points=40), engine)) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        response = post(client)
    assert (response.status_code, response.json()["field"]) == (413, "resolution")
    assert "49" in response.json()["detail"]


def test_a_declared_length_over_the_limit_is_refused_unread(small: TestClient) -> None:
    """The body itself is empty: only its declared length can have been looked at."""
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Length": "5000000"}
    response = small.post("/animate", content=b"", headers=headers)
    assert response.status_code == 413
    assert "5,000,000" in response.json()["detail"]


def test_the_engine_is_called_off_the_event_loop(app: FastAPI, client: TestClient, engine: FakeEngine) -> None:
    """While an animation waits for its frames, the process answers."""
    engine.hold_at = 0
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(post(client)))
    thread.start()
    wait_until(engine.held.is_set)
    assert client.get("/health/live").status_code == 200
    engine.gate.set()
    thread.join()
    assert answers[0].status_code == 200


def test_an_unknown_name_is_refused_while_others_run(client: TestClient, engine: FakeEngine) -> None:
    """It waits neither for a slot nor for the audio to be decoded."""
    engine.hold_at = 0
    thread = threading.Thread(target=post, args=(client,))
    thread.start()
    wait_until(engine.held.is_set)
    answer = post(client, template="nobody", audio=("a.wav", b"not a sound"))
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_template")
    engine.gate.set()
    thread.join()


def test_a_full_service_says_so_before_it_reads_the_upload(app: FastAPI, client: TestClient) -> None:
    """The body is no form: had it been read, it would be 415."""
    slots = app.state.runtime.slots
    slots.check = Slots(0, 0, 1).check
    answer = client.post("/animate", content=b"anything", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
