"""Every refusal and every failure is an RFC 9457 problem with the request's id."""

import logging
import re

import pytest
from conftest import FakeEngine, wav
from fastapi import FastAPI
from fastapi.testclient import TestClient

from models import errors
from models.errors import CheckpointError
from service.problems import MEDIA_TYPE, NotAcceptable, NotReady, status_of

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "field", "request_id"}
TREE = errors.__doc__ or ""


def test_the_table_is_the_tree_that_errors_draws() -> None:
    """Class by class, the statuses of models.errors' docstring, and what the service adds."""
    drawn = {getattr(errors, name): int(status) for name, status in re.findall(r"─ (\w+) .*?(\d{3})$", TREE, re.M)}
    assert len(drawn) == 13
    assert {cls: status_of(cls) for cls in drawn} == drawn
    assert (status_of(NotAcceptable), status_of(NotReady)) == (406, 503)


def test_a_problem_has_every_member(client: TestClient) -> None:
    response = client.get("/templates/nobody")
    problem = response.json()
    assert response.headers["content-type"] == MEDIA_TYPE
    assert problem.keys() == MEMBERS | {"known"}
    assert (problem["type"], problem["title"], problem["status"]) == ("about:blank", "Not Found", 404)
    assert problem["instance"] == "/templates/nobody"
    assert problem["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "field"),
    [
        ("GET", "/nowhere", 404, "not_found", None),
        ("GET", "/templates/", 404, "not_found", None),
        ("GET", "/docs/assets/nothing.js", 404, "not_found", None),
        ("GET", "/animate", 405, "method_not_allowed", None),
        ("POST", "/info", 405, "method_not_allowed", None),
        ("GET", "/info?verbose=1", 400, "malformed", "verbose"),
        ("GET", "/docs?x=1", 400, "malformed", "x"),
        ("GET", "/openapi.json?x", 400, "malformed", "x"),
        ("GET", "/health/live?x=1", 400, "malformed", "x"),
    ],
)
def test_routing_refuses_with_problems(
    client: TestClient, method: str, path: str, status: int, code: str, field: str | None
) -> None:
    response = client.request(method, path)
    problem = response.json()
    assert response.headers["content-type"] == MEDIA_TYPE
    assert (response.status_code, problem["code"], problem["field"]) == (status, code, field)
    assert response.headers["x-request-id"] == problem["request_id"]
    assert (response.headers.get("allow") is not None) == (status == 405)


def test_fastapis_own_validation_is_a_problem(app: FastAPI, client: TestClient) -> None:
    """No route of ours lets it come to that; one of tomorrow may."""

    @app.get("/takes/{number}")
    async def take(number: int) -> int:
        return number

    response = client.get("/takes/three")
    assert (response.status_code, response.headers["content-type"]) == (400, MEDIA_TYPE)
    assert (response.json()["code"], response.json()["field"]) == ("malformed", "number")


@pytest.mark.parametrize("failure", [RuntimeError("/secret/path"), CheckpointError("/secret/path")])
def test_a_failure_is_a_500_that_tells_nothing_but_is_logged_under_its_id(
    client: TestClient, engine: FakeEngine, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    engine.fail_at, engine.failure = 0, failure
    with caplog.at_level(logging.ERROR):
        response = client.post("/animate", files={"audio": wav()}, data={"format": "glb"})
    problem = response.json()
    assert (response.status_code, response.headers["content-type"], problem["code"]) == (500, MEDIA_TYPE, "internal")
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == problem["request_id"]
    record = next(r for r in caplog.records if problem["request_id"] in r.getMessage())
    assert record.exc_info is not None
    assert record.exc_info[1] is failure


@pytest.mark.parametrize("mine", ["take-7", "a.b_C-9", "x" * 128])
def test_a_well_formed_request_id_is_kept(client: TestClient, mine: str) -> None:
    assert client.get("/health/live", headers={"X-Request-Id": mine}).headers["x-request-id"] == mine


@pytest.mark.parametrize("mine", ["", "two words", "x" * 129, "a\tb", "<script>"])
def test_an_ill_formed_request_id_is_replaced(client: TestClient, mine: str) -> None:
    answers = [client.get("/health/live", headers={"X-Request-Id": mine}).headers["x-request-id"] for _ in range(2)]
    assert mine not in answers
    assert len(set(answers)) == 2
    assert all(len(answer) == 32 for answer in answers)


def test_no_other_origin_is_let_in(client: TestClient) -> None:
    """CORS is off."""
    response = client.get("/info", headers={"Origin": "https://elsewhere.example"})
    assert not any(name.startswith("access-control") for name in response.headers)
