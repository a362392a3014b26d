"""Options that several commands take."""

import argparse
from pathlib import Path

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

FILES = (
    ("template-file", "a head of your own, OBJ, PLY or GLB, instead of --template"),
    ("style-file", "a stored pivot or an example sequence, instead of --style"),
    ("neutral-file", "the head's texture at rest, PNG or JPEG, instead of its own"),
)
"""Fields of the form that are files."""

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


def add_speech(parser: argparse.ArgumentParser) -> None:
    """The file that is spoken."""
    parser.add_argument(
        "speech", type=Path, metavar="SPEECH", help="wav, flac, mp3, ogg/opus, m4a/aac or webm; any rate, any channels"
    )


def add_output(parser: argparse.ArgumentParser, **more: object) -> None:
    """Where one file is written."""
    arguments: dict[str, object] = {"required": True, "help": "where to write it", **more}
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", **arguments)  # type: ignore[arg-type]


def add_form(parser: argparse.ArgumentParser, format_help: str) -> None:
    """The fields of an animation, besides its speech."""
    parser.add_argument("--format", metavar="NAME", help=format_help)
    for name, default, text in OPTIONS:
        parser.add_argument(f"--{name}", help=f"{text} (default: {default})")
    for name, text in FILES:
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=text)


def add_server(parser: argparse.ArgumentParser) -> None:
    """The service to ask. Left out it is absent, so that a command and its actions may both have it."""
    parser.add_argument(
        "--server",
        metavar="URL",
        default=argparse.SUPPRESS,
        help="ask this service (default: TALKER_SERVER); its key is TALKER_API_KEY",
    )


def form_fields(options: argparse.Namespace) -> dict[str, str | None]:
    """The fields that are text, by their names in the form."""
    names = [name.replace("-", "_") for name, _, _ in OPTIONS]
    return {name: getattr(options, name) for name in [*names, "format"]}


def form_files(options: argparse.Namespace) -> dict[str, Path | None]:
    """The fields that are files, besides the speech."""
    return {name: getattr(options, name) for name in (name.replace("-", "_") for name, _ in FILES)}
