"""/styles: what there is, and what users add and remove."""

from typing import Any

import pytest
from conftest import FakeEngine, wait_until, wav
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from service.slots import Slots

CALM = {
    "id": "calm",
    "description": "calm, for tests",
    "motion": True,
    "wrinkle": True,
    "origin": "shipped",
    "statistics": {"opening_mm": 1.5},
}
EXAMPLE = {"example": b"example 0.5"}


def test_every_style_is_listed_by_id(client: TestClient) -> None:
    styles = client.get("/styles").json()
    assert [style["id"] for style in styles] == ["calm", "neutral"]
    assert styles[0] == CALM == client.get("/styles/calm").json()


def test_a_mix_is_stored_and_animates(client: TestClient, engine: FakeEngine) -> None:
    mix = {
        "id": "half",
        "motion": "calm(0.5)+neutral(0.5)",
        "wrinkle": {"calm": 3, "neutral": 1},
        "description": "so so",
    }
    response = client.post("/styles", json=mix)
    assert (response.status_code, response.headers["location"]) == (201, "/styles/half")
    assert response.json() == client.get("/styles/half").json()
    assert response.json()["description"] == "so so"
    half = engine.styles["half"]
    assert half.motion is not None
    assert half.wrinkle is not None
    assert (half.motion[0], half.wrinkle[0]) == (0.5, 0.75)
    answer = client.post("/animate", files={"audio": wav()}, data={"style": "half(2)+calm"})
    assert answer.status_code == 200


@pytest.mark.parametrize("part", ["motion", "wrinkle"])
def test_a_mix_may_have_one_part(client: TestClient, part: str) -> None:
    card = client.post("/styles", json={"id": "part", part: "calm"}).json()
    assert [name for name in ("motion", "wrinkle") if card[name]] == [part]


@pytest.mark.parametrize(
    ("mix", "status", "code", "field"),
    [
        ({"id": "calm", "motion": "neutral"}, 409, "id_exists", "id"),
        ({"id": "Calm", "motion": "calm"}, 422, "out_of_range", "id"),
        ({"id": "", "motion": "calm"}, 422, "out_of_range", "id"),
        ({"id": "-x", "motion": "calm"}, 422, "out_of_range", "id"),
        ({"id": "a/../b", "motion": "calm"}, 422, "out_of_range", "id"),
        ({"id": "x" * 65, "motion": "calm"}, 422, "out_of_range", "id"),
        ({"motion": "calm"}, 400, "malformed", "id"),
        ({"id": 7, "motion": "calm"}, 400, "malformed", "id"),
        ({"id": "new"}, 422, "out_of_range", "motion"),
        ({"id": "new", "motion": None, "wrinkle": None}, 422, "out_of_range", "motion"),
        ({"id": "new", "motion": "clam"}, 404, "unknown_style", "motion"),
        ({"id": "new", "motion": ""}, 404, "unknown_style", "motion"),
        ({"id": "new", "motion": "calm", "wrinkle": "clam"}, 404, "unknown_style", "wrinkle"),
        ({"id": "new", "motion": "calm(0)"}, 422, "out_of_range", "motion"),
        ({"id": "new", "wrinkle": {"calm": 0, "neutral": 0}}, 422, "out_of_range", "wrinkle"),
        ({"id": "new", "wrinkle": {}}, 422, "out_of_range", "wrinkle"),
        ({"id": "new", "motion": "calm(-1)+neutral(2)"}, 422, "out_of_range", "motion"),
        ({"id": "new", "motion": "calm(nan)"}, 400, "not_finite", "motion"),
        ({"id": "new", "wrinkle": "calm(inf)"}, 400, "not_finite", "wrinkle"),
        ({"id": "new", "motion": "calm("}, 400, "malformed", "motion"),
        ({"id": "new", "motion": {"calm": "much"}}, 400, "malformed", "motion"),
        ({"id": "new", "motion": ["calm"]}, 400, "malformed", "motion"),
        ({"id": "new", "motion": "+".join(["calm"] * 10_000)}, 413, "too_large", "motion"),
        ({"id": "new", "motion": "calm", "description": "x" * 501}, 422, "out_of_range", "description"),
        ({"id": "new", "motion": "calm", "colour": "red"}, 400, "malformed", "colour"),
        ({"id": "new", "motion": "calm" * 20_000}, 413, "too_large", None),
        ([], 400, "malformed", None),
    ],
)
def test_a_mix_that_cannot_be_is_refused(
    client: TestClient, engine: FakeEngine, mix: Any, status: int, code: str, field: str | None
) -> None:
    response = client.post("/styles", json=mix)
    problem = response.json()
    assert (response.status_code, problem["code"], problem["field"]) == (status, code, field), problem
    assert set(engine.styles) == {"neutral", "calm"}


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "malformed"),
        ({"content": b'{"id": "\xff"}', "headers": {"Content-Type": "application/json"}}, 400, "malformed"),
        ({"content": b"[" * 50_000, "headers": {"Content-Type": "application/json"}}, 400, "malformed"),
        (
            {"content": b'{"id": "new", "motion": {"calm": NaN}}', "headers": {"Content-Type": "application/json"}},
            400,
            "not_finite",
        ),
        (
            {"content": b'{"id": "new", "motion": "calm"}', "headers": {"Content-Type": "text/plain"}},
            415,
            "unsupported_media",
        ),
        ({"data": {"id": "new", "motion": "calm"}}, 415, "unsupported_media"),
        ({}, 415, "unsupported_media"),
    ],
    ids=["cut", "not utf-8", "deep", "NaN", "text", "form", "nothing"],
)
def test_a_body_that_is_no_mix_is_refused(client: TestClient, request_: dict[str, Any], status: int, code: str) -> None:
    response = client.post("/styles", **request_)
    assert (response.status_code, response.json()["code"]) == (status, code), response.json()


