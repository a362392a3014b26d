"""Who is let in: every route and every method, with keys of every kind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import FakeEngine, wait_until
from fastapi import FastAPI, Request, WebSocket
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from models.errors import MalformedInput
from service.app import create_app
from service.authorization import OPEN, check_exposed
from service.client import client_of
from service.keys import add_key
from service.server import Server
from service.settings import Settings

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]
HIDDEN = [
    "/",
    "/docs",
    "/openapi.json",
    "/docs/assets/swagger-ui.css",
    "/studio/studio.js",
    "/nowhere",
    "/health",
    "/health/ready/",
]
"""Paths besides those of the contract."""


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def key(keys: Path) -> str:
    return add_key(keys, "mia")


@pytest.fixture
def app(keys: Path, key: str, engine: FakeEngine) -> FastAPI:
    app = create_app(Settings(keys=keys), engine)

    @app.websocket("/echo")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(client_of(socket.scope))
        await socket.close()

    @app.get("/whoami", include_in_schema=False)
    async def whoami(request: Request) -> str:
        return client_of(request.scope)

    return app


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield client


def wrong(key: str) -> list[dict[str, str]]:
    """Headers that let nobody in."""
    values = [
        key,
        "Bearer",
        "Bearer ",
        f"Bearer {key[:-1]}",
        f"Bearer {key}x",
        f"Bearer {key.swapcase()}",
        f"Bearer {key} {key}",
        f"Bearer {key}, Bearer {key}",
        f"Basic {key}",
        f"Bearer\t{key}",
        "Bearer \xff\xfe",
        f"Bearer {'x' * 10_000}",
        "Bearer mia",
    ]
    return [{}, *({"Authorization": value.encode("latin-1")} for value in values), {"X-Api-Key": key}, {"Cookie": key}]


def every_path(app: FastAPI) -> list[str]:
    known = {"id": "calm", "checkpoint": "textalker-motion", "template": "default", "resolution": "native"}
    return [path.format(**known) for path in app.openapi()["paths"]] + HIDDEN


def test_without_a_key_every_route_and_method_is_closed(app: FastAPI, client: TestClient, key: str) -> None:
    """But the probes; a path that there is not gives itself away no more than one that there is."""
    for path in set(every_path(app)) - OPEN:
        for method in METHODS:
            for headers in wrong(key):
                response = client.request(method, path, headers=headers)
                assert response.status_code == 401, (method, path, headers)
                assert response.headers["www-authenticate"] == "Bearer"
                assert response.headers["x-request-id"]
                if method != "HEAD":
                    assert response.headers["content-type"] == "application/problem+json"
                    assert (response.json()["code"], response.json()["instance"]) == ("unauthorized", path)


def test_with_a_key_every_route_and_method_is_as_without_keys(
    app: FastAPI, client: TestClient, key: str, tmp_path: Path
) -> None:
    with TestClient(create_app(Settings(jobs=tmp_path / "jobs"), FakeEngine()), raise_server_exceptions=False) as free:
        wait_until(lambda: free.get("/health/ready").status_code == 200)
        for path in every_path(app):
            for method in METHODS:
                response = client.request(method, path, headers={"Authorization": f"Bearer {key}"})
                assert response.status_code == free.request(method, path).status_code != 401, (method, path)


def test_the_probes_ask_nobody(client: TestClient) -> None:
    for path in OPEN:
        assert client.get(path).status_code == client.head(path).status_code == 200
        assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 200


def test_two_keys_at_once_are_none(client: TestClient, key: str) -> None:
    fields = [("Authorization", f"Bearer {key}")] * 2
    assert client.get("/info", headers=fields).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
def test_the_client_is_the_keys_name(client: TestClient, key: str, scheme: str) -> None:
    assert client.get("/whoami", headers={"Authorization": f"{scheme} {key}"}).json() == "mia"


def test_where_keys_are_off_the_client_is_the_peer() -> None:
    assert client_of({"client": ("10.0.0.7", 4711), "state": {}}) == "10.0.0.7"
    assert client_of({"client": None}) == "local"


def test_a_key_that_is_removed_lets_in_no_longer(client: TestClient, keys: Path, key: str) -> None:
    authorization = {"Authorization": f"Bearer {key}"}
    assert client.get("/info", headers=authorization).status_code == 200
    keys.write_text("")
    assert client.get("/info", headers=authorization).status_code == 401


def test_a_websocket_is_refused_in_its_handshake(client: TestClient, key: str) -> None:
    for path in ("/echo", "/nowhere"):
        for headers in wrong(key):
            with pytest.raises(WebSocketDenialResponse) as refusal, client.websocket_connect(path, headers=headers):
                pass
            assert refusal.value.status_code == 401
            assert refusal.value.json()["code"] == "unauthorized"
            assert refusal.value.headers["x-request-id"]
    with client.websocket_connect("/echo", headers={"Authorization": f"Bearer {key}"}) as socket:
        assert socket.receive_text() == "mia"


def test_the_body_is_not_read(app: FastAPI) -> None:
    """What a stranger uploads never gets in."""
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body is read")

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-length", b"1000000"), (b"content-type", b"multipart/form-data; boundary=x")]
    scope = {"type": "http", "method": "POST", "path": "/animate", "headers": headers, "query_string": b""}
    anyio.run(app, {**scope, "client": None, "server": None, "scheme": "http"}, receive, send)
    assert sent[0]["status"] == 401


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_on_this_host_alone_no_keys_are_needed(host: str) -> None:
    check_exposed(host, keys=False, open_=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.org", ""])
def test_where_others_come_in_keys_are_or_it_is_meant(host: str) -> None:
    with pytest.raises(MalformedInput, match="TALKER_OPEN=true"):
        check_exposed(host, keys=False, open_=False)
    check_exposed(host, keys=True, open_=False)
    check_exposed(host, keys=False, open_=True)


def test_a_server_that_others_reach_does_not_start_without_keys(engine: FakeEngine, keys: Path, key: str) -> None:
    with pytest.raises(MalformedInput, match="TALKER_KEYS"):
        Server(create_app(Settings(host="0.0.0.0"), engine))
    Server(create_app(Settings(host="0.0.0.0", keys=keys), engine))
