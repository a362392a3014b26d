"""Traces, by the standard variables of OpenTelemetry."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.errors import MalformedInput
from service.traces import install_traces

ROOT = Path(__file__).parents[1]
PROGRAM = """
from conftest import FakeEngine, wait_until, wav
from fastapi.testclient import TestClient
from service.app import create_app
from service.traces import install_traces

install_traces()
with TestClient(create_app(engine=FakeEngine())) as client:
    wait_until(lambda: client.get("/health/ready").status_code == 200)
    traceparent = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
    client.post("/animate", files={"audio": wav()}, headers=traceparent).raise_for_status()
"""


def spans(**variables: str) -> list[dict]:
    """What the console exporter writes of one animation."""
    environment = os.environ | variables | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    decoder, text, found = json.JSONDecoder(), run.stdout.strip(), []
    while text:
        span, end = decoder.raw_decode(text)
        found.append(span)
        text = text[end:].lstrip()
    return found


def test_a_request_is_a_span_and_its_stages_are_spans_below_it() -> None:
    """Below the caller's own, which came with the request."""
    traced = [
        span
        for span in spans(OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="studio")
        if span["context"]["trace_id"] == "0x" + "a" * 32
    ]
    by_name = {span["name"]: span for span in traced}
    assert set(by_name) == {"POST /animate", "queue", "decode", "animate", "encode"}
    request = by_name["POST /animate"]
    assert request["parent_id"] == "0x" + "b" * 16
    assert request["attributes"]["http.response.status_code"] == 200
    assert request["resource"]["attributes"]["service.name"] == "studio"
    for name in set(by_name) - {"POST /animate"}:
        assert by_name[name]["parent_id"] == request["context"]["span_id"], name
    assert by_name["animate"]["attributes"]["frames"] == 6


@pytest.mark.parametrize("variables", [{}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_nothing_is_traced_unless_it_is_asked_for(variables: dict[str, str]) -> None:
    assert spans(**variables) == []


def test_an_exporter_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(MalformedInput, match="wanted otlp, console or none"):
        install_traces()


def test_without_the_sdk_traces_are_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MalformedInput, match=r"talker\[otel\]"):
        install_traces()
