"""The contract: what FastAPI derives from the routes, with the form and the problems as they really are.

`python -m service.openapi > openapi.yaml` writes it down; a test holds the two together.
"""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from service import form, problems, request_id
from service.authorization import OPEN
from service.encoders import ENCODERS
from service.pictures import PICTURES
from service.problems import Problem
from service.schemas import AnimateForm, ExampleForm, StyleMix, TemplateForm, UpsampleForm

Responses = dict[int | str, dict[str, Any]]

SUCCESSES = {"200", "201", "202", "204", "206"}
COMPONENTS = "#/components/"

REASONS = {
    400: (
        "Malformed",
        "A field that is missing, unknown, sent twice, of the wrong type or not finite; an unknown query parameter.",
    ),
    401: ("Unauthorized", "No API key that is known, where the service asks for one."),
    404: ("Unknown", "An unknown id, engine, template or style; `known` lists those that exist."),
    406: ("NotAcceptable", "No format meets `Accept`."),
    409: (
        "Conflict",
        "The id exists (`id_exists`), what was shipped cannot be removed (`shipped_style`, `shipped_template`), or the "
        "job is not finished (`not_finished`).",
    ),
    413: ("TooLarge", "Over a limit; `detail` gives the number and the limit."),
    415: (
        "UnsupportedMedia",
        "Not the media type that is wanted, not audio, a mesh, a picture or an example, or an unknown format.",
    ),
    416: ("BadRange", "No part of the file is in `Range`, or it is none."),
    422: ("OutOfRange", "Out of range, an impossible combination, or a mesh that is no head."),
    429: (
        "TooMany",
        "More than one client's share of waiting requests (`too_many_requests`), or of unfinished jobs "
        "(`too_many_jobs`).",
    ),
    500: ("Failure", "The service failed; quote `request_id` when you ask about it."),
    503: (
        "Busy",
        "Every slot is taken (`busy`), the engine is still warming up (`not_ready`), the service is stopping "
        "(`draining`), no machine of a cluster answers (`engine_lost`), the disk is full (`storage_full`), or what "
        "holds the jobs does not answer (`storage_busy`, `storage_unreachable`).",
    ),
}

REFUSED_WITH = {401: ("WWW-Authenticate",), 416: ("Content-Range",), 429: ("Retry-After",), 503: ("Retry-After",)}
"""Headers of a refusal, by its status."""

HEADERS = {
    request_id.HEADER: {
        "description": "The id that came with the request if it was well-formed, else a new one.",
        "schema": {"type": "string"},
    },
    "WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}},
    "X-Talker-Frames": {"description": "Frames in all.", "schema": {"type": "integer"}},
    "X-Talker-Fps": {"description": "Frames per second.", "schema": {"type": "number"}},
    "X-Accel-Buffering": {"description": "`no`: a proxy must not hold frames back.", "schema": {"type": "string"}},
    "ETag": {"description": "The file's sha256, for `If-None-Match`.", "schema": {"type": "string"}},
    "Cache-Control": {"description": "`no-cache`: keep it, and ask whether it changed.", "schema": {"type": "string"}},
    "Accept-Ranges": {"description": "`bytes`: parts can be had.", "schema": {"type": "string"}},
    "Content-Range": {"description": "Which bytes, of how many.", "schema": {"type": "string"}},
    "Location": {"description": "The path of what was made.", "schema": {"type": "string"}},
    "Content-Disposition": {"description": "A file name, made from the upload's.", "schema": {"type": "string"}},
}


def headers(*names: str) -> dict[str, Any]:
    """References to HEADERS, the request id's among them."""
    return {name: {"$ref": f"{COMPONENTS}headers/{name}"} for name in (request_id.HEADER, *names)}


BODIES = (AnimateForm, ExampleForm, StyleMix, TemplateForm, UpsampleForm)
"""What our own code reads, and FastAPI therefore does not know."""


def _body(model: type[BaseModel], media_type: str) -> dict[str, Any]:
    return {
        "required": True,
        "content": {media_type: {"schema": {"$ref": f"{COMPONENTS}schemas/{model.__name__}"}}},
    }


