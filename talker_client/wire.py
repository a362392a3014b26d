"""The only part that does I/O: the steps of flows, taken with httpx, blocking or not."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import anyio
import httpx2
from httpx2 import AsyncClient, Client, EventSource, Request

from models.errors import MalformedInput
from talker_client.calls import Call
from talker_client.cards import Upload
from talker_client.flows import Answer, Close, Flow, Next, Pause, Send, Step
from talker_client.problems import BadAnswer, StreamCut, Unreachable

T = TypeVar("T")
Files = dict[str, tuple[str, BinaryIO]]

CONNECT_S = 10.0
NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol)


def connection(base_url: str, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """What either of httpx's clients is made with. MalformedInput for an address or a key that cannot be sent."""
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        raise MalformedInput("an API key with characters that no header takes; wanted the key as it was given out")
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL as error:
        raise MalformedInput(f"{base_url!r} is no URL ({error}); wanted one such as http://127.0.0.1:8000") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise MalformedInput(f"{base_url!r} is no address of a service; wanted one such as http://127.0.0.1:8000")
    headers = {"Accept-Encoding": "identity"}  # ranges count the bytes of the file
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    timeout = httpx2.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s), pool=None)
    return {"base_url": url, "headers": headers, "timeout": timeout}


class Wire:
    """Takes steps one after the other."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def run(self, flow: Flow[T]) -> T:
        """The result of a flow. What fails is raised within it, so that it can try again or tidy up."""
        reply, failure = None, None
        while True:
            try:
                step = flow.send(reply) if failure is None else flow.throw(failure)
            except StopIteration as stop:
                return stop.value
            reply, failure = None, None
            try:
                reply = self._take(step)
            except BaseException as error:
                failure = error

    def _take(self, step: Step) -> Any:
        match step:
            case Send(call):
                with _sending(), _opened(call.files) as files:
                    response = self._client.send(_request(self._client, call, files), stream=True)
                events = (event.data for event in EventSource(response))
                return Answer(response.status_code, response.headers, response.iter_bytes(), events, response.close)
            case Next(items):
                with _receiving():
                    return next(items, None)
            case Close(answer):
                answer.close()
            case Pause(seconds):
                time.sleep(seconds)
        return None


class AsyncWire:
    """Takes the same steps, on an event loop."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def run(self, flow: Flow[T]) -> T:
        """See `Wire.run`."""
        reply, failure = None, None
        while True:
            try:
                step = flow.send(reply) if failure is None else flow.throw(failure)
            except StopIteration as stop:
                return stop.value
            reply, failure = None, None
            try:
                reply = await self._take(step)
            except BaseException as error:
                failure = error

    async def _take(self, step: Step) -> Any:
        match step:
            case Send(call):
                with _sending(), _opened(call.files) as files:
                    response = await self._client.send(_request(self._client, call, files), stream=True)
                events = (event.data async for event in EventSource(response))
                return Answer(response.status_code, response.headers, response.aiter_bytes(), events, response.aclose)
            case Next(items):
                with _receiving():
                    return await anext(items, None)
            case Close(answer):
                await answer.close()
            case Pause(seconds):
                await anyio.sleep(seconds)
        return None


def _request(client: Client | AsyncClient, call: Call[Any], files: Files) -> Request:
    return client.build_request(
        call.method,
        call.path,
        data=dict(call.fields) or None,
        files=files or None,
        json=call.json,
        headers=dict(call.headers),
    )


@contextmanager
def _opened(uploads: Mapping[str, Upload]) -> Iterator[Files]:
    """The uploads as files from their beginning, each time they are sent."""
    with ExitStack() as held:
        yield {field: _file(field, upload, held) for field, upload in uploads.items()}


def _file(field: str, upload: Upload, held: ExitStack) -> tuple[str, BinaryIO]:
    if isinstance(upload, bytes):
        return field, BytesIO(upload)
    if isinstance(upload, str | PathLike):
        path = Path(upload)
        return path.name, held.enter_context(path.open("rb"))
    upload.seek(0)
    name = getattr(upload, "name", field)
    return (Path(name).name if isinstance(name, str) else field), upload


@contextmanager
def _sending() -> Iterator[None]:
    try:
        yield
    except httpx2.TimeoutException as error:
        if isinstance(error, NOT_SENT):
            raise _unreachable(error) from error
        raise StreamCut(
            f"the service was silent for too long ({type(error).__name__}); give a longer timeout"
        ) from error
    except httpx2.RequestError as error:
        raise _unreachable(error) from error


def _unreachable(error: httpx2.RequestError) -> Unreachable:
    message = (
        f"no answer from {error.request.url} ({str(error) or type(error).__name__}); is the service running there?"
    )
    return Unreachable(message, sent=not isinstance(error, NOT_SENT))


@contextmanager
def _receiving() -> Iterator[None]:
    try:
        yield
    except httpx2.SSEError as error:
        raise BadAnswer(f"no events came ({error}); wanted text/event-stream: is it Talker?") from error
    except httpx2.RequestError as error:
        what = str(error) or type(error).__name__
        raise StreamCut(f"the answer broke off ({what}); what came of it is not whole: ask for it again") from error
