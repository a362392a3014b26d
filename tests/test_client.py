"""The Python client, both ways of it, against the service on a real socket, and against one that misbehaves."""

import asyncio
import inspect
import io
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import WAIT_S, FakeEngine, wait_until, wav
from fastapi import FastAPI
from test_stream import serving

from models.core import AnimateOptions
from models.errors import MalformedInput
from service.schemas import AnimateForm, StyleCard, TemplateCard
from service.settings import Settings
from talker_client import cards, flows, problems
from talker_client.async_client import AsyncAnimation, AsyncDownload, AsyncJob, AsyncTalker
from talker_client.client import Animation, Download, Job, Talker
from talker_client.frames import FramesError, read_frames
from talker_client.problems import (
    BadAnswer,
    JobNotDone,
    StreamCut,
    TalkerBusy,
    TalkerProblem,
    Unreachable,
    problem_of,
    retry_after_s,
)

Handler = Callable[[httpx2.Request], httpx2.Response]
BUSY = {"title": "Service Unavailable", "status": 503, "detail": "every slot is taken", "code": "busy", "field": None}


@pytest.fixture
def settings() -> Settings:
    return Settings(port=0, queue=4, log_level="warning")


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    with serving(app) as connect:
        probe = connect()
        host, port = probe.getpeername()
        probe.close()
        yield f"http://{host}:{port}"


@pytest.fixture
def talker(url: str) -> Iterator[Talker]:
    with Talker(url, retries=0) as talker:
        yield talker


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits; how long each wait would have been."""
    waited: list[float] = []

    def wait_s(attempt: int, error: Any) -> float:
        waited.append(wanted(attempt, error))
        return 0.0

    wanted = flows.wait_s
    monkeypatch.setattr(flows, "wait_s", wait_s)
    monkeypatch.setattr(flows, "POLL_S", 0.0)
    return waited


def scripted(*answers: Handler | httpx2.Response | Exception, **options: Any) -> Talker:
    """A client of a service that gives these answers, in turn, and the last one from then on."""
    left = list(answers)

    def answer(request: httpx2.Request) -> httpx2.Response:
        request.read()
        given = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(given, Exception):
            raise given
        return given if isinstance(given, httpx2.Response) else given(request)

    return Talker("http://talker.test/", transport=httpx2.MockTransport(answer), **options)


def busy(status: int = 503, **headers: str) -> Handler:
    return lambda _: httpx2.Response(status, json=BUSY | {"status": status}, headers=headers)


def card(state: str, progress: float = 0.0, **more: Any) -> dict[str, Any]:
    return {"id": "j1", "state": state, "progress": progress, "eta_s": None, "position": None, **more}


@contextmanager
def cut(body: bytes, head: bytes = b"Transfer-Encoding: chunked") -> Iterator[str]:
    """A server that sends each client the head and the body, and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                came = b""
                while b"\r\n\r\n" not in came or (b"boundary=" in came and not came.endswith(b"--\r\n")):
                    came += connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield "http://{}:{}".format(*listener.getsockname())
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def test_an_animation_is_what_the_service_answers(talker: Talker, url: str, tmp_path: Path) -> None:
    """Saved, read, iterated over: the same bytes; and its headers tell what it is."""
    expected = httpx2.post(f"{url}/animate", files={"audio": ("say.wav", wav())}).content
    (tmp_path / "say.wav").write_bytes(wav())
    animation = talker.animate(tmp_path / "say.wav")
    assert (animation.frame_count, animation.fps, animation.name) == (6, 30.0, "say.glb")
    assert (animation.media_type, len(animation.request_id)) == ("model/gltf-binary", 32)
    assert animation.save(tmp_path / "say.glb").read_bytes() == expected
    assert talker.animate(str(tmp_path / "say.wav")).read() == expected
    assert b"".join(talker.animate(io.BytesIO(wav()))) == expected


