"""`talker decode`: what a service sent as codes."""

import argparse
from contextlib import closing
from pathlib import Path
from time import perf_counter

from models.files import whole_file
from service.cli.here import read_settings, shown
from service.cli.options import add_output
from service.cli.outcomes import Made
from service.cli.paths import checked_output, format_of, opened


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "decode",
        help="turn a file of codes into any other format",
        description="Decode a file of codes, without weights or torch: what comes out is what the service would have "
        "written in that format.",
        allow_abbrev=False,
    )
    parser.add_argument("codes", type=Path, metavar="CODES", help="what `codes` wrote")
    add_output(parser)
    parser.add_argument("--format", metavar="NAME", help="as of `talker animate`; by default what the suffix says")
    parser.add_argument(
        "--codec",
        type=Path,
        metavar="FOLDER",
        required=True,
        help="the files of GET /codec/…, by their paths: textalker-motion.onnx, default/native.npz and so on",
    )
    parser.set_defaults(run=decode)


def decode(options: argparse.Namespace) -> None:
    """Decode a file of codes into any other format, then say what was written and how fast."""
    from service.encoders import ENCODERS, encode
    from service.formats import format_named
    from talker_client.codec import decode

    output, name = checked_output(options.output), format_named(options.format or format_of(options.output))
    started = perf_counter()
    with opened({"codes": options.codes}) as files:
        clip = decode(files["codes"], options.codec, read_settings().threads)
        with whole_file(output) as out, closing(encode(shown(clip), ENCODERS[name]())) as chunks:
            out.writelines(chunks)
    Made(clip.frame_count, clip.fps).tell(options.output, perf_counter() - started)
