"""`talker`: serve, animate one file without a server, decode what a server sent as codes, list the styles, keep your
heads, make API keys, or paint the default head's skin.

`talker animate` goes the way of `POST /animate`: the same form, the same checks and limits, the same bytes. Nothing
heavy is imported before a command runs.
"""

import argparse
import logging
import os
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from models.errors import InputError, MalformedInput, TalkerError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from models.core import Clip, Frame
    from models.engine import Engine
    from models.template import Report
    from service.settings import Settings

    Form = TypeVar("Form", bound=BaseModel)

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
"""Exit codes: something broke; what came cannot be used; Ctrl-C."""

OPTIONS = (
    ("engine", "mmtalker", "which method animates, mmtalker or textalker"),
    ("template", "default", "id of the head"),
    ("resolution", "native", "`native` keeps the head's own vertices; a number asks for so many surface points"),
    ("fps", "30", "frames per second, 1 to 120"),
    ("intensity", "1", "scales the motion, 0 to 2"),
    ("seed", "0", "the same speech, options and seed give the same bytes"),
    ("style", "neutral", "how the speech is acted: a style, or a mix such as calm(0.7)+lively(0.3)"),
    ("motion-style", "as --style", "the style of the motion alone"),
    ("wrinkle-style", "as --style", "the style of the wrinkles alone, with textalker"),
    ("texture", "none", "size of the wrinkle textures, 512, 1024, 2048, 4096 or 8192, with textalker"),
)
"""Fields of the form: option, what it is when left out, and in words."""

FORMATS = """\
formats, and the suffix that chooses each:
  glb           .glb      one animated mesh with morph targets
  npz-stream    .frames   framed binary for programs, see docs/formats.md
  glb-sequence  .zip      one static GLB a frame
  obj           .zip      one OBJ a frame
  bundle        .zip      one GLB, a basis of its wrinkles as images, and a receipt; needs --texture
  codes         .codes    what textalker's decoders make frames of, 19 kB a second; `talker decode` does
Three formats write a .zip: say which with --format. An output that exists is replaced, once the new one is whole.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. argparse itself exits with 2 where the command line is wrong."""
    options = _parser().parse_args(arguments)
    # Before numpy is imported: its BLAS has threads that spin, and once anything else wants the cores, products as
    # small as ours take 20 times as long. The number of threads would also show in the last bits.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        options.run(options)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except InputError as error:
        return _complain(error, REFUSED)
    except (TalkerError, OSError) as error:
        return _complain(error, FAILED)
    return 0


def serve(options: argparse.Namespace) -> None:
    """Serve until a signal. SystemExit with the reason when the engine does not start."""
    settings = _settings(host=options.host, port=options.port)
    from service.app import create_app
    from service.server import Server

    Server(create_app(settings)).run()


def animate(options: argparse.Namespace) -> None:
    """Animate one file, then say what was written and how fast."""
    from service.animate import check_form, check_names, start_clip
    from service.encoders import ENCODERS, encode
    from service.schemas import AnimateForm

    settings, output = _settings(), _checked_output(options.output)
    uploads = {"audio": options.speech}
    uploads |= {name: getattr(options, name) for name in ("template_file", "style_file", "neutral_file")}
    with ExitStack() as held:
        names = [name.replace("-", "_") for name, _, _ in OPTIONS]
        fields = {name: getattr(options, name) for name in names}
        fields |= {"format": options.format or _format_of(options.output)}
        form = _form(AnimateForm, fields, {name: held.enter_context(_opened(uploads[name], name)) for name in uploads})
        check_form(form, settings)
        engine = _engine(settings)
        check_names(form, engine)
        started = perf_counter()
        clip = start_clip(engine, form, settings)
        with _whole_file(output) as file, closing(encode(_shown(clip), ENCODERS[form.format]())) as chunks:
            file.writelines(chunks)
    _tell(options.output, clip, perf_counter() - started)


