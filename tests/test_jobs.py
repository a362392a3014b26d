"""/jobs: the form of /animate, made later: what clients see of it."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FakeEngine, fake_style, wait_until, wav
from fastapi import FastAPI
from fastapi.testclient import TestClient
from test_animate import TEXTURED
from test_pictures import encoded

from models.audio import AudioLimits, decode_audio
from models.core import Waveform
from service.app import create_app
from service.client import client_of
from service.encoders import ENCODERS
from service.settings import Settings

FILES = {"audio": ("speech.wav", wav())}
UNKNOWN = "0" * 32


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(port=0, concurrency=1, queue=1, log_level="warning", jobs=tmp_path / "jobs", jobs_per_client=3)


@pytest.fixture
def client(app: FastAPI, engine: FakeEngine) -> Iterator[TestClient]:
    """Whatever a test leaves held is let go when it ends."""
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield client
        engine.gate.set()


def submit(client: TestClient, files: dict[str, Any] = FILES, **fields: str) -> str:
    response = client.post("/jobs", data=fields, files=files)
    assert response.status_code == 202, response.text
    assert response.headers["location"] == f"/jobs/{response.json()['id']}"
    return str(response.json()["id"])


def state_of(client: TestClient, id: str) -> str:
    return str(client.get(f"/jobs/{id}").json().get("state"))


def result_of(client: TestClient, id: str) -> bytes:
    wait_until(lambda: state_of(client, id) in ("done", "failed"))
    response = client.get(f"/jobs/{id}/result")
    assert response.status_code == 200, client.get(f"/jobs/{id}").text
    return response.content


def left(settings: Settings) -> set[str]:
    """What lies in the jobs' folder besides the ledger."""
    return {path.name for name in ("inbox", "drafts", "results") for path in (settings.jobs / name).iterdir()}


def held_job(client: TestClient, engine: FakeEngine, at: int = 3, **fields: str) -> str:
    """A job that runs, and has made `at` frames."""
    engine.hold_at = at
    id = submit(client, **fields)
    wait_until(engine.held.is_set)
    return id


@pytest.mark.parametrize("name", ENCODERS)
def test_the_result_is_what_animate_answers(client: TestClient, name: str) -> None:
    fields = {"format": name, "fps": "24", "seed": "7", "style": "calm", "intensity": "0.5", **TEXTURED.get(name, {})}
    answer = client.post("/animate", data=fields, files=FILES)
    id = submit(client, **fields)
    assert result_of(client, id) == answer.content
    response = client.get(f"/jobs/{id}/result")
    for header in ("content-type", "content-disposition"):
        assert response.headers[header] == answer.headers[header]


def test_every_upload_of_the_form_is_kept_until_the_job_is_made(client: TestClient, settings: Settings) -> None:
    """And no longer."""
    files = FILES | {
        "template_file": ("me.obj", b"head 2"),
        "style_file": ("me.pivot", b"example 0.5"),
        "neutral_file": ("skin.png", encoded(np.full((64, 64, 3), 90, np.uint8))),
    }
    answer = client.post("/animate", files=files)
    assert answer.status_code == 200
    id = submit(client, files)
    assert result_of(client, id) == answer.content
    wait_until(lambda: left(settings) == {id})


def test_a_job_that_is_done_tells_so(client: TestClient) -> None:
    id = submit(client, format="npz-stream")
    content = result_of(client, id)
    card = client.get(f"/jobs/{id}").json()
    assert (card["state"], card["progress"], card["position"], card["eta_s"], card["error"]) == (
        *("done", 1.0, None, None, None),
    )
    assert card["created"] <= card["started"] <= card["finished"]
    assert card["result"]["path"] == f"/jobs/{id}/result"
    assert (card["result"]["size"], card["result"]["file_name"]) == (len(content), "speech.frames")
    assert [card["id"] for card in client.get("/jobs").json()] == [id]


def test_progress_is_the_share_of_the_frames(client: TestClient, engine: FakeEngine) -> None:
    """Three of six; a format that waits for the last frame has work left after it."""
    id = held_job(client, engine, format="npz-stream")
    wait_until(lambda: client.get(f"/jobs/{id}").json()["progress"] == 0.5)
    assert client.get(f"/jobs/{id}").json()["eta_s"] >= 0
    client.delete(f"/jobs/{id}")
    engine.gate.set()
    engine.held.clear()
    wait_until(engine.closed.is_set)
    engine.gate.clear()
    id = held_job(client, engine, format="glb")
    wait_until(lambda: client.get(f"/jobs/{id}").json()["progress"] == 0.4)


