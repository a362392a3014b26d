"""/templates: the heads there are, and those that users register, keep and remove."""

import asyncio
import threading
from typing import Any

import pytest
from conftest import FakeEngine, wait_until, wav
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.requests import ClientDisconnect, Request
from test_stream import serving

from service.app import create_app
from service.settings import Settings
from service.slots import Slots
from service.stream import run_for

CARD = {
    "id": "default",
    "vertices": 49,
    "faces": 72,
    "licence": "CC0-1.0",
    "regions": {"lips": 9, "eyes": 4, "upper_face": 14},
    "preview": "/templates/default/preview.png",
    "report": None,
}
REPORT = {
    "registration_error_mm": 0.8,
    "lips_error_mm": 0.3,
    "unit_m": 0.01,
    "up_axis": "+Z",
    "forward_axis": "-Y",
    "components": [{"kind": "skin", "vertices": 49, "faces": 72}],
    "holes": 3,
    "landmarks": {"nose_tip": [0.0, 1.0, 2.5]},
    "warnings": ["no teeth"],
}
HEAD = {"mesh": ("me.obj", b"head 2")}
NOSE = '{"nose_tip": [1, 2, 3]}'


def test_every_template_is_listed(client: TestClient) -> None:
    assert client.get("/templates").json() == [CARD]


def test_one_template_is_described(client: TestClient) -> None:
    assert client.get("/templates/default").json() == CARD


def test_an_unknown_template_is_404_with_the_known_ones(client: TestClient) -> None:
    paths = ["/templates/nobody", *(f"/templates/nobody/{name}" for name in ("mesh.glb", "preview.png"))]
    for method, path in [("DELETE", "/templates/nobody"), *(("GET", path) for path in paths)]:
        problem = client.request(method, path).json()
        assert (problem["status"], problem["code"], problem["field"]) == (404, "unknown_template", "template"), path
        assert problem["known"] == ["default"]
    assert client.get("/templates/..%2f..%2fetc").status_code == 404


def test_the_mesh_comes_as_glb(client: TestClient) -> None:
    response = client.get("/templates/default/mesh.glb")
    assert response.headers["content-type"] == "model/gltf-binary"
    assert response.content[:4] == b"glTF"


def test_a_picture_comes_as_png(client: TestClient) -> None:
    """Of the default head, too."""
    client.post("/templates", files=HEAD, data={"name": "me"})
    for id in ("default", "me"):
        response = client.get(f"/templates/{id}/preview.png")
        assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
        assert response.content == b"\x89PNG of " + id.encode()


def test_a_head_is_registered_told_of_and_animates(client: TestClient) -> None:
    response = client.post("/templates", files=HEAD, data={"name": "me"})
    assert (response.status_code, response.headers["location"]) == (201, "/templates/me")
    card = CARD | {"id": "me", "licence": "unknown", "preview": "/templates/me/preview.png", "report": REPORT}
    assert response.json() == card == client.get("/templates/me").json()
    assert [each["id"] for each in client.get("/templates").json()] == ["default", "me"]
    assert client.get("/templates/me/mesh.glb").content != client.get("/templates/default/mesh.glb").content
    assert client.post("/animate", files={"audio": wav()}, data={"template": "me"}).status_code == 200


def test_every_field_reaches_the_engine(client: TestClient, engine: FakeEngine) -> None:
    """Landmarks as text or as a file; what is left out, or empty as browsers send it, is None."""
    texture = ("me.png", b"\x89PNG")
    client.post("/templates", files=HEAD | {"texture": texture}, data={"name": "a", "landmarks": NOSE})
    client.post("/templates", files=HEAD | {"landmarks": ("l.json", NOSE.encode())}, data={"name": "b"})
    client.post("/templates", files=HEAD, data={"name": "", "texture": "", "landmarks": ""})
    limits = Settings().mesh_limits
    assert engine.registered == [
        ("a", NOSE.encode(), b"\x89PNG", limits),
        ("b", NOSE.encode(), None, limits),
        (None, None, None, limits),
    ]


def test_without_a_name_the_engine_gives_one(client: TestClient) -> None:
    first = client.post("/templates", files=HEAD)
    assert first.headers["location"] == f"/templates/{first.json()['id']}" == "/templates/head-000000000001"
    again = client.post("/templates", files=HEAD)
    assert (again.status_code, again.json()["code"], again.json()["field"]) == (409, "id_exists", "name")


