"""The stream, on a real server and a raw socket: what a client sees when things end early."""

import asyncio
import json
import logging
import math
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from select import select

import anyio
import numpy as np
import pytest
from conftest import WAIT_S, FakeEngine, grid_mesh, wait_until, wav
from fastapi import FastAPI
from starlette.types import Message

from models.core import AnimateOptions, Clip, Waveform
from models.errors import TalkerError
from service.app import create_app
from service.encoders import ENCODERS, encode
from service.encoders.spool import OffsetSpool
from service.server import Server
from service.settings import Settings
from service.stream import SLICE, ChunkStream, ClipStream, Pace, attachment

BOUNDARY = "cut-here"
SCOPE = {"type": "http", "state": {"request_id": "take-7"}}
Connect = Callable[[], socket.socket]


@contextmanager
def serving(app: FastAPI, warm_up_s: float = WAIT_S) -> Iterator[Connect]:
    """A real server for `app`, ready; yields what opens a connection to it."""
    server = Server(app)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: app.state.runtime.warm_engine is not None, warm_up_s)
        yield lambda: socket.create_connection(listener.getsockname(), timeout=WAIT_S)
    finally:
        server.should_exit = True
        thread.join(WAIT_S)
        assert not thread.is_alive()


@pytest.fixture
def connect(app: FastAPI) -> Iterator[Connect]:
    with serving(app) as connect:
        yield connect