def test_fields_go_as_they_are_meant(talker: Talker, engine: FakeEngine, tmp_path: Path) -> None:
    """Numbers, texts, weights and files; what is None is left out."""
    talker.animate(wav(), engine="textalker", fps=24, style={"calm": 3, "neutral": 1}, texture=512, seed=None).read()
    talker.animate(wav(), style_file=b"example 0.25", template=None, template_file=io.BytesIO(b"head 2")).read()
    first, second = (options for _, options in engine.calls)
    weights = '{"calm": 3, "neutral": 1}'
    wanted = AnimateOptions(engine="textalker", fps=24, texture=512, motion_style=weights, wrinkle_style=weights)
    assert first == wanted
    assert second == AnimateOptions()
    assert engine.pivots[1] is not None
    assert engine.animated[1].startswith("head-")


def test_an_open_file_is_sent_from_its_beginning(talker: Talker) -> None:
    file = io.BytesIO(wav())
    file.read(100)
    assert talker.animate(file).frame_count == 6


def test_a_pipe_is_not_sent_as_it_could_not_be_sent_again() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    with (
        os.fdopen(reading, "rb") as pipe,
        scripted(httpx2.Response(200)) as talker,
        pytest.raises(OSError, match="seek"),
    ):
        talker.animate(pipe)


def test_frames_come_as_the_service_makes_them(talker: Talker) -> None:
    expected = talker.animate(wav(), format="npz-stream").read()
    header, chunks = talker.animate(wav(), format="npz-stream").frames()
    again, others = read_frames(io.BytesIO(expected))
    assert header.fields == again.fields
    pairs = list(zip(chunks, others, strict=True))
    assert len(pairs) > 1
    assert all((one.positions == other.positions).all() for one, other in pairs)


def test_styles_are_listed_mixed_made_and_removed(talker: Talker) -> None:
    assert [style["id"] for style in talker.styles()] == ["calm", "neutral"]
    assert talker.mix_style("half", motion={"calm": 1, "neutral": 1}, description="half calm")["motion"]
    assert talker.add_style("mine", b"example 0.5")["origin"] == "upload"
    assert talker.style("mine")["id"] == "mine"
    talker.delete_style("mine")
    with pytest.raises(TalkerProblem, match="unknown style 'mine'") as refused:
        talker.style("mine")
    assert (refused.value.status, refused.value.code, refused.value.known) == (
        404,
        "unknown_style",
        ["calm", "half", "neutral"],
    )


def test_heads_are_listed_registered_fetched_and_removed(talker: Talker, engine: FakeEngine, tmp_path: Path) -> None:
    added = talker.add_template(b"head 2", name="me", texture=b"\x89PNG", landmarks={"nose_tip": [1, 2, 3]})
    assert added["report"] is not None
    assert engine.registered[0][1:3] == (b'{"nose_tip": [1, 2, 3]}', b"\x89PNG")
    (tmp_path / "places.json").write_text('{"nose_tip": [4, 5, 6]}')
    talker.add_template(b"head 3", landmarks=tmp_path / "places.json")
    assert engine.registered[1][1] == b'{"nose_tip": [4, 5, 6]}'
    assert "me" in [template["id"] for template in talker.templates()]
    assert talker.template("me")["vertices"] == 49
    assert talker.template_mesh("me").save(tmp_path / "me.glb").read_bytes().startswith(b"glTF")
    assert talker.template_preview("me").read().startswith(b"\x89PNG")
    talker.delete_template("me")
    with pytest.raises(TalkerProblem, match="unknown template"):
        talker.template("me")


def test_pictures_are_upsampled(talker: Talker, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64), (128, 128, 128)).save(tmp_path / "map.png")
    larger = talker.upsample(1024, map=tmp_path / "map.png")
    assert larger.name == "map.png"
    with Image.open(io.BytesIO(larger.read())) as image:
        assert image.size == (1024, 1024)
    assert talker.upsample(1024, map=tmp_path / "map.png", media_type="image/webp").media_type == "image/webp"


