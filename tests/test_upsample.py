"""/upsample: what is neutral stays so, what is large enough comes back itself, and what cannot be used is refused."""

import io
from typing import Any

import numpy as np
import pytest
from conftest import WAIT_S, FakeEngine, wait_until
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from test_pictures import encoded, png_header
from test_stream import BOUNDARY, Connect, connect, probe, read_all  # noqa: F401
from tiny_engine import tiny_engine

from service.app import create_app
from service.settings import Settings
from service.slots import Slots

NEUTRAL = np.full((64, 64, 3), 128, np.uint8)
RANDOM = np.random.default_rng(0)
FOLDS = RANDOM.integers(78, 178, (64, 64, 3), np.uint8)
SKIN = RANDOM.integers(60, 200, (64, 64, 3), np.uint8)
GREY = RANDOM.integers(60, 200, (256, 256), np.uint8)
MAP, TEXTURE, GUIDE = encoded(FOLDS), encoded(SKIN), encoded(GREY)


@pytest.fixture(scope="module")
def tiny() -> TestClient:
    """A service over the tiny networks, whose upsampler takes 32² to 128² and adds noise where something folds."""
    app = create_app(Settings(log_level="warning"))
    app.state.runtime.warm_engine = tiny_engine()
    return TestClient(app, raise_server_exceptions=False)


def post(client: TestClient, size: int | str | None = 1024, accept: str | None = None, **files: bytes) -> Any:
    return client.post(
        "/upsample",
        data={} if size is None else {"size": str(size)},
        files={name: (f"{name}-7.png", data) for name, data in files.items()} or {"map": ("", b"")},
        headers={} if accept is None else {"Accept": accept},
    )


def shown(response: Any) -> np.ndarray:
    assert response.status_code == 200, response.json()
    with Image.open(io.BytesIO(response.content)) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


@pytest.mark.parametrize("guide", [{}, {"guide": GUIDE}])
def test_a_neutral_map_stays_neutral(tiny: TestClient, guide: dict[str, bytes]) -> None:
    image = shown(post(tiny, 2048, map=encoded(NEUTRAL), **guide))
    assert image.shape == (2048, 2048, 3)
    assert (image == 128).all()


@pytest.mark.parametrize("own", [64, 1024])
def test_a_texture_that_is_the_neutral_one_is_that_enlarged(tiny: TestClient, own: int) -> None:
    skin = np.asarray(Image.fromarray(SKIN).resize((own, own)))
    image = shown(post(tiny, 1024, texture=encoded(skin), neutral=encoded(skin)))
    np.testing.assert_array_equal(image, Image.fromarray(skin).resize((1024, 1024), Image.Resampling.LANCZOS))


def test_a_map_at_the_size_asked_for_comes_back_itself(tiny: TestClient) -> None:
    levels = RANDOM.integers(1, 256, (1024, 1024, 3), np.uint8)
    np.testing.assert_array_equal(shown(post(tiny, map=encoded(levels))), levels)


def test_a_texture_at_the_size_asked_for_comes_back_itself(tiny: TestClient) -> None:
    """Unless it is darker than ratios can tell, 4 of 255."""
    neutral, texture = RANDOM.integers(4, 256, (2, 1024, 1024, 3), np.uint8)
    image = shown(post(tiny, texture=encoded(texture), neutral=encoded(neutral)))
    np.testing.assert_array_equal(image, texture)


def test_a_grey_map_is_one_of_three_equal_channels(tiny: TestClient) -> None:
    grey = FOLDS[..., 0]
    image = shown(post(tiny, map=encoded(grey)))
    np.testing.assert_array_equal(image, shown(post(tiny, map=encoded(grey[..., None].repeat(3, 2)))))


def test_the_same_request_gives_the_same_bytes(tiny: TestClient) -> None:
    assert post(tiny, map=MAP, guide=GUIDE).content == post(tiny, map=MAP, guide=GUIDE).content


def test_webp_has_the_pixels_of_png(tiny: TestClient) -> None:
    png, webp = (post(tiny, accept=f"image/{kind}", texture=TEXTURE, neutral=MAP) for kind in ("png", "webp"))
    np.testing.assert_array_equal(shown(png), shown(webp))
    assert png.headers["content-disposition"] == 'attachment; filename="texture-7.png"'
    assert webp.headers["content-disposition"] == 'attachment; filename="texture-7.webp"'
    assert webp.headers["content-type"] == "image/webp"
    assert webp.headers["x-request-id"]