def decode(options: argparse.Namespace) -> None:
    """Decode a file of codes into any other format, then say what was written and how fast."""
    from service.encoders import ENCODERS, encode
    from service.formats import format_named
    from talker_client.codec import decode

    output, name = _checked_output(options.output), format_named(options.format or _format_of(options.output))
    started = perf_counter()
    with _opened(options.codes, "codes") as file:
        assert file is not None
        clip = decode(file, options.codec, _settings().threads)
        with _whole_file(output) as out, closing(encode(_shown(clip), ENCODERS[name]())) as chunks:
            out.writelines(chunks)
    _tell(options.output, clip, perf_counter() - started)


def styles(options: argparse.Namespace) -> None:
    """Print a line a style."""
    for id, style in sorted(_engine(_settings()).styles.items()):
        parts = [
            name for name, latents in (("motion", style.motion), ("wrinkles", style.wrinkle)) if latents is not None
        ]
        print(f"{id:24}{'+'.join(parts):17}{style.description}")


def templates(options: argparse.Namespace) -> None:
    """Print a line a head."""
    for id, template in sorted(_engine(_settings()).templates.items()):
        print(f"{id:24}{template.vertex_count:>9,} vertices {template.face_count:>9,} faces  {template.licence}")


def add_template(options: argparse.Namespace) -> None:
    """Register a head and keep it, then print the report."""
    from service.schemas import TemplateForm
    from service.templates import register_and_add

    settings, picture = _settings(), None if options.preview is None else _checked_output(options.preview)
    uploads = {"mesh": options.mesh, "texture": options.texture, "landmarks": options.landmarks}
    with ExitStack() as held:
        files = {name: held.enter_context(_opened(path, name)) for name, path in uploads.items()}
        form = _form(TemplateForm, {"name": options.name}, files)
        engine = _engine(settings)
        if form.name is not None:
            engine.check_free(form.name)
        started = perf_counter()
        template = register_and_add(engine, form, settings.mesh_limits)
    print(f"registered {template.id} in {perf_counter() - started:.1f} s; talker animate --template {template.id}")
    if template.report is not None:
        _print_report(template.report)
    if picture is not None:
        with _whole_file(picture) as out:
            out.write(engine.preview(template))
        print(f"wrote {options.preview}")


def remove_template(options: argparse.Namespace) -> None:
    """Remove a head that was added."""
    _engine(_settings()).remove_template(options.id)
    print(f"removed {options.id}")


def skin(options: argparse.Namespace) -> None:
    """Paint the default head's neutral texture, strip by strip."""
    from models.png import write_png
    from models.skin.neutral import open_skin

    settings, output = _settings(), _checked_output(options.output)
    started = perf_counter()
    rows = open_skin(settings.weights).rows(options.size, workers=settings.threads or os.cpu_count() or 1)
    with _whole_file(output) as file:
        write_png(file, options.size, rows)
    print(f"wrote {options.output}: {options.size}² texels in {perf_counter() - started:.0f} s")


def keys(options: argparse.Namespace) -> None:
    """Print the name of each API key."""
    from service.keys import read_keys

    print(*read_keys(_keys_file()), sep="\n")


def add_key(options: argparse.Namespace) -> None:
    """Make an API key, and print it, alone on stdout."""
    from service.keys import add_key

    print(add_key(_keys_file(), options.name))


def remove_key(options: argparse.Namespace) -> None:
    """Take an API key off the file."""
    from service.keys import remove_key

    remove_key(_keys_file(), options.name)
    print(f"removed {options.name}")


def _keys_file() -> Path:
    if (path := _settings().keys) is None:
        raise MalformedInput("TALKER_KEYS is not set; wanted the file of API keys: set it", field="keys")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="talker",
        description="Speech in, a talking head out.",
        epilog="Settings are TALKER_* variables of the environment, see docs/settings.md.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"talker {version('talker')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    _add_serve(commands)
    _add_animate(commands)
    _add_decode(commands)
    _add_styles(commands)
    _add_templates(commands)
    _add_skin(commands)
    _add_keys(commands)
    return parser


def _add_serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "serve",
        help="serve the HTTP API",
        description="Serve the HTTP API until SIGTERM or Ctrl-C. TALKER_* variables set it up, see docs/settings.md.",
        allow_abbrev=False,
    )
    parser.add_argument("--host", help="address to listen on, instead of TALKER_HOST's")
    parser.add_argument("--port", help="port to listen on, instead of TALKER_PORT's; 0 takes a free one")
    parser.set_defaults(run=serve)


