"""`/live`: what a client hears back, when, and what ends a stream."""

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import WAIT_S, FakeEngine, grid_mesh, wait_until, wav
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect
from test_stream import Connect, serving

from models.core import AnimateOptions
from service.app import create_app
from service.live import route
from service.live.pacing import SoundClock
from service.settings import Settings
from talker_client.frames import CHUNK, END, PREFIX, FramesChunk, FramesHeader, read_frames
from talker_client.live import LiveError, LiveStream, open_live

ROOT = Path(__file__).parents[1]
RATE_HZ = 16_000
OPENING = 5
"""Messages before the first frame: the header and four arrays."""


def tone(seconds: float, rate_hz: int = RATE_HZ) -> np.ndarray:
    return (3000 * np.sin(np.arange(round(seconds * rate_hz)) * 0.1)).astype("<i2")


@contextmanager
def opened(client: TestClient, **hello: Any) -> Iterator[WebSocketTestSession]:
    """A stream after its header."""
    with client.websocket_connect("/live") as stream:
        stream.send_json({"delivery": "burst"} | hello)
        stream.opening = [stream.receive_bytes() for _ in range(OPENING)]
        yield stream


def received(stream: WebSocketTestSession) -> list[bytes | dict[str, Any]]:
    """All that comes, to the end."""
    messages: list[bytes | dict[str, Any]] = []
    while not (messages and isinstance(messages[-1], bytes) and messages[-1].startswith(END)):
        message = stream.receive()
        if message["type"] == "websocket.close":
            raise AssertionError(f"closed after {messages[-1:]}")
        messages.append(message["bytes"] if message.get("bytes") else json.loads(message["text"]))
    return messages


def read(stream: WebSocketTestSession, messages: list[Any]) -> tuple[FramesHeader, list[FramesChunk]]:
    """As a reader of npz-stream reads the binary messages."""
    binary = [message for message in messages if isinstance(message, bytes)]
    header, chunks = read_frames(BytesIO(b"".join([*stream.opening, *binary])))
    return header, list(chunks)


def error(stream: WebSocketTestSession) -> tuple[dict[str, Any], int]:
    """The problem of the error that comes, and the code that the stream is closed with."""
    while (message := stream.receive()).get("bytes"):
        pass
    while (fields := json.loads(message["text"]))["type"] != "error":
        message = stream.receive()
    with pytest.raises(WebSocketDisconnect) as closed:
        stream.receive_bytes()
    assert closed.value.reason == fields["problem"]["code"]
    return fields["problem"], closed.value.code


@pytest.fixture
def impatient(settings: Settings, engine: FakeEngine) -> Iterator[Callable[..., TestClient]]:
    """Makes clients of services with other settings."""
    clients = []

    def make(**changes: Any) -> TestClient:
        app = create_app(settings.model_copy(update=changes), engine)
        client = TestClient(app, raise_server_exceptions=False).__enter__()
        clients.append(client)
        wait_until(lambda: app.state.runtime.warm_engine is not None)
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)


def frames_of(engine: FakeEngine, seconds: float, **options: Any) -> np.ndarray:
    live = engine.live(AnimateOptions(**options))
    sound = tone(seconds).astype(np.float32) / 32768
    return np.stack([frame.vertices for frame in live.feed(sound) + live.finish()])


def test_sound_becomes_a_stream_that_the_reader_of_npz_stream_reads(client: TestClient, engine: FakeEngine) -> None:
    sound = tone(1.0)
    with opened(client, seed=7, style="calm", intensity=0.5) as stream:
        for piece in np.split(sound, 10):
            stream.send_bytes(piece.tobytes())
        stream.send_json({"type": "end"})
        header, chunks = read(stream, received(stream))
        with pytest.raises(WebSocketDisconnect) as closed:
            stream.receive_bytes()
    assert closed.value.code == 1000
    assert (header.fps, header.frame_count, header.fields["seed"]) == (30.0, None, 7)
    assert header.fields["live"] == {
        "latency_s": 0.0,
        "sample_rate": RATE_HZ,
        "delivery": "burst",
        "template": "default",
        "motion_style": "calm",
        "wrinkle_style": "calm",
        "intensity": 0.5,
    }
    assert np.array_equal(header.arrays["vertices"], engine.mesh.vertices)
    wanted = frames_of(engine, 1.0, motion_style="calm", intensity=0.5)
    assert np.array_equal(np.concatenate([chunk.positions for chunk in chunks]), wanted)