def test_a_guide_is_seen_and_the_neutral_texture_is_one(tiny: TestClient) -> None:
    pair = {"texture": TEXTURE, "neutral": encoded(np.full((64, 64, 3), 128, np.uint8))}
    plain, guided = shown(post(tiny, **pair)), shown(post(tiny, **pair, guide=GUIDE))
    assert (plain != guided).any()
    assert (shown(post(tiny, map=MAP)) != shown(post(tiny, map=MAP, guide=GUIDE))).any()
    skin = encoded(np.asarray(Image.fromarray(SKIN).resize((256, 256))))
    named, own = (shown(post(tiny, texture=GUIDE, neutral=skin, **guide)) for guide in ({"guide": skin}, {}))
    np.testing.assert_array_equal(named, own)


def test_an_empty_field_of_a_form_is_none(tiny: TestClient) -> None:
    """Browsers send what nobody filled in as a file without a name."""
    files = [("map", ("a.png", MAP)), ("texture", ("", b"")), ("neutral", ("", b"")), ("guide", ("", b""))]
    response = tiny.post("/upsample", data={"size": "1024"}, files=files)
    assert response.content == post(tiny, map=MAP).content


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("image/avif,image/webp,*/*;q=0.8", "image/webp"),
        ("image/webp;q=0.2, image/png", "image/png"),
    ],
)
def test_accept_chooses(client: TestClient, accept: str, media_type: str) -> None:
    assert post(client, accept=accept, map=MAP).headers["content-type"] == media_type


@pytest.mark.parametrize("accept", ["text/html", "image/jpeg", "image/png;q=0"])
def test_an_accept_that_cannot_be_met_is_refused(client: TestClient, accept: str) -> None:
    response = post(client, accept=accept, map=MAP)
    assert (response.status_code, response.json()["field"]) == (406, "Accept")
    assert "image/png, image/webp" in response.json()["detail"]


@pytest.mark.parametrize(
    ("files", "field"),
    [
        ({}, "map"),
        ({"guide": GUIDE}, "map"),
        ({"texture": TEXTURE}, "neutral"),
        ({"neutral": TEXTURE}, "texture"),
        ({"map": MAP, "texture": TEXTURE}, "map"),
        ({"map": MAP, "neutral": TEXTURE}, "map"),
        ({"map": MAP, "texture": TEXTURE, "neutral": TEXTURE}, "map"),
    ],
)
def test_anything_but_a_map_or_a_pair_is_refused(client: TestClient, files: dict[str, bytes], field: str) -> None:
    response = post(client, **files)
    problem = response.json()
    assert (response.status_code, problem["code"], problem["field"]) == (422, "impossible_combination", field), problem


@pytest.mark.parametrize(
    ("size", "status", "code"),
    [
        (3000, 422, "out_of_range"),
        (512, 422, "out_of_range"),
        (0, 422, "out_of_range"),
        (-1024, 422, "out_of_range"),
        (16384, 422, "out_of_range"),
        ("9" * 400, 422, "out_of_range"),
        ("1024.0", 400, "malformed"),
        ("1_024", 400, "malformed"),
        ("large", 400, "malformed"),
        ("", 400, "malformed"),
        (None, 400, "malformed"),
    ],
)
def test_other_sizes_are_refused_with_the_choices(
    client: TestClient, size: int | str | None, status: int, code: str
) -> None:
    response = post(client, size, map=MAP)
    problem = response.json()
    assert (response.status_code, problem["code"], problem["field"]) == (status, code, "size"), problem
    assert "1024, 2048, 4096 or 8192" in problem["detail"] or size is None


