"""`POST /animate`: speech in, an animation out, with everything checked before the first byte."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, BinaryIO, TypeVar

from fastapi import APIRouter, Depends, Request, UploadFile
from starlette.responses import StreamingResponse

from models.audio import AudioLimits
from models.core import PLAIN_TEXTURE, Clip, StylePivot, frame_count
from models.engine import ENGINES, Engine, TemplateInfo
from models.errors import InputError, OutOfRange, TooLarge, UnknownName, blaming
from models.pictures import PictureLimits, decode_picture, picture_size
from models.styles import parse_style
from service.contract import ANIMATE_BODY, ANIMATION, problem_responses
from service.encoders import ENCODERS
from service.encoders.textures import png
from service.fields import TEXTURES
from service.form import open_form
from service.formats import format_accepted, format_named
from service.isolation import Decode
from service.live.messages import LiveHello
from service.meter import Meter
from service.problems import validated
from service.runtime import Client, CurrentRuntime, HeldSlot, WarmEngine
from service.schemas import AnimateForm
from service.settings import Settings
from service.stream import ClipStream, run_for

router = APIRouter(tags=["animate"])

NEUTRAL = PictureLimits(max(TEXTURES), 64)
Read = TypeVar("Read")


async def _checked_form(
    request: Request, runtime: CurrentRuntime, engine: WarmEngine, client: Client
) -> AsyncIterator[AnimateForm]:
    """The form with its fields checked; the upload stays open until the endpoint returns.

    A service that is full says so before it reads the upload.
    """
    runtime.slots.check(client)
    async with open_animate_form(request, runtime.settings, engine) as form:
        yield form


@router.post(
    "/animate",
    summary="Speech in, an animation out",
    response_class=StreamingResponse,
    responses={200: ANIMATION, **problem_responses(404, 406, 413, 415, 422, 429, 503)},
    openapi_extra={"requestBody": ANIMATE_BODY},
)
async def animate(
    request: Request,
    runtime: CurrentRuntime,
    engine: WarmEngine,
    form: Annotated[AnimateForm, Depends(_checked_form, scope="function")],
    _slot: HeldSlot,
) -> ClipStream:
    """Animate a head with the speech in `audio`; frames leave as they are made.

    Everything is checked before the first byte. A stream that fails later is cut: it lacks the end that its transfer
    coding and its format call for.
    """
    workers = runtime.slots.workers
    start = partial(start_clip, engine, form, runtime.settings, runtime.decode)
    clip = await run_for(request, start, workers)
    meter = Meter(clip, runtime.metrics, request.state.arrived_s)
    return ClipStream(
        meter.clip,
        ENCODERS[form.format](),
        upload_name=form.audio.filename or "",
        pace=runtime.pace,
        workers=workers,
        encode=meter.encode,
    )


@asynccontextmanager
async def open_animate_form(request: Request, settings: Settings, engine: Engine) -> AsyncIterator[AnimateForm]:
    """The form of a request with its fields checked; its uploads are open until the exit."""
    async with open_form(request, max_upload_bytes=settings.max_upload_bytes, field="audio") as fields:
        if "format" not in fields:
            fields["format"] = format_accepted(request.headers.get("accept"))
        form = validated(AnimateForm, fields)
        check_form(form, settings)
        check_names(form, engine)
        yield form


def check_form(form: AnimateForm, settings: Settings) -> None:
    """Refuse what the fields alone show to be unknown, impossible, or over a limit."""
    format_named(form.format)
    if form.engine not in ENGINES:
        raise UnknownName("engine", form.engine, ENGINES)
    check_combination(form)
    check_limits(form, settings)


def check_limits(form: AnimateForm | LiveHello, settings: Settings) -> None:
    """Refuse more points or frames per second than the operator allows."""
    for field, number, limit in (
        ("resolution", form.resolution or 0, settings.max_points),
        ("fps", form.fps, settings.max_fps),
    ):
        if number > limit:
            raise TooLarge(f"{field} = {number:g}; the limit is {limit:g}: ask for less", field=field)


def check_combination(form: AnimateForm) -> None:
    """Refuse fields that exclude each other."""
    if form.engine == "mmtalker":
        for field, asked in (("texture", form.texture), ("wrinkle_style", form.wrinkle_style)):
            if asked is not None:
                raise _impossible(
                    f"{field} = {asked} with engine = mmtalker, which makes no wrinkles; leave {field} out", field
                )
    if form.format == "codes" and form.engine != "textalker":
        raise _impossible(
            f"format = codes with engine = {form.engine}, which has none; wanted engine = textalker: set it", "format"
        )
    if form.format == "codes" and (form.texture or 0) > PLAIN_TEXTURE:
        raise _impossible(
            f"texture = {form.texture} with format = codes, whose maps clients enlarge themselves; wanted at most "
            f"{PLAIN_TEXTURE}: ask for less, or for another format",
            "texture",
        )
    if form.format == "codes" and form.neutral_file is not None:
        raise _impossible("neutral_file with format = codes, which carries no texture; leave it out", "neutral_file")
    if form.format == "bundle" and form.texture is None:
        raise _impossible(
            "format = bundle without textures; wanted some: set texture, with engine = textalker", "texture"
        )
    if form.format == "codes" and form.template_file is not None:
        raise _impossible(
            "template_file with format = codes, which clients decode with a head that they can ask for; wanted a "
            "template: register the head, POST /templates, or ask for another format",
            "template_file",
        )
    if form.template_file is not None and "template" in form.model_fields_set:
        raise _impossible("template together with template_file; wanted one of them: leave template out", "template")
    if form.style_file is not None:
        for field in ("style", "motion_style", "wrinkle_style"):
            if field in form.model_fields_set and getattr(form, field) is not None:
                raise _impossible(f"{field} together with style_file; wanted one of them: leave {field} out", field)


def _impossible(message: str, field: str) -> OutOfRange:
    return OutOfRange(message, field=field, code="impossible_combination")


def check_names(form: AnimateForm | LiveHello, engine: Engine) -> None:
    """Refuse a template or a style that the engine does not know, whether or not another field overrides it."""
    parse_style(form.style, engine.styles)
    try:
        engine.check(form.options(), template=form.template)
    except InputError as error:
        if error.field in ("motion_style", "wrinkle_style") and getattr(form, error.field) is None:
            error.field = "style"
        raise


def start_clip(
    engine: Engine,
    form: AnimateForm,
    settings: Settings,
    decode: Decode,
    check_client: Callable[[], None] = lambda: None,
) -> Clip:
    """Decode the speech, by `decode`, and start the engine; for a worker thread. Raises every refusal that is left.

    `check_client` is called while a head of one's own is registered, and may raise.
    """
    limits = AudioLimits(settings.max_upload_bytes, settings.max_audio_s)
    waveform = decode(form.audio.file, limits)
    frames, neutral = frame_count(waveform.duration_s, form.fps), _own_size(form)
    _check_texels(frames, form, neutral, settings)
    pivot, template = _one_off_style(engine, form), _one_off_head(engine, form, settings, check_client)
    head = engine.templates[form.template] if template is None else template
    check_points(frames, form.resolution or head.vertex_count, settings)
    return engine.animate(
        waveform,
        form.options(),
        template=template or form.template,
        pivot=pivot,
        neutral=_own_skin(form),
    )


def _one_off_style(engine: Engine, form: AnimateForm) -> StylePivot | None:
    if form.style_file is None:
        return None
    with blaming("style_file"):
        return engine.read_style(form.style_file.file)


def _one_off_head(
    engine: Engine, form: AnimateForm, settings: Settings, check_client: Callable[[], None]
) -> TemplateInfo | None:
    if form.template_file is None:
        return None
    with blaming("template_file"):
        return engine.register(form.template_file.file, limits=settings.mesh_limits, progress=lambda _: check_client())


def _own_size(form: AnimateForm) -> int:
    """Of the texture that came with the request; 0 where none did."""
    return 0 if form.neutral_file is None else _read_skin(form.neutral_file, picture_size)


def _own_skin(form: AnimateForm) -> bytes | None:
    return None if form.neutral_file is None else png(_read_skin(form.neutral_file, decode_picture)).data


def _read_skin(upload: UploadFile, read: Callable[[BinaryIO, PictureLimits], Read]) -> Read:
    with blaming("neutral_file"):
        return read(upload.file, NEUTRAL)


def check_points(frames: int, points: int, settings: Settings) -> None:
    """Refuse a clip over the limits that only the head and the length of the speech decide."""
    if points > settings.max_points:
        raise TooLarge(
            f"the head has {points:,} points; the limit is {settings.max_points:,}: ask for a resolution",
            field="resolution",
        )
    if points * frames > settings.max_frame_points:
        raise TooLarge(
            f"{frames:,} frames of {points:,} points are {points * frames:,}; the limit is "
            f"{settings.max_frame_points:,}: send shorter audio, or ask for fewer points or frames per second",
            field="resolution",
        )


def _check_texels(frames: int, form: AnimateForm, neutral: int, settings: Settings) -> None:
    """Refuse more textures than may be written, before a large skin is painted for them."""
    encoder, size, field = ENCODERS[form.format], form.texture or 0, "texture"
    if form.texture is None and encoder.repeats_neutral:
        size, field = neutral, "neutral_file"
    texels = frames * size**2
    if encoder.texel_bytes and texels > settings.max_frame_texels:
        raise TooLarge(
            f"{frames:,} frames of {size}² texels are {texels:,}, about {texels * encoder.texel_bytes / 1e6:,.0f} MB; "
            f"the limit is {settings.max_frame_texels:,} texels: send shorter audio, ask for smaller textures, or for "
            "glb or bundle",
            field=field,
        )