def test_another_rate_is_resampled(client: TestClient) -> None:
    with opened(client, sample_rate=44_100, fps=25) as stream:
        stream.send_bytes(tone(0.77, 44_100).tobytes())
        stream.send_json({"type": "end"})
        assert len(read(stream, received(stream))[1]) == 20


def test_frames_come_while_sound_is_still_to_come(client: TestClient) -> None:
    with opened(client) as stream:
        stream.send_bytes(tone(0.5).tobytes())
        assert [PREFIX.unpack_from(stream.receive_bytes())[0] for _ in range(15)] == [CHUNK] * 15


def test_a_style_changes_from_the_frame_that_is_told(client: TestClient, engine: FakeEngine) -> None:
    with opened(client) as stream:
        stream.send_bytes(tone(0.5).tobytes())
        stream.send_json({"type": "style", "style": {"calm": 1.0}})
        stream.send_bytes(tone(0.5).tobytes())
        stream.send_json({"type": "end"})
        messages = received(stream)
        _, chunks = read(stream, messages)
    (event,) = [message for message in messages if isinstance(message, dict)]
    style = '{"calm": 1.0}'
    assert event == {"type": "style", "frame": 15, "time_s": 0.5, "motion_style": style, "wrinkle_style": style}
    assert messages.index(event) == 15
    neutral = frames_of(engine, 1.0)
    moved = [float((chunk.positions - neutral[k]).mean()) for k, chunk in enumerate(chunks)]
    np.testing.assert_allclose(moved, [0.0] * 15 + [0.01] * 15, atol=1e-6)


def test_one_half_of_a_style_leaves_the_other(client: TestClient) -> None:
    with opened(client, engine="textalker") as stream:
        stream.send_json({"type": "style", "wrinkle_style": "calm"})
        event = stream.receive_json()
    assert (event["motion_style"], event["wrinkle_style"]) == ("neutral", "calm")


def test_an_interrupt_drops_what_is_queued_and_the_clock_goes_on(client: TestClient, engine: FakeEngine) -> None:
    """Two seconds are queued, the engine is held at the first frame: none of the rest is shown."""
    engine.hold_at = 3
    with opened(client) as stream:
        stream.send_bytes(tone(2.0).tobytes())
        assert engine.held.wait(WAIT_S)
        stream.send_json({"type": "interrupt"})
        stream.send_bytes(tone(0.5).tobytes())
        stream.send_json({"type": "end"})
        wait_until(lambda: stream_idle(client))
        engine.hold_at = None
        engine.gate.set()
        messages = received(stream)
        _, chunks = read(stream, messages)
    (event,) = [message for message in messages if isinstance(message, dict)]
    assert event["type"] == "interrupted"
    assert [chunk.start for chunk in chunks] == list(range(len(chunks)))
    assert len(chunks) == event["frame"] + 15
    assert event["time_s"] == event["frame"] / 30
    assert event["frame"] <= 6 + 6


def stream_idle(client: TestClient) -> bool:
    """Whether what was sent has been read: the session's thread is held, its loop is not."""
    return client.get("/health/live").status_code == 200


def test_an_interrupt_of_a_paced_stream_brings_the_face_to_rest_from_where_it_was(client: TestClient) -> None:
    with opened(client, delivery="paced") as stream:
        stream.send_bytes(tone(8.0).tobytes())
        seen = [stream.receive_bytes() for _ in range(4)]
        stream.send_json({"type": "interrupt"})
        stream.send_json({"type": "end"})
        messages = [*seen, *received(stream)]
        header, chunks = read(stream, messages)
    (event,) = [message for message in messages if isinstance(message, dict)]
    assert len(chunks) == event["frame"] < 60
    assert np.array_equal(chunks[-1].positions[0], header.arrays["vertices"])
    away = [float(np.abs(chunk.positions[0] - header.arrays["vertices"]).max()) for chunk in chunks[-7:]]
    assert away == sorted(away, reverse=True)