def test_info_and_readiness(talker: Talker, app: FastAPI) -> None:
    assert talker.info()["engines"] == ["mmtalker", "textalker"]
    assert talker.ready()
    app.state.runtime.warm_engine = None
    assert not talker.ready()


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"fps": 0}, "out_of_range", "fps"),
        ({"style": "clam"}, "unknown_style", "style"),
        ({"format": "fbx"}, "unsupported_media", "format"),
        ({"volume": 11}, "malformed", "volume"),
    ],
)
def test_a_refusal_has_the_services_fields(talker: Talker, fields: Any, code: str, field: str) -> None:
    with pytest.raises(TalkerProblem) as refused:
        talker.animate(wav(), **fields)
    problem = refused.value
    assert (problem.code, problem.field, problem.instance) == (code, field, "/animate")
    assert problem.status == problem.fields["status"]
    assert str(problem) == problem.detail == problem.fields["detail"]
    assert len(problem.request_id) == 32


def test_a_refusal_that_is_not_talkers_has_its_status_and_words() -> None:
    problem = problem_of(502, {}, b"<html>bad gateway</html>")
    assert (problem.status, problem.code, str(problem)) == (502, "http_502", "<html>bad gateway</html>")
    assert str(problem_of(500, {}, b"")) == "HTTP status 500"
    assert str(problem_of(400, {}, b"[1]")) == "[1]"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("7", 7.0), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("-1", None)],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value) == seconds


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_as_it_says(status: int, pauses: list[float]) -> None:
    """After its Retry-After and up to half of it more, with the whole upload."""
    bodies: list[bytes] = []

    def done(request: httpx2.Request) -> httpx2.Response:
        bodies.append(request.content)
        return httpx2.Response(200, content=b"glTF")

    file = io.BytesIO(wav())
    with scripted(busy(status, **{"Retry-After": "7"}), busy(status, **{"Retry-After": "7"}), done) as talker:
        assert talker.animate(file).read() == b"glTF"
    assert len(pauses) == 2
    assert all(7 <= seconds <= 10.5 for seconds in pauses)
    assert wav() in bodies[0]


def test_without_retry_after_it_waits_twice_as_long_each_time(pauses: list[float]) -> None:
    with scripted(busy(), retries=3) as talker, pytest.raises(TalkerBusy) as refused:
        talker.styles()
    assert (refused.value.code, refused.value.retry_after_s) == ("busy", None)
    assert all(0.5 * 2**k <= seconds <= 0.75 * 2**k for k, seconds in enumerate(pauses))
    assert len(pauses) == 3


def test_no_wait_is_longer_than_the_bound(pauses: list[float]) -> None:
    with scripted(busy(**{"Retry-After": "86400"}), retries=1) as talker, pytest.raises(TalkerBusy):
        talker.styles()
    assert pauses[0] <= flows.LONGEST_WAIT_S * 1.5


def test_retries_can_be_left_out(pauses: list[float]) -> None:
    with scripted(busy(), retries=0) as talker, pytest.raises(TalkerBusy):
        talker.styles()
    assert pauses == []


def test_what_may_have_arrived_is_sent_again_only_where_that_does_nothing_twice(pauses: list[float]) -> None:
    """A connection that was refused is tried again for everything."""
    lost, refused = httpx2.ReadError("reset"), httpx2.ConnectError("refused")
    made = httpx2.Response(201, json={"id": "x"})
    with scripted(lost, httpx2.Response(200, json=[])) as talker:
        assert talker.styles() == []
    with scripted(refused, made) as talker:
        assert talker.mix_style("x", motion="calm")["id"] == "x"
    with scripted(lost, made) as talker, pytest.raises(Unreachable, match=r"no answer from http://talker\.test/styles"):
        talker.mix_style("x", motion="calm")
    assert len(pauses) == 2


def test_nobody_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = "http://{}:{}".format(*listener.getsockname())
    with Talker(url, retries=0) as talker, pytest.raises(Unreachable, match=f"no answer from {url}/info"):
        talker.info()