def test_a_size_that_the_network_does_not_reach_is_refused_before_the_first_byte(tiny: TestClient) -> None:
    response = post(tiny, 8192, map=MAP)
    assert (response.status_code, response.json()["field"]) == (422, "size")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"not a picture", 415, "bad_texture"),
        (encoded(FOLDS, "webp"), 415, "bad_texture"),
        (encoded(FOLDS, "gif"), 415, "bad_texture"),
        (GUIDE[:-300], 400, "bad_texture"),
        (encoded(GREY, "jpeg")[:-300], 400, "bad_texture"),
        (encoded(GREY[:32]), 400, "bad_texture"),
        (encoded(GREY.astype(np.uint16)), 400, "bad_texture"),
        (png_header(64, 64, depth=16), 400, "bad_texture"),
        (encoded(FOLDS, save_all=True, append_images=[Image.fromarray(NEUTRAL)]), 400, "bad_texture"),
        (encoded(NEUTRAL[:63, :63]), 422, "out_of_range"),
        (png_header(8193, 8193), 413, "too_large"),
        (png_header(60_000, 60_000), 413, "too_large"),
    ],
    ids=["text", "webp", "gif", "cut", "cut jpeg", "oblong", "grey 16", "rgb 16", "moving", "small", "large", "bomb"],
)
@pytest.mark.parametrize("field", ["map", "texture", "neutral", "guide"])
def test_a_picture_that_cannot_be_used_is_refused(
    client: TestClient, engine: FakeEngine, field: str, data: bytes, status: int, code: str
) -> None:
    files = {"map": MAP} if field in ("map", "guide") else {"texture": GUIDE, "neutral": GUIDE}
    response = post(client, **files | {field: data})
    problem = response.json()
    assert (response.status_code, problem["code"], problem["field"]) == (status, code, field), problem
    assert engine.made == 0


def test_an_empty_picture_is_refused(client: TestClient) -> None:
    response = post(client, map=b"")
    assert (response.status_code, response.json()["field"]) == (415, "map")


def test_a_guide_is_at_least_256_pixels_wide(client: TestClient) -> None:
    response = post(client, map=MAP, guide=TEXTURE)
    assert (response.status_code, response.json()["field"]) == (422, "guide")
    assert "256" in response.json()["detail"]


def test_a_pair_of_two_sizes_is_refused(client: TestClient) -> None:
    response = post(client, texture=TEXTURE, neutral=GUIDE, guide=GUIDE)
    problem = response.json()
    assert (response.status_code, problem["code"], problem["field"]) == (400, "bad_texture", "texture"), problem


@pytest.mark.parametrize("data", [{"size": "1024", "colour": "red"}, {"size": "1024", "map": "text"}])
def test_other_fields_and_text_for_a_file_are_refused(client: TestClient, data: dict[str, Any]) -> None:
    response = client.post("/upsample", data=data, files={"guide": GUIDE})
    assert (response.status_code, response.json()["code"]) == (400, "malformed")


def test_a_body_that_is_no_form_is_refused(client: TestClient) -> None:
    assert client.post("/upsample", content=MAP, headers={"Content-Type": "image/png"}).status_code == 415


def test_an_upload_over_the_limit_is_refused(engine: FakeEngine) -> None:
    with TestClient(create_app(Settings(max_upload_bytes=1000), engine)) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        response = post(client, map=bytes(300_000))
    assert (response.status_code, response.json()["field"]) == (413, "map")


def test_it_needs_a_slot(app: FastAPI, client: TestClient) -> None:
    app.state.runtime.slots.check = Slots(0, 0, 1).check
    assert post(client, map=MAP).status_code == 503


def wire(media_type: str) -> bytes:
    """A request of 16 strips as it goes over the wire."""
    body = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="size"\r\n\r\n1024\r\n'.encode()
    body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="map"; filename="a.png"\r\n\r\n'.encode()
    body += MAP + f"\r\n--{BOUNDARY}--\r\n".encode()
    head = (
        f"POST /upsample HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAccept: {media_type}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@pytest.mark.parametrize("media_type", ["image/png", "image/webp"])
def test_a_client_that_leaves_stops_the_work_at_the_next_strip(
    connect: Connect,  # noqa: F811
    engine: FakeEngine,
    media_type: str,
) -> None:
    engine.hold_at = 5
    with connect() as connection:
        connection.sendall(wire(media_type))
        wait_until(engine.held.is_set)
    assert probe(connect)
    engine.gate.set()
    assert engine.closed.wait(WAIT_S)
    assert engine.made < 16


def test_a_failure_cuts_the_picture(connect: Connect, engine: FakeEngine) -> None:  # noqa: F811
    engine.fail_at = 5
    with connect() as connection:
        connection.sendall(wire("image/png"))
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200")
    assert not answer.endswith(b"0\r\n\r\n")
    assert b"IEND" not in answer
    assert b"secret" not in answer