def test_paced_frames_are_not_early(client: TestClient) -> None:
    """A second of sound at once: its frames take a second."""
    with opened(client, delivery="paced") as stream:
        begin = time.monotonic()
        stream.send_bytes(tone(1.0).tobytes())
        stream.send_json({"type": "end"})
        for number in range(30):
            stream.receive_bytes()
            assert time.monotonic() - begin >= number / 30


def test_the_clock_waits_where_sound_is_late_and_never_skips() -> None:
    clock = SoundClock(1.5).heard(10.0, 0.0)
    assert clock.due_s(2.0) == 13.5
    assert clock.heard(10.3, 0.4) == clock
    late = clock.heard(20.0, 1.0)
    assert (late.due_s(1.0), late.due_s(2.0)) == (21.5, 22.5)
    assert late.resumed(40.0, 7.0).due_s(7.0) == 40.0
    assert late.resumed(20.0, 7.0) == late


def test_a_client_that_is_far_ahead_is_not_read(app: FastAPI, engine: FakeEngine) -> None:
    """TALKER_LIVE_AHEAD_S of sound is held, the rest stays with the client, and in the sockets between."""
    engine.hold_at = 0

    async def flood(url: str) -> int:
        async with open_live(url, delivery="burst") as stream:
            sent = await sends(stream, lambda: False)
            engine.gate.set()
            stream._socket.transport.abort()
            return sent

    with serving(app) as connect:
        assert 10 <= asyncio.run(flood(url_of(connect))) < 400


async def sends(stream: LiveStream, enough: Callable[[], bool]) -> int:
    """How many seconds of sound a stream takes, until it is enough, or until it takes none for a second."""
    sent = 0
    with suppress(TimeoutError):
        while not enough():
            await asyncio.wait_for(stream.send(tone(1.0)), 1.0)
            sent += 1
    return sent


def url_of(connect: Connect) -> str:
    with connect() as probe:
        host, port = probe.getpeername()
    return f"ws://{host}:{port}/live"


@pytest.mark.parametrize(
    ("hello", "code", "field"),
    [
        ({"engine": "face"}, "unknown_engine", "engine"),
        ({"template": "nobody"}, "unknown_template", "template"),
        ({"style": "clam"}, "unknown_style", "style"),
        ({"motion_style": "clam"}, "unknown_style", "motion_style"),
        ({"wrinkle_style": "calm"}, "impossible_combination", "wrinkle_style"),
        ({"engine": "textalker", "texture": 512}, "impossible_combination", "texture"),
        ({"sample_rate": 4000}, "out_of_range", "sample_rate"),
        ({"sample_rate": "fast"}, "malformed", "sample_rate"),
        ({"fps": 0}, "out_of_range", "fps"),
        ({"resolution": 3}, "out_of_range", "resolution"),
        ({"delivery": "slow"}, "malformed", "delivery"),
        ({"type": "style"}, "malformed", "type"),
        ({"audio": "x"}, "malformed", "audio"),
    ],
)
def test_a_hello_that_cannot_be_met_is_refused(client: TestClient, hello: Any, code: str, field: str) -> None:
    with client.websocket_connect("/live") as stream:
        stream.send_json(hello)
        problem, closed = error(stream)
    assert (problem["code"], problem["field"], closed) == (code, field, 1008)
    assert problem["instance"] == "/live"
    assert problem["request_id"]


def test_a_rate_of_frames_over_the_limit_is_refused(impatient: Callable[..., TestClient]) -> None:
    with impatient(max_fps=30.0).websocket_connect("/live") as stream:
        stream.send_json({"fps": 60})
        assert error(stream)[0]["code"] == "too_large"


