"""The route: who is let in, what is said first, and how it ends."""

import logging
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from anyio import fail_after, move_on_after, to_thread
from starlette.websockets import WebSocket, WebSocketDisconnect

from models.core import frame_count
from models.engine import ENGINES, Engine
from models.errors import SHOWN, Busy, InputError, MalformedInput, OutOfRange, TalkerError, UnknownName
from models.live import Live
from service.animate import check_limits, check_names, check_points
from service.encoders.frames import opening
from service.live.messages import LiveHello, read_hello
from service.live.session import Limits, Session
from service.live.sessions import Stopping
from service.problems import fields_of, problem_of, problem_response, refuse
from service.runtime import Runtime
from service.settings import Settings
from service.stream import ClientLeft

log = logging.getLogger(__name__)

HELLO_S = 10.0
"""How long a client may take to say hello."""
FAREWELL_S = 2.0
"""How long a client may take to read why it is cut."""
POLICY, FAILURE, RESTART, AGAIN_LATER = 1008, 1011, 1012, 1013
"""Close codes of RFC 6455's registry."""


async def live(socket: WebSocket) -> None:
    """Serve one live stream, docs/live.md. Who cannot be let in gets a problem as the answer to the handshake."""
    runtime: Runtime = socket.app.state.runtime
    with ExitStack() as held:
        try:
            _check_query(socket)
            engine = runtime.engine
            if (origin := _foreign_origin(socket)) is not None:
                detail = f"a page of {origin[:SHOWN]} asks; wanted one of this service: connect from a program"
                await socket.send_denial_response(problem_response(socket, 403, detail, code="foreign_origin"))
                return
            held.enter_context(runtime.live.place())
        except TalkerError as error:
            await socket.send_denial_response(refuse(socket, error))
            return
        await socket.accept()
        try:
            await _converse(socket, engine, runtime)
        except (ClientLeft, WebSocketDisconnect):
            return
        except Exception as error:
            await _part(socket, error)


def _check_query(socket: WebSocket) -> None:
    for name in socket.query_params:
        raise MalformedInput(f"unknown query parameter {name[:SHOWN]!r}; wanted none: remove it", field=name[:SHOWN])


def _foreign_origin(socket: WebSocket) -> str | None:
    """The page that asks, if it is another service's: browsers let any page connect to any WebSocket."""
    origin = socket.headers.get("origin")
    return None if origin is None or urlsplit(origin).netloc == socket.headers.get("host") else origin


async def _converse(socket: WebSocket, engine: Engine, runtime: Runtime) -> None:
    hello = await _hello(socket)
    sessions, settings = runtime.live, runtime.settings
    stream = await to_thread.run_sync(partial(open_live, engine, hello, settings), limiter=sessions.threads)
    for message in opening(stream.mesh, _facts(hello, stream, engine)):
        await socket.send_bytes(message)
    session = Session(
        socket,
        stream,
        paced=hello.delivery == "paced",
        limits=Limits.of(settings),
        threads=sessions.threads,
        stop=sessions.stopping,
    )
    await session.run()
    await socket.close()


async def _hello(socket: WebSocket) -> LiveHello:
    try:
        with fail_after(HELLO_S):
            message = await socket.receive()
    except TimeoutError as error:
        raise MalformedInput(f"no hello for {HELLO_S:g} s; wanted one: send it first", code="no_hello") from error
    if message["type"] == "websocket.disconnect":
        raise ClientLeft
    if message.get("text") is None:
        raise MalformedInput("sound before the hello; wanted a JSON object first: send it", code="no_hello")
    return read_hello(message["text"])


def open_live(engine: Engine, hello: LiveHello, settings: Settings) -> Live:
    """Check a hello and start its stream; for a worker thread. Raises every refusal."""
    if hello.engine not in ENGINES:
        raise UnknownName("engine", hello.engine, ENGINES)
    if hello.engine == "mmtalker" and hello.wrinkle_style is not None:
        raise OutOfRange(
            f"wrinkle_style = {hello.wrinkle_style[:SHOWN]} with engine = mmtalker, which makes no wrinkles; leave it "
            "out",
            field="wrinkle_style",
            code="impossible_combination",
        )
    check_limits(hello, settings)
    check_names(hello, engine)
    stream = engine.live(hello.options(), template=hello.template, rate_hz=hello.sample_rate)
    check_points(frame_count(settings.live_ahead_s, hello.fps), len(stream.mesh.vertices), settings)
    return stream


def _facts(hello: LiveHello, stream: Live, engine: Engine) -> dict[str, Any]:
    """The header's own fields, beside those of the mesh."""
    return {
        "fps": hello.fps,
        "frame_count": None,
        "seed": hello.seed,
        "engine": hello.engine,
        "checkpoints": engine.describe()["checkpoints"],
        "live": {
            "latency_s": stream.latency_s,
            "sample_rate": stream.rate_hz,
            "delivery": hello.delivery,
            "template": hello.template,
            "motion_style": stream.options.motion_style,
            "wrinkle_style": stream.options.wrinkle_style,
            "intensity": hello.intensity,
        },
    }


async def _part(socket: WebSocket, error: Exception) -> None:
    """Say what is wrong, and close. A client that does not read is not waited for."""
    code, fields = _problem(socket, error)
    with suppress(WebSocketDisconnect, RuntimeError), move_on_after(FAREWELL_S):
        await socket.send_json({"type": "error", "problem": fields})
        await socket.close(code, fields["code"])


def _problem(socket: WebSocket, error: Exception) -> tuple[int, dict[str, Any]]:
    """The close code, and the problem."""
    fields = fields_of(problem_of(error, socket.url.path, socket.state.request_id))
    if not isinstance(error, InputError | Busy):
        log.error("live stream %s failed", socket.state.request_id, exc_info=error)
        return FAILURE, fields
    if isinstance(error, Stopping):
        return RESTART, fields
    return AGAIN_LATER if isinstance(error, Busy) else POLICY, fields