def test_a_service_that_is_silent_too_long_is_not_asked_again(pauses: list[float]) -> None:
    with scripted(httpx2.ReadTimeout("")) as talker, pytest.raises(StreamCut, match="silent for too long"):
        talker.styles()
    assert pauses == []


@pytest.mark.parametrize(
    ("head", "body"),
    [(b"Transfer-Encoding: chunked", b"5\r\nTALKF\r\n"), (b"Content-Length: 100", b"TALKFRM1")],
)
def test_a_cut_stream_is_an_error_and_no_file(head: bytes, body: bytes, tmp_path: Path) -> None:
    with cut(body, head) as url, Talker(url) as talker:
        for read in (
            lambda animation: animation.save(tmp_path / "out.frames"),
            lambda animation: animation.read(),
            lambda animation: list(animation),
            lambda animation: animation.frames(),
        ):
            with pytest.raises(StreamCut, match="broke off"):
                read(talker.animate(wav()))
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_the_engine_fails_is_cut(talker: Talker, engine: FakeEngine, tmp_path: Path) -> None:
    """What was at the path before is there still."""
    (tmp_path / "out.frames").write_bytes(b"of yesterday")
    engine.fail_at = 3
    with pytest.raises(StreamCut):
        talker.animate(wav(), format="npz-stream").save(tmp_path / "out.frames")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"of yesterday"]


def test_another_format_has_no_frames(talker: Talker) -> None:
    with talker.animate(wav()) as animation, pytest.raises(FramesError, match="does not begin with"):
        animation.frames()


def test_a_short_answer_that_breaks_off_is_asked_for_again(pauses: list[float]) -> None:
    with cut(b"[", b"Content-Length: 9") as url, Talker(url, retries=2) as talker, pytest.raises(StreamCut):
        talker.styles()
    assert len(pauses) == 2


def test_closing_an_animation_frees_the_engine(talker: Talker, engine: FakeEngine) -> None:
    with talker.animate(wav(60.0), format="npz-stream"):
        wait_until(lambda: engine.made > 0)
    assert engine.closed.wait(WAIT_S)
    assert engine.made < 1800


@pytest.mark.parametrize("answer", [b"<html>", b'"a text"'])
def test_an_answer_that_is_not_talkers_is_refused(answer: bytes) -> None:
    with scripted(httpx2.Response(200, content=answer)) as talker:
        for ask in (talker.info, talker.styles):
            with pytest.raises(BadAnswer, match="wanted Talker's"):
                ask()