@pytest.mark.parametrize("text", ["{", "[]", "7", "[" * 100_000, '{"fps": NaN}'])
def test_a_hello_that_is_no_object_is_malformed(client: TestClient, text: str) -> None:
    with client.websocket_connect("/live") as stream:
        stream.send_text(text)
        problem, closed = error(stream)
    assert (problem["status"], closed) == (400, 1008)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ('{"type": "dance"}', "type"),
        ('{"type": 7}', "type"),
        ("{}", "type"),
        ('{"type": "end", "now": 1}', "now"),
        ('{"type": "style", "style": "clam"}', "motion_style"),
        (b"\x00", None),
    ],
)
def test_a_message_that_cannot_be_met_ends_the_stream(client: TestClient, message: Any, field: str | None) -> None:
    with opened(client) as stream:
        stream.send_text(message) if isinstance(message, str) else stream.send_bytes(message)
        problem, closed = error(stream)
    assert (problem["field"], closed) == (field, 1008)


def test_nothing_follows_the_end(client: TestClient) -> None:
    with opened(client, delivery="paced") as stream:
        stream.send_bytes(tone(5.0).tobytes())
        stream.send_json({"type": "end"})
        stream.send_bytes(tone(0.1).tobytes())
        problem, closed = error(stream)
    assert ("after the end" in problem["detail"], closed) == (True, 1008)


def test_sound_before_the_hello_is_refused(client: TestClient) -> None:
    with client.websocket_connect("/live") as stream:
        stream.send_bytes(tone(0.1).tobytes())
        assert error(stream)[0]["code"] == "no_hello"


def test_a_hello_must_come(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "HELLO_S", 0.05)
    with client.websocket_connect("/live") as stream:
        assert error(stream)[0]["code"] == "no_hello"


def test_a_client_that_says_nothing_is_let_go(impatient: Callable[..., TestClient]) -> None:
    with opened(impatient(live_idle_s=0.1)) as stream:
        problem, closed = error(stream)
    assert (problem["code"], closed) == ("idle", 1008)


def test_a_stream_has_a_longest_length(impatient: Callable[..., TestClient]) -> None:
    with opened(impatient(live_max_s=0.1)) as stream:
        problem, closed = error(stream)
    assert (problem["code"], closed) == ("too_large", 1008)


def test_a_failure_tells_nothing_of_the_inside(client: TestClient, engine: FakeEngine) -> None:
    engine.fail_at = 2
    with opened(client) as stream:
        stream.send_bytes(tone(0.5).tobytes())
        problem, closed = error(stream)
    assert (problem["code"], problem["status"], closed) == ("internal", 500, 1011)
    assert "secret" not in json.dumps(problem)


def test_one_stream_more_than_there_are_places_is_busy(client: TestClient) -> None:
    with opened(client), pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/live"):
        pass
    assert refused.value.status_code == 503
    assert refused.value.json()["code"] == "busy"
    assert int(refused.value.headers["retry-after"]) > 0
    assert refused.value.headers["content-type"] == "application/problem+json"
    assert refused.value.headers["x-request-id"] == refused.value.json()["request_id"]


def test_a_place_is_free_again(client: TestClient) -> None:
    for _ in range(3):
        with opened(client) as stream:
            stream.send_bytes(tone(0.1).tobytes())
        wait_until(lambda: client.app.state.runtime.live.count == 0)


def test_a_client_that_leaves_frees_the_place_within_a_step(client: TestClient, engine: FakeEngine) -> None:
    engine.hold_at = 1
    with opened(client) as stream:
        stream.send_bytes(tone(4.0).tobytes())
        assert engine.held.wait(WAIT_S)
        stream.close()
        engine.gate.set()
        wait_until(lambda: client.app.state.runtime.live.count == 0)
    assert engine.made <= 12


def test_before_the_engine_is_warm_nobody_is_let_in(settings: Settings, engine: FakeEngine) -> None:
    client = TestClient(create_app(settings, engine))
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/live"):
        pass
    assert (refused.value.status_code, refused.value.json()["code"]) == (503, "not_ready")


def test_a_query_is_refused(client: TestClient) -> None:
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/live?fps=7"):
        pass
    assert (refused.value.status_code, refused.value.json()["field"]) == (400, "fps")


def test_a_page_of_another_origin_is_not_let_in(client: TestClient) -> None:
    """Browsers let any page connect to any WebSocket, whatever CORS says; the service's own page may."""
    with pytest.raises(WebSocketDenialResponse) as refused:
        client.websocket_connect("/live", headers={"Origin": "https://elsewhere.example"}).__enter__()
    assert (refused.value.status_code, refused.value.json()["code"]) == (403, "foreign_origin")
    with client.websocket_connect("/live", headers={"Origin": "http://testserver"}):
        pass