def request(**fields: str) -> bytes:
    """POST /animate as it goes over the wire."""
    body = b"".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    )
    body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n'.encode()
    body += wav(1.0) + f"\r\n--{BOUNDARY}--\r\n".encode()
    head = (
        "POST /animate HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def started(engine: FakeEngine) -> Clip:
    """A clip of 30 frames."""
    return engine.animate(Waveform(np.zeros(16_000, np.float32)), AnimateOptions())


def response_of(clip: Clip, format_: str, *, stall_s: float = WAIT_S, slow_factor: float = 1e6) -> ClipStream:
    pace, workers = Pace(stall_s, slow_factor), anyio.CapacityLimiter(1)
    return ClipStream(clip, ENCODERS[format_](), upload_name="a.wav", pace=pace, workers=workers)


def read_all(connection: socket.socket) -> bytes:
    received = bytearray()
    with suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return bytes(received)


def body_of(answer: bytes) -> dict[str, str]:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def test_a_stream_is_chunked_and_complete(connect: Connect, engine: FakeEngine) -> None:
    with connect() as connection:
        connection.sendall(request(format="npz-stream"))
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"transfer-encoding: chunked" in answer
    assert answer.endswith(b"0\r\n\r\n")
    assert engine.made == 30
    assert engine.closed.is_set()


def test_frames_leave_as_they_are_made(connect: Connect, engine: FakeEngine) -> None:
    """The first bytes arrive while the engine is held at a later frame."""
    engine.hold_at = 3
    with connect() as connection:
        connection.sendall(request(format="npz-stream"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert engine.made <= 3
        engine.gate.set()
        assert read_all(connection).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("failure", [RuntimeError("a secret"), TalkerError("a secret"), OSError("a secret")])
def test_a_failure_in_the_stream_cuts_it(connect: Connect, engine: FakeEngine, failure: Exception) -> None:
    """No last chunk, and nothing that tells of the inside: the client cannot take it for a whole file."""
    engine.fail_at, engine.failure = 20, failure
    with connect() as connection:
        connection.sendall(request(format="npz-stream"))
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200")
    assert not answer.endswith(b"0\r\n\r\n")
    assert b"secret" not in answer
    assert engine.closed.is_set()


def test_a_worker_that_fails_in_the_stream_frees_its_slot_and_leaves_others_alone(
    app: FastAPI, connect: Connect, engine: FakeEngine
) -> None:
    engine.hold_at, engine.fail_at = 3, 3
    with connect() as first, connect() as second:
        first.sendall(request(format="npz-stream"))
        wait_until(engine.held.is_set)
        second.sendall(request(format="npz-stream"))
        wait_until(lambda: app.state.runtime.slots.waiting == 1)
        engine.closed.clear()
        engine.gate.set()
        assert not read_all(first).endswith(b"0\r\n\r\n")
        engine.fail_at = None
        read_all(second)
    wait_until(lambda: app.state.runtime.slots.held == 0)
    with connect() as third:
        third.sendall(request(format="npz-stream"))
        assert read_all(third).endswith(b"0\r\n\r\n")


def test_a_failure_before_the_first_byte_is_a_plain_500(connect: Connect, engine: FakeEngine) -> None:
    """`glb` needs the whole clip: a failure at its last frame is still told."""
    engine.fail_at = 29
    with connect() as connection:
        connection.sendall(request(format="glb"))
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 500")
    assert body_of(answer)["code"] == "internal"
    assert b"secret" not in answer
    assert engine.closed.is_set()


@pytest.mark.parametrize("format_", ["npz-stream", "glb"])
def test_a_client_that_leaves_frees_the_engine(connect: Connect, engine: FakeEngine, format_: str) -> None:
    """Held at frame 5 until the client has gone, the engine does not run on to frame 30; nor is the slot lost."""
    engine.hold_at = 5
    with connect() as connection:
        connection.sendall(request(format=format_))
        wait_until(engine.held.is_set)
    assert probe(connect)  # the loop has seen the client go by the time it answers the next
    engine.gate.set()
    assert engine.closed.wait(WAIT_S)
    assert engine.made < 30
    with connect() as connection:
        connection.sendall(request())
        assert read_all(connection).startswith(b"HTTP/1.1 200")


def test_a_client_that_leaves_during_compression_frees_the_slot(
    connect: Connect, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every frame is made, and the first pass over them is held until the client has gone: there is no second."""
    passes: list[OffsetSpool] = []
    held, gate, chunks = threading.Event(), threading.Event(), OffsetSpool.chunks

    def gated(spool: OffsetSpool) -> Iterator[tuple[slice, np.ndarray]]:
        passes.append(spool)
        held.set()
        assert gate.wait(WAIT_S)
        yield from chunks(spool)

    monkeypatch.setattr(OffsetSpool, "chunks", gated)
    with connect() as connection:
        connection.sendall(request(format="glb"))
        wait_until(held.is_set)
    assert probe(connect)  # the loop has seen the client go by the time it answers the next
    gate.set()
    with connect() as connection:
        connection.sendall(request(format="npz-stream"))
        assert read_all(connection).startswith(b"HTTP/1.1 200")
    assert engine.made == 60
    assert len(passes) == 1


@pytest.mark.parametrize("format_", ["npz-stream", "glb"])
def test_nothing_is_sent_to_a_client_that_has_left(engine: FakeEngine, format_: str) -> None:
    """The client leaves while it takes the first chunk; there is no second."""
    sent: list[Message] = []

    async def take_one_chunk() -> None:
        gone = anyio.Event()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)
            if message["type"] == "http.response.body":
                gone.set()
                await anyio.wait_all_tasks_blocked()

        await response_of(started(engine), format_)(SCOPE, receive, send)

    anyio.run(take_one_chunk)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert len(sent[1]["body"]) < SLICE


def test_a_full_queue_is_busy(app: FastAPI, connect: Connect, engine: FakeEngine) -> None:
    """One runs, one waits, the third is told when to come back; the first two are served."""
    engine.hold_at = 0
    with connect() as first, connect() as second, connect() as third:
        first.sendall(request())
        wait_until(engine.held.is_set)
        second.sendall(request())
        wait_until(lambda: app.state.runtime.slots.waiting == 1)
        third.sendall(request())
        answer = read_all(third)
        engine.gate.set()
        assert read_all(first).startswith(b"HTTP/1.1 200")
        assert read_all(second).startswith(b"HTTP/1.1 200")
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"\r\nretry-after: 10\r\n" in answer
    assert body_of(answer)["code"] == "busy"


def test_a_client_that_leaves_the_queue_gives_its_place_up(app: FastAPI, connect: Connect, engine: FakeEngine) -> None:
    engine.hold_at = 0
    with connect() as first, connect() as last:
        first.sendall(request())
        wait_until(engine.held.is_set)
        with connect() as second:
            second.sendall(request())
            wait_until(lambda: app.state.runtime.slots.waiting == 1)
        wait_until(lambda: app.state.runtime.slots.waiting == 0)
        last.sendall(request())
        wait_until(lambda: app.state.runtime.slots.waiting == 1)
        engine.gate.set()
        assert read_all(last).startswith(b"HTTP/1.1 200")
    assert len(engine.calls) == 2


def test_a_body_of_no_declared_length_is_counted_while_it_is_read(engine: FakeEngine) -> None:
    """A chunked body without end is refused long before the client tires of sending it."""
    head = (
        "POST /animate HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
    ).encode()
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n'.encode()
    with serving(create_app(Settings(max_upload_bytes=1000), engine)) as connect, connect() as connection:
        connection.sendall(head + chunk(part))
        sent = 0
        while not select([connection], [], [], 0)[0]:
            assert sent < 200_000_000
            connection.sendall(chunk(bytes(64 * 1024)))
            sent += 64 * 1024
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


def test_a_stopping_server_frees_the_engine(engine: FakeEngine) -> None:
    """With no time to drain, the stream is cut and the engine stops at the next frame."""
    engine.hold_at = 5
    with serving(create_app(Settings(drain_s=0), engine)) as connect:
        connection = connect()
        connection.sendall(request(format="glb"))
        wait_until(engine.held.is_set)
        threading.Timer(0.5, engine.gate.set).start()
    assert not read_all(connection).endswith(b"0\r\n\r\n")
    connection.close()
    assert engine.closed.wait(WAIT_S)
    assert engine.made < 30


class StoppedClock(asyncio.SelectorEventLoop):
    """A loop for which no second passes but those that are added to `now`."""

    now = 0.0

    def time(self) -> float:
        return self.now


def run_with_reader(response: ClipStream, *, takes: float) -> bytes:
    """Send to a client that takes 1 KiB a second until it has `takes` bytes, and then no more; return those."""
    taken = bytearray()

    async def send(message: Message) -> None:
        body = message.get("body", b"")
        for start in range(0, len(body), 1024):
            while len(taken) >= takes:
                await pass_a_second()
            taken.extend(body[start : start + 1024])
            await pass_a_second()

    anyio.run(response, SCOPE, anyio.sleep_forever, send, backend_options={"loop_factory": StoppedClock})
    return bytes(taken)


async def pass_a_second() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, StoppedClock)
    loop.now += 1
    await anyio.sleep(0)


@pytest.mark.parametrize("format_", ["npz-stream", "glb"])
def test_a_slow_reader_that_reads_on_gets_the_whole_file(engine: FakeEngine, format_: str) -> None:
    """Its chunks of 117 KiB take longer than `stall_s` each, but it never stalls."""
    engine.mesh = grid_mesh(100, 100)
    response = response_of(started(engine), format_, stall_s=100)
    assert run_with_reader(response, takes=math.inf) == b"".join(encode(started(engine), ENCODERS[format_]()))


def test_a_reader_that_stalls_is_cut_and_the_engine_freed(engine: FakeEngine) -> None:
    clip, whole = started(engine), b"".join(encode(started(FakeEngine()), ENCODERS["npz-stream"]()))
    taken = run_with_reader(response_of(clip, "npz-stream", stall_s=100), takes=8192)
    assert len(taken) < len(whole)
    assert whole.startswith(taken)
    assert next(clip.frames, None) is None
    assert 0 < engine.made < 30


def test_a_reader_that_is_too_slow_in_all_is_cut_and_the_engine_freed(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes 1 KiB a second and never stalls: a clip of one second has 100 s and 1900 times its length."""
    engine.mesh = grid_mesh(100, 100)
    clip = started(engine)
    taken = run_with_reader(response_of(clip, "npz-stream", stall_s=100, slow_factor=1900), takes=math.inf)
    assert 1900 * 1024 < len(taken) < 2010 * 1024
    assert next(clip.frames, None) is None
    assert 0 < engine.made < 30
    (record,) = caplog.records
    assert record.getMessage() == "request take-7 is cut: its client has kept it waiting for 2000 s in all, " + (
        "TALKER_SLOW_FACTOR"
    )


def test_time_in_which_frames_are_made_does_not_count(engine: FakeEngine) -> None:
    """Only the client's is counted: a stream may take as long as the engine does."""

    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            anyio.from_thread.run(pass_a_second)
            yield b"x"

    pace = Pace(stall_s=1, slow_factor=1)
    response = ChunkStream(
        lambda: (chunk for chunk in chunks()),
        media_type="text/plain",
        headers={},
        pace=pace,
        workers=anyio.CapacityLimiter(1),
    )
    sent = bytearray()

    async def send(message: Message) -> None:
        sent.extend(message.get("body", b""))

    anyio.run(response, SCOPE, anyio.sleep_forever, send, backend_options={"loop_factory": StoppedClock})
    assert bytes(sent) == b"x" * 20


def test_what_does_not_play_may_be_read_for_so_many_stalls() -> None:
    assert Pace(stall_s=60, slow_factor=4).patience_s(None) == 240
    assert Pace(stall_s=60, slow_factor=4).patience_s(10) == 100


def test_a_stream_takes_a_thread_of_its_own_and_none_of_those_that_read_uploads(engine: FakeEngine) -> None:
    engine.hold_at = 0
    app, taken = create_app(Settings(concurrency=2), engine), []

    @app.get("/threads")
    async def threads() -> None:
        default = anyio.to_thread.current_default_thread_limiter()
        taken.append((app.state.runtime.slots.workers.borrowed_tokens, default.borrowed_tokens))

    with serving(app) as connect, connect() as connection:
        connection.sendall(request())
        wait_until(engine.held.is_set)
        with connect() as asking:
            asking.sendall(b"GET /threads HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            read_all(asking)
        engine.gate.set()
        read_all(connection)
    assert taken == [(1, 0)]


def test_a_service_that_stops_closes_its_engine(app: FastAPI, engine: FakeEngine) -> None:
    with serving(app):
        assert not engine.shut.is_set()
    assert engine.shut.is_set()


@pytest.mark.parametrize(("set_up", "capacity", "running"), [(0, 3, 3), (2, 3, 2)])
def test_as_many_run_as_the_engine_makes_best_unless_a_number_is_set(
    engine: FakeEngine, set_up: int, capacity: int, running: int
) -> None:
    engine.capacity = capacity
    app = create_app(Settings(concurrency=set_up), engine)
    with serving(app):
        slots = app.state.runtime.slots
        assert (slots.concurrency, slots.workers.total_tokens) == (running, running)


def test_a_stalled_stream_is_cut_on_the_wire_and_is_one_line_of_our_log(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """The client reads on when it is too late: the stream has no end, and the cause is not taken for ours."""
    engine.mesh = grid_mesh(200, 200)  # 14 MB in all, more than the sockets hold
    with (
        serving(create_app(Settings(stall_s=0.1, slow_factor=1000, log_level="warning"), engine)) as connect,
        connect() as connection,
    ):
        connection.sendall(request(format="npz-stream"))
        wait_until(lambda: caplog.records)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200")
    assert not answer.endswith(b"0\r\n\r\n")
    (record,) = (record for record in caplog.records if not record.name.startswith("uvicorn"))  # which adds its own
    assert (record.name, record.levelno, record.exc_info) == ("service.stream", logging.WARNING, None)
    assert record.getMessage().endswith("took nothing for 0.1 s, TALKER_STALL_S")


def test_the_name_of_a_file_holds_nothing_of_a_header() -> None:
    assert attachment('a"\r\nSet-Cookie: b=c; x.wav', ".glb") == 'attachment; filename="a_Set-Cookie_b_c_x.glb"'


def probe(connect: Connect) -> bool:
    """Whether the process answers."""
    with connect() as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        return read_all(connection).startswith(b"HTTP/1.1 200")


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