def test_an_unknown_style_comes_with_the_known_ones(client: TestClient) -> None:
    for method, path in (("GET", "/styles/clam"), ("DELETE", "/styles/clam"), ("GET", "/styles/clam/pivot")):
        problem = client.request(method, path).json()
        assert (problem["status"], problem["code"], problem["known"]) == (404, "unknown_style", ["calm", "neutral"])


def test_a_user_made_style_can_be_removed_and_made_again(client: TestClient) -> None:
    for _ in range(2):
        assert client.post("/styles", json={"id": "mine", "motion": "calm"}).status_code == 201
        response = client.delete("/styles/mine")
        assert (response.status_code, response.content) == (204, b"")
        assert client.get("/styles/mine").status_code == 404


def test_a_shipped_style_stays(client: TestClient) -> None:
    response = client.delete("/styles/neutral")
    problem = response.json()
    assert (response.status_code, problem["code"], problem["field"]) == (409, "shipped_style", "id")
    assert client.get("/styles/neutral").status_code == 200


def test_an_example_makes_a_style(client: TestClient, engine: FakeEngine) -> None:
    response = client.post("/styles/me-2/pivot", files=EXAMPLE)
    assert (response.status_code, response.headers["location"]) == (201, "/styles/me-2")
    assert response.json() == client.get("/styles/me-2").json()
    me = engine.styles["me-2"]
    assert me.motion is not None
    assert me.motion.tolist() == [0.5] * 4


@pytest.mark.parametrize(
    ("id", "request_", "status", "code", "field"),
    [
        ("calm", {"files": EXAMPLE}, 409, "id_exists", "id"),
        ("Me", {"files": EXAMPLE}, 422, "out_of_range", "id"),
        ("x" * 65, {"files": EXAMPLE}, 422, "out_of_range", "id"),
        ("me", {"files": {"example": b"cube 1"}}, 400, "other_topology", "example"),
        ("me", {"files": {"example": b"la la la"}}, 415, "not_example", "example"),
        ("me", {"files": {"example": b""}}, 415, "not_example", "example"),
        ("me", {"data": {"example": "calm"}, "files": {"x": b""}}, 400, "malformed", "example"),
        ("me", {"files": EXAMPLE, "data": {"id": "you"}}, 400, "malformed", "id"),
        ("me", {"data": {"example": "calm"}}, 415, "unsupported_media", None),
        ("me", {"json": {}}, 415, "unsupported_media", None),
    ],
)
def test_an_example_that_cannot_be_used_is_refused(
    client: TestClient, engine: FakeEngine, id: str, request_: dict[str, Any], status: int, code: str, field: str | None
) -> None:
    response = client.post(f"/styles/{id}/pivot", **request_)
    problem = response.json()
    assert (response.status_code, problem["code"], problem["field"]) == (status, code, field), problem
    assert set(engine.styles) == {"neutral", "calm"}


def test_an_example_over_the_upload_limit_is_refused(engine: FakeEngine) -> None:
    with TestClient(create_app(Settings(max_upload_bytes=1000), engine)) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        response = client.post("/styles/me/pivot", files={"example": b"example 0.5" + b" " * 300_000})
    assert (response.status_code, response.json()["field"]) == (413, "example")


def test_an_example_needs_a_slot(app: FastAPI, client: TestClient) -> None:
    """Its latents come from the same networks; a service that is full says so before it reads the upload."""
    slots = app.state.runtime.slots
    slots.check = Slots(0, 0, 1).check
    answer = client.post("/styles/me/pivot", content=b"anything", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")


def test_a_pivot_is_a_file_that_makes_the_style_again(client: TestClient, engine: FakeEngine) -> None:
    response = client.get("/styles/calm/pivot")
    assert response.headers["content-type"] == "application/x-talker-pivot"
    assert response.headers["content-disposition"] == 'attachment; filename="calm.pivot"'
    assert client.post("/styles/calm-2/pivot", files={"example": response.content}).status_code == 201
    calm, again = engine.styles["calm"], engine.styles["calm-2"]
    assert calm.motion is not None
    assert again.motion is not None
    assert again.motion.tolist() == calm.motion.tolist()


def test_a_path_names_every_method_that_it_has(client: TestClient) -> None:
    assert client.patch("/styles").headers["allow"] == "GET, POST"
    assert client.patch("/styles/calm").headers["allow"] == "DELETE, GET"
    assert client.patch("/styles/calm/pivot").headers["allow"] == "GET, POST"
    assert client.post("/info").headers["allow"] == "GET"


def test_behind_a_proxy_the_location_has_its_prefix(app: FastAPI, client: TestClient) -> None:
    below = TestClient(app, root_path="/talker")
    assert below.post("/styles", json={"id": "mine", "motion": "calm"}).headers["location"] == "/talker/styles/mine"
