"""The probes, and the life of the engine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FakeEngine, wait_until, wav
from fastapi import FastAPI
from fastapi.testclient import TestClient


def test_live_and_ready_answer_when_the_engine_is_warm(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready"}


@pytest.mark.parametrize("path", ["/health/live", "/info", "/docs", "/openapi.json", "/templates/default/mesh.glb"])
def test_head_is_get_without_the_body(client: TestClient, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length"):
        assert head.headers[name] == got.headers[name]


def test_head_of_what_only_takes_post_is_refused(client: TestClient) -> None:
    assert client.head("/animate").status_code == 405


def test_until_the_engine_is_warm_only_live_answers(app: FastAPI, engine: FakeEngine) -> None:
    """Everything that needs the engine says when to come back, and works once the warm-up has passed."""
    engine.warm.clear()
    with TestClient(app) as client:
        assert client.get("/health/live").status_code == 200
        early = [client.get(path) for path in ("/health/ready", "/templates", "/info")]
        early.append(client.post("/animate", files={"audio": wav()}))
        for response in early:
            assert (response.status_code, response.json()["code"]) == (503, "not_ready")
            assert int(response.headers["retry-after"]) > 0
        engine.warm.set()
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        assert client.post("/animate", files={"audio": wav()}).status_code == 200


def test_a_service_stopped_while_it_warms_up_stops(app: FastAPI, engine: FakeEngine) -> None:
    engine.warm.clear()
    with TestClient(app) as client:
        assert client.get("/health/ready").status_code == 503
        engine.warm.set()


def test_a_process_whose_engine_does_not_load_ends(tmp_path: Path) -> None:
    """Its last words name the cause, so that an orchestrator sees it and a person understands it."""
    program = "from service.app import create_app; from service.server import Server; Server(create_app()).run()"
    environment = os.environ | {"TALKER_WEIGHTS": str(tmp_path / "nowhere"), "TALKER_PORT": "0"}
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env=environment
    )
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1].startswith("talker: the engine does not start: ")
    assert "nowhere" in process.stderr.splitlines()[-1]


def test_the_service_does_not_import_torch() -> None:
    """Nor transformers, which brings it along: a process answers its probes in half a second, not in eight."""
    program = "import sys, service.app; print(sorted({'torch', 'torchaudio', 'transformers'} & sys.modules.keys()))"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert process.stdout.strip() == "[]"