def test_the_limits_are_the_settings(engine: FakeEngine) -> None:
    settings = Settings(max_vertices=7, max_triangles=8, max_upload_bytes=9000)
    with TestClient(create_app(settings, engine)) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        client.post("/templates", files=HEAD)
        client.post("/animate", files={"audio": wav(), "template_file": b"head 2"})
        large = client.post("/templates", files={"mesh": b"head 2" + b" " * 300_000})
    limits = [limits for *_, limits in engine.registered]
    assert [(each.max_vertices, each.max_triangles, each.max_bytes) for each in limits] == 2 * [(7, 8, 9000)]
    assert (large.status_code, large.json()["field"]) == (413, "mesh")


@pytest.mark.parametrize(
    ("request_", "status", "code", "field"),
    [
        ({"files": HEAD, "data": {"name": "default"}}, 409, "id_exists", "name"),
        ({"files": HEAD, "data": {"name": "My Head"}}, 422, "out_of_range", "name"),
        ({"files": HEAD, "data": {"name": "x" * 65}}, 422, "out_of_range", "name"),
        ({"files": {"mesh": b"cube"}}, 415, "not_a_mesh", "mesh"),
        ({"files": {"mesh": b""}}, 415, "not_a_mesh", "mesh"),
        ({"files": {"mesh": b"closed"}}, 422, "mouth_sealed", "mesh"),
        ({"files": {"x": b""}, "data": {"mesh": "head"}}, 400, "malformed", "mesh"),
        ({"files": {"texture": b""}}, 400, "malformed", "mesh"),
        ({"files": HEAD | {"texture": ("a.png", b"GIF")}}, 415, "bad_texture", "texture"),
        ({"files": HEAD, "data": {"texture": "blue"}}, 400, "malformed", "texture"),
        ({"files": HEAD, "data": {"landmarks": "nose"}}, 400, "malformed", "landmarks"),
        ({"files": HEAD, "data": {"landmarks": '{"elbow": [1, 2, 3]}'}}, 422, "unknown_landmark", "landmarks"),
        ({"files": HEAD | {"landmarks": ("l", b" " * 70_000)}}, 413, "too_large", "landmarks"),
        ({"files": HEAD, "data": {"id": "me"}}, 400, "malformed", "id"),
        ({"data": {"mesh": "head"}}, 415, "unsupported_media", None),
        ({"json": {}}, 415, "unsupported_media", None),
    ],
)
def test_what_cannot_be_registered_is_refused(
    client: TestClient, engine: FakeEngine, request_: dict[str, Any], status: int, code: str, field: str | None
) -> None:
    response = client.post("/templates", **request_)
    problem = response.json()
    assert (response.status_code, problem["code"], problem["field"]) == (status, code, field), problem
    assert list(engine.templates) == ["default"]


def test_a_head_can_be_removed_and_registered_again(client: TestClient) -> None:
    for _ in range(2):
        assert client.post("/templates", files=HEAD, data={"name": "me"}).status_code == 201
        response = client.delete("/templates/me")
        assert (response.status_code, response.content) == (204, b"")
        assert client.get("/templates/me").status_code == 404
        assert client.post("/animate", files={"audio": wav()}, data={"template": "me"}).status_code == 404


def test_the_shipped_head_stays(client: TestClient) -> None:
    problem = client.delete("/templates/default").json()
    assert (problem["status"], problem["code"], problem["field"]) == (409, "shipped_template", "template")
    assert client.get("/templates/default").status_code == 200


