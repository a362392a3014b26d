"""`talker animate`: one file."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from service.cli.here import Here
from service.cli.options import FORMATS, add_form, add_output, add_server, add_speech, form_fields, form_files
from service.cli.paths import checked_output, format_of, opened
from service.cli.there import There, asked, server_of


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "animate",
        help="animate a head with one audio file",
        description="Animate a head with one audio file, without a server, or with --server through one; the limits "
        "are the service's.",
        epilog=FORMATS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_speech(parser)
    add_output(parser)
    add_form(parser, "see below; by default what the output's suffix says")
    add_server(parser)
    parser.set_defaults(run=animate)


def animate(options: argparse.Namespace) -> None:
    """Animate one file, then say what was written and how fast."""
    with animator(options) as place:
        output = checked_output(options.output)
        with opened({"audio": options.speech} | form_files(options)) as files:
            fields = form_fields(options) | {"format": options.format or format_of(options.output)}
            started = perf_counter()
            made = place.animate(fields, files, output)
    made.tell(options.output, perf_counter() - started)


@contextmanager
def animator(options: argparse.Namespace) -> Iterator[Here | There]:
    """Who animates: this process, or the service that is named."""
    if server_of(options) is None:
        yield Here()
    else:
        with asked(options) as talker:
            yield There(talker)
