"""`talker`: serve, animate one file or a folder of them, here or through a service, and what belongs to that.

Each module is a group of commands: what they do, and how they are asked for. `talker animate` goes the way of `POST
/animate`: the same form, the same checks and limits, the same bytes. Nothing heavy is imported before a command runs.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from models.errors import TalkerError
from service.cli import animate, batch, decode, doctor, jobs, keys, serve, skin, styles, templates
from service.cli.options import OPTIONS
from service.cli.outcomes import FAILED, INTERRUPTED, REFUSED, is_refusal

__all__ = ["FAILED", "INTERRUPTED", "OPTIONS", "REFUSED", "main"]

GROUPS = (serve, animate, batch, decode, styles, templates, skin, jobs, keys, doctor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. argparse itself exits with 2 where the command line is wrong."""
    options = _parser().parse_args(arguments)
    # Before numpy is imported: its BLAS has threads that spin, and once anything else wants the cores, products as
    # small as ours take 20 times as long. The number of threads would also show in the last bits.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except (TalkerError, OSError) as error:
        return _complain(error, REFUSED if is_refusal(error) else FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="talker",
        description="Speech in, a talking head out.",
        epilog="Settings are TALKER_* variables of the environment, see docs/settings.md.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"talker {version('talker')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    for group in GROUPS:
        group.add_parser(commands)
    return parser


def _complain(what: object, code: int) -> int:
    print(f"talker: {what}", file=sys.stderr)
    return code
