"""`/styles`: how speech can be acted, and how skin folds; users add their own."""

from collections.abc import AsyncIterator
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import ValidationError

from models.core import StylePivot, check_id
from models.engine import Engine
from models.errors import SHOWN, Conflict, UnknownName, UnsupportedMedia, blaming
from service.contract import EXAMPLE_BODY, MIX_BODY, REMOVED, STYLE_CREATED, headers, problem_responses
from service.form import BoundedReceive, open_form
from service.problems import refusal, validated
from service.runtime import Client, CurrentRuntime, HeldSlot, WarmEngine
from service.schemas import ExampleForm, StyleCard, StyleMix
from service.stream import attachment

router = APIRouter(prefix="/styles", tags=["styles"])

PIVOT_TYPE = "application/x-talker-pivot"
PIVOT = {
    "description": "The pivot, as `style_file` and `example` take it.",
    "headers": headers("Content-Disposition"),
    "content": {PIVOT_TYPE: {}},
}
MAX_MIX_BYTES = 64 * 1024


async def _known(engine: WarmEngine, id: Annotated[str, Path(examples=["neutral"])]) -> StylePivot:
    if id not in engine.styles:
        raise UnknownName("style", id, engine.styles, field="id")
    return engine.styles[id]


async def _new_id(engine: WarmEngine, id: Annotated[str, Path(examples=["my-style"])]) -> str:
    check_id("style", id)
    _check_free(id, engine)
    return id


async def _example(request: Request, runtime: CurrentRuntime, client: Client) -> AsyncIterator[ExampleForm]:
    """The form; the upload stays open until the endpoint returns."""
    runtime.slots.check(client)
    async with open_form(request, max_upload_bytes=runtime.settings.max_upload_bytes, field="example") as fields:
        yield validated(ExampleForm, fields)


async def _mix(request: Request) -> StyleMix:
    """The JSON body, read within its limit."""
    came = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if came != "application/json":
        raise UnsupportedMedia(f"a body of type {came[:SHOWN] or 'unknown'}; wanted application/json: send JSON")
    body = await Request(request.scope, BoundedReceive(request, MAX_MIX_BYTES, None)).body()
    try:
        return StyleMix.model_validate_json(body)
    except ValidationError as error:
        raise refusal(error.errors()) from error


Style = Annotated[StylePivot, Depends(_known)]


@router.get("", summary="Every style", responses=problem_responses(503))
async def list_styles(engine: WarmEngine) -> list[StyleCard]:
    """The styles that an expression may name, by id."""
    return [_card(style) for _, style in sorted(engine.styles.items())]


@router.get("/{id}", summary="One style", responses=problem_responses(404, 503))
async def describe_style(style: Style) -> StyleCard:
    """What a style holds, where it comes from and what was measured of it."""
    return _card(style)


@router.delete(
    "/{id}",
    status_code=204,
    summary="Remove a user-made style",
    response_class=Response,
    responses={204: REMOVED, **problem_responses(404, 409, 503)},
)
def remove_style(engine: WarmEngine, style: Style) -> None:
    """Remove a style; a shipped one stays: 409."""
    engine.remove_style(style.id)


@router.post(
    "",
    status_code=201,
    summary="Store a mix of styles",
    responses={201: STYLE_CREATED, **problem_responses(404, 409, 413, 415, 422, 503)},
    openapi_extra={"requestBody": MIX_BODY},
)
async def mix_style(
    request: Request, response: Response, engine: WarmEngine, mix: Annotated[StyleMix, Depends(_mix)]
) -> StyleCard:
    """Mix styles into a new one: its motion, its wrinkles, or both."""
    check_id("style", mix.id)
    _check_free(mix.id, engine)
    style = await to_thread.run_sync(engine.mix_style, mix.id, mix.motion, mix.wrinkle, mix.description)
    return _created(request, response, style)


@router.post(
    "/{id}/pivot",
    status_code=201,
    summary="Make a style from an example",
    responses={201: STYLE_CREATED, **problem_responses(409, 413, 415, 422, 429, 503)},
    openapi_extra={"requestBody": EXAMPLE_BODY},
)
async def make_style(
    request: Request,
    response: Response,
    engine: WarmEngine,
    runtime: CurrentRuntime,
    id: Annotated[str, Depends(_new_id)],
    form: Annotated[ExampleForm, Depends(_example, scope="function")],
    _slot: HeldSlot,
) -> StyleCard:
    """Make a style from an example sequence: the mean of its latents, without training."""
    style = await to_thread.run_sync(_read_and_add, engine, form, id, limiter=runtime.slots.workers)
    return _created(request, response, style)


@router.get(
    "/{id}/pivot",
    summary="One style as a file",
    response_class=Response,
    responses={200: PIVOT, **problem_responses(404, 503)},
)
def style_pivot(engine: WarmEngine, style: Style) -> Response:
    """The stored pivot."""
    disposition = {"Content-Disposition": attachment(style.id, ".pivot")}
    return Response(engine.store_style(style), media_type=PIVOT_TYPE, headers=disposition)


def _check_free(id: str, engine: Engine) -> None:
    if id in engine.styles:
        raise Conflict(
            f"there is a style {id} already; wanted a new id: choose another, or remove it first", field="id"
        )


def _read_and_add(engine: Engine, form: ExampleForm, id: str) -> StylePivot:
    with blaming("example"):
        style = engine.read_style(form.example.file, id)
    engine.add_style(style)
    return style


def _created(request: Request, response: Response, style: StylePivot) -> StyleCard:
    response.headers["Location"] = f"{request.scope.get('root_path', '')}/styles/{style.id}"
    return _card(style)


def _card(style: StylePivot) -> StyleCard:
    return StyleCard(
        id=style.id,
        description=style.description,
        motion=style.motion is not None,
        wrinkle=style.wrinkle is not None,
        origin=style.origin,
        statistics=dict(style.statistics),
    )
