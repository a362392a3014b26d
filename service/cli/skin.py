"""`talker skin`: the default head's neutral texture."""

import argparse
import os
from time import perf_counter

from models.files import whole_file
from service.cli.here import read_settings
from service.cli.options import add_output
from service.cli.paths import checked_output


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "skin",
        help="paint the default head's neutral texture",
        description="Paint the neutral texture of the default head: procedural, always the same, with pores, hairs and "
        "relief as far as its size shows them. 8192 takes half a minute of two cores, and half a gigabyte of memory.",
        allow_abbrev=False,
    )
    add_output(parser, help="where to write it, as PNG")
    parser.add_argument("--size", type=int, default=8192, help="texels along its side, 64 to 16384 (default: 8192)")
    parser.set_defaults(run=skin)


def skin(options: argparse.Namespace) -> None:
    """Paint the default head's neutral texture, strip by strip."""
    from models.png import write_png
    from models.skin.neutral import open_skin

    settings, output = read_settings(), checked_output(options.output)
    started = perf_counter()
    rows = open_skin(settings.weights).rows(options.size, workers=settings.threads or os.cpu_count() or 1)
    with whole_file(output) as file:
        write_png(file, options.size, rows)
    print(f"wrote {options.output}: {options.size}² texels in {perf_counter() - started:.0f} s")
