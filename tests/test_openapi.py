"""openapi.yaml and the running app, held to each other in both directions."""

from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import schemathesis
import yaml
from conftest import FakeEngine, wav
from fastapi import FastAPI
from hypothesis import HealthCheck
from hypothesis import settings as budget
from openapi_spec_validator import validate
from schemathesis.specs.openapi.checks import positive_data_acceptance

from service.app import create_app
from service.contract import REASONS
from service.encoders import ENCODERS
from service.openapi import render_contract
from service.problems import MEDIA_TYPE, STATUSES
from service.schemas import AnimateForm
from service.settings import Settings

FILE = Path(__file__).parent.parent / "openapi.yaml"


def warm_app() -> FastAPI:
    """The service, ready before its lifespan begins, which it does for each request."""
    engine = FakeEngine()
    app = create_app(Settings(jobs=Path(mkdtemp())), engine)
    app.state.runtime.warm_engine = engine
    return app


schema = schemathesis.openapi.from_asgi("/openapi.json", warm_app())


@pytest.fixture(scope="module")
def contract() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return document


def test_file_and_app_are_the_same_contract(app: FastAPI, contract: dict[str, Any]) -> None:
    assert app.openapi() == contract, "write the file anew: python -m service.openapi > openapi.yaml"


def test_the_command_writes_the_file() -> None:
    assert render_contract() == FILE.read_text(encoding="utf-8")


def test_the_contract_is_valid_openapi(contract: dict[str, Any]) -> None:
    validate(contract)


def test_every_route_is_in_the_contract_and_nothing_else(client: Any, contract: dict[str, Any]) -> None:
    assert set(contract["paths"]) == {
        "/animate",
        "/jobs",
        "/jobs/{id}",
        "/jobs/{id}/events",
        "/jobs/{id}/result",
        "/codec/{checkpoint}.onnx",
        "/codec/{template}/{resolution}.npz",
        "/styles",
        "/styles/{id}",
        "/styles/{id}/pivot",
        "/templates",
        "/upsample",
        "/templates/{id}",
        "/templates/{id}/mesh.glb",
        "/templates/{id}/preview.png",
        "/info",
        "/metrics",
        "/health/live",
        "/health/ready",
    }
    for path, operations in contract["paths"].items():
        for method in operations:
            known = {"id": "calm" if path.startswith("/styles") else "default", "checkpoint": "textalker-motion"}
            known |= {"template": "default", "resolution": "native"}
            if path.startswith("/jobs/"):
                known["id"] = client.post("/jobs", files={"audio": wav()}).json()["id"]
            response = client.request(method.upper(), path.format(**known))
            assert response.status_code not in (404, 405), (method, path)


def test_every_refusal_is_declared_as_a_problem(contract: dict[str, Any]) -> None:
    """Each status of the table is one that some route answers with, and each route's refusals are problems."""
    routes = [operation for path in contract["paths"].values() for operation in path.values()]
    statuses = {int(status) for operation in routes for status in operation["responses"]}
    assert statuses == {200, 201, 202, 204, 206, 304, *STATUSES.values()}
    for operation in (operation for path in contract["paths"].values() for operation in path.values()):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                name = response["$ref"].rpartition("/")[2]
                assert name == REASONS[int(status)][0]
                assert list(contract["components"]["responses"][name]["content"]) == [MEDIA_TYPE]


def test_every_field_of_the_form_is_explained(contract: dict[str, Any]) -> None:
    """In words; and those that may be left out show a default or say what they override."""
    form = contract["components"]["schemas"]["AnimateForm"]
    assert list(form["properties"]) == list(AnimateForm.model_fields)
    assert form["required"] == ["audio"]
    assert form["additionalProperties"] is False
    for name, field in form["properties"].items():
        assert field["description"]
        assert "default" in field or "overriding" in field["description"] or name == "audio"
    sizes = form["properties"]["texture"]["anyOf"][1]["enum"]
    assert sizes == [512, 1024, 2048, 4096, 8192]
    assert form["properties"]["format"]["enum"] == list(ENCODERS)


@schema.parametrize()
@budget(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_request_is_answered_off_the_contract(case: schemathesis.Case) -> None:
    """No failure, no status, header, media type or body that is not declared; what breaks the schema is refused.

    Where the schema asks for a file it gets speech, a head or an example; well-formed fields may still be refused,
    such as an unknown style.
    """
    if isinstance(case.body, dict):
        for name, content in (
            ("audio", wav()),
            *((name, b"example 0.5") for name in ("style_file", "example")),
            *((name, b"head 1") for name in ("mesh", "template_file")),
        ):
            if isinstance(case.body.get(name), str | bytes):
                case.body[name] = content
        if "mesh" in case.body and not isinstance(case.body.get("name", ""), str):
            case.body["name"] = "no id"  # as text, which all of a form is, true would be one
    case.call_and_validate(excluded_checks=[positive_data_acceptance])


def test_no_chain_of_requests_is_answered_off_the_contract() -> None:
    """What one request makes, the next ones ask for, change and remove."""

    class Chain(schema.as_state_machine()):  # type: ignore[misc]
        def validate_response(self, response: Any, case: schemathesis.Case, **_: Any) -> None:
            case.validate_response(response, excluded_checks=[positive_data_acceptance])

    Chain.run(
        settings=budget(
            max_examples=20,
            stateful_step_count=6,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
    )
