"""`GET /metrics`: what Prometheus sees of requests, the queue and the engine."""

import threading

import pytest
from conftest import FakeEngine, wait_until, wav
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from test_stream import Connect, connect, read_all, request  # noqa: F401  a fixture is imported to be used

from service.metrics import Metrics


def numbers(client: TestClient) -> dict[tuple[str, ...], float]:
    """Each sample by its name and the values of its labels."""
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(response.text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_requests_are_counted_by_route_method_and_status(client: TestClient) -> None:
    """Routes as the contract writes them: what clients make up is one number."""
    for path in ("/styles/calm", "/styles/neutral", "/styles/nobody", "/nowhere", "/nowhere/else"):
        client.get(path)
    client.head("/styles/calm")
    client.request("BREW", "/info")
    seen = numbers(client)
    assert seen["talker_requests_total", "GET", "/styles/{id}", "200"] == 3
    assert seen["talker_requests_total", "GET", "/styles/{id}", "404"] == 1
    assert seen["talker_requests_total", "GET", "unmatched", "404"] == 2
    assert seen["talker_requests_total", "other", "/info", "405"] == 1
    assert seen["talker_request_seconds_count", "/styles/{id}"] == 4


@pytest.mark.parametrize("fields", [{"format": "npz-stream"}, {"format": "codes", "engine": "textalker"}])
def test_an_animation_is_measured_by_its_stages(client: TestClient, fields: dict[str, str]) -> None:
    client.post("/animate", files={"audio": wav()}, data=fields).raise_for_status()
    seen, engine = numbers(client), fields.get("engine", "mmtalker")
    for stage in ("decode", "engine", "encode"):
        assert seen["talker_stage_seconds_count", stage] == 1
        assert seen["talker_stage_seconds_sum", stage] > 0
    assert seen["talker_first_frame_seconds_count", engine] == 1
    assert seen["talker_queue_seconds_count",] == 1
    if engine == "mmtalker":
        assert seen["talker_frames_total", engine] == 6
        assert seen["talker_real_time_factor_count", engine] == 1


def test_the_engines_time_and_the_encoders_are_told_apart(client: TestClient, engine: FakeEngine) -> None:
    engine.hold_at = 3
    threading.Timer(0.3, engine.gate.set).start()
    client.post("/animate", files={"audio": wav()}).raise_for_status()
    seen = numbers(client)
    assert seen["talker_stage_seconds_sum", "engine"] > 0.2
    assert seen["talker_stage_seconds_sum", "encode"] < 0.2


def test_the_queue_and_the_slots_are_shown_as_they_are(
    app: FastAPI,
    connect: Connect,  # noqa: F811
    engine: FakeEngine,
) -> None:
    engine.hold_at = 2
    reader = TestClient(app)
    with connect() as first, connect() as second:
        first.sendall(request(format="npz-stream"))
        assert engine.held.wait(20)
        second.sendall(request(format="npz-stream"))
        wait_until(lambda: app.state.runtime.slots.waiting == 1)
        seen = numbers(reader)
        names = ("slots", "slots_held", "queue_depth", "requests_under_way", "ready")
        assert [seen[f"talker_{name}",] for name in names] == [1, 1, 1, 2, 1]
        engine.gate.set()
        read_all(first), read_all(second)
    wait_until(lambda: numbers(reader)["talker_slots_held",] == 0)


def test_the_engines_own_numbers_and_the_process_are_shown(client: TestClient) -> None:
    seen = numbers(client)
    assert seen["talker_engine_device_memory_used_bytes",] == 5e9
    assert seen["process_resident_memory_bytes",] > 10e6


@pytest.mark.parametrize("reason", ["failed", "left"])
def test_a_stream_that_is_cut_is_counted_with_its_reason(
    app: FastAPI,
    connect: Connect,  # noqa: F811
    engine: FakeEngine,
    reason: str,
) -> None:
    engine.fail_at = 20 if reason == "failed" else None
    engine.hold_at = 5
    with connect() as connection:
        connection.sendall(request(format="npz-stream"))
        assert connection.recv(100)
        if reason == "failed":
            engine.gate.set()
            read_all(connection)
    engine.gate.set()
    wait_until(lambda: numbers(TestClient(app)).get(("talker_streams_cut_total", reason)) == 1)


def test_other_parts_show_numbers_of_their_own() -> None:
    metrics, jobs = Metrics(), {"queued": 2.0, "running": 1.0}
    metrics.watch_by("jobs", "Jobs by state", "state", lambda: jobs)
    metrics.watch("live_sessions", "Live sessions", lambda: 3)
    text = metrics.render().decode()
    assert 'talker_jobs{state="queued"} 2.0' in text
    assert "talker_live_sessions 3.0" in text
    jobs["queued"] = 7
    assert 'talker_jobs{state="queued"} 7.0' in metrics.render().decode()
