"""`/templates`: the heads that can be animated."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from models.engine import TemplateInfo
from models.errors import UnknownName
from service.contract import headers, problem_responses
from service.encoders import ENCODERS
from service.encoders.container import GlbDocument
from service.encoders.surface import split_seams
from service.encoders.textures import base_color
from service.runtime import WarmEngine
from service.schemas import TemplateCard
from service.stream import attachment

router = APIRouter(prefix="/templates", tags=["templates"])

GLB = ENCODERS["glb"]
MESH = {"description": "A static GLB.", "headers": headers("Content-Disposition"), "content": {GLB.media_type: {}}}


async def _known(engine: WarmEngine, id: Annotated[str, Path(examples=["default"])]) -> TemplateInfo:
    if id not in engine.templates:
        raise UnknownName("template", id, engine.templates)
    return engine.templates[id]


Template = Annotated[TemplateInfo, Depends(_known)]


@router.get("", summary="Every head", responses=problem_responses(503))
async def list_templates(engine: WarmEngine) -> list[TemplateCard]:
    """The registered heads, by id."""
    return [_card(template) for _, template in sorted(engine.templates.items())]


@router.get("/{id}", summary="One head", responses=problem_responses(404, 503))
async def describe_template(template: Template) -> TemplateCard:
    """Size, licence and regions of a head."""
    return _card(template)


@router.get(
    "/{id}/mesh.glb",
    summary="One head at rest",
    response_class=Response,
    responses={200: MESH, **problem_responses(404, 503)},
)
def template_mesh(template: Template) -> Response:
    """The head at rest as a static GLB: its vertices in order, then the copies that UV seams need."""
    document = GlbDocument({"licence": template.licence})
    document.add_mesh(split_seams(template.mesh), template.mesh.vertices, base_color(template.mesh))
    disposition = {"Content-Disposition": attachment(template.id, GLB.extension)}
    return Response(b"".join(document.chunks()), media_type=GLB.media_type, headers=disposition)


def _card(template: TemplateInfo) -> TemplateCard:
    return TemplateCard(
        id=template.id,
        vertices=len(template.mesh.vertices),
        faces=len(template.mesh.faces),
        licence=template.licence,
        regions=dict(template.region_sizes),
    )