def _add_animate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "animate",
        help="animate a head with one audio file, without a server",
        description="Animate a head with one audio file, without a server; the limits are the service's.",
        epilog=FORMATS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "speech", type=Path, metavar="SPEECH", help="wav, flac, mp3, ogg/opus, m4a/aac or webm; any rate, any channels"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", required=True, help="where to write it")
    parser.add_argument("--format", metavar="NAME", help="see below; by default what the output's suffix says")
    for name, default, text in OPTIONS:
        parser.add_argument(f"--{name}", help=f"{text} (default: {default})")
    parser.add_argument(
        "--template-file", type=Path, metavar="FILE", help="a head of your own, OBJ, PLY or GLB, instead of --template"
    )
    parser.add_argument(
        "--style-file", type=Path, metavar="FILE", help="a stored pivot or an example sequence, instead of --style"
    )
    parser.add_argument(
        "--neutral-file", type=Path, metavar="FILE", help="the head's texture at rest, PNG or JPEG, instead of its own"
    )
    parser.set_defaults(run=animate)


def _add_decode(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "decode",
        help="turn a file of codes into any other format",
        description="Decode a file of codes, without weights or torch: what comes out is what the service would have "
        "written in that format.",
        allow_abbrev=False,
    )
    parser.add_argument("codes", type=Path, metavar="CODES", help="what `codes` wrote")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", required=True, help="where to write it")
    parser.add_argument("--format", metavar="NAME", help="as of `talker animate`; by default what the suffix says")
    parser.add_argument(
        "--codec",
        type=Path,
        metavar="FOLDER",
        required=True,
        help="the files of GET /codec/…, by their paths: textalker-motion.onnx, default/native.npz and so on",
    )
    parser.set_defaults(run=decode)


