"""Requests, as values: what is asked of each route, and how its answer is read. No I/O."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote

from talker_client.cards import AnimateFields, Expression, InfoCard, JobCard, StyleCard, TemplateCard, Upload
from talker_client.problems import BadAnswer

T = TypeVar("T", covariant=True)

FILES = ("template_file", "style_file", "neutral_file")


@dataclass(frozen=True, eq=False)
class Call(Generic[T]):
    """One request. `read` makes its answer of the body; `repeatable`: asked twice, it does no more than asked once."""

    method: str
    path: str
    read: Callable[[bytes], T]
    fields: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Upload] = field(default_factory=dict)
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True


def animate(audio: Upload, fields: AnimateFields) -> Call[bytes]:
    """`POST /animate`."""
    texts, files = _form(audio, fields)
    return Call("POST", "/animate", bytes, texts, files)


def styles() -> Call[list[StyleCard]]:
    """`GET /styles`."""
    return Call("GET", "/styles", _cards)


def style(id: str) -> Call[StyleCard]:
    """`GET /styles/{id}`."""
    return Call("GET", f"/styles/{_part(id)}", read_card)


def mix_style(id: str, motion: Expression | None, wrinkle: Expression | None, description: str) -> Call[StyleCard]:
    """`POST /styles`."""
    body = {"id": id, "motion": motion, "wrinkle": wrinkle, "description": description}
    return Call("POST", "/styles", read_card, json=body, repeatable=False)


def add_style(id: str, example: Upload) -> Call[StyleCard]:
    """`POST /styles/{id}/pivot`."""
    return Call("POST", f"/styles/{_part(id)}/pivot", read_card, files={"example": example}, repeatable=False)


def delete_style(id: str) -> Call[None]:
    """`DELETE /styles/{id}`."""
    return Call("DELETE", f"/styles/{_part(id)}", _nothing, repeatable=False)


def templates() -> Call[list[TemplateCard]]:
    """`GET /templates`."""
    return Call("GET", "/templates", _cards)


def template(id: str) -> Call[TemplateCard]:
    """`GET /templates/{id}`."""
    return Call("GET", f"/templates/{_part(id)}", read_card)


def add_template(
    mesh: Upload, name: str | None, texture: Upload | None, landmarks: Upload | Mapping[str, Any] | None
) -> Call[TemplateCard]:
    """`POST /templates`."""
    texts: dict[str, str | None] = {"name": name}
    files: dict[str, Upload | None] = {"mesh": mesh, "texture": texture}
    if isinstance(landmarks, Mapping):
        texts["landmarks"] = json.dumps(landmarks)
    else:
        files["landmarks"] = landmarks
    return Call("POST", "/templates", read_card, _given(texts), _given(files), repeatable=False)


def delete_template(id: str) -> Call[None]:
    """`DELETE /templates/{id}`."""
    return Call("DELETE", f"/templates/{_part(id)}", _nothing, repeatable=False)


def template_mesh(id: str) -> Call[bytes]:
    """`GET /templates/{id}/mesh.glb`."""
    return Call("GET", f"/templates/{_part(id)}/mesh.glb", bytes)


def template_preview(id: str) -> Call[bytes]:
    """`GET /templates/{id}/preview.png`."""
    return Call("GET", f"/templates/{_part(id)}/preview.png", bytes)


def upsample(size: int, pictures: Mapping[str, Upload | None], media_type: str) -> Call[bytes]:
    """`POST /upsample`; the pictures are `map`, `texture`, `neutral` and `guide`."""
    return Call("POST", "/upsample", bytes, {"size": str(size)}, _given(pictures), headers={"Accept": media_type})


def info() -> Call[InfoCard]:
    """`GET /info`."""
    return Call("GET", "/info", read_card)


def ready() -> Call[dict[str, str]]:
    """`GET /health/ready`."""
    return Call("GET", "/health/ready", read_card)


def submit(audio: Upload, fields: AnimateFields) -> Call[JobCard]:
    """`POST /jobs`."""
    texts, files = _form(audio, fields)
    return Call("POST", "/jobs", read_job, texts, files, repeatable=False)


def jobs() -> Call[list[JobCard]]:
    """`GET /jobs`."""
    return Call("GET", "/jobs", lambda body: [_job(card) for card in _cards(body)])


def job(id: str) -> Call[JobCard]:
    """`GET /jobs/{id}`."""
    return Call("GET", f"/jobs/{_part(id)}", read_job)


def job_events(id: str) -> Call[bytes]:
    """`GET /jobs/{id}/events`."""
    return Call("GET", f"/jobs/{_part(id)}/events", bytes, headers={"Accept": "text/event-stream"})


def job_result(id: str, start: int) -> Call[bytes]:
    """`GET /jobs/{id}/result`, from byte `start` on."""
    return Call("GET", f"/jobs/{_part(id)}/result", bytes, headers={"Range": f"bytes={start}-"} if start else {})


def cancel(id: str) -> Call[None]:
    """`DELETE /jobs/{id}`."""
    return Call("DELETE", f"/jobs/{_part(id)}", _nothing)


def read_card(body: bytes | str) -> Any:
    """The JSON object of an answer or an event. BadAnswer for what is none."""
    card = _json(body)
    if not isinstance(card, dict):
        raise BadAnswer("the answer is no JSON object; wanted Talker's: check the address of the service")
    return card


def read_job(body: bytes | str) -> JobCard:
    """The card of a job, in an answer or an event. BadAnswer for what is none."""
    return _job(read_card(body))


def _job(card: Any) -> JobCard:
    if not isinstance(card, dict) or not {"id", "state", "progress"} <= card.keys():
        raise BadAnswer("the answer is no job's card; wanted Talker's: is the service older than the client?")
    return cast("JobCard", card)


def _cards(body: bytes) -> list[Any]:
    cards = _json(body)
    if not isinstance(cards, list):
        raise BadAnswer("the answer is no JSON array; wanted Talker's: check the address of the service")
    return cards


def _json(body: bytes | str) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise BadAnswer("the answer is no JSON; wanted Talker's: check the address of the service") from error


def _nothing(_: bytes) -> None:
    return None


def _form(audio: Upload, fields: AnimateFields) -> tuple[dict[str, str], dict[str, Upload]]:
    given = _given(cast("Mapping[str, Any]", fields))
    files = {"audio": audio} | {name: given.pop(name) for name in FILES if name in given}
    return {name: json.dumps(dict(v)) if isinstance(v, Mapping) else str(v) for name, v in given.items()}, files


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _part(id: str) -> str:
    """An id as one part of a path, whatever it holds."""
    return quote(id, safe="")
