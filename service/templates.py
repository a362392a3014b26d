"""`/templates`: the heads that can be animated; users register their own."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from models.engine import Engine, TemplateInfo
from models.errors import UnknownName
from models.meshes.record import MeshLimits
from service.contract import REMOVED, TEMPLATE_BODY, TEMPLATE_CREATED, headers, problem_responses
from service.encoders import ENCODERS
from service.encoders.container import GlbDocument
from service.encoders.surface import split_seams
from service.encoders.textures import base_color
from service.form import open_form
from service.problems import validated
from service.runtime import Client, CurrentRuntime, HeldSlot, WarmEngine
from service.schemas import ReportCard, TemplateCard, TemplateForm
from service.stream import attachment, run_for

router = APIRouter(prefix="/templates", tags=["templates"])

GLB = ENCODERS["glb"]
MESH = {"description": "A static GLB.", "headers": headers("Content-Disposition"), "content": {GLB.media_type: {}}}
PNG_TYPE = "image/png"
PICTURE = {"description": "A PNG.", "content": {PNG_TYPE: {}}}


async def _known(engine: WarmEngine, id: Annotated[str, Path(examples=["default"])]) -> TemplateInfo:
    if id not in engine.templates:
        raise UnknownName("template", id, engine.templates)
    return engine.templates[id]


async def _form(
    request: Request, runtime: CurrentRuntime, engine: WarmEngine, client: Client
) -> AsyncIterator[TemplateForm]:
    """The form with its name checked; uploads stay open until the endpoint returns."""
    runtime.slots.check(client)
    async with open_form(request, max_upload_bytes=runtime.settings.max_upload_bytes, field="mesh") as fields:
        form = validated(TemplateForm, fields)
        if form.name is not None:
            engine.check_free(form.name)
        yield form


Template = Annotated[TemplateInfo, Depends(_known)]


@router.get("", summary="Every head", responses=problem_responses(503))
async def list_templates(request: Request, engine: WarmEngine) -> list[TemplateCard]:
    """The registered heads, by id."""
    return [_card(request, template) for _, template in sorted(engine.templates.items())]


@router.post(
    "",
    status_code=201,
    summary="Register a head of your own",
    responses={201: TEMPLATE_CREATED, **problem_responses(409, 413, 415, 422, 429, 503)},
    openapi_extra={"requestBody": TEMPLATE_BODY},
)
async def register_template(
    request: Request,
    response: Response,
    runtime: CurrentRuntime,
    engine: WarmEngine,
    form: Annotated[TemplateForm, Depends(_form, scope="function")],
    _slot: HeldSlot,
) -> TemplateCard:
    """Place a head on the atlas, without training, and keep it; the report tells how that went. It takes seconds."""
    work = partial(register_and_add, engine, form, runtime.settings.mesh_limits)
    template = await run_for(request, work, runtime.slots.workers)
    response.headers["Location"] = _path(request, template)
    return _card(request, template)


@router.get("/{id}", summary="One head", responses=problem_responses(404, 503))
async def describe_template(request: Request, template: Template) -> TemplateCard:
    """Size, licence and regions of a head; of one that was uploaded, how it was registered."""
    return _card(request, template)


@router.delete(
    "/{id}",
    status_code=204,
    summary="Remove a head that was uploaded",
    response_class=Response,
    responses={204: REMOVED, **problem_responses(404, 409, 503)},
)
def remove_template(engine: WarmEngine, template: Template) -> None:
    """Remove a head; the shipped one stays: 409."""
    engine.remove_template(template.id)


@router.get(
    "/{id}/mesh.glb",
    summary="One head at rest",
    response_class=Response,
    responses={200: MESH, **problem_responses(404, 503)},
)
def template_mesh(template: Template) -> Response:
    """The head at rest as a static GLB: its vertices in order, then the copies that UV seams need."""
    mesh, document = template.mesh, GlbDocument({"licence": template.licence})
    document.add_mesh(split_seams(mesh), mesh.vertices, base_color(mesh))
    disposition = {"Content-Disposition": attachment(template.id, GLB.extension)}
    return Response(b"".join(document.chunks()), media_type=GLB.media_type, headers=disposition)


@router.get(
    "/{id}/preview.png",
    summary="A picture of one head",
    response_class=Response,
    responses={200: PICTURE, **problem_responses(404, 503)},
)
def template_preview(engine: WarmEngine, template: Template) -> Response:
    """The head from in front, turned, and with its lips parted; lips and eyes are tinted, where they were found."""
    return Response(engine.preview(template.id), media_type=PNG_TYPE)


def register_and_add(
    engine: Engine, form: TemplateForm, limits: MeshLimits, check_client: Callable[[], None] = lambda: None
) -> TemplateInfo:
    """Register the head of a form, and keep it; for a worker thread. Raises every refusal that is left.

    `check_client` is called at each step, and may raise.
    """
    template = engine.register(
        form.mesh.file,
        id=form.name,
        landmarks=form.landmarks,
        texture=None if form.texture is None else form.texture.file.read(),
        limits=limits,
        progress=lambda _: check_client(),
    )
    check_client()
    engine.add_template(template)
    return template


def _path(request: Request, template: TemplateInfo) -> str:
    return f"{request.scope.get('root_path', '')}/templates/{template.id}"


def _card(request: Request, template: TemplateInfo) -> TemplateCard:
    return TemplateCard(
        id=template.id,
        vertices=template.vertex_count,
        faces=template.face_count,
        licence=template.licence,
        regions=dict(template.region_sizes),
        preview=f"{_path(request, template)}/preview.png",
        report=None if template.report is None else ReportCard.model_validate(template.report),
    )