def _add_styles(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "styles",
        help="list the styles",
        description="List the styles that --style may name: id, what it styles, and what it looks like.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=styles)


def _add_templates(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "templates",
        help="list the heads, or keep one of your own",
        description="List the heads that --template may name, add one of your own, or remove it. They lie in "
        "TALKER_TEMPLATES; a service that is running sees them when it starts again.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=templates)
    actions = parser.add_subparsers(title="actions", metavar="action")
    add = actions.add_parser(
        "add",
        help="register a head and keep it",
        description="Place a head of any topology, unit and up axis on the atlas, and keep it; docs/heads.md explains "
        "the report.",
        allow_abbrev=False,
    )
    add.add_argument("mesh", type=Path, metavar="FILE", help="OBJ, PLY or GLB")
    add.add_argument("--name", help="its id (default: head- and 12 hex digits of what the files hold)")
    add.add_argument(
        "--texture", type=Path, metavar="FILE", help="its texture at rest, PNG or JPEG, instead of its own"
    )
    add.add_argument("--landmarks", type=Path, metavar="FILE", help="JSON that says where places of the face are")
    add.add_argument("--preview", type=Path, metavar="PNG", help="where to save a picture of it")
    add.set_defaults(run=add_template)
    remove = actions.add_parser("remove", help="remove a head that was added", allow_abbrev=False)
    remove.add_argument("id", metavar="ID")
    remove.set_defaults(run=remove_template)


def _add_skin(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "skin",
        help="paint the default head's neutral texture",
        description="Paint the neutral texture of the default head: procedural, always the same, with pores, hairs and "
        "relief as far as its size shows them. 8192 takes half a minute of two cores, and half a gigabyte of memory.",
        allow_abbrev=False,
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", required=True, help="where to write it, as PNG")
    parser.add_argument("--size", type=int, default=8192, help="texels along its side, 64 to 16384 (default: 8192)")
    parser.set_defaults(run=skin)


def _add_keys(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "keys",
        help="make, list and remove API keys",
        description="Make, list and remove the API keys of the file TALKER_KEYS. A service that is running sees it at "
        "once.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(title="actions", metavar="action", required=True)
    for name, run, text in (
        ("add", add_key, "make a key and print it; it cannot be had again"),
        ("list", keys, "print the names"),
        ("remove", remove_key, "let a key in no longer"),
    ):
        action = actions.add_parser(name, help=text, allow_abbrev=False)
        if run is not keys:
            action.add_argument("name", metavar="NAME", help="who uses it, as it stands in logs")
        action.set_defaults(run=run)


def _settings(**given: str | None) -> "Settings":
    """The environment's settings, overridden by what is given. MalformedInput names the first that cannot be."""
    from pydantic import ValidationError

    from service.settings import Settings

    try:
        return Settings.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if first["loc"]:
            message = f"setting {first['loc'][0]} = {first['input']}: {message}; docs/settings.md lists what can be set"
        raise MalformedInput(message) from error


def _form(model: "type[Form]", fields: Mapping[str, str | None], files: Mapping[str, BinaryIO | None]) -> "Form":
    """The form that a client would send. Refuses what the service would."""
    from starlette.datastructures import UploadFile

    from service.problems import validated

    uploads = {name: file and UploadFile(file, filename=file.name) for name, file in files.items()}
    return validated(model, {name: value for name, value in {**fields, **uploads}.items() if value is not None})


def _format_of(output: Path) -> str:
    """The one format that writes such files; MalformedInput where there is none, or several."""
    from service.encoders import ENCODERS

    fitting = [name for name, encoder in ENCODERS.items() if encoder.extension == output.suffix.lower()]
    if len(fitting) != 1:
        raise MalformedInput(
            f"{output.name} does not tell the format; it may be {', '.join(fitting or ENCODERS)}: add --format",
            field="format",
        )
    return fitting[0]


def _engine(settings: "Settings") -> "Engine":
    from service.runtime import open_engine

    logging.basicConfig(format="talker: %(message)s")
    logging.getLogger("models").setLevel(settings.log_level.upper())  # the first start takes seconds, and says why
    return open_engine(settings)


def _print_report(report: "Report") -> None:
    print(
        f"  off the face    {report.registration_error_mm:.2f} mm, at the lips {report.lips_error_mm:.2f} mm (medians)"
    )
    print(f"  one unit        {report.unit_m:g} m, {report.up_axis} up, {report.forward_axis} forward")
    for kind, vertices, faces in report.components:
        print(f"  {kind:16}{vertices:,} vertices, {faces:,} faces")
    print(f"  holes           {report.holes}")
    for name, place in sorted(report.landmarks.items()):
        print(f"  {name:16}{' '.join(f'{number:g}' for number in place)}")
    for warning in report.warnings:
        print(f"  warning         {warning}")


def _tell(output: Path, clip: "Clip", elapsed_s: float) -> None:
    clip_s = clip.frame_count / clip.fps
    print(
        f"wrote {output}: {clip.frame_count} frames at {clip.fps:g} fps, {clip_s:.2f} s in {elapsed_s:.2f} s, "
        f"{clip_s / elapsed_s:.2f} times real time"
    )


def _shown(clip: "Clip") -> "Clip":
    """The clip, with a progress bar on stderr where that is a terminal."""
    from tqdm import tqdm

    def counted() -> "Generator[Frame, None, None]":
        with closing(clip.frames) as frames:
            yield from tqdm(frames, total=clip.frame_count, unit=" frames", leave=False, disable=None)

    return replace(clip, frames=counted())


@contextmanager
def _opened(path: Path | None, field: str) -> Iterator[BinaryIO | None]:
    """The file, or None where none is asked for."""
    if path is None:
        yield None
        return
    try:
        file = path.open("rb")
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}); wanted the file for {field}: check the path"
        raise MalformedInput(message, field=field) from error
    with file:
        yield file


def _checked_output(output: Path) -> Path:
    """The path with links followed, so that what they point to is replaced. Refuses what no file can be written to."""
    path = output.resolve()
    if not path.parent.is_dir():
        raise MalformedInput(f"{output} lies in no folder that exists; make {path.parent} first", field="output")
    if path.exists() and not path.is_file():
        raise MalformedInput(f"{output} is no regular file; wanted a file to write: choose another", field="output")
    return path


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that is at `path` when it is whole, and nowhere if it never is."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _complain(what: object, code: int) -> int:
    print(f"talker: {what}", file=sys.stderr)
    return code