def test_jobs_wait_in_their_order(client: TestClient, engine: FakeEngine) -> None:
    running = held_job(client, engine)
    waiting = [submit(client), submit(client)]
    assert [client.get(f"/jobs/{id}").json()["position"] for id in (running, *waiting)] == [None, 1, 2]
    assert [card["id"] for card in client.get("/jobs").json()] == [*reversed(waiting), running]
    engine.gate.set()
    for id in (running, *waiting):
        result_of(client, id)


@pytest.mark.parametrize(
    ("fields", "files", "status", "code"),
    [
        ({"fps": "0"}, FILES, 422, "out_of_range"),
        ({"style": "clam"}, FILES, 404, "unknown_style"),
        ({"template": "nobody"}, FILES, 404, "unknown_template"),
        ({"texture": "512"}, FILES, 422, "impossible_combination"),
        ({"format": "mp4"}, FILES, 415, "unsupported_media"),
        ({"colour": "red"}, FILES, 400, "malformed"),
        ({}, {"audio": ("speech.wav", b"no speech")}, 415, None),
        ({}, FILES | {"template_file": ("me.obj", b"closed")}, 422, "mouth_sealed"),
        ({}, FILES | {"style_file": ("me.pivot", b"nothing")}, 415, "not_example"),
        ({}, {}, 400, "malformed"),
    ],
)
def test_what_animate_refuses_is_refused_before_it_is_accepted(
    client: TestClient, settings: Settings, fields: dict[str, str], files: Any, status: int, code: str | None
) -> None:
    files = files or {"other": b""}
    animate, job = (client.post(path, data=fields, files=files) for path in ("/animate", "/jobs"))
    assert (job.status_code, job.json()["code"]) == (status, code or job.json()["code"])
    same = ("status", "detail", "code", "field")
    assert [job.json()[name] for name in same] == [animate.json()[name] for name in same]
    assert client.get("/jobs").json() == []
    assert left(settings) == set()


def test_a_client_with_too_many_unfinished_jobs_is_told(client: TestClient, engine: FakeEngine) -> None:
    held_job(client, engine)
    submit(client), submit(client)
    response = client.post("/jobs", files=FILES)
    assert (response.status_code, response.json()["code"]) == (429, "too_many_jobs")
    assert int(response.headers["retry-after"]) > 0
    assert len(client.get("/jobs").json()) == 3


def test_a_full_queue_is_busy(tmp_path: Path, engine: FakeEngine) -> None:
    app = create_app(Settings(jobs=tmp_path, jobs_queue=1), engine)
    with TestClient(app) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        held_job(client, engine)
        response = client.post("/jobs", files=FILES)
        assert (response.status_code, response.json()["code"]) == (503, "busy")
        assert int(response.headers["retry-after"]) > 0
        engine.gate.set()


def test_jobs_are_accepted_while_every_slot_and_the_queue_are_taken(
    app: FastAPI, client: TestClient, engine: FakeEngine
) -> None:
    """They need none until they run; and they run when nobody waits."""
    engine.hold_at = 0
    posts = [threading.Thread(target=client.post, args=("/animate",), kwargs={"files": FILES}) for _ in range(2)]
    for post in posts:
        post.start()
    wait_until(lambda: engine.held.is_set() and app.state.runtime.slots.waiting == 1)
    id = submit(client, format="npz-stream")
    assert state_of(client, id) == "queued"
    engine.gate.set()
    result_of(client, id)
    for post in posts:
        post.join()


def test_requests_come_first(tmp_path: Path, engine: FakeEngine) -> None:
    """A job that came before a request waits until nobody else does."""
    app = create_app(Settings(jobs=tmp_path, concurrency=1), engine)
    with TestClient(app) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        slots, engine.hold_at = app.state.runtime.slots, 0
        posts = [
            threading.Thread(target=client.post, args=("/animate",), kwargs={"files": FILES, "data": {"seed": seed}})
            for seed in "12"
        ]
        posts[0].start()
        wait_until(engine.held.is_set)
        id = submit(client, seed="9")
        time.sleep(0.3)  # enough for a job that did not wait to have queued
        posts[1].start()
        wait_until(lambda: slots.waiting > 0)
        engine.gate.set()
        result_of(client, id)
        for post in posts:
            post.join()
    assert [options.seed for _, options in engine.calls] == [1, 9, 2, 9]  # the job's first is its check