def test_the_key_goes_with_every_request_and_into_no_message() -> None:
    seen: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers["Authorization"])
        return httpx2.Response(200, json=[])

    with scripted(answer, api_key="tk_secret") as talker:
        talker.styles()
        talker.jobs()
    assert seen == ["Bearer tk_secret"] * 2
    with pytest.raises(MalformedInput, match="API key with characters") as refused:
        Talker("http://talker.test", "tk_secret\n")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["talker.test:8000", "ftp://talker.test", "http://", "http://h:port", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(MalformedInput, match="wanted one such as http"):
        Talker(url)


def test_an_address_may_have_a_path_and_ids_are_escaped() -> None:
    paths: list[bytes] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        paths.append(request.url.raw_path)
        return httpx2.Response(200, json={"id": "x"})

    with Talker("http://h/prefix", transport=httpx2.MockTransport(answer)) as talker:
        talker.style("a/b?c")
    assert paths == [b"/prefix/styles/a%2Fb%3Fc"]


def test_a_job_is_submitted_followed_and_fetched(tmp_path: Path, pauses: list[float]) -> None:
    """By its events; progress is told as it comes."""
    events = "".join(f"event: job\ndata: {json.dumps(card('running', k / 4))}\n\n" for k in (1, 2))
    events += f": still here\n\ndata: {json.dumps(card('done', 1.0))}\n\n"
    told: list[float] = []
    service = scripted(
        httpx2.Response(202, json=card("queued", position=3), headers={"Location": "/jobs/j1"}),
        httpx2.Response(200, json=card("queued", position=3)),
        httpx2.Response(200, text=events, headers={"Content-Type": "text/event-stream"}),
        httpx2.Response(200, content=b"glTF"),
        httpx2.Response(204),
    )
    with service as talker:
        job = talker.submit(wav(), fps=25)
        assert (job.id, job.state, job.ended) == ("j1", "queued", False)
        job.wait(lambda card: told.append(card["progress"]))
        assert (job.state, job.progress, job.ended) == ("done", 1.0, True)
        assert job.result(tmp_path / "out.glb").read_bytes() == b"glTF"
        job.cancel()
    assert told == [0.0, 0.25, 0.5, 1.0]
    assert [path.name for path in tmp_path.iterdir()] == ["out.glb"]


@pytest.mark.parametrize(
    "events",
    [
        httpx2.Response(404, json={"detail": "no events here", "status": 404}),
        httpx2.Response(200, json={}),
        httpx2.Response(200, text="data: no JSON\n\n", headers={"Content-Type": "text/event-stream"}),
        httpx2.Response(200, text="data: {}\n\n", headers={"Content-Type": "text/event-stream"}),
        httpx2.ReadTimeout(""),
        httpx2.ReadError("reset"),
    ],
)
def test_without_events_a_job_is_asked_for_until_it_ends(events: Any, pauses: list[float]) -> None:
    states = [httpx2.Response(200, json=card(state)) for state in ("queued", "running", "done")]
    with scripted(httpx2.Response(200, json=card("queued")), states[0], events, *states[1:]) as talker:
        assert talker.job("j1").wait().state == "done"


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_job_without_result_says_why(state: str) -> None:
    ended = httpx2.Response(200, json=card(state, error={"detail": "the audio is silence"}))
    with scripted(ended) as talker, pytest.raises(JobNotDone, match=f"j1 {state}: the audio is silence") as failed:
        talker.job("j1").wait()
    assert failed.value.card["state"] == state


def test_a_job_that_is_cancelled_meanwhile_is_told_by_its_events() -> None:
    """Afterwards the service knows it no longer."""
    events = f"event: cancelled\ndata: {json.dumps(card('cancelled'))}\n\n"
    told = httpx2.Response(200, text=events, headers={"Content-Type": "text/event-stream"})
    gone = httpx2.Response(404, json={"status": 404, "detail": "unknown job"})
    running = httpx2.Response(200, json=card("running"))
    with scripted(running, running, told, gone) as talker, pytest.raises(JobNotDone, match="j1 cancelled"):
        talker.job("j1").wait()


def test_jobs_are_listed_and_refreshed() -> None:
    with scripted(httpx2.Response(200, json=[card("queued")]), httpx2.Response(200, json=card("running"))) as talker:
        (job,) = talker.jobs()
        assert job.refresh().state == "running"


class RangeServer:
    """Serves a result that is cut every few bytes; `ranges` tells what was asked for."""

    def __init__(self, whole: bytes, step: int, obeys: bool = True) -> None:
        self.whole, self.step, self.obeys = whole, step, obeys
        self.ranges: list[str | None] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.ranges.append(asked := request.headers.get("Range"))
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.obeys else 0
        if start >= len(self.whole):
            return httpx2.Response(416, json={"status": 416, "detail": "no such bytes", "code": "bad_range"})
        headers = {"Content-Range": f"bytes {start}-{len(self.whole) - 1}/{len(self.whole)}"} if start else {}
        return httpx2.Response(206 if start else 200, headers=headers, stream=Broken(self.whole[start:], self.step))


class Broken(httpx2.SyncByteStream):
    def __init__(self, body: bytes, step: int) -> None:
        self._body, self._step = body, step

    def __iter__(self) -> Iterator[bytes]:
        yield self._body[: self._step]
        if len(self._body) > self._step:
            raise httpx2.ReadError("reset")


def test_a_result_that_is_cut_goes_on_where_it_broke_off(tmp_path: Path, pauses: list[float]) -> None:
    """More often than `retries`, as long as something came."""
    server = RangeServer(bytes(range(50)), 10)
    with scripted(httpx2.Response(200, json=card("done")), server, retries=2) as talker:
        assert talker.job("j1").result(tmp_path / "out").read_bytes() == server.whole
    assert server.ranges == [None, *(f"bytes={k}-" for k in (10, 20, 30, 40))]


def test_a_later_call_goes_on_with_what_an_earlier_one_left(tmp_path: Path) -> None:
    server = RangeServer(bytes(range(50)), 30)
    with scripted(httpx2.Response(200, json=card("done")), server, retries=0) as talker:
        job = talker.job("j1")
        with pytest.raises(StreamCut):
            job.result(tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert job.result(tmp_path / "out").read_bytes() == server.whole
    assert server.ranges == [None, "bytes=30-"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("left", "ranges"), [(50, ["bytes=50-", None]), (70, ["bytes=70-", None])])
def test_a_rest_that_holds_everything_is_fetched_anew(left: int, ranges: list[str | None], tmp_path: Path) -> None:
    server = RangeServer(bytes(range(50)), 50)
    (tmp_path / ".out.j1.partial").write_bytes(bytes(left))
    with scripted(httpx2.Response(200, json=card("done")), server) as talker:
        assert talker.job("j1").result(tmp_path / "out").read_bytes() == server.whole
    assert server.ranges == ranges


def test_a_service_that_ignores_ranges_begins_anew(tmp_path: Path) -> None:
    server = RangeServer(bytes(range(50)), 50, obeys=False)
    (tmp_path / ".out.j1.partial").write_bytes(b"other")
    with scripted(httpx2.Response(200, json=card("done")), server) as talker:
        assert talker.job("j1").result(tmp_path / "out").read_bytes() == server.whole


def test_other_bytes_than_were_asked_for_are_refused(tmp_path: Path) -> None:
    (tmp_path / ".out.j1.partial").write_bytes(b"12345")
    other = httpx2.Response(206, content=b"x", headers={"Content-Range": "bytes 7-8/9"})
    with scripted(httpx2.Response(200, json=card("done")), other) as talker:
        job = talker.job("j1")
        with pytest.raises(BadAnswer, match="'bytes 7-8/9' of the result came; wanted bytes from 5 on"):
            job.result(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_result_that_is_not_there_yet_is_refused(tmp_path: Path) -> None:
    early = httpx2.Response(409, json={"status": 409, "detail": "it is not finished", "code": "not_finished"})
    with scripted(httpx2.Response(200, json=card("running")), early) as talker:
        job = talker.job("j1")
        with pytest.raises(TalkerProblem, match="not finished"):
            job.result(tmp_path / "out")


def test_both_clients_have_the_same_methods() -> None:
    """With the same arguments, and every one of the asynchronous ones to be awaited."""
    for one, other in ((Talker, AsyncTalker), (Download, AsyncDownload), (Animation, AsyncAnimation), (Job, AsyncJob)):
        names = [name for name, value in inspect.getmembers(one, inspect.isfunction) if name[0] != "_"]
        assert names == [name for name, value in inspect.getmembers(other, inspect.isfunction) if name[0] != "_"]
        for name in names:
            mine, theirs = getattr(one, name), getattr(other, name)
            assert [*inspect.signature(mine).parameters.values()] == [*inspect.signature(theirs).parameters.values()]
            assert inspect.iscoroutinefunction(theirs)


def test_the_asynchronous_client_gets_the_same(url: str, tmp_path: Path) -> None:
    async def ask() -> None:
        async with AsyncTalker(url) as talker:
            assert await talker.ready()
            assert [style["id"] for style in await talker.styles()] == ["calm", "neutral"]
            animation = await talker.animate(wav(), format="npz-stream")
            body = await animation.read()
            assert (
                await (await talker.animate(wav(), format="npz-stream")).save(tmp_path / "out")
            ).read_bytes() == body
            assert b"".join([chunk async for chunk in await talker.animate(wav(), format="npz-stream")]) == body
            header, chunks = await (await talker.animate(wav(), format="npz-stream")).frames()
            assert sum([len(chunk.positions) async for chunk in chunks]) == header.frame_count == 6
            async with await talker.animate(wav(30.0), format="npz-stream"):
                pass
            with pytest.raises(TalkerProblem, match="unknown style 'clam'"):
                await talker.animate(wav(), style="clam")

    asyncio.run(ask())


def test_asynchronous_streams_that_are_cut_are_errors(tmp_path: Path) -> None:
    async def ask(url: str) -> None:
        async with AsyncTalker(url) as talker:
            with pytest.raises(StreamCut):
                await (await talker.animate(wav())).save(tmp_path / "out")
            with pytest.raises(StreamCut):
                await (await talker.animate(wav())).frames()

    with cut(b"5\r\nTALKF\r\n") as url:
        asyncio.run(ask(url))
    assert list(tmp_path.iterdir()) == []


def test_asynchronous_jobs_are_followed_and_fetched(tmp_path: Path, pauses: list[float]) -> None:
    events = f"data: {json.dumps(card('running', 0.5))}\n\ndata: {json.dumps(card('done', 1.0))}\n\n"
    answers = [
        httpx2.Response(202, json=card("queued")),
        httpx2.Response(503, json=BUSY),
        httpx2.Response(200, json=card("running")),
        httpx2.Response(200, text=events, headers={"Content-Type": "text/event-stream"}),
        httpx2.Response(200, content=b"glTF"),
        httpx2.Response(200, json=[card("done")]),
        httpx2.Response(204),
    ]

    async def ask() -> list[float]:
        told: list[float] = []
        transport = httpx2.MockTransport(lambda _: answers.pop(0))
        async with AsyncTalker("http://talker.test", transport=transport) as talker:
            job = await talker.submit(wav())
            await job.wait(lambda card: told.append(card["progress"]))
            assert (await job.result(tmp_path / "out")).read_bytes() == b"glTF"
            (listed,) = await talker.jobs()
            await listed.cancel()
        return told

    assert asyncio.run(ask()) == [0.0, 0.5, 1.0]
    assert len(pauses) == 1


@pytest.mark.parametrize("failure", [KeyboardInterrupt, asyncio.CancelledError])
def test_an_interrupted_download_leaves_nothing(failure: type[BaseException], tmp_path: Path) -> None:
    class Interrupted(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b"glTF"
            raise failure

    with scripted(httpx2.Response(200, stream=Interrupted())) as talker, pytest.raises(failure):
        talker.animate(wav()).save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_types_are_the_contracts() -> None:
    assert cards.AnimateFields.__annotations__.keys() == AnimateForm.model_fields.keys() - {"audio"}
    for mine, theirs in ((cards.StyleCard, StyleCard), (cards.TemplateCard, TemplateCard)):
        assert mine.__annotations__.keys() == theirs.model_fields.keys()


def test_the_examples_of_the_page_run(
    app: FastAPI, url: str, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "client.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    Path("speech.wav").write_bytes(wav())
    engine.styles |= {"smiling": engine.styles["calm"], "sad": engine.styles["neutral"]}
    served = {getattr(route, "path", "") for route in app.routes}
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        if "submit(" not in block or "/jobs" in served:
            exec(block.replace("http://127.0.0.1:8000", url), {})
    assert {"head.glb", "head-0.glb", "head-1.glb", "head-2.glb"} <= {path.name for path in tmp_path.iterdir()}


def test_the_page_names_every_method_and_error() -> None:
    page = (Path(__file__).parents[1] / "docs" / "client.md").read_text(encoding="utf-8")
    methods = {name for name, _ in inspect.getmembers(Talker, inspect.isfunction) if name[0] != "_"}
    errors = {
        name
        for name, value in vars(problems).items()
        if inspect.isclass(value) and value.__module__ == problems.__name__
    }
    assert {name for name in methods | errors if f"`{name}`" not in page} == set()