def test_the_handshake_carries_the_request_id(client: TestClient) -> None:
    with client.websocket_connect("/live", headers={"X-Request-Id": "take-7"}) as stream:
        assert (b"x-request-id", b"take-7") in [(name.lower(), value) for name, value in stream.extra_headers]


def test_a_stopping_service_says_so_to_its_streams(client: TestClient) -> None:
    with opened(client) as stream:
        client.portal.call(client.app.state.runtime.live.close)
        problem, closed = error(stream)
        assert (problem["code"], closed) == ("shutting_down", 1012)
        with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/live"):
            pass
        assert refused.value.json()["code"] == "shutting_down"


def test_on_a_real_server_the_client_reads_all(app: FastAPI, engine: FakeEngine) -> None:
    """Frames, what an order is answered with, and the end."""

    async def talk(url: str) -> list[Any]:
        async with open_live(url, style="neutral", delivery="burst") as stream:
            assert stream.latency_s == 0.0
            await stream.send(tone(0.5))
            await stream.restyle(motion_style="calm")
            await stream.interrupt()
            await stream.send(tone(0.5))
            await stream.end()
            return [message async for message in stream]

    with serving(app) as connect:
        messages = asyncio.run(talk(url_of(connect)))
    assert {message["type"] for message in messages if isinstance(message, dict)} == {"style", "interrupted"}
    starts = [message.start for message in messages if isinstance(message, FramesChunk)]
    assert starts == list(range(len(starts)))


def test_on_a_real_server_a_refusal_is_an_error_with_its_problem(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """To the client; to the server's log it is no failure."""

    async def refused(url: str, **hello: Any) -> dict[str, Any]:
        with pytest.raises(LiveError) as error:
            async with open_live(url, **hello):
                pass
        return dict(error.value.problem)

    with serving(app) as connect:
        url = url_of(connect)
        logging.getLogger("uvicorn.error").addHandler(caplog.handler)
        assert asyncio.run(refused(url, style="clam"))["known"] == ["calm", "neutral"]
        assert asyncio.run(refused(url + "?x=1"))["field"] == "x"
        assert asyncio.run(refused(url + "ly"))["code"] == "cut"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_stopped_server_says_goodbye(app: FastAPI) -> None:
    """On the wire, with the code for a restart."""
    with serving(app) as connect:
        url, problems = url_of(connect), []

        async def wait() -> None:
            async with open_live(url) as stream:
                connected.set()
                with pytest.raises(LiveError) as error:
                    [message async for message in stream]
                problems.append(error.value.problem["code"])

        connected = threading.Event()
        talk = threading.Thread(target=lambda: asyncio.run(wait()))
        talk.start()
        assert connected.wait(WAIT_S)
    talk.join(WAIT_S)
    assert problems == ["shutting_down"]


def test_a_client_that_does_not_read_is_cut(settings: Settings, engine: FakeEngine) -> None:
    """Its place is free again though it stays."""
    app = create_app(settings.model_copy(update={"stall_s": 0.3}), engine)
    engine.mesh = grid_mesh(100, 100)

    async def stall(url: str) -> None:
        async with open_live(url, delivery="burst", fps=120) as stream:
            stream._socket.transport.pause_reading()
            await sends(stream, lambda: app.state.runtime.live.count == 0)
            await asyncio.to_thread(wait_until, lambda: app.state.runtime.live.count == 0)
            stream._socket.transport.abort()

    with serving(app) as connect:
        asyncio.run(stall(url_of(connect)))


def test_the_example_of_the_page_runs(app: FastAPI, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "live.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "speech.wav").write_bytes(wav(0.5))
    with serving(app) as connect:
        program = program.replace("ws://127.0.0.1:8000/live", url_of(connect)).replace("smiling", "calm")
        run = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert run.returncode == 0, run.stderr
    first, *frames = run.stdout.splitlines()
    assert first == "49 vertices, 0.00 s behind"
    assert len(frames) == 15
    assert frames[-1] == f"{14 / 30} (1, 49, 3)"