ANIMATE_BODY = _body(AnimateForm, form.MEDIA_TYPE)
EXAMPLE_BODY = _body(ExampleForm, form.MEDIA_TYPE)
TEMPLATE_BODY = _body(TemplateForm, form.MEDIA_TYPE)
UPSAMPLE_BODY = _body(UpsampleForm, form.MEDIA_TYPE)
MIX_BODY = _body(StyleMix, "application/json")

STYLE_CREATED = {"description": "The new style.", "headers": headers("Location")}
TEMPLATE_CREATED = {"description": "The new head.", "headers": headers("Location")}
NOT_MODIFIED = {"description": "`If-None-Match` names what there is.", "headers": headers("ETag", "Cache-Control")}
REMOVED = {"description": "It is gone.", "headers": headers()}

ANIMATION = {
    "description": "The animation, streamed. Where formats share a media type, `Accept` means the first.",
    "headers": headers("X-Talker-Frames", "X-Talker-Fps", "X-Accel-Buffering", "Content-Disposition"),
    "content": {encoder.media_type: {} for encoder in ENCODERS.values()},
}

METRICS = {
    "description": "Prometheus' text format.",
    "headers": headers(),
    "content": {"text/plain": {"schema": {"type": "string"}}},
}

UPSAMPLED = {
    "description": "The wrinkle map, or the texture, at `size`.",
    "headers": headers("X-Accel-Buffering", "Content-Disposition"),
    "content": {media_type: {} for media_type in PICTURES},
}


def problem_responses(*statuses: int) -> Responses:
    """How a route refuses: with `statuses`, and with 400, 401, 500 and 503 as every route does."""
    return {status: _refusal(status) for status in sorted({400, 401, 500, 503, *statuses})}


def _refusal(status: int) -> dict[str, Any]:
    return {"$ref": f"{COMPONENTS}responses/{REASONS[status][0]}"}


def install_contract(app: FastAPI) -> None:
    """Make `app.openapi()` the contract."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _amend(FastAPI.openapi(app))
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _amend(contract: dict[str, Any]) -> None:
    """Add what only our own code sends and reads; drop FastAPI's own 422, and titles that repeat the names."""
    for operation in (operation for path in contract["paths"].values() for operation in path.values()):
        responses = operation["responses"]
        for status in SUCCESSES & responses.keys():
            responses[status].setdefault("headers", headers())
        for content in responses.get("200", {}).get("content", {}).values():
            content.pop("itemSchema", None)  # OpenAPI 3.2's, of events, in a document of 3.1
        responses |= {status: {"$ref": r["$ref"]} for status, r in responses.items() if "$ref" in r}
        if "$ref" not in responses.get("422", {"$ref": ""}):
            del responses["422"]
    contract["paths"] = _untitled(contract["paths"])
    own = {model.__name__: model.model_json_schema() for model in (*BODIES, Problem)}
    schemas = contract["components"]["schemas"] | own
    del schemas["HTTPValidationError"], schemas["ValidationError"]
    contract["components"] = {
        "schemas": {name: _untitled(schema) for name, schema in sorted(schemas.items())},
        "responses": {name: _problem(status, reason) for status, (name, reason) in REASONS.items()},
        "headers": HEADERS,
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "Where API keys are on."}},
    }
    contract["security"] = [{"key": []}, {}]
    _open(contract["paths"])


def _open(paths: dict[str, Any]) -> None:
    """The probes take no key."""
    for path in OPEN:
        for operation in paths[path].values():
            operation["security"] = []
            del operation["responses"]["401"]
    del paths["/health/live"]["get"]["responses"]["503"], paths["/metrics"]["get"]["responses"]["503"]


def _problem(status: int, reason: str) -> dict[str, Any]:
    return {
        "description": reason,
        "headers": headers(*REFUSED_WITH.get(status, ())),
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": f"{COMPONENTS}schemas/{Problem.__name__}"}}},
    }


def _untitled(schema: Any) -> Any:
    """The schema without its titles; a property that is named `title` is a dict, and stays."""
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if isinstance(schema, dict):
        return {k: _untitled(v) for k, v in schema.items() if not (k == "title" and isinstance(v, str))}
    return schema