@pytest.mark.parametrize("path", ["", "/events", "/result"])
def test_an_unknown_job_is_404(client: TestClient, path: str) -> None:
    id = submit(client)
    response = client.get(f"/jobs/{UNKNOWN}{path}")
    assert (response.status_code, response.json()["code"]) == (404, "unknown_job")
    assert response.json()["known"] == [id]
    assert client.delete(f"/jobs/{UNKNOWN}").status_code == 404


def test_a_client_sees_its_own_jobs_alone(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    id = submit(client)
    result_of(client, id)
    monkeypatch.setattr("service.runtime.client_of", lambda scope: "somebody else")
    assert client.get("/jobs").json() == []
    for path in ("", "/events", "/result"):
        response = client.get(f"/jobs/{id}{path}")
        assert (response.status_code, response.json()["known"]) == (404, [])
    assert client.delete(f"/jobs/{id}").status_code == 404
    monkeypatch.undo()
    assert state_of(client, id) == "done"


def test_a_client_is_its_key_or_its_address() -> None:
    assert client_of({"state": {"client": "studio"}, "client": ("10.0.0.1", 1)}) == "studio"
    assert client_of({"state": {}, "client": ("10.0.0.1", 1)}) == "10.0.0.1"
    assert client_of({"client": None}) == "local"


def test_the_result_of_an_unfinished_job_is_a_conflict(client: TestClient, engine: FakeEngine) -> None:
    id = held_job(client, engine)
    response = client.get(f"/jobs/{id}/result")
    assert (response.status_code, response.json()["code"]) == (409, "not_finished")


def test_a_failed_job_says_why(client: TestClient, engine: FakeEngine, settings: Settings) -> None:
    """As a problem that tells nothing of the inside, and has no result."""
    engine.fail_at = 2
    id = submit(client)
    wait_until(lambda: state_of(client, id) == "failed")
    error = client.get(f"/jobs/{id}").json()["error"]
    assert (error["status"], error["code"], error["instance"]) == (500, "internal", f"/jobs/{id}")
    assert "secret" not in json.dumps(error)
    response = client.get(f"/jobs/{id}/result")
    assert (response.status_code, response.json()["code"]) == (409, "not_finished")
    wait_until(lambda: left(settings) == set())


def test_a_job_whose_style_is_gone_when_it_runs_fails_with_that(client: TestClient, engine: FakeEngine) -> None:
    engine.styles["mine"] = fake_style("mine", "mix")
    first = held_job(client, engine)
    second = submit(client, style="mine")
    del engine.styles["mine"]
    engine.gate.set()
    result_of(client, first)
    wait_until(lambda: state_of(client, second) == "failed")
    error = client.get(f"/jobs/{second}").json()["error"]
    assert (error["status"], error["code"], error["known"]) == (404, "unknown_style", ["calm", "neutral"])


def test_removing_a_running_job_stops_it_at_the_next_frame(
    app: FastAPI, client: TestClient, engine: FakeEngine, settings: Settings
) -> None:
    """The engine is free then, and nothing of the job is left."""
    id = held_job(client, engine, format="glb")
    assert client.delete(f"/jobs/{id}").status_code == 204
    assert state_of(client, id) == "None"
    engine.gate.set()
    wait_until(engine.closed.is_set)
    assert engine.made == 4
    wait_until(lambda: left(settings) == set() and app.state.runtime.slots.spare)


def test_removing_a_waiting_or_a_finished_job_leaves_nothing(
    client: TestClient, engine: FakeEngine, settings: Settings
) -> None:
    running, waiting = held_job(client, engine), submit(client)
    assert client.delete(f"/jobs/{waiting}").status_code == 204
    engine.gate.set()
    result_of(client, running)
    assert client.delete(f"/jobs/{running}").status_code == 204
    assert client.get("/jobs").json() == []
    wait_until(lambda: left(settings) == set())
    assert len(engine.calls) == 3  # two checks, one run


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def test_events_tell_the_progress_and_end_with_the_state(client: TestClient, engine: FakeEngine) -> None:
    """`Last-Event-ID`, which browsers send when they come again, does no harm."""
    id = held_job(client, engine, format="npz-stream")
    threading.Timer(1.0, engine.gate.set).start()
    response = client.get(f"/jobs/{id}/events", headers={"Last-Event-ID": "7"})
    assert response.headers["content-type"].startswith("text/event-stream")
    told = events(response.text)
    assert {name for name, _ in told[:-1]} == {"running"}
    assert told[0][1]["progress"] == 0.5
    assert (told[-1][0], told[-1][1]["state"], told[-1][1]["progress"]) == ("done", "done", 1.0)


def test_events_of_a_removed_job_end_with_cancelled(client: TestClient, engine: FakeEngine) -> None:
    id = held_job(client, engine)
    threading.Timer(0.3, client.delete, args=(f"/jobs/{id}",)).start()
    assert events(client.get(f"/jobs/{id}/events").text)[-1][0] == "cancelled"


def test_a_comment_keeps_the_line_of_events_open(
    client: TestClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.05)
    id = held_job(client, engine)
    waiting = submit(client)
    threading.Timer(0.3, engine.gate.set).start()
    assert "\n: ping\n" in client.get(f"/jobs/{waiting}/events").text
    result_of(client, id)


def test_parts_of_a_result(client: TestClient) -> None:
    id = submit(client, format="npz-stream")
    content, path = result_of(client, id), f"/jobs/{id}/result"
    size, etag = len(content), client.get(path).headers["etag"]
    for asked, part in (("0-", content), ("3-9", content[3:10]), ("-5", content[-5:]), (f"9-{size}", content[9:])):
        response = client.get(path, headers={"Range": f"bytes={asked}", "If-Range": etag})
        assert (response.status_code, response.content) == (206, part)
        assert response.headers["content-range"] == f"bytes {size - len(part) if asked != '3-9' else 3}-" + (
            f"{9 if asked == '3-9' else size - 1}/{size}"
        )
    for asked in ("bytes=0-1,3-", "frames=3-9", "3-9"):
        assert client.get(path, headers={"Range": asked}).content == content
    assert client.get(path, headers={"Range": "bytes=3-9", "If-Range": '"another"'}).content == content
    for asked in (f"{size}-", "9-3", "-0", "a-b", "-"):
        response = client.get(path, headers={"Range": f"bytes={asked}"})
        assert (response.status_code, response.json()["code"]) == (416, "bad_range")
        assert response.headers["content-range"] == f"bytes */{size}"
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 304
    assert client.head(path).headers["content-length"] == str(size)


def test_finished_jobs_expire(tmp_path: Path, engine: FakeEngine) -> None:
    """With their results; a job that expired is unknown."""
    settings = Settings(jobs=tmp_path, jobs_ttl_s=0.3)
    with TestClient(create_app(settings, engine)) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        id = submit(client)
        wait_until(lambda: client.get(f"/jobs/{id}").status_code == 404)
        assert client.get("/jobs").json() == []
        wait_until(lambda: left(settings) == set())


def test_the_oldest_results_make_room(tmp_path: Path, engine: FakeEngine) -> None:
    """And one that is too large by itself fails."""
    size = 6816
    with TestClient(create_app(Settings(jobs=tmp_path, jobs_max_bytes=2 * size + 9), engine)) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        ids = []
        for _ in range(3):
            ids.append(submit(client, format="npz-stream"))
            assert len(result_of(client, ids[-1])) == size
        assert [card["id"] for card in client.get("/jobs").json()] == [ids[2], ids[1]]
        large = submit(client, format="npz-stream", fps="120")
        wait_until(lambda: state_of(client, large) == "failed")
        assert client.get(f"/jobs/{large}").json()["error"]["code"] == "too_large"
        assert state_of(client, ids[2]) == "done"


def test_until_the_folder_is_free_jobs_are_not_ready(tmp_path: Path, engine: FakeEngine) -> None:
    """Another process has it; everything else is served, and the jobs are there once that process ends."""
    first, second = (TestClient(create_app(Settings(jobs=tmp_path), engine)) for _ in range(2))
    with ExitStack() as late:
        with first:
            wait_until(lambda: first.get("/health/ready").status_code == 200)
            id = submit(first)
            late.enter_context(second)
            response = second.get("/jobs")
            assert (response.status_code, response.json()["code"]) == (503, "not_ready")
            assert int(response.headers["retry-after"]) > 0
            wait_until(lambda: second.get("/health/ready").status_code == 200)
        wait_until(lambda: second.get("/jobs").status_code == 200)
        result_of(second, id)


class Wall:
    """Stands where a service decodes, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def decode(self, file: Any, limits: AudioLimits) -> Waveform:
        self.calls += 1
        return decode_audio(file, limits)

    def close(self) -> None:
        return


def test_sound_is_decoded_where_the_services_is(app: FastAPI, client: TestClient) -> None:
    """Behind its wall, when the form is checked and when the job is made."""
    app.state.runtime.isolation = wall = Wall()
    result_of(client, submit(client))
    assert wall.calls == 2
