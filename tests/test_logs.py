"""What is logged, in which form, and what never is."""

import io
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import FakeEngine, wait_until, wav
from fastapi.testclient import TestClient

from service.app import create_app
from service.keys import add_key
from service.logs import LogFormat, install_logs
from service.settings import Settings

ROOT = Path(__file__).parents[1]


@contextmanager
def logging_to(stream: io.StringIO, level: str, format_: LogFormat) -> Iterator[None]:
    """As in a process where nobody else has set logging up."""
    root = logging.getLogger()
    handlers, before = root.handlers[:], root.level
    root.handlers.clear()
    install_logs(level, format_, stream)
    yield
    root.handlers[:] = handlers
    root.setLevel(before)


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where JSON lines go, of everything that is logged."""
    stream = io.StringIO()
    with logging_to(stream, "debug", "json"):
        yield stream


def lines(stream: io.StringIO, event: str = "request") -> list[dict[str, Any]]:
    logged = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in logged if line["event"].startswith(event)]


def test_a_request_is_a_line(client: TestClient, stream: io.StringIO) -> None:
    client.post("/animate", files={"audio": wav()}, headers={"X-Request-Id": "take-7"})
    (line,) = lines(stream)
    assert (line["request_id"], line["client"], line["level"]) == ("take-7", "testclient", "info")
    assert (line["method"], line["route"], line["path"], line["status"]) == ("POST", "/animate", "/animate", 200)
    assert line["seconds"] > 0
    assert line["bytes"] > 1000
    assert "cut" not in line


def test_what_happens_within_a_request_has_its_id(
    client: TestClient, engine: FakeEngine, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the engine's thread, too."""
    frames = engine._frames

    def talking(*arguments: Any) -> Any:
        for frame in frames(*arguments):
            logging.getLogger("models.engine").info("frame %d", frame.index)
            yield frame

    monkeypatch.setattr(engine, "_frames", talking)
    client.post("/animate", files={"audio": wav()}, headers={"X-Request-Id": "take-7"})
    assert [line["request_id"] for line in lines(stream, "frame ")] == ["take-7"] * 6


def test_a_failure_is_logged_with_its_cause(client: TestClient, engine: FakeEngine, stream: io.StringIO) -> None:
    engine.fail_at = 0
    client.post("/animate", files={"audio": wav()}, headers={"X-Request-Id": "take-7"})
    (line,) = lines(stream, "request take-7 failed")
    assert "a secret of the engine" in line["exception"]
    (line,) = [line for line in lines(stream) if line["event"] == "request"]
    assert line["status"] == 500


def test_probes_are_quiet(client: TestClient, stream: io.StringIO) -> None:
    client.get("/health/live"), client.get("/metrics")
    assert {line["level"] for line in lines(stream)} == {"debug"}


def test_the_console_is_for_people() -> None:
    """Without colours where nobody looks, and without the values of variables."""
    stream, secret = io.StringIO(), "tell-nobody"
    with logging_to(stream, "info", "console"):
        logging.getLogger("service").warning("%d clients", 3)
        logging.getLogger("service").debug("too much")
        try:
            {}[len(secret)]
        except KeyError:
            logging.getLogger("service").exception("it broke")
    shown = stream.getvalue()
    assert "3 clients" in shown
    assert "KeyError" in shown
    for unwanted in (secret, "too much", "\x1b"):
        assert unwanted not in shown


@pytest.mark.parametrize(
    "said",
    [
        "< Authorization: Bearer tell-nobody",
        "{'authorization': 'Bearer tell-nobody'}",
        "(b'authorization', b'Bearer tell-nobody')",
        "bearer tell-nobody",
        "Authorization: Basic tell-nobody",
        "authorization: tell-nobody",
    ],
)
def test_no_secret_is_written_whoever_logs_it(stream: io.StringIO, said: str) -> None:
    logging.getLogger("elsewhere").info("%s, and more", said)
    logging.getLogger("elsewhere").info("a header", extra={"header": said})
    assert "tell-nobody" not in stream.getvalue()
    assert "[hidden]" in stream.getvalue()


def test_a_service_at_debug_level_logs_no_key(tmp_path: Path) -> None:
    """Neither right ones nor wrong ones, of requests, handshakes, addresses and what is no HTTP; all lines are JSON."""
    keys = tmp_path / "keys"
    right, wrong = add_key(keys, "mia"), "wrong-" + "0" * 40
    program = "from conftest import FakeEngine; from service.app import create_app; from service.server import Server\n"
    program += "Server(create_app(engine=FakeEngine())).run()"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {
        "TALKER_KEYS": str(keys),
        "TALKER_PORT": str(port),
        "TALKER_LOG_LEVEL": "debug",
        "TALKER_LOG_FORMAT": "json",
        "PYTHONPATH": paths,
    }
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += f"Sec-WebSocket-Key: {'A' * 22}==\r\n"
    with subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            wait_until(lambda: answers(port))
            for key in (right, wrong):
                authorization = f"Host: x\r\nAuthorization: Bearer {key}\r\n"
                for head in (
                    f"GET /info HTTP/1.1\r\n{authorization}Connection: close",
                    f"GET /nowhere HTTP/1.1\r\n{authorization}{upgrade}",
                    f"GET /info?key={key} HTTP/1.1\r\n{authorization}Connection: close",
                    f"{key}\r\n{authorization}",
                ):
                    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                        connection.sendall(head.encode() + b"\r\n\r\n")
                        assert connection.recv(65536)
        finally:
            process.terminate()
            logged = process.communicate(timeout=60)[1]
    assert right not in logged
    assert wrong not in logged
    events = [json.loads(line) for line in logged.splitlines()]
    assert {event.get("client") for event in events if event["event"] == "request"} >= {"mia", "127.0.0.1"}


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionError:
        return False
    return True


def test_uvicorns_own_access_log_is_off(engine: FakeEngine) -> None:
    from service.server import Server

    assert not Server(create_app(Settings(), engine)).config.access_log
