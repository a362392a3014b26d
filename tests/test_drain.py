"""SIGTERM under load: what was taken on is finished, what comes is sent elsewhere, and the process is gone in time."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import FakeEngine, wait_until
from fastapi import FastAPI
from fastapi.testclient import TestClient
from test_stream import read_all, request

from service.drain import Drain
from service.problems import Draining

ROOT = Path(__file__).parents[1]
PROGRAM = """
import os, threading
from conftest import FakeEngine
from service.app import create_app
from service.server import Server

engine = FakeEngine()
engine.hold_at = 3
threading.Thread(target=lambda: (os.read(0, 1), engine.gate.set()), daemon=True).start()
Server(create_app(engine=engine)).run()
"""
"""A service whose streams stop at the third frame, until a line comes."""


class Service:
    """That program, on a port of its own."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process, self._port = process, port

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), timeout=20)

    def get(self, path: str) -> bytes:
        with self.connect() as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            return read_all(connection)

    def release(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def is_ready(self) -> bool:
        try:
            return b"200 OK" in self.get("/health/ready")
        except ConnectionError:
            return False

    def depth(self, name: str) -> float:
        return float(self.get("/metrics").partition(f"\n{name} ".encode())[2].split(b"\n")[0])


@contextmanager
def running(drain_s: int) -> Iterator[Service]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"TALKER_PORT": str(port), "TALKER_DRAIN_S": str(drain_s), "TALKER_LOG_FORMAT": "json"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    with process:
        service = Service(process, port)
        try:
            wait_until(service.is_ready)
            yield service
        finally:
            process.kill()


def test_nothing_that_was_accepted_is_lost() -> None:
    """One runs and two wait: all three come whole. Meanwhile probes say what is going on, and new ones are refused."""
    with running(drain_s=60) as service:
        accepted = [service.connect() for _ in range(3)]
        accepted[0].sendall(request(format="npz-stream"))
        assert accepted[0].recv(100).startswith(b"HTTP/1.1 200")
        for connection in accepted[1:]:
            connection.sendall(request(format="npz-stream"))
        wait_until(lambda: service.depth("talker_queue_depth") == 2)
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not service.is_ready())
        for path in ("/health/ready", "/info", "/templates"):
            head, _, body = service.get(path).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503")
            assert b"retry-after: " in head
            assert json.loads(body)["code"] == "draining"
        assert service.get("/health/live").startswith(b"HTTP/1.1 200")
        assert service.process.poll() is None
        service.release()
        for number, connection in enumerate(accepted):
            with connection:
                answer = read_all(connection)
            assert number == 0 or answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b"0\r\n\r\n")
        assert service.process.wait(20) == 0


def test_a_service_that_does_nothing_stops_at_once() -> None:
    with running(drain_s=60) as service:
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 0


def test_the_deadline_is_one_whatever_hangs() -> None:
    """The stream is cut; an engine that never comes back holds up the process for a few seconds and no longer."""
    with running(drain_s=1) as service, service.connect() as connection:
        connection.sendall(request(format="npz-stream"))
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 1
        assert time.monotonic() - started > 1
        assert not read_all(connection).endswith(b"0\r\n\r\n")


def test_a_second_signal_is_obeyed_at_once() -> None:
    with running(drain_s=600) as service, service.connect() as connection:
        connection.sendall(request(format="npz-stream"))
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not service.is_ready())
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 128 + signal.SIGTERM


def test_a_websocket_is_refused_while_the_service_drains(app: FastAPI, client: TestClient) -> None:
    from starlette.testclient import WebSocketDenialResponse

    app.state.runtime.drain.start(60)
    with pytest.raises(WebSocketDenialResponse) as refusal, client.websocket_connect("/live"):
        pass
    assert (refusal.value.status_code, refusal.value.json()["code"]) == (503, "draining")


def test_a_drain_is_over_when_nothing_is_under_way_or_the_time_is_up() -> None:
    drain = Drain()
    drain.under_way = 1
    drain.check()
    assert (drain.started, drain.over) == (False, False)
    drain.start(100)
    assert (drain.started, drain.over) == (True, False)
    with pytest.raises(Draining):
        drain.check()
    drain.under_way = 0
    assert drain.over
    drain.under_way = 1
    drain.start(0)
    assert drain.over


def test_requests_under_way_are_counted_however_they_end(app: FastAPI, client: TestClient, engine: FakeEngine) -> None:
    engine.describe = lambda: {}[0]
    for path in ("/info", "/templates", "/nowhere", "/health/live"):
        client.get(path)
    assert app.state.runtime.drain.under_way == 0
