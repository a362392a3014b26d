"""`/codec`, and `codes` over HTTP."""

import hashlib
import io
from pathlib import Path

import conftest
import pytest
from conftest import wav
from fastapi.testclient import TestClient

from models.textalker.codec import read_codec_head
from talker_client.codes import read_codes

FIELDS = {"engine": "textalker", "format": "codes", "texture": "512"}


def animate(client: TestClient, accept: str | None = None, **fields: str):  # type: ignore[no-untyped-def]
    headers = {} if accept is None else {"Accept": accept}
    return client.post("/animate", files={"audio": wav()}, data=fields, headers=headers)


def test_codes_are_answered(client):
    response = animate(client, **FIELDS)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-talker-codes"
    assert response.headers["x-talker-frames"] == "6"
    assert response.headers["content-disposition"].endswith('.codes"')
    header, batches = read_codes(io.BytesIO(response.content))
    assert header.spaces.keys() == {"motion", "wrinkle"}
    assert sum(len(batch.contact) for batch in batches) == header.moments == 6


def test_the_media_type_chooses_them(client):
    response = animate(client, "application/x-talker-codes", engine="textalker")
    assert read_codes(io.BytesIO(response.content))[0].spaces.keys() == {"motion"}


@pytest.mark.parametrize("accept", [None, "application/x-talker-codes"])
def test_mmtalker_makes_none(client, accept):
    response = animate(client, accept, **({} if accept else {"format": "codes"}))
    problem = response.json()
    assert (response.status_code, problem["code"], problem["field"]) == (422, "impossible_combination", "format")
    assert "wanted engine = textalker" in problem["detail"]


def test_a_generator_is_given_once(client):
    """Then a client that says what it has gets 304."""
    response = client.get("/codec/textalker-motion.onnx")
    assert response.content == Path(conftest.__file__).read_bytes()
    tag = response.headers["etag"]
    assert tag == f'"{hashlib.sha256(response.content).hexdigest()}"'
    assert response.headers["cache-control"] == "no-cache"
    for held in (tag, f"W/{tag}", f'"other", {tag}'):
        again = client.get("/codec/textalker-motion.onnx", headers={"If-None-Match": held})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get("/codec/textalker-motion.onnx", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("resolution", ["native", "600"])
def test_a_head_is_given(client, resolution):
    response = client.get(f"/codec/default/{resolution}.npz")
    head = read_codec_head(io.BytesIO(response.content))
    assert (head.template, head.resolution) == ("default", None if resolution == "native" else 600)
    tag = response.headers["etag"]
    assert client.get(response.request.url, headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("speech.onnx", 404, "unknown_checkpoint"),
        ("mine/native.npz", 404, "unknown_template"),
        ("default/fine.npz", 400, "malformed"),
        ("default/3.npz", 422, "out_of_range"),
        ("default/100001.npz", 422, "out_of_range"),
    ],
)
def test_what_there_is_not_is_refused(client, path, status, code):
    response = client.get(f"/codec/{path}")
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_an_unknown_checkpoint_is_told_the_known_ones(client):
    assert client.get("/codec/speech.onnx").json()["known"] == ["textalker-motion"]


@pytest.fixture
def settings():
    from service.settings import Settings

    return Settings(port=0, log_level="warning", max_points=1000)


def test_a_head_over_the_limit_is_refused(client):
    response = client.get("/codec/default/1001.npz")
    assert (response.status_code, response.json()["field"]) == (413, "resolution")