def test_a_registration_needs_a_slot(app: FastAPI, client: TestClient) -> None:
    """It takes seconds of the cores; a service that is full says so before it reads the upload."""
    slots = app.state.runtime.slots
    slots.check = Slots(0, 0, 1).check
    answer = client.post("/templates", content=b"anything", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")


@pytest.mark.parametrize(("path", "field"), [("/templates", "mesh"), ("/animate", "template_file")])
def test_a_registration_holds_its_slot_and_frees_it_when_it_fails(
    app: FastAPI, client: TestClient, engine: FakeEngine, path: str, field: str
) -> None:
    engine.hold_at, engine.fail_at = 0, 0
    answers: list[Any] = []
    files = {"audio": wav(), field: b"head 1"} if path == "/animate" else {field: b"head 1"}
    asking = threading.Thread(target=lambda: answers.append(client.post(path, files=files)))
    asking.start()
    assert engine.held.wait(20)
    assert app.state.runtime.slots.held == 1
    engine.gate.set()
    asking.join(20)
    wait_until(lambda: app.state.runtime.slots.held == 0)
    assert answers[0].status_code == 500
    assert list(engine.templates) == ["default"]


def test_behind_a_proxy_paths_have_its_prefix(app: FastAPI, client: TestClient) -> None:
    response = TestClient(app, root_path="/talker").post("/templates", files=HEAD, data={"name": "me"})
    assert response.headers["location"] == "/talker/templates/me"
    assert response.json()["preview"] == "/talker/templates/me/preview.png"


def test_a_path_names_every_method_that_it_has(client: TestClient) -> None:
    assert client.patch("/templates").headers["allow"] == "GET, POST"
    assert client.patch("/templates/default").headers["allow"] == "DELETE, GET"


# A head of one request.


def test_a_head_of_one_request_is_the_registered_one_byte_for_byte(client: TestClient, engine: FakeEngine) -> None:
    client.post("/templates", files=HEAD, data={"name": "me"})
    kept = client.post("/animate", files={"audio": wav()}, data={"template": "me"})
    own = client.post("/animate", files={"audio": wav(), "template_file": b"head 2"})
    assert kept.status_code == own.status_code == 200
    assert kept.content == own.content
    assert list(engine.templates) == ["default", "me"]


@pytest.mark.parametrize("data", [{}, {"template_file": ""}], ids=["left out", "empty"])
def test_without_a_file_the_template_is_the_default_one(client: TestClient, engine: FakeEngine, data: Any) -> None:
    assert client.post("/animate", files={"audio": wav()}, data=data).status_code == 200
    assert engine.registered == []


@pytest.mark.parametrize(
    ("content", "data", "status", "code", "field"),
    [
        (b"cube", {}, 415, "not_a_mesh", "template_file"),
        (b"closed", {}, 422, "mouth_sealed", "template_file"),
        (b"head 1", {"template": "default"}, 422, "impossible_combination", "template"),
        (b"head 1", {"format": "codes", "engine": "textalker"}, 422, "impossible_combination", "template_file"),
    ],
)
def test_a_head_that_cannot_be_used_is_refused(
    client: TestClient, engine: FakeEngine, content: bytes, data: dict[str, str], status: int, code: str, field: str
) -> None:
    response = client.post("/animate", files={"audio": wav(), "template_file": content}, data=data)
    problem = response.json()
    assert (response.status_code, problem["code"], problem["field"]) == (status, code, field), problem
    assert engine.calls == []


def test_the_limit_on_points_is_for_ones_own_head_too(engine: FakeEngine) -> None:
    with TestClient(create_app(Settings(max_points=48), engine)) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        problem = client.post("/animate", files={"audio": wav(), "template_file": b"head 1"}).json()
    assert (problem["status"], problem["field"]) == (413, "resolution")
    assert "the head has 49 points; the limit is 48" in problem["detail"]


def test_a_client_who_leaves_while_registering_frees_the_slot(app: FastAPI, engine: FakeEngine) -> None:
    """On a real server: the work ends at its next step, and nothing is kept."""
    engine.hold_at = 0
    body = b'--x\r\nContent-Disposition: form-data; name="mesh"; filename="a"\r\n\r\nhead 1\r\n--x--\r\n'
    head = f"POST /templates HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
    slots = app.state.runtime.slots
    with serving(app) as connect:
        with connect() as connection:
            connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode() + body)
            assert engine.held.wait(20)
            assert slots.held == 1
        wait_until(lambda: slots.held == 0)
    assert list(engine.templates) == ["default"]


def test_work_for_a_client_ends_when_they_leave() -> None:
    async def run() -> None:
        gone = asyncio.Event()

        async def receive() -> dict[str, str]:
            await gone.wait()
            return {"type": "http.disconnect"}

        def work(check: Any) -> None:
            check()
            loop.call_soon_threadsafe(gone.set)
            wait_until(lambda: _raises(check))
            check()

        loop = asyncio.get_running_loop()
        with pytest.raises(ClientDisconnect):
            await run_for(Request({"type": "http"}, receive), work)

    asyncio.run(run())


def _raises(check: Any) -> bool:
    try:
        check()
    except Exception:
        return True
    return False


def test_work_for_a_client_who_stays_is_done() -> None:
    async def receive() -> dict[str, str]:
        await asyncio.Event().wait()
        return {}

    assert asyncio.run(run_for(Request({"type": "http"}, receive), lambda check: check() or 7)) == 7
